"""Compares a backend's scores of a task with the reference's: how far apart they are, and what they order differently."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evalkit.errors import EvalkitError
from evalkit.metrics import PROTOCOLS, lists_of_task, score_lists
from evalkit.metrics.measures import CARD_PROTOCOL
from evalkit.parity.records import AffineMap, Comparison, Flips, Floats
from evalkit.records import Task

# how far scores may be apart, by the backend's precision; measured on real and random weights, with some room above
LOGITS = {"fp32": 1e-4, "fp16": 0.02, "bf16": 0.2, "int8": 1.0}
SIMILARITIES = {"fp32": 1e-4, "fp16": 5e-4, "bf16": 5e-3, "int8": 0.05}
FEWEST = 4
"""So few probabilities with a logit fix no line: two make one, and so do most threes."""
TELLING = 0.1
"""A score tells something where it may be off by less than this share of the reference's spread."""
SAME_ORDER = 0.8
"""Kendall's tau, from which on two systems order candidates alike where the tolerance is too wide to say."""
# how many units in the last place a probability may be off: a sigmoid in float32 is good to about one
LAST_PLACES = 2


def default_tolerance(dtype: str, *, vectors: bool) -> float:
    """Return how far a backend's scores in that precision may be from those of a reference in fp32."""
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

    They agree where no score is further off than the tolerance (and the last places of a probability), no two candidates
    change places that lie further apart, and a line that is fitted rises. What would agree with anything can't be told.
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
    tau = float(np.nanmean(taus)) if np.isfinite(taus).any() else None
    untold = _why_untold(expected, raw, sizes, allowance, tau)
    mapped = affine is None or (affine.slope > 0 and _ends_fit(expected, raw, found, allowance))
    return Comparison(
        pairs=len(raw),
        differences=differences,
        largest=float(differences[known].max(initial=0.0)),
        mean=float(differences[known].mean()) if known.any() else 0.0,
        spread=float(expected.std()),
        tau_mean=tau,
        tau_lowest=float(np.nanmin(taus)) if np.isfinite(taus).any() else None,
        flips=flips,
        map_difference=changes["map"],
        mrr_difference=changes["mrr"],
        affine=affine,
        tolerance=tolerance,
        agrees=bool((differences[known] <= allowance[known]).all()) and flips.others == 0 and mapped and not untold,
        untold=untold,
    )


def _ends_fit(expected: Floats, probabilities: Floats, found: Floats, allowance: Floats) -> bool:
    """Return whether the reference puts what has the probability 0 or 1 below or above all that lies between, as `found` has it."""
    inside = np.isfinite(found)
    if not inside.any():
        return True
    above = expected[probabilities >= 1] >= (found - allowance)[inside].max()
    below = expected[probabilities <= 0] <= (found + allowance)[inside].min()
    return bool(above.all() and below.all())


def _why_untold(expected: Floats, raw: Floats, sizes: Sequence[int], allowance: Floats, tau: float | None) -> str:
    """Return why these scores can't be told to agree or to differ; empty where they can."""
    if len(raw) > 1 and np.ptp(raw) == 0:
        return f"it gives {raw[0]:g} to all {len(raw)} pairs"
    if len(raw) > 1 and np.ptp(expected) == 0:
        return f"the reference gives {expected[0]:g} to all {len(raw)} pairs"
    unbounded = int((~np.isfinite(allowance)).sum())
    telling = int((np.isfinite(allowance) & (allowance < TELLING * expected.std())).sum())
    if unbounded and (telling < FEWEST or 2 * telling < len(raw)):
        return f"{telling} of its {len(raw)} scores tell their logit: {unbounded} are 0 or 1"
    if _unclear_share(expected, sizes, allowance) > 1 / 2 and (tau is None or tau < SAME_ORDER):
        order = "no order to compare" if tau is None else f"another order (tau {tau:.2f})"
        return f"most candidates lie closer together than the tolerance, and it has {order}"
    return ""


def refuse_no_probabilities(name: str, task: Task, scores: NDArray[np.floating]) -> None:
    """Raise EvalkitError, which names the backend and the candidate, where what it calls probabilities are none."""
    wrong = np.flatnonzero(~((scores >= 0) & (scores <= 1)))
    if not len(wrong):
        return
    names = [(request.query.query_id, one.doc_id) for request in task.requests for one in request.candidates]
    query_id, doc_id = names[wrong[0]]
    raise EvalkitError(
        f"{name} gives {scores[wrong[0]]:g} to document {doc_id} of query {query_id} of {task.name}; {len(wrong)} of its "
        f"{len(scores)} scores lie outside 0 to 1: these are not the probabilities that it is meant to give, and can't be compared"
    )


def _metric_changes(task: Task, reference: NDArray[np.float64], other: NDArray[np.float64]) -> dict[str, float | None]:
    """Return the other's MAP and MRR less the reference's, by name; None where no query can be scored."""
    measures = PROTOCOLS[CARD_PROTOCOL].measures
    try:
        before, after = (score_lists(lists_of_task(task, scores), measures).means for scores in (reference, other))
    except EvalkitError:
        return {"map": None, "mrr": None}
    return {name: after[name] - before[name] for name in ("map", "mrr")}


def logits_of(probabilities: ArrayLike) -> tuple[Floats, Floats]:
    """Return the logit of each probability, and how far it may be off because the probability is a float32; both float64[n].

    A probability of 0 or 1 has the logit NaN and may be off by any amount.
    """
    given = np.asarray(probabilities, np.float64)
    inside = (given > 0) & (given < 1)
    safe = np.where(inside, given, 0.5)
    logits = np.where(inside, np.log(safe) - np.log1p(-safe), np.nan)
    last_place = np.spacing(safe.astype(np.float32)).astype(np.float64)
    slack = np.where(inside, LAST_PLACES * last_place / (safe * (1 - safe)), np.inf)
    return logits, slack


def fit_probabilities(reference: Floats, probabilities: ArrayLike) -> tuple[Floats, Floats, AffineMap]:
    """Return probabilities on the reference's scale: their logits on the straight line that fits best, and how far they may be off.

    Least squares, each probability weighted by how well it determines its logit. NaN and infinity where it is 0 or 1. A line that
    falls would turn the order round, and is level instead; through fewer than FEWEST different logits none is fitted.
    """
    logits, slack = logits_of(probabilities)
    known = np.isfinite(logits)
    slope, offset = 1.0, 0.0
    if len(np.unique(logits[known])) >= FEWEST:
        slope, offset = np.polyfit(logits[known], reference[known], 1, w=1 / slack[known]).tolist()
        if slope <= 0:
            slope, offset = 0.0, float(reference[known].mean())
    with np.errstate(invalid="ignore"):  # of a level line, what is off by any amount is NaN
        slack = slack * abs(slope)
    return slope * logits + offset, slack, AffineMap(slope, offset, int((~known).sum()))


def kendall_taus(reference: ArrayLike, other: ArrayLike, sizes: Sequence[int]) -> Floats:
    """Return Kendall's tau-b per query; NaN where the reference tells no two candidates apart, 0 where only the other does not."""
    from scipy.stats import kendalltau

    taus = []
    for left, right in _by_query(reference, other, sizes=sizes):
        if len(left) < 2 or np.ptp(left) == 0:
            taus.append(np.nan)
        else:
            taus.append(0.0 if np.ptp(right) == 0 else float(kendalltau(left, right).statistic))
    return np.array(taus, np.float64)


def count_flips(reference: ArrayLike, other: ArrayLike, sizes: Sequence[int], allowance: ArrayLike) -> Flips:
    """Count the pairs of a query's candidates that the two put in different orders; ties are an order of their own.

    `allowance` is how far each candidate's score may be off, float[n]: candidates whose reference scores are less than both
    allowances apart are a near-tie, and so are those with equal ones.
    """
    compared = near_ties = others = 0
    for left, right, allowed in _by_query(reference, other, allowance, sizes=sizes):
        first, second = np.triu_indices(len(left), k=1)
        gaps = left[first] - left[second]
        turned = np.sign(gaps) != np.sign(right[first] - right[second])
        near = (np.abs(gaps) < allowed[first] + allowed[second]) | (gaps == 0)
        compared += len(gaps)
        near_ties += int((turned & near).sum())
        others += int((turned & ~near).sum())
    return Flips(compared, near_ties, others)


def _unclear_share(reference: ArrayLike, sizes: Sequence[int], allowance: ArrayLike) -> float:
    """Return which share of a query's pairs of candidates, where not tied, the tolerance alone can turn round; 0 without any."""
    unclear = distinct = 0
    for values, allowed in _by_query(reference, allowance, sizes=sizes):
        first, second = np.triu_indices(len(values), k=1)
        gaps = np.abs(values[first] - values[second])
        distinct += int((gaps > 0).sum())
        unclear += int(((gaps > 0) & (gaps < allowed[first] + allowed[second])).sum())
    return unclear / distinct if distinct else 0.0


def softmax_per_query(scores: ArrayLike, sizes: Sequence[int]) -> Floats:
    """Return each score's share among those of its query after the exponential."""
    parts = []
    for (values,) in _by_query(scores, sizes=sizes):
        powers = np.exp(values - values.max())
        parts.append(powers / powers.sum())
    return np.concatenate(parts)


def sigmoid(scores: ArrayLike) -> Floats:
    """Return the probability of each logit."""
    from scipy.special import expit

    result: Floats = expit(np.asarray(scores, np.float64))
    return result


def _by_query(*columns: ArrayLike, sizes: Sequence[int]) -> Iterator[tuple[NDArray[np.float64], ...]]:
    arrays = [np.asarray(column, np.float64) for column in columns]
    ends = np.cumsum(sizes)
    for size, end in zip(sizes, ends.tolist(), strict=True):
        if size:
            yield tuple(array[end - size : end] for array in arrays)
