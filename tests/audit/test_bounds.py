"""What MRR allows for MAP: against rankings of every kind, and against extremes that can be written down."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from scipy.optimize import linprog
from sklearn.metrics import average_precision_score

from evalkit.audit.rules.bounds import map_bounds


def judged(labels: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """AP and RR of a query as C-MTEB computes them, the tied in file order."""
    first = np.flatnonzero(labels[np.argsort(-scores, kind="stable")])[0] + 1
    return float(average_precision_score(labels, scores)), 1 / first if first <= 10 else 0.0


COUNTS = [(1, 1, 1, 2), (7,), (1, 2, 30), (3, 12)]


def judged_rankings(counts: tuple[int, ...], levels: int | None) -> Iterator[tuple[float, float]]:
    """Mean AP and RR of rankings of queries with so many positives each; `levels` of scores make ties."""
    generator = np.random.default_rng(len(counts))
    for _ in range(60):
        strength = generator.uniform(-2, 4)
        values = []
        for positives in counts:
            labels = np.r_[np.ones(positives, int), np.zeros(generator.integers(1, 60), int)]
            scores = generator.normal(size=len(labels)) + strength * labels
            values.append(judged(labels, np.round(scores * levels) if levels else scores))
        yield tuple(np.mean(values, axis=0))


@pytest.mark.parametrize("counts", COUNTS)
def test_no_ranking_is_out_of_bounds(counts: tuple[int, ...]) -> None:
    for ap, rr in judged_rankings(counts, None):
        low, high = map_bounds(float(np.mean(counts)), rr)
        assert low <= ap <= high


@pytest.mark.parametrize("counts", COUNTS)
def test_tied_rankings_may_be_below_the_bounds_and_never_above(counts: tuple[int, ...]) -> None:
    bounds = [(ap, *map_bounds(float(np.mean(counts)), rr)) for ap, rr in judged_rankings(counts, 1)]
    assert all(ap <= high for ap, _, high in bounds)


def test_ties_get_below_the_bound() -> None:
    ap, rr = judged(np.r_[1, np.zeros(99, int)], np.zeros(100))
    low, _ = map_bounds(1.0, rr)
    assert (ap, rr) == (0.01, 1.0)
    assert ap < low


@pytest.mark.parametrize("mrr", [0.05, 0.33, 0.5, 0.9, 1.0])
def test_with_one_positive_each_map_is_mrr_but_for_what_lies_beyond_the_cutoff(mrr: float) -> None:
    low, high = map_bounds(1.0, mrr)
    assert low == pytest.approx(mrr, abs=1e-5)
    # the rest at rank 11 adds an eleventh each
    assert high == pytest.approx(mrr + (1 - mrr) / 11, abs=0.01)
    assert high >= mrr + (1 - mrr) / 11


def test_two_positives_each_behind_a_negative() -> None:
    # ranks 2 and 3: AP = (1/2 + 2/3) / 2 is the most for RR 1/2 in every query
    low, high = map_bounds(2.0, 0.5)
    assert low <= 0.25
    assert 7 / 12 <= high < 0.75


@pytest.mark.parametrize("positives", [1.0, 1.07, 1.931, 7.5227])
@pytest.mark.parametrize("mrr", [0.05, 0.35, 0.7, 0.95])
def test_bounds_are_almost_the_tightest_that_the_means_allow(positives: float, mrr: float) -> None:
    kinds = [(rank, count) for rank in range(1, 12) for count in range(1, 256)]
    reciprocals = [1 / rank if rank <= 10 else 0.0 for rank, _ in kinds]
    best = [sum(i / (rank - 1 + i) for i in range(1, count + 1)) / count for rank, count in kinds]
    least = [reciprocal / count for reciprocal, (_, count) in zip(reciprocals, kinds, strict=True)]
    mixes = {
        "A_ub": [[count for _, count in kinds]],
        "b_ub": [positives],
        "A_eq": [[1] * len(kinds), reciprocals],
        "b_eq": [1, mrr],
    }
    low, high = map_bounds(positives, mrr)
    assert 0 <= linprog(least, **mixes).fun - low < 0.005
    assert 0 <= high + linprog([-value for value in best], **mixes).fun < 0.005


def test_bounds_widen_with_rounding_and_stay_between_0_and_1() -> None:
    for mrr in np.linspace(0, 1, 21):
        low, high = map_bounds(1.93, float(mrr))
        wide_low, wide_high = map_bounds(1.93, float(mrr), 0.01)
        assert 0 <= wide_low <= low <= high <= wide_high <= 1
