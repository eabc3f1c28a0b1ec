"""Compares a backend's scores of a task with the reference's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import EvalkitError
from evalkit.metrics import find_protocol, lists_of_task, score_lists
from evalkit.parity.measures import count_flips, fit_probabilities, kendall_taus
from evalkit.parity.records import Comparison
from evalkit.records import Task

# how far scores may be apart, by the backend's precision; measured on real and random weights, with some room above
LOGITS = {"fp32": 1e-4, "fp16": 0.02, "bf16": 0.2, "int8": 1.0}
SIMILARITIES = {"fp32": 1e-4, "fp16": 5e-4, "bf16": 5e-3, "int8": 0.05}
PROTOCOL = "cmteb-v1"


def default_tolerance(dtype: str, *, vectors: bool) -> float:
    """How far a backend's scores in that precision may be from those of a reference in fp32."""
    return (SIMILARITIES if vectors else LOGITS)[dtype]


def compare_scores(
    task: Task,
    reference: NDArray[np.floating],
    other: NDArray[np.floating],
    tolerance: float,
    *,
    probabilities: bool = False,
) -> Comparison:
    """Compare scores per candidate of the task; where the other ones are `probabilities`, their logits on a fitted line.

    They agree where no score is further off than the tolerance (and the last places of a probability), and no two candidates
    change places that lie further apart.
    """
    expected, raw = reference.astype(np.float64), other.astype(np.float64)
    found, slack, affine = raw, np.zeros(len(raw)), None
    if probabilities:
        found, slack, affine = fit_probabilities(expected, raw)
    differences = np.abs(found - expected)
    allowance = tolerance + slack
    sizes = [len(request.candidates) for request in task.requests]
    taus = kendall_taus(expected, raw, sizes)
    flips = count_flips(expected, raw, sizes, allowance)
    known = np.isfinite(differences)
    changes = _metric_changes(task, expected, raw)
    return Comparison(
        pairs=len(raw),
        differences=differences,
        largest=float(differences[known].max(initial=0.0)),
        mean=float(differences[known].mean()) if known.any() else 0.0,
        spread=float(expected.std()),
        tau_mean=float(np.nanmean(taus)) if np.isfinite(taus).any() else None,
        tau_lowest=float(np.nanmin(taus)) if np.isfinite(taus).any() else None,
        flips=flips,
        map_difference=changes["map"],
        mrr_difference=changes["mrr"],
        affine=affine,
        tolerance=tolerance,
        agrees=bool((differences[known] <= allowance[known]).all()) and flips.others == 0,
    )


def _metric_changes(task: Task, reference: NDArray[np.float64], other: NDArray[np.float64]) -> dict[str, float | None]:
    """The other's MAP and MRR less the reference's, by name; None where no query can be scored."""
    measures = find_protocol(PROTOCOL).measures
    try:
        before, after = (score_lists(lists_of_task(task, scores), measures).means for scores in (reference, other))
    except EvalkitError:
        return {"map": None, "mrr": None}
    return {name: after[name] - before[name] for name in ("map", "mrr")}
