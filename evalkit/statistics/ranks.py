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
    told_apart = _told_apart(n, p_values, alpha)
    above = told_apart & (values > values[:, None])
    below = told_apart & (values < values[:, None])
    return np.column_stack([1 + above.sum(axis=1), n - below.sum(axis=1)])


def not_told_from_best(values: Floats, p_values: Floats, alpha: float) -> NDArray[np.bool_]:
    """Say which systems no test tells from the one with the highest value (of equals, the first): bool[n_systems].

    That one is among them. Arguments as of `rank_ranges`. A system may be among them and yet be told from one that is not the
    best, where the two differ more steadily.
    """
    among: NDArray[np.bool_] = ~_told_apart(len(values), p_values, alpha)[int(np.argmax(values))]
    return among


def _told_apart(n: int, p_values: Floats, alpha: float) -> NDArray[np.bool_]:
    """Which systems are told from which: bool[n_systems, n_systems]."""
    first, second = pairs_of(n)
    told_apart = np.zeros((n, n), np.bool_)
    told_apart[first, second] = told_apart[second, first] = p_values < alpha
    return told_apart
