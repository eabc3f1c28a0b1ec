from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
from scipy import stats
from threadpoolctl import threadpool_limits

from evalkit.statistics import bootstrap_intervals, resampled_deviations


def skewed(generator: np.random.Generator, n: int) -> np.ndarray:
    """Values of the kinds that metrics have: skewed, zero-one, on the lattice of reciprocal ranks, nearly all 1."""
    return np.column_stack(
        [
            generator.beta(2, 5, size=n),
            generator.random(n) < 0.3,
            1 / generator.integers(1, 11, size=n),
            np.where(generator.random(n) < 0.95, 1.0, 0.2),
        ]
    ).astype(np.float64)


@pytest.mark.parametrize("n", [5, 40, 333])
def test_equals_scipys_bca_on_the_same_resamples(n: int) -> None:
    values = skewed(np.random.default_rng(n), n)
    values[0] = 0.5
    deviations = resampled_deviations(values, seed=3, n_resamples=2000)
    for column, (low, high) in enumerate(bootstrap_intervals(values, seed=3, n_resamples=2000, level=0.9)):
        sample = values[:, column]
        # scipy counts the resamples equal to the sample's mean with ==, so rounding is taken off
        means = sample.mean() + np.where(np.abs(deviations[:, column]) < 1e-11, 0, deviations[:, column])
        earlier = stats._resampling.BootstrapResult(None, means, None)
        reference = stats.bootstrap(
            (sample,), np.mean, n_resamples=0, bootstrap_result=earlier, confidence_level=0.9, method="BCa"
        ).confidence_interval
        assert (low, high) == pytest.approx((reference.low, reference.high), abs=1e-10)


def test_agrees_with_scipys_own_resamples() -> None:
    values = skewed(np.random.default_rng(11), 200)[:, :3]  # the last has too coarse a lattice to compare
    reference = stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="BCa", axis=0, rng=np.random.default_rng(5), batch=500
    ).confidence_interval
    width = reference.high - reference.low
    np.testing.assert_array_less(np.abs(bootstrap_intervals(values, seed=1)[:, 0] - reference.low), 0.05 * width)
    np.testing.assert_array_less(np.abs(bootstrap_intervals(values, seed=1)[:, 1] - reference.high), 0.05 * width)


def test_covers_the_true_mean_as_often_as_it_says() -> None:
    generator = np.random.default_rng(17)
    samples = generator.beta(2, 5, size=(60, 600))  # 600 experiments of 60 queries, as columns
    low, high = bootstrap_intervals(samples, seed=0, n_resamples=2000).T
    covered = np.mean((low <= 2 / 7) & (high >= 2 / 7))
    assert 0.92 <= covered <= 0.97  # 0.95 with a standard error of 0.009, and a little less in small samples
    low, high = bootstrap_intervals(samples, seed=0, n_resamples=2000, level=0.5).T
    assert 0.43 <= np.mean((low <= 2 / 7) & (high >= 2 / 7)) <= 0.57


def test_same_input_same_bytes_and_another_seed_others() -> None:
    values = skewed(np.random.default_rng(2), 500)
    first = bootstrap_intervals(values, seed=42)
    assert first.tobytes() == bootstrap_intervals(values.copy(), seed=42).tobytes()
    with threadpool_limits(1, user_api="blas"):
        assert first.tobytes() == bootstrap_intervals(values, seed=42).tobytes()
    assert first.tobytes() != bootstrap_intervals(values, seed=43).tobytes()


def test_a_metrics_interval_is_its_own() -> None:
    values = skewed(np.random.default_rng(4), 300)
    dropped = values.copy()
    dropped[::7, 1] = np.nan
    dropped[5, 2] = np.nan
    dropped[::7, 3] = np.nan
    together = bootstrap_intervals(dropped, seed=9)
    for column in range(4):
        kept = dropped[~np.isnan(dropped[:, column]), column]
        assert together[column].tobytes() == bootstrap_intervals(kept[:, None], seed=9)[0].tobytes()


def test_degenerate_columns() -> None:
    nan = np.nan
    values = np.array([[0.1, 0.7, nan, 0.2], [0.1, nan, nan, 0.4], [0.1, nan, nan, nan]])
    intervals = bootstrap_intervals(values, seed=1)
    assert np.isnan(intervals[:3]).all()
    assert 0.2 <= intervals[3, 0] <= intervals[3, 1] <= 0.4


@pytest.mark.parametrize("n", [1, 2, 300])
def test_values_that_do_not_differ_have_no_interval(n: int) -> None:
    """One without width would claim certainty: after 300 queries of 300 that are right, one in a hundred may yet be wrong."""
    values = np.column_stack([np.full(n, 1 / 3), np.ones(n), np.zeros(n)])
    assert np.isnan(bootstrap_intervals(values, seed=1)).all()


def test_one_failure_among_many_successes() -> None:
    values = np.ones((4000, 1))
    values[7] = 0
    low, high = bootstrap_intervals(values, seed=1)[0]
    assert 0.998 < low < values.mean() < high <= 1.0


def test_t2rerankings_size_is_quick_and_small() -> None:
    values = np.random.default_rng(0).random((5908, 50))
    start = time.process_time()
    bootstrap_intervals(values, seed=42)
    assert time.process_time() - start < 10
    tracemalloc.start()
    bootstrap_intervals(values, seed=42, n_resamples=1500)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6
