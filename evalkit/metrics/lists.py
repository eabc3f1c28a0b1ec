"""Every query's candidates as flat arrays: what the formulas and protocols work on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evalkit.errors import EvalkitError
from evalkit.output.numbers import counted
from evalkit.records import Task


@dataclass(frozen=True, eq=False)
class CandidateLists:
    """The candidates of all queries, query by query, each query's in the file's order.

    Query `i` owns the candidates `offsets[i]:offsets[i + 1]`. `scores` are what a model said (a float32 is held
    exactly), `gains` the graded relevance; a gain of 0 or less is irrelevant. `unretrieved_gains` are, per query, the
    positive gains of judged documents that are not among the candidates. `noise` is how far each score may lie off, either
    way (0: exact); None where that is not known.
    """

    query_ids: tuple[str, ...]
    doc_ids: NDArray[np.object_]
    scores: NDArray[np.float64]
    gains: NDArray[np.int64]
    offsets: NDArray[np.int64]
    unretrieved_gains: tuple[tuple[int, ...], ...]
    noise: NDArray[np.float64] | None = None

    def __repr__(self) -> str:
        """Name the numbers of queries and candidates, whatever they are."""
        return f"CandidateLists({counted(len(self.query_ids), 'query')}, {counted(len(self.scores), 'candidate')})"

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Candidates of each query."""
        return np.diff(self.offsets)

    @cached_property
    def owners(self) -> NDArray[np.int64]:
        """The number of the query that each candidate belongs to."""
        return np.repeat(np.arange(len(self.query_ids)), self.lengths)

    @cached_property
    def scores32(self) -> NDArray[np.float32]:
        """The scores in the model's own type, in which ties are told."""
        with np.errstate(over="ignore"):  # beyond float32 all is infinite, and tied: so it is for trec_eval
            return self.scores.astype(np.float32)

    @cached_property
    def positives(self) -> NDArray[np.int64]:
        """Relevant candidates of each query."""
        return np.bincount(self.owners[self.gains > 0], minlength=len(self.query_ids))

    @cached_property
    def doc_id_places(self) -> NDArray[np.int64]:
        """Places of the document ids in descending order, for candidates that are tied (in float32); 0 for the others.

        Python orders strings by code point, trec_eval by bytes of UTF-8: the two orders are the same.
        """
        order = np.lexsort((self.scores32, self.owners))
        scores = self.scores32[order]
        same = (scores[1:] == scores[:-1]) & (self.owners[1:] == self.owners[:-1])
        tied = order[np.concatenate([same, [False]]) | np.concatenate([[False], same])]
        doc_ids = self.doc_ids[tied].tolist()
        place_of = {doc_id: place for place, doc_id in enumerate(sorted(set(doc_ids), reverse=True))}
        places = np.zeros(len(self.doc_ids), dtype=np.int64)
        places[tied] = [place_of[doc_id] for doc_id in doc_ids]
        return places

    @cached_property
    def unretrieved(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The unretrieved gains, flat: the number of the query, and the gain."""
        counts = np.fromiter(map(len, self.unretrieved_gains), dtype=np.int64, count=len(self.query_ids))
        gains = np.fromiter(chain.from_iterable(self.unretrieved_gains), dtype=np.int64, count=int(counts.sum()))
        return np.repeat(np.arange(len(self.query_ids)), counts), gains


def candidate_lists(
    query_ids: Sequence[str],
    lengths: Iterable[int],
    doc_ids: Sequence[str],
    scores: ArrayLike,
    gains: ArrayLike,
    unretrieved_gains: Iterable[tuple[int, ...]],
) -> CandidateLists:
    """Put lists together. Raises EvalkitError where a score is not finite (it is named) or 64 bits can't hold a gain."""
    labels = np.asarray(gains)
    if labels.dtype.kind == "f" and not (np.abs(labels) < 2.0**63).all():
        raise EvalkitError("A label is NaN or beyond 64 bits: is the table damaged?")
    names = np.empty(len(doc_ids), dtype=object)
    names[:] = doc_ids
    lists = CandidateLists(
        query_ids=tuple(query_ids),
        doc_ids=names,
        scores=np.asarray(scores, dtype=np.float64),
        gains=labels.astype(np.int64),
        offsets=np.cumsum([0, *lengths], dtype=np.int64),
        unretrieved_gains=tuple(unretrieved_gains),
    )
    wrong = np.flatnonzero(~np.isfinite(lists.scores))
    if wrong.size:
        first = int(wrong[0])
        raise EvalkitError(
            f"The score of document {doc_ids[first]!r} for query {lists.query_ids[lists.owners[first]]!r} is "
            f"{lists.scores[first]} ({wrong.size} such in all): give every candidate a finite score."
        )
    return lists


def lists_of_task(task: Task, scores: NDArray[np.float32] | NDArray[np.float64]) -> CandidateLists:
    """Take a task's candidates with a model's scores for them (one per candidate, in the task's order).

    Raises `EvalkitError` where there are more or fewer scores than candidates, or a score is NaN or infinite.
    """
    requests = task.requests
    candidates = [candidate for request in requests for candidate in request.candidates]
    if np.shape(scores) != (len(candidates),):
        raise EvalkitError(
            f"Task {task.name} has {len(candidates)} candidates, but the scores have shape {np.shape(scores)}: "
            "give one score per candidate, in the task's order."
        )
    return candidate_lists(
        query_ids=[request.query.query_id for request in requests],
        lengths=[len(request.candidates) for request in requests],
        doc_ids=[candidate.doc_id for candidate in candidates],
        scores=scores,
        gains=[candidate.gain for candidate in candidates],
        unretrieved_gains=[tuple(gain for gain in request.unretrieved_gains if gain > 0) for request in requests],
    )


def with_noise(lists: CandidateLists, noise: ArrayLike) -> CandidateLists:
    """Say how far each score may lie off, either way: one number of 0 or more, or one per candidate.

    Raises ValueError where there are more or fewer, and for what is negative or NaN. Infinity is a score that says nothing.
    """
    amounts = np.broadcast_to(np.asarray(noise, dtype=np.float64), lists.scores.shape)
    if not (amounts >= 0).all():
        raise ValueError("noise is 0 or more for every candidate")
    return replace(lists, noise=amounts)


def best_possible(lists: CandidateLists) -> CandidateLists:
    """Order every query's candidates by their gains: no reranker can do better."""
    return replace(lists, scores=lists.gains.astype(np.float64), noise=None)


def without_repetitions(lists: CandidateLists) -> CandidateLists:
    """Keep each document once per query, at its first place."""
    import pandas as pd  # which readers of figures do without

    repeated = pd.DataFrame({"query": lists.owners, "document": lists.doc_ids}).duplicated().to_numpy()
    if not repeated.any():
        return lists
    return candidates_kept(lists, ~repeated)


def candidates_kept(lists: CandidateLists, kept: NDArray[np.bool_]) -> CandidateLists:
    """Leave some candidates out, bool[n_candidates] says which stay; queries and what was unretrieved stay as they are."""
    lengths = np.bincount(lists.owners[kept], minlength=len(lists.query_ids))
    return replace(
        lists,
        doc_ids=lists.doc_ids[kept],
        scores=lists.scores[kept],
        gains=lists.gains[kept],
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        noise=None if lists.noise is None else lists.noise[kept],
    )


def candidates_cut(lists: CandidateLists, kept: NDArray[np.bool_]) -> CandidateLists:
    """Leave some candidates out, bool[n_candidates] says which stay; the relevant ones among the others are missed."""
    missed: list[list[int]] = [[] for _ in lists.query_ids]
    lost = ~kept & (lists.gains > 0)
    for query, gain in zip(lists.owners[lost].tolist(), lists.gains[lost].tolist(), strict=True):
        missed[query].append(gain)
    unretrieved = tuple((*gains, *more) for gains, more in zip(lists.unretrieved_gains, missed, strict=True))
    return replace(candidates_kept(lists, kept), unretrieved_gains=unretrieved)
