"""Parts of a task's queries: by their length, their number of candidates, their script, or whether text was cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalkit.compare.shared_queries import SharedQueries
from evalkit.errors import EvalkitError, unknown_name

_PARTS = 4


@dataclass(frozen=True)
class Slice:
    """A part of the queries: what it is cut by, its name, and bool[n_queries] of which belong to it."""

    by: str
    name: str
    members: NDArray[np.bool_]


def slice_queries(shared: SharedQueries, by: str) -> list[Slice]:
    """Cut the queries of a task; every query is in one slice.

    Lengths and numbers of candidates are cut at their quartiles, unless they have no more than four values. A query counts
    as truncated where any of the systems read one of its pairs cut. Gives nothing where no result has the column that is
    needed (`missing_slices`).
    """
    column, cut = _WAYS[by]
    return [Slice(by, name, members) for name, members in cut(shared, column) if members.any()]


def missing_slices(shared: SharedQueries, ways: Sequence[str]) -> list[str]:
    """Say which of the ways of cutting a task's results do not allow, and why."""
    return [
        f"{shared.of.task} is not cut by {by}: no result has the column {_WAYS[by][0]}"
        for by in ways
        if shared.column(_WAYS[by][0]) is None
    ]


def read_ways(texts: Sequence[str]) -> tuple[str, ...]:
    """Read the values of `--slice`, each a name or several with commas between. Raises EvalkitError for others."""
    names = [name.strip() for text in texts for name in text.split(",")]
    for name in names:
        if name not in _WAYS:
            raise EvalkitError(f"--slice: {unknown_name('slice', name, _WAYS)}")
    return tuple(dict.fromkeys(names))


Parts = list[tuple[str, NDArray[np.bool_]]]


def _by_quartiles(shared: SharedQueries, column: str) -> Parts:
    found = shared.column(column)
    if found is None:
        return []
    numbers = found.to_numpy()
    distinct = np.unique(numbers)
    uppers = distinct
    if len(distinct) > _PARTS:
        uppers = np.unique(np.quantile(numbers, np.arange(1, _PARTS + 1) / _PARTS, method="inverted_cdf"))
    part_of = np.searchsorted(uppers, numbers)
    return [(_span(numbers[part_of == part]), part_of == part) for part in range(len(uppers))]


def _by_name(shared: SharedQueries, column: str) -> Parts:
    found = shared.column(column)
    if found is None:
        return []
    return [(str(name), (found == name).to_numpy()) for name in sorted(found.unique())]


def _by_truncation(shared: SharedQueries, column: str) -> Parts:
    columns = [table[column].to_numpy() > 0 for table in shared.tables if column in table]
    if not columns:
        return []
    truncated = np.any(columns, axis=0)
    return [("truncated", truncated), ("whole", ~truncated)]


def _span(numbers: NDArray[np.int64]) -> str:
    low, high = int(numbers.min()), int(numbers.max())
    return str(low) if low == high else f"{low}–{high}"


# what --slice accepts: the column that is needed, and how it is cut
_WAYS: dict[str, tuple[str, Callable[[SharedQueries, str], Parts]]] = {
    "query-length": ("query_characters", _by_quartiles),
    "candidates": ("n_candidates", _by_quartiles),
    "language": ("query_script", _by_name),
    "truncation": ("truncated_pairs", _by_truncation),
}
