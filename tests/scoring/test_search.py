"""The k nearest documents of a whole corpus, found by blocks in float32, are those of float64's brute force, ties and all."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from evalkit.scoring.engine import similarities
from evalkit.scoring.search import nearest_documents

SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")
Vectors = NDArray[np.float32]


def brute_force(queries: Vectors, documents: Vectors, similarity: str) -> NDArray[np.float64]:
    """Every similarity in float64, by scipy."""
    left, right = queries.astype(np.float64), documents.astype(np.float64)
    if similarity == "dot":
        return left @ right.T
    if similarity == "cosine":
        return 1 - cdist(left, right, "cosine")
    return -cdist(left, right, {"euclidean": "euclidean", "manhattan": "cityblock"}[similarity])


def made(queries: int, documents: int, dimensions: int, kind: str) -> tuple[Vectors, Vectors]:
    draw = np.random.default_rng(5)
    left, right = draw.normal(size=(queries, dimensions)), draw.normal(size=(documents, dimensions))
    if kind == "near":  # closer together than products in float32 can tell
        left, right = 3 + 1e-4 * left, 3 + 1e-4 * right
    elif kind == "lengths":
        right *= np.exp(3 * draw.normal(size=(documents, 1)))
    elif kind == "twins":
        right[1::3] = right[::3][: len(right[1::3])]
    return left.astype(np.float32), right.astype(np.float32)


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("kind", ["plain", "near", "lengths", "twins"])
@pytest.mark.parametrize(("documents", "k"), [(7, 100), (1_500, 10), (6_000, 100), (1_500, 1_200)])
def test_nearest_are_brute_force_s(similarity: str, kind: str, documents: int, k: int) -> None:
    left, right = made(20, documents, 24, kind)
    whole = brute_force(left, right, similarity)
    found = list(nearest_documents(left, right, similarity, k))
    assert len(found) == len(left)
    for number, (numbers, scores) in enumerate(found):
        every = np.stack([np.full(documents, number), np.arange(documents)], axis=1)
        exact = similarities(left, right, every, similarity)
        np.testing.assert_allclose(exact, whole[number], rtol=1e-6, atol=1e-6)
        least = np.sort(exact)[-min(k, documents)]
        assert numbers.tolist() == np.flatnonzero(exact >= least).tolist()
        assert scores.tobytes() == exact[numbers].tobytes()


def test_blocks_of_any_number_find_the_same() -> None:
    """More queries and documents than a block has, against the documents in the opposite order."""
    left, right = made(1_100, 40_000, 4, "twins")
    there = list(nearest_documents(left, right, "cosine", 7))
    back = list(nearest_documents(left, right[::-1], "cosine", 7))
    assert len(there) == len(back) == 1_100
    for (numbers, scores), (turned, same) in zip(there, back, strict=True):
        assert numbers.tolist() == (39_999 - turned[::-1]).tolist()
        assert scores.tobytes() == same[::-1].tobytes()


def test_memory_does_not_grow_with_what_is_compared() -> None:
    def peak(queries: int, documents: int) -> int:
        left, right = made(queries, documents, 8, "plain")
        tracemalloc.start()
        for _ in nearest_documents(left, right, "dot", 100):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(3_000, 60_000) < 1.5 * peak(1_024, 20_000) < 300e6  # all 180 million would be 720 MB


def test_a_query_s_block_is_smaller_where_it_holds_more() -> None:
    left, right = made(40, 3_000, 8, "plain")
    found: list[Any] = list(nearest_documents(left, right, "cosine", 10**9))
    assert [len(numbers) for numbers, _ in found] == [3_000] * 40
