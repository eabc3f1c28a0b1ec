"""Measures against scipy and against counting pair by pair."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from made_tasks import make_task
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import kendalltau, linregress

from evalkit.errors import EvalkitError
from evalkit.parity.comparing import (
    compare_scores,
    count_flips,
    default_tolerance,
    fit_probabilities,
    kendall_taus,
    logits_of,
    refuse_no_probabilities,
    sigmoid,
    softmax_per_query,
)
from evalkit.parity.records import Comparison

SIZES = [5, 1, 7, 2, 6]
TOLERANCE = 1e-4


def made_scores(seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two systems' scores, with ties in either."""
    generator = np.random.default_rng(seed)
    first = generator.integers(0, 6, sum(SIZES)) / 2
    return first, first + generator.integers(-1, 2, len(first)) / 2


def by_query(values: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    return np.split(values, np.cumsum(SIZES)[:-1])


@pytest.mark.parametrize("seed", range(5))
def test_taus_are_scipy_s(seed: int) -> None:
    first, second = made_scores(seed)
    for tau, left, right in zip(kendall_taus(first, second, SIZES), by_query(first), by_query(second), strict=True):
        if len(set(left)) == 1:
            assert math.isnan(tau)
        else:
            assert tau == (0 if len(set(right)) == 1 else kendalltau(left, right).statistic)


def test_tau_of_a_constant() -> None:
    assert kendall_taus([1, 2, 3], [1, 1, 1], [3]).tolist() == [0]
    assert math.isnan(kendall_taus([1, 1, 1], [1, 2, 3], [3])[0])
    assert kendall_taus([1, 2, 3, 1, 2], [3, 2, 1, 1, 2], [3, 2]).tolist() == [-1, 1]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("allowed", [0.0, 0.2, 0.3, 0.6])
def test_flips_counted_pair_by_pair(seed: int, allowed: float) -> None:
    first, second = made_scores(seed)
    near = others = compared = 0
    for left, right in zip(by_query(first), by_query(second), strict=True):
        for one, two in itertools.combinations(range(len(left)), 2):
            compared += 1
            if (left[one] > left[two], left[one] < left[two]) == (right[one] > right[two], right[one] < right[two]):
                continue
            if left[one] == left[two] or abs(left[one] - left[two]) < 2 * allowed:
                near += 1
            else:
                others += 1
    flips = count_flips(first, second, SIZES, np.full(len(first), allowed))
    assert (flips.compared, flips.near_ties, flips.others) == (compared, near, others)


def test_a_tie_that_only_one_has_is_another_order() -> None:
    assert count_flips([1.0, 2.0], [5.0, 5.0], [2], [0.1, 0.1]).others == 1
    assert count_flips([2.0, 2.0], [5.0, 6.0], [2], [0.0, 0.0]).near_ties == 1


def test_logits_and_sigmoid_are_scipy_s() -> None:
    scores = np.linspace(-12, 12, 41)
    np.testing.assert_allclose(sigmoid(scores), expit(scores))
    logits, slack = logits_of(expit(scores))
    np.testing.assert_allclose(logits, scores, atol=1e-9)
    stored = expit(scores).astype(np.float32)
    found, slack = logits_of(stored)
    inside = (stored > 0) & (stored < 1)
    assert (np.abs(found - scores)[inside] <= slack[inside]).all()
    assert (slack[inside] < 0.1).all()


def test_a_saturated_probability_tells_nothing() -> None:
    logits, slack = logits_of([0.0, 0.5, 1.0])
    assert np.isnan(logits[[0, 2]]).all()
    assert np.isinf(slack[[0, 2]]).all()
    assert logits[1] == 0


def test_the_line_is_that_of_the_inverse() -> None:
    generator = np.random.default_rng(3)
    scores = generator.normal(size=200)
    found, _, affine = fit_probabilities(scores, expit(0.5 * scores - 1))
    assert (affine.slope, affine.offset) == pytest.approx((2, 2))
    np.testing.assert_allclose(found, scores, atol=1e-9)
    # where all logits are told equally well it is the ordinary least-squares line
    near = 0.6 + 1e-3 * generator.normal(size=200)
    ordinary = linregress(logit(near), scores)
    _, _, affine = fit_probabilities(scores, near)
    assert (affine.slope, affine.offset) == pytest.approx((ordinary.slope, ordinary.intercept), rel=0.02)


def test_softmax_is_per_query() -> None:
    first, _ = made_scores(1)
    shares = by_query(softmax_per_query(first, SIZES))
    for left, share in zip(by_query(first), shares, strict=True):
        np.testing.assert_allclose(share, np.exp(left) / np.exp(left).sum())


TASK = make_task(
    (["a"], [("a1", 1), ("a2", 0), ("a3", 0)]),
    (["b"], [("b1", 0), ("b2", 1), ("b3", 0), ("b4", 0)]),
)
REFERENCE = np.array([3.0, 1.0, -2.0, 8.0, 9.0, -9.0, 0.5])


def test_what_differs_within_the_tolerance_agrees() -> None:
    other = REFERENCE + TOLERANCE * np.array([0.9, -0.9, 0, 0.5, 0, 0, 0])
    comparison = compare_scores(TASK, REFERENCE, other, TOLERANCE)
    assert comparison.agrees
    assert comparison.largest == pytest.approx(9e-5)
    assert comparison.mean == pytest.approx(2.3e-4 / 7)
    assert (comparison.pairs, comparison.flips.compared, comparison.flips.others) == (7, 9, 0)
    assert (comparison.tau_mean, comparison.tau_lowest) == (1, 1)
    assert (comparison.map_difference, comparison.mrr_difference) == (0, 0)


def test_what_differs_beyond_does_not() -> None:
    assert not compare_scores(TASK, REFERENCE, REFERENCE + 2e-4 * np.eye(7)[0], TOLERANCE).agrees


def test_metrics_and_orders() -> None:
    other = REFERENCE.copy()
    other[[3, 4]] = other[[4, 3]]  # the positive of the second query falls to place 2
    comparison = compare_scores(TASK, REFERENCE, other, TOLERANCE)
    assert (comparison.map_difference, comparison.mrr_difference) == (-0.25, -0.25)
    assert comparison.tau_lowest == pytest.approx(1 - 2 / 6)
    assert comparison.tau_mean == pytest.approx((1 + 1 - 2 / 6) / 2)
    assert (comparison.flips.near_ties, comparison.flips.others) == (0, 1)


def test_metrics_where_no_query_can_be_scored() -> None:
    task = make_task((["a"], [("a1", 0), ("a2", 0)]))
    comparison = compare_scores(task, np.array([1.0, 2.0]), np.array([1.0, 2.0]), TOLERANCE)
    assert (comparison.map_difference, comparison.mrr_difference) == (None, None)


def test_probabilities_agree_as_far_as_float32_tells() -> None:
    comparison = compare_scores(TASK, REFERENCE, expit(REFERENCE).astype(np.float32), TOLERANCE, probabilities=True)
    assert comparison.agrees
    assert comparison.affine is not None
    assert (comparison.affine.slope, comparison.affine.offset) == pytest.approx((1, 0), abs=1e-5)
    raw = compare_scores(TASK, REFERENCE, expit(REFERENCE).astype(np.float32), TOLERANCE)
    assert not raw.agrees


def test_saturated_probabilities_are_counted_and_no_flips() -> None:
    reference = REFERENCE + np.array([0, 0, 0, 30, 30, 0, 0])
    comparison = compare_scores(TASK, reference, expit(reference).astype(np.float32), TOLERANCE, probabilities=True)
    assert comparison.agrees
    assert comparison.affine is not None
    assert comparison.affine.saturated == 2
    assert (comparison.flips.near_ties, comparison.flips.others) == (1, 0)


def test_probabilities_that_fall_where_scores_rise_do_not_agree() -> None:
    comparison = compare_scores(TASK, REFERENCE, expit(-REFERENCE), TOLERANCE, probabilities=True)
    assert not comparison.agrees
    assert comparison.tau_lowest == -1


def test_low_precisions_have_wider_tolerances() -> None:
    for vectors in (False, True):
        widths = [default_tolerance(dtype, vectors=vectors) for dtype in ("fp32", "fp16", "bf16", "int8")]
        assert widths == sorted(widths)
        assert widths[0] == 1e-4


WIDE = make_task(*((["q"], [(f"{query}-{number}", number % 2) for number in range(5)]) for query in range(6)))
SPREAD = np.random.default_rng(5).normal(size=30) * 4
LENGTHS = np.arange(30) % 7 + 20.0
UNRELATED = np.random.default_rng(6).normal(size=30)


def wide(other: NDArray[np.float64], *, probabilities: bool = True, tolerance: float = TOLERANCE) -> Comparison:
    return compare_scores(WIDE, SPREAD, other.astype(np.float32), tolerance, probabilities=probabilities)


UNTOLD = {
    "1.0 to all": np.ones(30),
    "0.0 to all": np.zeros(30),
    "0.5 to all": np.full(30, 0.5),
    "0 or 1": (SPREAD > 0).astype(float),
    "0 or 1 but for three": np.where(np.arange(30) < 3, expit(SPREAD), SPREAD > 0),
    "0 or 1 for most": np.where(np.arange(30) < 12, expit(SPREAD), SPREAD > 0),
}


@pytest.mark.parametrize("other", UNTOLD.values(), ids=UNTOLD)
def test_probabilities_that_say_too_little_agree_with_nothing(other: NDArray[np.float64]) -> None:
    comparison = wide(other)
    assert not comparison.agrees
    assert comparison.untold


NONSENSE = {
    "unrelated": expit(UNRELATED),
    "unrelated, near 0": expit(UNRELATED - 14),
    "unrelated, near 1": expit(UNRELATED + 14),
    "turned round": expit(-SPREAD),
    "a constant but for one": np.where(np.arange(30) == 0, 0.9, 0.1),
    "lengths": LENGTHS / 40,
    "squared": expit(SPREAD**2 / 8),
    "1 for the lowest": np.where(SPREAD < np.sort(SPREAD)[6], 1.0, expit(SPREAD)),
    "0 for the highest": np.where(SPREAD > np.sort(SPREAD)[23], 0.0, expit(SPREAD)),
    "1 for one in the middle": np.where(SPREAD == np.sort(SPREAD)[15], 1.0, expit(SPREAD)),
    "in one query another order": expit(np.where(np.arange(30) < 5, SPREAD[[4, 3, 2, 1, 0, *range(5, 30)]], SPREAD)),
}


@pytest.mark.parametrize("other", NONSENSE.values(), ids=NONSENSE)
@pytest.mark.parametrize("tolerance", [1e-4, 0.2, 1.0])
def test_no_fitted_line_makes_nonsense_agree(other: NDArray[np.float64], tolerance: float) -> None:
    assert not wide(other, tolerance=tolerance).agrees


@pytest.mark.parametrize(
    "other",
    [UNRELATED, SPREAD[::-1], -SPREAD, np.zeros(30), SPREAD / 100],
    ids=["unrelated", "another order", "turned round", "0 to all", "smaller"],
)
@pytest.mark.parametrize("tolerance", [5.0, 100.0])
def test_a_tolerance_beyond_all_scores_does_not_make_another_order_agree(
    other: NDArray[np.float64], tolerance: float
) -> None:
    """Only order is left to tell by there."""
    comparison = wide(other, probabilities=False, tolerance=tolerance)
    same_order = other[0] == SPREAD[0] / 100
    assert comparison.agrees == (same_order and tolerance == 100.0)


def test_a_reference_that_tells_nothing_apart_can_not_be_agreed_with() -> None:
    constant = compare_scores(WIDE, np.ones(30), np.ones(30), TOLERANCE)
    assert (constant.agrees, constant.untold) == (False, "it gives 1 to all 30 pairs")
    other = compare_scores(WIDE, np.ones(30), 1 + UNRELATED * 1e-6, TOLERANCE)
    assert (other.agrees, other.untold) == (False, "the reference gives 1 to all 30 pairs")


@pytest.mark.parametrize("shape", [lambda s: s, lambda s: 0.5 * s - 1, lambda s: 3 * s + 2])
def test_probabilities_of_the_model_agree_on_any_rising_line(shape: Callable[[Any], Any]) -> None:
    comparison = wide(expit(shape(SPREAD) / 4))
    assert comparison.agrees, comparison


def test_probabilities_rounded_to_ends_agree_where_the_rest_tells() -> None:
    """As in half precision, which has no number between 0.9995 and 1."""
    comparison = wide(np.where(SPREAD > 6, 1.0, np.where(SPREAD < -6, 0.0, expit(SPREAD))))
    assert comparison.affine is not None
    assert comparison.affine.saturated > 0
    assert comparison.agrees, comparison


def test_a_line_that_falls_is_level_and_one_through_few_is_not_fitted() -> None:
    _, _, affine = fit_probabilities(SPREAD, expit(-SPREAD))
    assert (affine.slope, affine.offset) == (0, pytest.approx(SPREAD.mean()))
    for few in (1, 2, 3):
        probabilities = np.where(np.arange(30) < few, expit(UNRELATED), 1.0)
        _, _, affine = fit_probabilities(SPREAD, probabilities)
        assert (affine.slope, affine.offset) == (1, 0)


@pytest.mark.parametrize("value", [1.0000001, -1e-9, 36.0, math.inf, math.nan])
def test_what_is_no_probability_is_refused_by_name(value: float) -> None:
    scores = np.full(30, 0.5)
    scores[7] = value
    with pytest.raises(
        EvalkitError, match=r"jina gives \S+ to document \S+ of query \S+ of .*; 1 of its 30 scores lie outside"
    ):
        refuse_no_probabilities("jina", WIDE, scores)
    refuse_no_probabilities("jina", WIDE, np.array([0.0, 1.0, *scores[8:]]))
