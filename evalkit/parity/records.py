"""The values of an agreement: what was compared, what was measured, and which causes were tried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evalkit.records import ModelIdentity

Floats = NDArray[np.float64]
Explains = Literal["all", "most", "size", "no"]


@dataclass(frozen=True, slots=True)
class AffineMap:
    """The straight line from the logits of a server's probabilities to the reference's scores: `slope · logit + offset`.

    Probabilities that are 0 or 1 have no logit: `saturated` counts them.
    """

    slope: float
    offset: float
    saturated: int


@dataclass(frozen=True, slots=True)
class Flips:
    """Pairs of a query's candidates: how many were `compared`, and how many of them the two put in different orders.

    `near_ties` lie in the reference so close together that the tolerance alone can turn them round; `others` do not. Where one has
    a tie and the other has not, that is another order too.
    """

    compared: int
    near_ties: int
    others: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """A backend's scores against the reference's.

    `differences` are absolute, per candidate of the task (NaN where a saturated probability has no logit); `largest` and `mean` are
    over those; `spread` is the standard deviation of the reference's scores. Kendall's tau is per query, None where no query has
    two candidates that the reference tells apart. Differences of MAP and MRR (cmteb-v1) are fractions, the backend's less the
    reference's, None where the protocol drops every query. `untold` is why the scores can't be told to agree or to differ, empty
    where they can; then they do not agree.
    """

    pairs: int
    differences: Floats
    largest: float
    mean: float
    spread: float
    tau_mean: float | None
    tau_lowest: float | None
    flips: Flips
    map_difference: float | None
    mrr_difference: float | None
    affine: AffineMap | None
    tolerance: float
    agrees: bool
    untold: str = ""


@dataclass(frozen=True, slots=True)
class Trial:
    """The reference run in a changed way, or the backend asked again, on the pairs that differ most.

    `remaining` is the largest difference that is left, or None where the change could not be run (`obstacle` says why). It
    explains `all` where that is within the tolerance, `most` where it is under a tenth of what it was, the `size` where a low
    precision makes differences as large as these.
    """

    cause: str
    change: str
    remaining: float | None
    explains: Explains
    obstacle: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was tried on so many `pairs` that differ by up to `before`; `found` is what explains them best."""

    pairs: int
    before: float
    trials: tuple[Trial, ...]
    found: Trial | None


@dataclass(frozen=True, slots=True)
class Participant:
    """A backend as it took part: what it says of itself, whose weights it ran, and the version of what runs them."""

    name: str
    description: Mapping[str, object]
    identity: ModelIdentity
    version: str
    dtype: str


@dataclass(frozen=True, slots=True)
class Agreement:
    """One backend against the reference on one task; a diagnosis where it does not agree."""

    task: str
    queries: int
    participant: Participant
    comparison: Comparison
    diagnosis: Diagnosis | None = None


@dataclass(frozen=True, slots=True)
class Parity:
    """A model's agreements: with `reference`, on each task, backend by backend."""

    model: str
    reference: Participant
    agreements: tuple[Agreement, ...]

    @property
    def agrees(self) -> bool:
        """Whether every backend agrees on every task."""
        return all(agreement.comparison.agrees for agreement in self.agreements)
