"""Many systems: their pairs, and the ranks that tests of the pairs leave open."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Whole = NDArray[np.intp]


def pairs_of(n_systems: int) -> tuple[Whole, Whole]:
    """List all pairs of systems: the first and the second ones, (0, 1) and (0, 2) before (1, 2)."""
    first, second = np.triu_indices(n_systems, k=1)
    return first, second


def average_differences(tasks: Sequence[Floats]) -> Floats:
    """Put several tasks' differences together so that the mean is the plain average of the tasks' means.

    `tasks` holds a float64[n_queries, n_comparisons] for each task; gives float64[all queries, n_comparisons]. A query
    of a small task weighs more, and flipping its sign moves the average by its share.
    """
    total = sum(len(differences) for differences in tasks)
    return np.vstack([differences * (total / (len(tasks) * len(differences))) for differences in tasks])


def rank_ranges(values: Floats, p_values: Floats, alpha: float) -> Whole:
    """Say which ranks each system may have: int[n_systems, 2], best and worst, 1 being the highest value's.

    `values` is float64[n_systems]; `p_values` holds those of `pairs_of(n_systems)`, adjusted for their number. A system
    is below all that are better by a difference with p < `alpha`, and above all that are so much worse.
    """
    n = len(values)
    first, second = pairs_of(n)
    told_apart = np.zeros((n, n), np.bool_)
    told_apart[first, second] = told_apart[second, first] = p_values < alpha
    above = told_apart & (values > values[:, None])
    below = told_apart & (values < values[:, None])
    return np.column_stack([1 + above.sum(axis=1), n - below.sum(axis=1)])
