"""What MRR allows for MAP: against rankings of every kind, and against extremes that can be written down."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from evalkit.audit.rules.bounds import map_bounds


def judged(labels: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """AP and RR of a query as C-MTEB computes them, the tied in file order."""
    first = np.flatnonzero(labels[np.argsort(-scores, kind="stable")])[0] + 1
    return float(average_precision_score(labels, scores)), 1 / first if first <= 10 else 0.0


def made_queries(generator: np.random.Generator, queries: int, levels: int | None) -> tuple[float, float, float]:
    """Mean AP, RR and number of positives of queries of some kind; `levels` of scores make ties."""
    aps, rrs, counts = [], [], []
    strength = generator.uniform(-1, 4)
    for _ in range(queries):
        positives, negatives = generator.integers(1, generator.integers(2, 30)), generator.integers(1, 60)
        labels = np.r_[np.ones(positives, int), np.zeros(negatives, int)]
        scores = generator.normal(size=len(labels)) + strength * labels
        if levels:
            scores = np.round(scores * levels) / levels
        ap, rr = judged(labels, scores)
        aps.append(ap)
        rrs.append(rr)
        counts.append(positives)
    return float(np.mean(aps)), float(np.mean(rrs)), float(np.mean(counts))


def test_no_ranking_is_out_of_bounds() -> None:
    generator = np.random.default_rng(5)
    for _ in range(120):
        ap, rr, positives = made_queries(generator, int(generator.integers(1, 8)), None)
        low, high = map_bounds(positives, rr)
        assert low <= ap <= high


def test_no_tied_ranking_is_above_the_bound() -> None:
    generator = np.random.default_rng(6)
    below = 0
    for _ in range(120):
        ap, rr, positives = made_queries(generator, int(generator.integers(1, 8)), 1)
        low, high = map_bounds(positives, rr)
        assert ap <= high
        below += ap < low
    assert below  # ties alone get there, as a warning says


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


def test_bounds_widen_with_rounding_and_stay_between_0_and_1() -> None:
    for mrr in np.linspace(0, 1, 21):
        low, high = map_bounds(1.93, float(mrr))
        wide_low, wide_high = map_bounds(1.93, float(mrr), 0.01)
        assert 0 <= wide_low <= low <= high <= wide_high <= 1
