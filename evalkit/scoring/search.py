"""Exact search: each query's nearest documents in a whole corpus of vectors, block by block, so that memory stays flat."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from evalkit.scoring.engine import similarities

QUERIES = 1_024
FIRST_DOCUMENTS, DOCUMENTS = 1_024, 16_384
HELD = 4_000_000
"""About how many (query, document) pairs a block of queries holds on to: with a large k a block has fewer queries."""
UNIT = 2.0**-24
"""What rounding to float32 can move a number by, as a share of it."""
Floats = NDArray[np.floating]


def nearest_documents(
    queries: NDArray[np.float32], documents: NDArray[np.float32], similarity: str, k: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Give for each query the numbers of its k nearest documents, and their similarities; shapes (queries, n), (documents, n).

    The similarities are those of `engine.similarities`, to the bit. Documents that are tied with the k-th one are given too, so
    that the caller can choose among them; the order is that of the numbers. Products in float32 only leave out what rounding can't
    have kept from the k nearest: the bound is that of any order of summation. No vector may have length zero where `similarity` is
    cosine.
    """
    rows = int(np.clip(HELD // max(1, k), 16, QUERIES))
    comparison = _comparison(documents, similarity)
    for start in range(0, len(queries), rows):
        block = queries[start : start + rows]
        held_rows, held_documents = _contenders(block, documents, comparison, min(k, len(documents)))
        scores = similarities(block, documents, np.stack([held_rows, held_documents], axis=1), similarity)
        ends = np.searchsorted(held_rows, np.arange(len(block) + 1))
        for first, end in pairwise(ends.tolist()):
            own = scores[first:end]
            last = len(own) - min(k, len(own))
            least = np.partition(own, last)[last]
            chosen = own >= least
            yield held_documents[first:end][chosen], own[chosen]


@dataclass(frozen=True)
class _Comparison:
    """How products in float32 stand for a similarity: `sizes` are the documents' lengths."""

    similarity: str
    sizes: NDArray[np.float32]

    def prepare(self, queries: NDArray[np.float32]) -> tuple[Floats, NDArray[np.float32]]:
        """Return what is multiplied with the documents, and per query the most that rounding can move a value by."""
        axis_sum = np.abs(queries.astype(np.float64)).sum(axis=1)
        lengths = np.linalg.norm(queries.astype(np.float64), axis=1)
        largest = float(self.sizes.max())
        steps = 1.01 * (queries.shape[1] + 16) * UNIT
        if self.similarity == "cosine":
            return (queries / lengths[:, None]).astype(np.float32), np.full(len(queries), steps, np.float32)
        if self.similarity == "dot":
            return queries, (steps * lengths * largest).astype(np.float32)
        if self.similarity == "euclidean":
            return queries, (2 * steps * (lengths + largest) ** 2).astype(np.float32)
        return queries.astype(np.float64), (4 * UNIT * (axis_sum + largest)).astype(np.float32)

    def values(
        self, prepared: Floats, documents: NDArray[np.float32], here: slice, out: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Compare a block: float32, shape (queries, documents), in the order of the similarity and written into `out`."""
        if self.similarity == "manhattan":
            from scipy.spatial.distance import cdist

            np.negative(cdist(prepared, documents[here].astype(np.float64), "cityblock"), out=out, casting="same_kind")
            return out
        np.matmul(prepared, documents[here].T, out=out)
        if self.similarity == "cosine":
            out /= self.sizes[here]
        elif self.similarity == "euclidean":  # the square of a distance, but for the query's own part
            out *= 2
            out -= self.sizes[here] ** 2
        return out


def _comparison(documents: NDArray[np.float32], similarity: str) -> _Comparison:
    order = 1 if similarity == "manhattan" else 2
    sizes = np.empty(len(documents), np.float32)
    for start in range(0, len(documents), DOCUMENTS):
        here = slice(start, start + DOCUMENTS)
        sizes[here] = np.linalg.norm(documents[here].astype(np.float64), ord=order, axis=1)
    return _Comparison(similarity, sizes)


def _contenders(
    queries: NDArray[np.float32], documents: NDArray[np.float32], comparison: _Comparison, k: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return all pairs (query, document) that may be among the k nearest, by query and document."""
    prepared, noise = comparison.prepare(queries)
    least = np.full(len(queries), -np.inf, np.float32)  # what may be among the k nearest is as high as that
    rows, columns = np.empty(0, np.int64), np.empty(0, np.int64)
    values = np.empty(0, np.float32)
    room = np.empty(len(queries) * min(DOCUMENTS, len(documents)), np.float32)
    start, width = 0, FIRST_DOCUMENTS
    while start < len(documents):
        here = slice(start, min(start + width, len(documents)))
        shape = len(queries), here.stop - start
        block = comparison.values(prepared, documents, here, room[: shape[0] * shape[1]].reshape(shape))
        if start == 0 and shape[1] >= k:
            least = np.partition(block, shape[1] - k, axis=1)[:, shape[1] - k] - 2 * noise
        new_rows, new_columns = np.divmod(np.flatnonzero(block >= least[:, None]), shape[1])
        rows, columns = np.concatenate([rows, new_rows]), np.concatenate([columns, new_columns + start])
        values = np.concatenate([values, block[new_rows, new_columns]])
        order = _best_first(rows, values)
        ends = np.searchsorted(rows[order], np.arange(len(queries) + 1))
        full = np.flatnonzero(np.diff(ends) >= k)
        least[full] = values[order[ends[full] + k - 1]] - 2 * noise[full]
        kept = order[values[order] >= least[rows[order]]]
        rows, columns, values = rows[kept], columns[kept], values[kept]
        start, width = here.stop, min(4 * width, DOCUMENTS)
    order = np.lexsort((columns, rows))
    return rows[order], columns[order]


def _best_first(rows: NDArray[np.int64], values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Sort by row, then by value, descending: by one whole number for both, which is several times as fast as two keys."""
    bits = values.view(np.int32)
    ascending = bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))  # negative numbers have their bits in the opposite order
    order: NDArray[np.int64] = np.argsort((rows << 32) - ascending.astype(np.int64))
    return order
