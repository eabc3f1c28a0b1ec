from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from scipy import stats

from evalkit.statistics import (
    average_differences,
    average_intervals,
    bootstrap_intervals,
    effect_size_intervals,
    holm,
    paired_randomisation_test,
    pairs_of,
    rank_ranges,
    resampled_deviations,
)


def test_pairs_are_in_order() -> None:
    first, second = pairs_of(4)
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == list(itertools.combinations(range(4), 2))
    assert [len(part) for part in pairs_of(1)] == [0, 0]


@pytest.mark.parametrize(
    ("values", "apart", "ranges"),
    [
        ([0.5, 0.9, 0.7], [], [(1, 3), (1, 3), (1, 3)]),
        ([0.5, 0.9, 0.7], [(0, 1), (0, 2), (1, 2)], [(3, 3), (1, 1), (2, 2)]),
        # the ends are told apart, but the middle from neither
        ([0.5, 0.9, 0.7], [(0, 1)], [(2, 3), (1, 2), (1, 3)]),
        ([0.5, 0.9, 0.7], [(0, 1), (0, 2)], [(3, 3), (1, 2), (1, 2)]),
        ([0.4], [], [(1, 1)]),
        ([0.4, 0.4], [], [(1, 2), (1, 2)]),
    ],
)
def test_ranks_that_tests_leave_open(
    values: list[float], apart: list[tuple[int, int]], ranges: list[tuple[int, int]]
) -> None:
    first, second = pairs_of(len(values))
    p_values = [0.049 if pair in apart else 0.05 for pair in zip(first.tolist(), second.tolist(), strict=True)]
    assert [tuple(row) for row in rank_ranges(np.array(values), np.array(p_values), 0.05).tolist()] == ranges


def test_a_systems_own_rank_is_always_among_its_ranks() -> None:
    generator = np.random.default_rng(1)
    for n in (2, 5, 9):
        values = generator.random(n)
        ranges = rank_ranges(values, generator.random(n * (n - 1) // 2) * 0.1, 0.05)
        own = (-values).argsort().argsort() + 1
        assert np.all((ranges[:, 0] <= own) & (own <= ranges[:, 1]))


def test_averages_weigh_tasks_alike() -> None:
    small, large = np.array([[0.2], [0.4]]), np.full((8, 1), -0.1)
    together = average_differences([small, large])
    assert together.mean() == pytest.approx((0.3 - 0.1) / 2)
    # by enumeration: each task's mean over its own queries, and the plain average of the two
    flips = np.array(list(itertools.product([1, -1], repeat=10)))
    averages = (flips[:, :2] @ small[:, 0] / 2 + flips[:, 2:] @ large[:, 0] / 8) / 2
    expected = np.mean(np.abs(averages) >= 0.1 - 1e-12)
    assert paired_randomisation_test(together, seed=1)[0] == expected


def test_intervals_of_averages_agree_with_scipys_over_several_samples() -> None:
    generator = np.random.default_rng(4)
    tasks = [generator.beta(2, 5, size=(n, 3)) ** 2 for n in (30, 100, 500)]
    tasks[0][:, 2] = 0.5
    ours = average_intervals(tasks, seed=1)
    for column in range(3):
        reference = stats.bootstrap(
            tuple(values[:, column] for values in tasks),
            lambda a, b, c, axis: (a.mean(axis) + b.mean(axis) + c.mean(axis)) / 3,
            n_resamples=20_000,
            method="BCa",
            rng=np.random.default_rng(5),
            batch=500,
        ).confidence_interval
        width = reference.high - reference.low
        assert tuple(ours[column]) == pytest.approx((reference.low, reference.high), abs=0.05 * width)


def test_intervals_of_averages_are_scipys_on_the_same_resamples() -> None:
    generator = np.random.default_rng(6)
    tasks = [generator.beta(0.4, 4, size=(n, 1)) for n in (12, 40, 300)]
    parts = [resampled_deviations(values, (7, number), 3000) for number, values in enumerate(tasks)]
    means = sum(parts)[:, 0] / 3 + np.mean([values.mean() for values in tasks])
    reference = stats.bootstrap(
        tuple(values[:, 0] for values in tasks),
        lambda a, b, c, axis: (a.mean(axis) + b.mean(axis) + c.mean(axis)) / 3,
        n_resamples=0,
        bootstrap_result=stats._resampling.BootstrapResult(None, means, None),
        method="BCa",
    ).confidence_interval
    ours = average_intervals(tasks, seed=7, n_resamples=3000)[0]
    assert tuple(ours) == pytest.approx((reference.low, reference.high), abs=1e-9)


def test_an_average_without_spread_has_no_interval() -> None:
    assert np.isnan(average_intervals([np.full((3, 1), 0.25), np.full((5, 1), 0.75)], seed=1)).all()


def test_an_average_over_a_task_of_one_query_has_no_interval() -> None:
    """What the one query says of the others is not known, however many the other tasks have."""
    values = np.random.default_rng(0).random((80, 2))
    assert np.isnan(average_intervals([values, values[:1]], seed=1)).all()
    assert np.isfinite(average_intervals([values, values[:2]], seed=1)).all()


def test_equal_tasks_are_resampled_apart() -> None:
    """The average of two independent samples is surer than either, also where they have the same values."""
    values = np.random.default_rng(0).random((80, 1))
    one, two = average_intervals([values], seed=1)[0], average_intervals([values, values], seed=1)[0]
    assert np.ptp(two) == pytest.approx(np.ptp(one) / np.sqrt(2), rel=0.05)


def test_ten_systems_on_t2reranking_take_seconds() -> None:
    values = np.random.default_rng(0).random((5908, 10))
    start = time.process_time()
    first, second = pairs_of(10)
    differences = values[:, first] - values[:, second]
    bootstrap_intervals(values, seed=42)
    bootstrap_intervals(differences, seed=42)
    effect_size_intervals(differences, seed=42)
    assert holm(paired_randomisation_test(differences, seed=42)).shape == (45,)
    assert time.process_time() - start < 30
