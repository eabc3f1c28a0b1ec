"""What a sample says of its population's mean: the estimate, an interval that keeps its level, and what could be told apart."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from evalkit.statistics import sampled_means


def alone(values: np.ndarray, population: int) -> np.ndarray:
    """What a sample from a population of one stratum says."""
    return sampled_means(np.asarray(values, float)[:, None], [0] * len(values), [population])[0]


def made_population(n: int = 1_200) -> tuple[np.ndarray, np.ndarray]:
    """Values with many ones and zeros, which follow six strata of unequal sizes closely; the stratum of each."""
    generator = np.random.default_rng(3)
    strata = generator.choice(6, n, p=[0.3, 0.25, 0.15, 0.15, 0.1, 0.05])
    values = np.clip(generator.normal(strata / 5, 0.25), 0, 1)
    return values, strata


def coverage(change: str = "", size: int = 400, rounds: int = 1_500) -> float:
    values, strata = made_population()
    members = [np.flatnonzero(strata == number) for number in range(6)]
    populations = [len(one) for one in members]
    counts = [round(size * one / len(values)) for one in populations]
    generator, held = np.random.default_rng(4), 0
    for _ in range(rounds):
        places = np.concatenate([generator.choice(m, k, replace=False) for m, k in zip(members, counts, strict=True)])
        said = np.zeros(len(places), int) if change == "no strata" else strata[places]
        sizes = [len(values)] if change == "no strata" else populations
        sizes = [1_000 * one for one in sizes] if change == "no correction" else sizes
        _, low, high, _ = sampled_means(values[places][:, None], said, sizes)[0]
        held += low <= values.mean() <= high
    return held / rounds


def test_the_interval_keeps_its_level() -> None:
    assert 0.935 < coverage() < 0.968
    # what the strata and the finite population are worth is seen: without either, intervals would hold far too often
    assert coverage("no strata") > 0.99
    assert coverage("no correction") > 0.975


@pytest.mark.parametrize("share", [0.5, 0.8, 0.9, 0.95])
def test_of_zeros_and_ones_it_is_wilsons(share: float) -> None:
    ones = round(100 * share)
    mean, low, high, _ = alone([1] * ones + [0] * (100 - ones), 10**9)
    expected = stats.binomtest(ones, 100).proportion_ci(0.95, "wilson")
    assert mean == pytest.approx(share)
    # Student's quantile and a variance over n - 1 make it a little wider
    assert expected.low - 0.006 < low < expected.low < expected.high < high < expected.high + 0.006


def test_the_estimate_is_weighted_by_strata() -> None:
    values = np.array([[0.0]] * 20 + [[1.0]] * 20)
    strata = [0] * 20 + [1] * 20
    mean, low, high, _ = sampled_means(values, strata, [900, 100])[0]
    assert mean == pytest.approx(0.1)
    assert low < 0.1 < high


def test_the_variance_is_that_of_stratified_sampling() -> None:
    """Against Cochran's formula, written out, in the middle of the scale, where the interval is nearly symmetric."""
    generator = np.random.default_rng(0)
    values, strata, sizes = generator.random(300), np.repeat([0, 1, 2], 100), np.array([400.0, 1_000.0, 600.0])
    shares = sizes / 2_000
    means = [values[strata == h].mean() for h in range(3)]
    variance = sum(shares[h] ** 2 * (1 - 100 / sizes[h]) * values[strata == h].var(ddof=1) / 100 for h in range(3))
    mean, low, high, detectable = sampled_means(values[:, None], strata, sizes)[0]
    assert mean == pytest.approx(shares @ means)
    assert high - low == pytest.approx(2 * stats.t.ppf(0.975, 297) * variance**0.5, rel=0.01)
    assert detectable == pytest.approx((stats.t.ppf(0.975, 297) + stats.t.ppf(0.8, 297)) * variance**0.5, rel=1e-4)


def test_a_part_of_the_queries_is_a_ratio() -> None:
    """A measure that leaves queries out: the mean of those it has, whose number the sample estimates too."""
    generator = np.random.default_rng(5)
    population = np.where(generator.random(2_000) < 0.4, np.nan, generator.beta(2, 2, 2_000))
    held = 0
    for _ in range(800):
        _, low, high, _ = alone(generator.choice(population, 150, replace=False), 2_000)
        held += low <= np.nanmean(population) <= high
    assert 0.93 < held / 800 < 0.97
    values = generator.choice(population, 150, replace=False)
    assert alone(values, 2_000)[0] == pytest.approx(np.nanmean(values))
    whole, alike = sampled_means(np.column_stack([np.nan_to_num(values), values]), [0] * 150, [2_000])
    assert whole[0] < alike[0]


@pytest.mark.parametrize("value", [0.0, 1.0, 0.5, 1 - 1e-15, 1e-15])
def test_values_that_do_not_differ_claim_no_certainty(value: float) -> None:
    """The interval is that of the most that fractions of such a mean can differ by; rounding is no difference."""
    values = np.full(50, value)
    values[0] = np.nextafter(value, 0.5)
    mean, low, high, _ = alone(values, 5_000)
    assert low <= mean <= high
    assert high - low > 0.05


def test_one_other_value_claims_hardly_more() -> None:
    width = {share: np.diff(alone([1.0] * (50 - share) + [0.99] * share, 5_000)[1:3])[0] for share in (0, 1, 25)}
    assert width[0] > width[1] > width[0] / 3
    assert width[25] < 0.01


@pytest.mark.parametrize("n", [1, 2, 29])
def test_too_few_queries_have_no_interval(n: int) -> None:
    values = np.random.default_rng(n).random(n)
    mean, *rest = alone(values, 1_000)
    assert mean == pytest.approx(values.mean())
    assert np.isnan(rest).all()
    assert np.isfinite(alone(np.random.default_rng(n).random(30), 1_000)).all()


def test_strata_of_one_query_are_joined() -> None:
    values = np.random.default_rng(6).random((40, 1))
    each = sampled_means(values, range(40), [25] * 40)[0]
    pairs = sampled_means(values, [place // 2 for place in range(40)], [50] * 20)[0]
    np.testing.assert_array_equal(each, pairs)
    # the last one, and strata that nothing was drawn from, join those before them
    left = sampled_means(values, [0] * 39 + [2], [500, 300, 200, 100])[0]
    assert np.isfinite(left).all()


def test_no_value_at_all_is_none() -> None:
    assert np.isnan(alone(np.full(40, np.nan), 100)).all()


def test_a_metric_does_not_depend_on_what_stands_beside_it() -> None:
    values = np.random.default_rng(8).random((60, 3))
    strata = [place % 4 for place in range(60)]
    together = sampled_means(values, strata, [100] * 4)
    for column in range(3):
        np.testing.assert_array_equal(sampled_means(values[:, [column]], strata, [100] * 4)[0], together[column])
