"""What noise can do to measures: against every order that scores within their noise can have, and against sampled scores."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from oracles.metric_references import values_of_orders

from evalkit.metrics import CandidateLists, find_measure, find_protocol, read_measures, score_lists
from evalkit.metrics.lists import candidate_lists, with_noise
from evalkit.metrics.measures import METRICS, TREC_EVAL, Measure

CUTOFFS = (1, 2, 3, 5, 10, 100)
AT_ALL_CUTOFFS = tuple(
    Measure(f"{name}_at_{k}", metric, TREC_EVAL, k) for name, metric in METRICS.items() for k in CUTOFFS
)
BINARY = tuple(measure for measure in AT_ALL_CUTOFFS if not measure.metric.by_grade)


def one_list(scores, gains, noise, unretrieved=()) -> CandidateLists:
    doc_ids = [f"d{i}" for i in range(len(scores))]
    return with_noise(candidate_lists(["q"], [len(scores)], doc_ids, scores, gains, [tuple(unretrieved)]), noise)


def possible_orders(scores, gains, noise) -> list[list[int]]:
    """The gains from first to last, for each order of candidates none of which lies surely above one before it."""
    lows, highs = np.asarray(scores) - noise, np.asarray(scores) + noise
    return [
        [gains[place] for place in order]
        for order in permutations(range(len(scores)))
        if all(lows[later] <= highs[order[first]] for first in range(len(order)) for later in order[first + 1 :])
    ]


def small_list(seed: int, grades: int):
    """Up to six candidates; the noise is that of one low precision, exact for some: on a grid, so that scores meet."""
    generator = np.random.default_rng(seed)
    n = int(generator.integers(1, 7))
    scores = (generator.integers(0, 12, size=n) / 4).tolist()
    gains = (generator.integers(1, grades + 1, size=n) * (generator.random(n) < 0.5)).tolist()
    noise = np.where(generator.random(n) < 0.3, 0.0, generator.integers(0, 8, size=n) / 8)
    unretrieved = generator.integers(1, grades + 1, size=generator.integers(0, 3)).tolist()
    return scores, gains, noise, unretrieved


@pytest.mark.parametrize("seed", range(60))
def test_binary_bands_are_the_lowest_and_the_highest_of_every_possible_order(seed: int) -> None:
    scores, gains, noise, unretrieved = small_list(seed, grades=1)
    result = score_lists(one_list(scores, gains, noise, unretrieved), AT_ALL_CUTOFFS)
    for name, values in values_of_orders(possible_orders(scores, gains, noise), unretrieved, CUTOFFS).items():
        band = [float(part[0]) for part in result.band_values[name]]
        assert band == pytest.approx([values.min(), values.max()], abs=1e-12), name
        assert result.bands[name].attained


@pytest.mark.parametrize("seed", range(60))
def test_graded_bands_are_never_exceeded_and_attained_where_grades_do_not_count(seed: int) -> None:
    scores, gains, noise, unretrieved = small_list(seed, grades=3)
    result = score_lists(one_list(scores, gains, noise, unretrieved), AT_ALL_CUTOFFS)
    of_orders = values_of_orders(possible_orders(scores, gains, noise), unretrieved, CUTOFFS)
    for measure in AT_ALL_CUTOFFS:
        values = of_orders[measure.name]
        low, high = (float(part[0]) for part in result.band_values[measure.name])
        assert low - 1e-12 <= values.min() <= values.max() <= high + 1e-12, measure.name
        if measure in BINARY or result.bands[measure.name].attained:
            assert (low, high) == pytest.approx((values.min(), values.max()), abs=1e-12), measure.name
    several = len({gain for gain in gains if gain > 0}) > 1
    assert result.bands["ndcg_at_10"].attained is not several


@pytest.mark.parametrize("grade", [1, 2, 3])
def test_measures_that_count_from_a_grade_have_the_band_of_that_grade(grade: int) -> None:
    measures = read_measures([f"AP(rel={grade})", f"RR(rel={grade})@10", f"P(rel={grade})@2", f"R(rel={grade})@2"])
    for seed in range(20):
        scores, gains, noise, unretrieved = small_list(seed, grades=3)
        graded = score_lists(one_list(scores, gains, noise, unretrieved), measures)
        binary = one_list(
            scores, [int(gain >= grade) for gain in gains], noise, [1 for gain in unretrieved if gain >= grade]
        )
        alone = score_lists(binary, read_measures(["AP", "RR@10", "P@2", "R@2"]))
        for one, other in zip(graded.band_values.values(), alone.band_values.values(), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("grades", [1, 3])
def test_sampled_scores_of_long_lists_never_leave_the_band(grades: int) -> None:
    generator = np.random.default_rng(grades)
    scores = generator.normal(size=200)
    gains = generator.integers(1, grades + 1, size=200) * (generator.random(200) < 0.1)
    noise = np.where(generator.random(200) < 0.2, 0.0, 0.3 * generator.random(200))
    result = score_lists(one_list(scores, gains, noise, (1,)), AT_ALL_CUTOFFS)
    moved = scores.astype(np.float32) + generator.uniform(-1, 1, size=(2000, 200)) * noise
    # towards the ends too, where most orders are
    moved[::2] = scores.astype(np.float32) + generator.choice([-1, 1], size=(1000, 200)) * noise
    moved[1] = scores.astype(np.float32) - np.where(gains > 0, noise, -noise)
    moved[3] = scores.astype(np.float32) + np.where(gains > 0, noise, -noise)
    orders = [gains[np.argsort(-one, kind="stable")].tolist() for one in moved]
    for name, values in values_of_orders(orders, (1,), CUTOFFS).items():
        low, high = (float(part[0]) for part in result.band_values[name])
        assert low - 1e-12 <= values.min() <= values.max() <= high + 1e-12, name
        if grades == 1:
            assert (low, high) == pytest.approx((values.min(), values.max()), abs=1e-12), name


def test_band_of_a_mean_is_the_mean_of_the_queries_bands_that_count() -> None:
    lists = with_noise(
        candidate_lists(
            ["both", "no positive", "exact"],
            [2, 2, 2],
            list("abcdef"),
            [1.0, 1.1, 1.0, 1.1, 0.0, 1.0],
            [1, 0, 0, 0, 1, 0],
            [()] * 3,
        ),
        [0.1, 0.1, 0.1, 0.1, 0.0, 0.0],
    )
    result = score_lists(lists, find_protocol("cmteb-v1").measures)
    assert (result.bands["map"].low, result.bands["map"].high) == (0.5, 0.75)
    low, high = result.band_values["map"]
    np.testing.assert_array_equal(low, [0.5, np.nan, 0.5])
    np.testing.assert_array_equal(high, [1.0, np.nan, 0.5])
    rounded = score_lists(lists, (find_measure("map_at_1000"),)).bands["map_at_1000"]
    assert (rounded.low, rounded.high) == (0.33333, 0.5)  # mteb-v2 counts the query without positives, and rounds


def test_scores_that_only_meet_may_change_places_and_those_apart_may_not() -> None:
    apart = 2.0**-20
    for gap, low in ((0.0, 0.5), (apart, 1.0)):
        result = score_lists(one_list([1.0 + gap, 0.5], [1, 0], [0.25, 0.25]), find_protocol("cmteb-v1").measures)
        assert (result.bands["mrr"].low, result.bands["mrr"].high) == (low, 1.0)


def test_tied_exact_scores_have_their_tie_range_as_their_band() -> None:
    lists = one_list([1.0, 1.0, 0.5, 0.5], [1, 0, 0, 1], 0.0)
    result = score_lists(lists, AT_ALL_CUTOFFS)
    for name, (_, low, high) in result.tie_values.items():
        np.testing.assert_allclose(result.band_values[name], (low, high), atol=1e-15)


def test_without_noise_and_ties_nothing_moves_and_unknown_noise_has_no_band() -> None:
    generator = np.random.default_rng(3)
    lists = one_list(generator.permutation(50).astype(float), generator.integers(0, 3, size=50), 0.0)
    result = score_lists(lists, AT_ALL_CUTOFFS)
    for name, value in result.means.items():
        assert result.bands[name].low == pytest.approx(value, abs=1e-14)
        assert result.bands[name].high == pytest.approx(value, abs=1e-14)
    unknown = score_lists(replace(lists, noise=None), AT_ALL_CUTOFFS)
    assert dict(unknown.bands) == dict(unknown.band_values) == {}


def test_repeated_documents_keep_their_own_noise() -> None:
    lists = candidate_lists(["q"], [4], ["a", "a", "b", "c"], [3.0, 9.0, 2.0, 1.0], [0, 0, 1, 0], [()])
    band = score_lists(with_noise(lists, [0.0, 9.0, 0.0, 2.0]), (find_measure("mrr_at_10"),)).bands["mrr_at_10"]
    assert (band.low, band.high) == (1 / 3, 1 / 2)  # c may rise above b, and nothing falls below a


@pytest.mark.parametrize("wrong", [-1e-9, np.nan, [0.1, 0.1], [0.1, 0.1, np.nan]])
def test_noise_that_is_no_amount_is_refused(wrong: object) -> None:
    lists = candidate_lists(["q"], [3], ["a", "b", "c"], [1.0, 2.0, 3.0], [0, 1, 0], [()])
    with pytest.raises(ValueError, match=r"0 or more|broadcast"):
        with_noise(lists, wrong)


@pytest.mark.parametrize(("grades", "pairs"), [(1, 97_422), (4, 97_422)])
def test_bands_of_t2s_size_take_a_second_at_most(grades: int, pairs: int) -> None:
    """Of every measure of both protocols: what they take beyond the values themselves."""
    generator = np.random.default_rng(0)
    n_queries = 5908
    lengths = np.bincount(generator.integers(0, n_queries, size=pairs), minlength=n_queries)
    gains = generator.integers(1, grades + 1, size=pairs) * (generator.random(pairs) < 0.45)
    scores = generator.normal(size=pairs).astype(np.float32)
    queries = [f"q{i}" for i in range(n_queries)]
    lists = candidate_lists(queries, lengths, [f"d{i}" for i in range(pairs)], scores, gains, [()] * n_queries)
    measures = [measure for protocol in ("cmteb-v1", "mteb-v2") for measure in find_protocol(protocol).measures]

    def seconds(one: CandidateLists) -> float:
        started = time.process_time()  # whatever else the machine does
        score_lists(one, measures)
        return time.process_time() - started

    seconds(lists)
    noisy = with_noise(lists, 1e-2)
    taken = min(seconds(noisy) for _ in range(3)) - min(seconds(lists) for _ in range(3))
    assert taken <= 1.0, taken
