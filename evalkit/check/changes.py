"""Two results on the same queries: what changed, and whether that could be chance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from evalkit.check.rows import CheckRules, CheckVerdict, MetricChange
from evalkit.metrics import find_measure, find_protocol, score_lists
from evalkit.metrics.measures import asked_measures
from evalkit.metrics.noise import score_noise
from evalkit.output.numbers import counted, exceeds, percent
from evalkit.records import QueryScores
from evalkit.results.tables import lists_of_tables
from evalkit.statistics import (
    bootstrap_intervals,
    fewest_differences,
    paired_randomisation_test,
    smallest_detectable_difference,
)

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

VALUE_NOISE = 1e-6
"""A query's values (fractions) that differ by no more are the same."""
SEED = 42
_NAMED = 3


class ScoredTables(Protocol):
    """What is compared: the tables of a result (see `Result`)."""

    @property
    def protocol(self) -> str: ...
    @property
    def scores(self) -> Mapping[str, float]: ...
    @property
    def queries(self) -> pd.DataFrame: ...
    @property
    def candidates(self) -> pd.DataFrame: ...


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict on one metric, with what it rests on."""

    verdict: CheckVerdict
    change: MetricChange | None = None
    note: str = ""


def compare(before: ScoredTables, after: ScoredTables, rules: CheckRules) -> dict[str, Judgement]:
    """Judge the metrics of results that have the same protocol (see `judged_metrics`).

    A query whose value moved only because float noise put scores that are (nearly) tied in another order does not count:
    its scores are the same on both sides, and each side's value is what its scores give.
    """
    metrics = judged_metrics(before, after)
    differing = _differing_candidates(before, after)
    if differing:
        return dict.fromkeys(metrics, Judgement(CheckVerdict.OTHER_QUERIES, note=differing))
    same_scores = _same_scores(before, after)
    judged = {metric: _judge(metric, before, after, same_scores, rules) for metric in metrics}
    gone = [measure.name for measure in asked_measures(before.scores) if measure.name not in after.scores]
    note = "the baseline has it, the results were made without: ask for it again, measures=[…]"
    return judged | dict.fromkeys(gone, Judgement(CheckVerdict.MISSING, note=note))


def judged_metrics(*results: ScoredTables) -> list[str]:
    """Name the metrics that a check judges: the protocol's two leading ones, and those that were asked for in all the results."""
    first, *others = results
    asked = [
        measure.name for measure in asked_measures(first.scores) if all(measure.name in one.scores for one in others)
    ]
    return [*find_protocol(first.protocol).leading_names, *asked]


def _judge(
    metric: str, before: ScoredTables, after: ScoredTables, same_scores: NDArray[np.bool_], rules: CheckRules
) -> Judgement:
    old, new = (_values(result, metric) for result in (before, after))
    dropped = np.isnan(old) != np.isnan(new)
    if dropped.any():
        note = f"{_counted(before.queries['query_id'][dropped])} without a value on one side only"
        return Judgement(CheckVerdict.OTHER_QUERIES, note=note)
    kept = ~np.isnan(old)
    differences = np.where(kept, new - old, 0.0)
    moved = np.abs(differences) > VALUE_NOISE
    change = MetricChange(float(old[kept].mean()), float(new[kept].mean()), int(moved.sum()), int(kept.sum()))
    if not moved.any():
        return Judgement(CheckVerdict.EQUAL if same_scores.all() else CheckVerdict.OTHER_SCORES, change)
    by_ties = moved & same_scores
    if by_ties.any():
        by_ties &= _follows_from_scores(before, metric) & _follows_from_scores(after, metric)
    judgement = _weigh(np.where(moved & ~by_ties, differences, 0.0)[kept], int(by_ties.sum()), change, rules)
    if judgement.verdict != CheckVerdict.BETTER:
        return judgement
    notes = filter(None, (judgement.note, _by_ties(after, metric, bar=change.before)))
    return replace(judgement, note="; ".join(notes))


def _weigh(differences: Floats, by_ties: int, change: MetricChange, rules: CheckRules) -> Judgement:
    """Weigh the differences that count, float64[n_queries] with 0 where nothing moved."""
    ties = f"in {by_ties} of the queries float noise decides the order of tied scores; they don't count" * bool(by_ties)
    weighed = differences[differences != 0]
    if not weighed.size:
        return Judgement(CheckVerdict.TIES, change, ties)
    if len(differences) > 1:
        change = _tested(change, differences, rules)
    points = float(differences.mean()) * 100
    notes = [ties, _too_few(weighed.size, points, rules)]
    return Judgement(_verdict(points, change.p_value, rules), change, "; ".join(filter(None, notes)))


def _tested(change: MetricChange, differences: Floats, rules: CheckRules) -> MetricChange:
    """Add what the differences of two or more queries say: p-value, interval, and the smallest loss that they could show."""
    # what did not move adds nothing to any sum of flipped signs
    p_value = float(paired_randomisation_test(differences[differences != 0][:, None], seed=SEED)[0])
    low, high = map(float, bootstrap_intervals(differences[:, None], seed=SEED, level=rules.level)[0])
    detectable = float(smallest_detectable_difference(differences[:, None], level=rules.alpha)[0])
    return replace(
        change,
        p_value=p_value,
        interval=None if math.isnan(low) else (low, high),
        detectable=None if math.isnan(detectable) else detectable,
    )


def _verdict(points: float, p_value: float | None, rules: CheckRules) -> CheckVerdict:
    if p_value is None or p_value >= rules.alpha:
        return CheckVerdict.NOISE
    if exceeds(points, rules.tolerance):
        return CheckVerdict.BETTER if points > 0 else CheckVerdict.REGRESSION
    return CheckVerdict.TOLERATED


def _too_few(changed: int, points: float, rules: CheckRules) -> str:
    """Say so where the test could not have found a drop, however large: k signs give no p below 2 / 2^k."""
    needed = fewest_differences(rules.alpha)
    if changed >= needed or points > 0 or not exceeds(points, rules.tolerance):
        return ""
    are = "is" if changed == 1 else "are"
    return (
        f"{counted(changed, 'changed query')} {are} too few for p < {rules.alpha:g}, which takes {needed}: look at them, or use "
        "--strict"
    )


def _differing_candidates(before: ScoredTables, after: ScoredTables) -> str:
    """How queries or candidates differ; empty where they are the same, in the same order."""
    old, new = (result.queries["query_id"] for result in (before, after))
    gone, added = old[~old.isin(new)], new[~new.isin(old)]
    if len(gone) or len(added):
        parts = [f"{_counted(gone)} only in the baseline" * bool(len(gone))]
        parts += [f"{_counted(added)} only in the results" * bool(len(added))]
        return ", ".join(filter(None, parts))
    if old.tolist() != new.tolist():
        return "the queries stand in another order"
    if len(before.candidates) != len(after.candidates):
        return (
            f"{counted(len(before.candidates), 'candidate')} in the baseline, {len(after.candidates):,} in the results"
        )
    other = np.zeros(len(before.candidates), np.bool_)
    for column in ("query_id", "doc_id", "label"):
        other |= before.candidates[column].to_numpy() != after.candidates[column].to_numpy()
    differing = int(other.sum())
    are = "candidate is another, or has" if differing == 1 else "candidates are others, or have"
    return f"{differing:,} {are} another label" if differing else ""


def _counted(query_ids: pd.Series[str]) -> str:
    named = ", ".join(map(repr, query_ids[:_NAMED])) + ", …" * (len(query_ids) > _NAMED)
    return f"{counted(len(query_ids), 'query')} ({named})"


def _values(result: ScoredTables, metric: str) -> Floats:
    return result.queries[find_measure(metric).column].to_numpy(np.float64)


def _same_scores(before: ScoredTables, after: ScoredTables) -> NDArray[np.bool_]:
    """Which queries have the same scores on both sides, noise apart, for every candidate: bool[n_queries]."""
    stored = [result.candidates["score"].to_numpy() for result in (before, after)]
    coarser = min((scores.dtype for scores in stored), key=lambda dtype: dtype.itemsize)
    old, new = (scores.astype(np.float64) for scores in stored)
    lengths = before.queries["n_candidates"].to_numpy()
    noise = score_noise(old, lengths, steps_of=coarser)
    other = ~(np.abs(new - old) <= noise)  # what is no number is not the same
    owners = np.repeat(np.arange(len(lengths)), lengths)
    same: NDArray[np.bool_] = np.bincount(owners[other], minlength=len(lengths)) == 0
    return same


def _follows_from_scores(result: ScoredTables, metric: str) -> NDArray[np.bool_]:
    """Which queries have the value that their scores give by today's formula: bool[n_queries]."""
    return np.isclose(_scored_anew(result, metric).values[metric], _values(result, metric), rtol=0, atol=1e-9)


def _by_ties(result: ScoredTables, metric: str, bar: float) -> str:
    """Say so where another order of tied scores would bring a result's mean (fraction) down to the bar; else nothing."""
    _, low, _ = _scored_anew(result, metric).tie_values[metric]
    lowest = float(np.nanmean(low))
    if lowest > bar:
        return ""
    return f"it is better by the order of tied scores alone, which can also give {percent(lowest)}"


def _scored_anew(result: ScoredTables, metric: str) -> QueryScores:
    return score_lists(lists_of_tables(result.queries, result.candidates), (find_measure(metric),))
