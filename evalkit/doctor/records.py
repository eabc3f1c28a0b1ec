"""The values of a diagnosis: what was measured, and what was found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evalkit.evaluation.certifying import CertificateComparison
from evalkit.evaluation.goldens import GoldenCheck
from evalkit.models.interfaces import ServerProbe
from evalkit.models.settings import ModelSettings
from evalkit.records import Task
from evalkit.results.published import PublishedFigure

Verdict = Literal["ok", "warning", "fault", "skipped"]


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a check found: `seen` holds the numbers, `advice` what to do; `skipped` says in `seen` why it could not look."""

    verdict: Verdict
    seen: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """Queries of a task, drawn at random; `whole` says whether each has all of its candidates."""

    task: Task
    whole: bool


@dataclass(frozen=True, slots=True)
class Rescored:
    """Candidates of the sample (by number) that were scored a second time, in another way."""

    candidates: NDArray[np.int64]
    scores: NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Cuts:
    """Per candidate of the sample: whether its input was truncated, and which share of its tokens (0 to 1) that lost.

    A cross-encoder's input is the pair, an embedder's the document.
    """

    truncated: NDArray[np.bool_]
    lost: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Prompts:
    """Prompts, and who says that the model wants them; `declared` where that is the model's own recipe or files."""

    source: str
    query: str
    document: str
    declared: bool


@dataclass(frozen=True, slots=True)
class PromptTrial:
    """What prompts give on a part of the sample: per query the AP (a fraction) with them and without."""

    prompts: Prompts
    values: NDArray[np.float64]
    values_without: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Cost:
    """What the sample took, and what the whole task will: seconds of scoring, bytes of memory (None where unknown)."""

    sample_seconds: float
    sample_pairs: int
    loading_seconds: float
    task_pairs: int
    task_seconds: float
    memory_bytes: int | None
    machine_bytes: int | None
    how: str


@dataclass(frozen=True, slots=True)
class Measurements:
    """What scoring the sample showed. `scores` and `bm25` are per candidate of the sample.

    `alone` and `cuts` are None where the scorer looks at the whole task or at whole lists, or does not count tokens. `orders` is
    how a listwise model ranks the sample's first queries in several orders: the AP of each query (a fraction), shape (orders,
    queries), in the run's own order first; None for other models.
    """

    sample: Sample
    scores: NDArray[np.floating]
    bm25: NDArray[np.float32]
    shuffled: Rescored
    alone: Rescored | None
    cuts: Cuts | None
    wanted_prompts: tuple[Prompts, ...]
    prompt_trials: tuple[PromptTrial, ...]
    published: PublishedFigure | None
    cost: Cost
    orders: NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known of one model on one task.

    `certificate` is the model beside its certificate, None where it has none.
    `broken` is why the weights are not the model's, `not_finite` why its scores are none; `measured` is then None.
    `server` is what the probe of a server showed, None where none runs the model; `unfit` is why a server's answers can't be used.
    `unseen` says who holds the weights where evalkit did not see them load, and is empty where it did. `chosen_length` says
    whether it was the user who set max_length; None where that is not known. `head_is_new` says whether all biases of a
    cross-encoder's head are exactly zero, as before any training; None where that can't be seen.
    """

    settings: ModelSettings
    dtype: str
    task: Task
    golden: tuple[GoldenCheck, ...] = ()
    certificate: CertificateComparison | None = None
    broken: str | None = None
    not_finite: str | None = None
    server: ServerProbe | None = None
    unfit: str | None = None
    unseen: str = ""
    chosen_length: bool | None = None
    head_is_new: bool | None = None
    measured: Measurements | None = None

    @property
    def found(self) -> Measurements:
        """What was measured. Raises ValueError where nothing could be."""
        if self.measured is None:
            raise ValueError("nothing was measured")
        return self.measured
