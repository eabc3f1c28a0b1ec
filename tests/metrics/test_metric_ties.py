"""Expectation and range under ties, against every order of the tied documents and against sampled orders."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from oracles.metric_references import values_of_orders

from evalkit.metrics import find_protocol, score_lists, score_run
from evalkit.metrics.lists import CandidateLists, candidate_lists
from evalkit.metrics.measures import METRICS, TREC_EVAL, Measure

CUTOFFS = (1, 2, 3, 5, 10, 100)
ALL_AT_ALL_CUTOFFS = tuple(
    Measure(f"{name}_at_{k}", metric, TREC_EVAL, k) for name, metric in METRICS.items() for k in CUTOFFS
)


def one_list(scores, gains, unretrieved=()) -> CandidateLists:
    doc_ids = [f"d{i}" for i in range(len(scores))]
    return candidate_lists(["q"], [len(scores)], doc_ids, scores, gains, [tuple(unretrieved)])


def every_order(scores, gains) -> list[list[int]]:
    """The gains from first to last, for each order of the tied documents."""
    groups = [
        [gain for gain, score in zip(gains, scores, strict=True) if score == level]
        for level in sorted(set(scores))[::-1]
    ]
    return [[gain for group in chosen for gain in group] for chosen in product(*map(permutations, groups))]


@pytest.mark.parametrize("seed", range(40))
def test_every_order_of_small_lists(seed: int) -> None:
    generator = np.random.default_rng(seed)
    n = int(generator.integers(1, 7))
    scores = generator.integers(0, generator.integers(1, 4), size=n).astype(float).tolist()
    gains = (generator.integers(0, 4, size=n) * (generator.random(n) < 0.6)).tolist()
    unretrieved = generator.integers(1, 4, size=generator.integers(0, 3)).tolist()
    result = score_lists(one_list(scores, gains, unretrieved), ALL_AT_ALL_CUTOFFS)
    for name, values in values_of_orders(every_order(scores, gains), unretrieved, CUTOFFS).items():
        spread = [float(part[0]) for part in result.tie_values[name]]
        assert spread == pytest.approx([values.mean(), values.min(), values.max()], abs=1e-12), name


def test_sampled_orders_of_long_lists() -> None:
    generator = np.random.default_rng(7)
    samples = 2000
    for relevant, levels in ((1, 1), (9, 1), (25, 8)):
        scores = generator.integers(0, levels, size=150).astype(float)
        gains = np.zeros(150, dtype=int)
        gains[:relevant] = generator.integers(1, 4, size=relevant)
        result = score_lists(one_list(scores, gains, (2, 1)), ALL_AT_ALL_CUTOFFS)
        orders = [gains[np.lexsort((generator.random(150), -scores))].tolist() for _ in range(samples)]
        for name, values in values_of_orders(orders, (2, 1), CUTOFFS).items():
            expected, low, high = (float(part[0]) for part in result.tie_values[name])
            noise = 5 * values.std() / np.sqrt(samples) if values.std() else 5 / samples  # none saw a rare order
            assert abs(values.mean() - expected) <= noise, name
            assert low - 1e-12 <= values.min() <= values.max() <= high + 1e-12, name


def test_chances_stay_exact_in_very_long_ties() -> None:
    # one relevant among n tied: its rank is uniform
    n = 100_000
    result = score_lists(one_list(np.zeros(n), [1] + [0] * (n - 1)), ALL_AT_ALL_CUTOFFS)
    assert result.ties["mrr_at_100"].expected == pytest.approx((1 / np.arange(1, 101)).sum() / n, rel=1e-9)
    assert result.ties["hit_rate_at_10"].expected == pytest.approx(10 / n, rel=1e-9)


def test_a_constant_scorers_range_is_the_whole_of_what_mrr_can_be() -> None:
    run = {"q1": dict.fromkeys("abcd", 1.0), "q2": dict.fromkeys((f"d{i}" for i in range(30)), 1.0)}
    qrels = {"q1": {"d": 1, "b": 1}, "q2": {"d7": 1}}
    ties = score_run(run, qrels).ties["mrr"]
    assert score_run(run, qrels).scores["mrr"] == ties.high == 1.0
    assert ties.low == pytest.approx((1 / 3 + 0) / 2)  # two negatives above in q1; beyond the tenth rank in q2
    # q1: first of two at rank 1, 2, 3 with 1/2, 1/3, 1/6; q2: uniform over 30 ranks, ten of which count
    by_hand = (1 / 2 + 1 / 3 / 2 + 1 / 6 / 3 + sum(1 / rank for rank in range(1, 11)) / 30) / 2
    assert ties.expected == pytest.approx(by_hand)


def test_without_ties_nothing_can_move() -> None:
    generator = np.random.default_rng(3)
    lists = one_list(generator.permutation(50).astype(float), (generator.random(50) < 0.3).astype(int))
    for measures in (ALL_AT_ALL_CUTOFFS, find_protocol("cmteb-v1").measures):
        result = score_lists(lists, measures)
        for name, value in result.means.items():
            ties = result.ties[name]
            assert ties.expected == ties.low == ties.high == pytest.approx(value, abs=1e-15)


def test_ties_are_told_in_float32() -> None:
    # apart in float64, the same number in float32
    ties = score_run({"q": {"neg": 1.0, "pos": 1.0 + 1e-9}}, {"q": {"pos": 1}}).ties["mrr"]
    assert (ties.expected, ties.low, ties.high) == (0.75, 0.5, 1.0)
    ties = score_run({"q": {"neg": 1.0 + 1e-9, "pos": 1.0}}, {"q": {"pos": 1}}).ties["mrr"]
    assert (ties.expected, ties.low, ties.high) == (0.75, 0.5, 1.0)
    ties = score_run({"q": {"neg": 1.0, "pos": 1.0 + 1e-6}}, {"q": {"pos": 1}}).ties["mrr"]
    assert (ties.low, ties.high) == (1.0, 1.0)


def test_scikit_learns_value_of_ties_may_lie_above_every_order() -> None:
    # ten negatives, then two tied positives: precision is 2/12 for both, where any order has 1/11 for the first
    run = {"q": {f"n{i}": 2.0 for i in range(10)} | {"a": 1.0, "b": 1.0}}
    result = score_run(run, {"q": {"a": 1, "b": 1}})
    assert result.scores["map"] == pytest.approx(2 / 12)
    assert result.ties["map"].high == pytest.approx((1 / 11 + 2 / 12) / 2)
