"""Pairs of systems on the same queries: by how much they differ, and whether that is more than chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalkit.compare.shared_queries import SharedQueries
from evalkit.statistics import (
    bootstrap_intervals,
    effect_size_intervals,
    effect_sizes,
    holm,
    level_beside_test,
    paired_randomisation_test,
    pairs_of,
    resamples_needed,
    smallest_detectable_difference,
)

SAME_VALUE = 1e-9
"""How far values of one and the same ranking may differ, by rounding."""


@dataclass(frozen=True, slots=True)
class PairTests:
    """What is computed for all pairs of systems: `first` and `second` are their places, by which all that follows is in order.

    `differences` is float64[n_queries, n_pairs] and `intervals` float64[n_pairs, 2], both fractions; the rest has one number per
    pair, as `PairComparison` says.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    differences: NDArray[np.float64]
    intervals: NDArray[np.float64]
    p_values: NDArray[np.float64]
    adjusted: NDArray[np.float64]
    wins: NDArray[np.int64]
    losses: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PairComparison:
    """Two systems, by their places in `SharedQueries.of.systems`; differences are the first one's values less the second's.

    Means, difference, interval and smallest detectable difference are fractions; `p_value` is the pair's own and
    `adjusted_p` Holm's among all pairs of the task, `wins` counts queries that the first system does better. NaN stands for
    what the queries can't say: p-values of one query, intervals of differences that are all equal, a smallest detectable
    difference where no test of so few queries could find any.
    """

    first: int
    second: int
    n_queries: int
    means: tuple[float, float]
    difference: float
    interval: tuple[float, float]
    effect_size: float
    effect_interval: tuple[float, float]
    p_value: float
    adjusted_p: float
    wins: int
    losses: int
    ties: int
    detectable: float


@dataclass(frozen=True, slots=True)
class MovedQuery:
    """A query that two systems answer differently well; `text` is empty where no result holds texts."""

    query_id: str
    values: tuple[float, float]
    text: str


def pair_tests(values: NDArray[np.float64], *, seed: int, alpha: float = 0.05, families: int = 1) -> PairTests:
    """Test all pairs of systems, by their values float64[n_queries, n_systems] on the same queries.

    `alpha` is the level that is asked about, also by the intervals (see `level_beside_test`), and `families` is how many such
    comparisons will be adjusted together: p-values are made fine enough for all to be told apart. A single query
    tests nothing: its p-values are NaN.
    """
    first, second = pairs_of(values.shape[1])
    differences = values[:, first] - values[:, second]
    n_resamples = resamples_needed(len(first) * families, alpha)
    if len(values) > 1:
        p_values = paired_randomisation_test(differences, seed=seed, n_resamples=n_resamples)
    else:
        p_values = np.full(len(first), np.nan)
    return PairTests(
        first=first,
        second=second,
        differences=differences,
        intervals=bootstrap_intervals(differences, seed=seed, level=level_beside_test(alpha)),
        p_values=p_values,
        adjusted=holm(p_values),
        wins=(differences > SAME_VALUE).sum(axis=0),
        losses=(differences < -SAME_VALUE).sum(axis=0),
    )


def compare_pairs(
    values: NDArray[np.float64], *, seed: int, alpha: float = 0.05, families: int = 1
) -> list[PairComparison]:
    """Compare all pairs of systems (see `pair_tests`), with effect sizes and what could have been found.

    `alpha` is the level at which `detectable` asks what a pair's own test could have found, and the intervals are of 1 - alpha.
    """
    tests = pair_tests(values, seed=seed, alpha=alpha, families=families)
    means = np.ascontiguousarray(values.T).mean(axis=1)
    effects, effect_intervals = (
        effect_sizes(tests.differences),
        effect_size_intervals(tests.differences, seed=seed, level=level_beside_test(alpha)),
    )
    detectable = smallest_detectable_difference(tests.differences, level=alpha)
    return [
        PairComparison(
            first=int(a),
            second=int(b),
            n_queries=len(values),
            means=(float(means[a]), float(means[b])),
            difference=float(means[a] - means[b]),
            interval=(float(tests.intervals[pair, 0]), float(tests.intervals[pair, 1])),
            effect_size=float(effects[pair]),
            effect_interval=(float(effect_intervals[pair, 0]), float(effect_intervals[pair, 1])),
            p_value=float(tests.p_values[pair]),
            adjusted_p=float(tests.adjusted[pair]),
            wins=int(tests.wins[pair]),
            losses=int(tests.losses[pair]),
            ties=int(len(values) - tests.wins[pair] - tests.losses[pair]),
            detectable=float(detectable[pair]),
        )
        for pair, (a, b) in enumerate(zip(tests.first, tests.second, strict=True))
    ]


def most_moved(shared: SharedQueries, first: int, second: int, most: int) -> list[MovedQuery]:
    """List the queries on which two systems differ most, at most so many; of equal ones the earlier in the task first."""
    differences = np.abs(shared.values[:, first] - shared.values[:, second])
    # rounding must not decide the order of equal differences
    order = np.argsort(-np.round(differences, 9), kind="stable")[:most]
    texts = shared.column("query")
    return [
        MovedQuery(
            query_id=shared.query_ids[place],
            values=(float(shared.values[place, first]), float(shared.values[place, second])),
            text="" if texts is None else str(texts[place]),
        )
        for place in order
        if differences[place] > SAME_VALUE
    ]
