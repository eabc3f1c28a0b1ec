"""Figures that several checks draw from scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalkit.metrics import PROTOCOLS, lists_of_task, score_lists
from evalkit.metrics.measures import CARD_PROTOCOL
from evalkit.records import Task
from evalkit.statistics import bootstrap_intervals, paired_randomisation_test

Floats = NDArray[np.float64]
REPETITIONS = 1_000
SEED = 42
FARTHEST = 100


@dataclass(frozen=True, slots=True)
class TieFacts:
    """What ties there are among a sample's distinct texts per query.

    The share that has another one's score, the share that has it at the lowest or highest score of all; and what the order
    of tied candidates can make of MAP (fractions).
    """

    tied: float
    at_ends: float
    map_low: float
    map_high: float


def average_precisions(task: Task, scores: NDArray[np.floating]) -> Floats:
    """Per query the AP of cmteb-v1, expected over the orders of tied candidates: a fraction."""
    expected, _, _ = score_lists(lists_of_task(task, scores), PROTOCOLS[CARD_PROTOCOL].measures).tie_values["map"]
    return expected


def random_precisions(task: Task) -> Floats:
    """Return per query the expected AP of a random order, exactly: that of scores which are all tied."""
    return average_precisions(task, np.zeros(task.statistics.pairs))


def chance_at_random(task: Task, mean: float) -> float:
    """Return how often a random order of every query's candidates has a MAP of at least `mean`, of REPETITIONS seeded tries.

    A permutation test's p-value: the observed order counts as one of the tries.
    """
    generator = np.random.default_rng(SEED)
    sums = np.zeros(REPETITIONS)
    for request in task.requests:
        gains = np.array([candidate.gain > 0 for candidate in request.candidates])
        places = np.argsort(generator.random((REPETITIONS, len(gains))), axis=1)[:, : int(gains.sum())]
        ranks = np.sort(places, axis=1) + 1
        sums += (np.arange(1, ranks.shape[1] + 1) / ranks).mean(axis=1)
    reached = sums / len(task.requests) >= mean - 1e-9
    return float((1 + reached.sum()) / (1 + REPETITIONS))


def interval(values: Floats, level: float = 0.95) -> tuple[float, float]:
    """Return an interval for the mean of values per query; NaN where they are all equal, or there is one."""
    low, high = bootstrap_intervals(values[:, None], seed=SEED, level=level)[0]
    return float(low), float(high)


def chance_of_difference(differences: Floats) -> float:
    """Return the p-value of the mean of differences per query: how often random signs make as large a one."""
    return float(paired_randomisation_test(differences[:, None], seed=SEED)[0])


def spread(task: Task, scores: NDArray[np.floating]) -> float:
    """Return how far a query's scores lie apart: their standard deviation about the query's mean.

    It is at most FARTHEST times the median distance from a query's median: a score such as -1e6, which stands for a text that was
    not read, would make every other difference small.
    """
    sizes = [len(request.candidates) for request in task.requests]
    owners = np.repeat(np.arange(len(sizes)), sizes)
    wide = scores.astype(np.float64)
    means = np.bincount(owners, wide) / np.array(sizes)
    apart = np.abs(
        wide - np.concatenate([np.full(len(own), np.median(own)) for own in np.split(wide, np.cumsum(sizes)[:-1])])
    )
    farthest = FARTHEST * np.median(apart[apart > 0]) if apart.any() else 0.0
    return float(min(np.sqrt(np.mean((wide - means[owners]) ** 2)), farthest))


def tie_facts(task: Task, scores: NDArray[np.floating]) -> TieFacts:
    """Return what ties there are in the scores (as float32) that no repeated text explains."""
    single = scores.astype(np.float32)
    ends = (single.min(), single.max())
    start = texts = tied = at_ends = 0
    for request in task.requests:
        stop = start + len(request.candidates)
        by_text = dict(zip((candidate.text for candidate in request.candidates), single[start:stop], strict=True))
        values, counts = np.unique(np.array(list(by_text.values())), return_counts=True)
        shared = np.where(counts > 1, counts, 0)
        texts += len(by_text)
        tied += int(shared.sum())
        at_ends += int(shared[np.isin(values, ends)].sum())
        start = stop
    ties = score_lists(lists_of_task(task, scores), PROTOCOLS[CARD_PROTOCOL].measures).ties["map"]
    return TieFacts(tied / texts, at_ends / texts, ties.low, ties.high)
