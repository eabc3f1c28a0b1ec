from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats
from threadpoolctl import threadpool_limits

from evalkit.statistics import (
    bootstrap_intervals,
    effect_size_intervals,
    effect_sizes,
    fewest_differences,
    holm,
    paired_randomisation_test,
    resampled_deviations,
    resamples_needed,
    smallest_detectable_difference,
)

LATTICE = 2520  # reciprocal ranks down to 10 are multiples of 1/2520


def ap_like(generator: np.random.Generator, *shape: int) -> np.ndarray:
    """Values as average precision has them: a third of the queries perfect, the others skewed. Their mean is 0.6."""
    return np.where(generator.random(shape) < 1 / 3, 1.0, generator.beta(1.2, 1.8, size=shape))


def enumerated(differences: list[Fraction]) -> float:
    """The p-value by its definition, in exact arithmetic."""
    seen = abs(sum(differences))
    patterns = list(itertools.product([1, -1], repeat=len(differences)))
    far = sum(abs(sum(s * d for s, d in zip(signs, differences, strict=True))) >= seen for signs in patterns)
    return far / len(patterns)


@pytest.mark.parametrize("n", [1, 2, 5, 10])
def test_equals_enumeration_where_many_sums_tie(n: int) -> None:
    generator = np.random.default_rng(n)
    ranks = generator.integers(1, 11, size=(2, n, 6))
    exact = [[Fraction(1, int(a)) - Fraction(1, int(b)) for a, b in column] for column in ranks.T]
    p_values = paired_randomisation_test(1 / ranks[0] - 1 / ranks[1], seed=1)
    assert p_values.tolist() == [enumerated(column) for column in exact]


def test_equals_scipys_enumeration() -> None:
    generator = np.random.default_rng(3)
    pairs = generator.random((2, 11, 5))
    pairs[1, :, :2] -= 0.4
    reference = stats.permutation_test(
        (pairs[0], pairs[1]), lambda a, b, axis: (a - b).mean(axis), permutation_type="samples", n_resamples=np.inf
    )
    ours = paired_randomisation_test(pairs[0] - pairs[1], seed=1)
    np.testing.assert_allclose(ours, reference.pvalue, rtol=0, atol=1e-12)
    assert ours.min() < 0.05 < ours.max()


def test_zeros_beside_few_differences_change_nothing() -> None:
    few = np.array([[0.5, 0.25, -0.125, 0.3, 0.2, 0.1, 0.7]]).T
    padded = np.vstack([np.zeros((3000, 1)), few, np.zeros((2000, 1))])
    assert paired_randomisation_test(padded, seed=1) == paired_randomisation_test(few, seed=1) == 6 / 128


def test_random_signs_agree_with_enumeration() -> None:
    """17 differences are too many to be enumerated by the test, but not by this one."""
    generator = np.random.default_rng(8)
    differences = generator.normal(0.15, 0.4, size=(17, 8))
    signs = (np.arange(2**17)[:, None] >> np.arange(17) & 1) * 2.0 - 1
    expected = np.mean(np.abs(signs @ differences) >= np.abs(differences.sum(axis=0)) - 1e-9, axis=0)
    ours = paired_randomisation_test(differences, seed=5)
    assert np.all(np.abs(ours - expected) < 4 * np.sqrt(expected * (1 - expected) / 10_000) + 1e-4)


def test_random_signs_agree_with_scipys() -> None:
    generator = np.random.default_rng(4)
    pairs = ap_like(generator, 2, 150, 4)
    pairs[0] += [0, 0.03, 0.06, 0.09]
    reference = stats.permutation_test(
        (pairs[0], pairs[1]),
        lambda a, b, axis: (a - b).mean(axis),
        permutation_type="samples",
        n_resamples=10_000,
        rng=np.random.default_rng(1),
        batch=500,
    )
    expected = reference.pvalue
    ours = paired_randomisation_test(pairs[0] - pairs[1], seed=1)
    one_sided = expected / 2  # scipy doubles it, and its noise
    assert np.all(np.abs(ours - expected) < 4 * 2 * np.sqrt(1.5 * one_sided * (1 - one_sided) / 10_000) + 1e-4)


def test_no_p_is_below_what_the_resamples_can_show() -> None:
    assert paired_randomisation_test(np.full((500, 1), 0.25), seed=1, n_resamples=99) == 1 / 100


@pytest.mark.parametrize("n", [12, 60, 1000])
def test_rounding_decides_no_tie(n: int) -> None:
    """Multiples of 1/2520 are rounded, those of 1/4096 are not; their ties are the same."""
    whole = np.random.default_rng(n).choice([-LATTICE // 2, -LATTICE // 3, 0, LATTICE // 6, LATTICE // 2], size=(n, 20))
    rounded, exact = (paired_randomisation_test(whole / unit, seed=2) for unit in (LATTICE, 4096))
    assert rounded.tolist() == exact.tolist()
    assert paired_randomisation_test(-whole / LATTICE, seed=2).tolist() == exact.tolist()


def test_what_only_rounding_could_make_is_no_difference() -> None:
    noise = np.random.default_rng(0).choice([-1, 1, 1], size=(300, 1)) * 2.0**-53
    assert paired_randomisation_test(np.zeros((300, 1)), seed=1) == 1
    assert paired_randomisation_test(noise, seed=1) == 1


def test_a_p_value_depends_on_its_column_and_the_seed_alone() -> None:
    generator = np.random.default_rng(12)
    differences = generator.normal(0.01, 0.2, size=(700, 9)) * 10.0 ** generator.integers(-6, 1, size=9)
    differences[:, 4] = 0
    differences[5:, 7] = 0
    together = paired_randomisation_test(differences, seed=3)
    assert together[4] == 1
    with threadpool_limits(1, user_api="blas"):
        assert paired_randomisation_test(differences, seed=3).tobytes() == together.tobytes()
    alone = [paired_randomisation_test(differences[:, [column]], seed=3)[0] for column in range(9)]
    assert alone == together.tolist()
    assert paired_randomisation_test(differences, seed=4).tolist() != together.tolist()


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_value_that_is_none_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        paired_randomisation_test(np.array([[0.1], [wrong]]), seed=1)


def test_one_in_twenty_equal_systems_is_told_apart() -> None:
    """Columns are independent repetitions; given the signs they share, their p-values are independent, too."""
    generator = np.random.default_rng(99)
    found = []
    for seed in range(10):
        values = ap_like(generator, 2, 200, 1000)
        found.append(paired_randomisation_test(values[0] - values[1], seed=seed, n_resamples=999) <= 0.05)
    assert np.size(found) == 10_000
    assert 0.04 <= np.mean(found) <= 0.06


def test_the_interval_covers_the_true_mean_19_times_in_20() -> None:
    """Of values, and of differences between two systems that share what makes a query hard."""
    generator = np.random.default_rng(31)
    covered, differ = [], []
    for seed in range(5):
        values = ap_like(generator, 200, 1000)
        low, high = bootstrap_intervals(values, seed=seed, n_resamples=1000).T
        covered.append((low <= 0.6) & (high >= 0.6))
        gains = np.where(generator.random((200, 1000)) < 0.3, generator.beta(1, 3, size=(200, 1000)), 0.0)
        low, high = bootstrap_intervals(gains - 0.02, seed=seed, n_resamples=1000).T
        differ.append((low <= 0.055) & (high >= 0.055))
    assert np.size(covered) == np.size(differ) == 5000
    assert 0.935 <= np.mean(covered) <= 0.965
    assert 0.935 <= np.mean(differ) <= 0.965


@pytest.mark.parametrize(("n_tests", "alpha"), [(1, 0.05), (45, 0.05), (780, 0.05), (45, 0.001), (1, 0.0)])
def test_so_many_tests_can_still_be_told_apart(n_tests: int, alpha: float) -> None:
    needed = resamples_needed(n_tests, alpha)
    assert 10_000 <= needed <= 1_000_000
    smallest = np.array([1 / (needed + 1), *[1.0] * (n_tests - 1)])
    assert holm(smallest)[0] <= alpha / 2 or alpha == 0


def test_holm_by_its_definition() -> None:
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.2, 0.9])).tolist() == [0.4, 0.9]
    assert holm(np.array([0.7, 0.7, 0.7])).tolist() == [1.0, 1.0, 1.0]
    assert holm(np.array([])).tolist() == []
    # what was not tested is no test of the family
    assert holm(np.array([np.nan, 0.2, np.nan, 0.9])).tolist() == pytest.approx([np.nan, 0.4, np.nan, 0.9], nan_ok=True)
    generator = np.random.default_rng(6)
    for size in range(1, 8):
        p_values = np.round(generator.random(size) ** 3, 2)
        for level in np.linspace(0.003, 0.997, 60):
            # step down: reject the smallest while it is at most level / (number left)
            rejected, left = set(), size
            for place in np.argsort(p_values, kind="stable"):
                if p_values[place] * left > level:
                    break
                rejected.add(int(place))
                left -= 1
            assert set(np.flatnonzero(holm(p_values) <= level).tolist()) == rejected


def test_effect_sizes_and_their_intervals_are_scipys_on_the_same_resamples() -> None:
    n = 60
    generator = np.random.default_rng(2)
    differences = np.column_stack(
        [ap_like(generator, n) - 0.5, generator.normal(-0.2, 0.1, n), generator.random(n) < 0.4]
    )
    counts = n * resampled_deviations(np.eye(n), 7, 3000) + 1
    intervals = effect_size_intervals(differences, seed=7, n_resamples=3000, level=0.9)

    def standardised(sample: np.ndarray, axis: int) -> np.ndarray:
        return sample.mean(axis) / sample.std(axis, ddof=1)

    for column in range(3):
        sample = differences[:, column].astype(np.float64)
        resampled = np.array([standardised(np.repeat(sample, np.rint(row).astype(int)), 0) for row in counts])
        earlier = stats._resampling.BootstrapResult(None, resampled, None)
        reference = stats.bootstrap(
            (sample,), standardised, n_resamples=0, bootstrap_result=earlier, confidence_level=0.9, method="BCa"
        ).confidence_interval
        assert effect_sizes(differences)[column] == pytest.approx(standardised(sample, 0), rel=1e-12)
        assert tuple(intervals[column]) == pytest.approx((reference.low, reference.high), abs=1e-9)


def test_the_interval_of_an_effect_size_covers_the_true_one() -> None:
    differences = np.random.default_rng(5).normal(0.06, 0.2, size=(100, 2000))
    low, high = effect_size_intervals(differences, seed=1, n_resamples=1000).T
    assert 0.93 <= np.mean((low <= 0.3) & (high >= 0.3)) <= 0.965


def test_degenerate_differences_have_no_spread_to_measure_by() -> None:
    differences = np.column_stack([np.zeros(4), np.full(4, 0.1), [0.1, 0.2, 0.3, 0.2]])
    assert effect_sizes(differences)[:2].tolist() == pytest.approx([0.0, np.nan], nan_ok=True)
    assert np.isnan(effect_size_intervals(differences, seed=1)[:2]).all()
    assert np.isnan(smallest_detectable_difference(np.vstack([differences, differences]))[:2]).all()
    one = differences[:1]
    assert np.isnan(effect_sizes(one)[1:]).all()
    assert np.isnan(effect_size_intervals(one, seed=1)[1:]).all()
    assert np.isnan(effect_size_intervals(differences[:2], seed=1)[2]).all()
    assert np.isnan(smallest_detectable_difference(one)).all()


@pytest.mark.parametrize(("n", "level"), [(2, 0.05), (5, 0.05), (7, 0.01), (10, 0.001)])
def test_no_difference_is_detectable_on_queries_that_can_show_none(n: int, level: float) -> None:
    """However much they differ, so few signs give no p-value below the level; one query more can."""
    differences = 0.5 + 0.01 * np.random.default_rng(n).random((n + 1, 1))
    for queries in (n, n + 1):
        p_value = paired_randomisation_test(differences[:queries], seed=1)[0]
        detectable = smallest_detectable_difference(differences[:queries], level)[0]
        assert (p_value < level) == np.isfinite(detectable) == (queries >= fewest_differences(level))


@pytest.mark.parametrize(("n", "level", "power"), [(20, 0.05, 0.8), (200, 0.05, 0.8), (5908, 0.01, 0.9)])
def test_the_smallest_detectable_difference_is_detected_as_often_as_it_says(n: int, level: float, power: float) -> None:
    sample = np.random.default_rng(n).normal(size=(n, 1))
    smallest = smallest_detectable_difference(sample, level, power)[0]
    shift = smallest / sample.std(ddof=1) * np.sqrt(n)
    critical = stats.t.ppf(1 - level / 2, n - 1)
    found = stats.nct.sf(critical, n - 1, shift) + stats.nct.cdf(-critical, n - 1, shift)
    assert found == pytest.approx(power, abs=0.006)
