"""The unique work of a task: each distinct pair, or each distinct text in its role, once.

Texts are numbered in order of their first appearance, so that work follows the task's order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalkit.models.interfaces import Items
from evalkit.records import Role, Task
from evalkit.scoring.store import item_key


@dataclass(frozen=True, slots=True)
class TaskTexts:
    """A task's distinct texts, and which of them meet.

    `meetings` has one row (query text, document text) for each text of a query and each of its candidates; rows that
    belong to one candidate stand together and start at `starts` (one start per candidate).
    """

    queries: tuple[str, ...]
    documents: tuple[str, ...]
    meetings: NDArray[np.int64]
    starts: NDArray[np.int64]


def task_texts(task: Task) -> TaskTexts:
    """Give each of the task's texts a number."""
    queries: dict[str, int] = {}
    documents: dict[str, int] = {}
    meetings: list[tuple[int, int]] = []
    starts: list[int] = []
    for request in task.requests:
        variants = [queries.setdefault(text, len(queries)) for text in request.query.texts]
        for candidate in request.candidates:
            document = documents.setdefault(candidate.text, len(documents))
            starts.append(len(meetings))
            meetings.extend((query, document) for query in variants)
    return TaskTexts(
        tuple(queries), tuple(documents), np.array(meetings, np.int64).reshape(-1, 2), np.array(starts, np.int64)
    )


def unique_pairs(texts: TaskTexts) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the distinct pairs, shape (pairs, 2), and for each meeting the number of its pair."""
    keys = texts.meetings[:, 0] * len(texts.documents) + texts.meetings[:, 1]
    distinct, meeting_pairs = np.unique(keys, return_inverse=True)
    return np.stack([distinct // len(texts.documents), distinct % len(texts.documents)], axis=1), meeting_pairs


def pair_items(texts: TaskTexts, pairs: NDArray[np.int64]) -> Items:
    """Return pairs of the task's texts, shape (pairs, 2), as items to score."""
    return Items((("query", texts.queries), ("document", texts.documents)), pairs)


def list_items(task: Task, texts: TaskTexts, seed: int, permutations: int) -> tuple[Items, NDArray[np.int64]]:
    """Return the task's distinct lists as items for a listwise model, and each candidate's items, shape (candidates, permutations).

    A list is a query with its candidates' distinct texts, so that candidates of one text get one score, in an order of
    `shown_order`; each query has as many lists as there are `permutations`. Equal lists in equal orders are one.
    """
    rows: list[tuple[int, int]] = []
    lists: dict[tuple[int, ...], int] = {}
    numbers = np.empty((len(texts.meetings), permutations), np.int64)
    end = 0
    for request in task.requests:
        start, end = end, end + len(request.candidates)
        if start == end:
            continue
        query, documents = int(texts.meetings[start, 0]), texts.meetings[start:end, 1]
        distinct = sorted(set(documents.tolist()), key=lambda number: texts.documents[number])
        listed = [texts.documents[number] for number in distinct]
        for permutation in range(permutations):
            shown = [distinct[place] for place in shown_order(texts.queries[query], listed, seed, permutation)]
            first = lists.setdefault((query, *shown), len(rows))
            if first == len(rows):
                rows += [(query, document) for document in shown]
            places = {document: first + place for place, document in enumerate(shown)}
            numbers[start:end, permutation] = [places[document] for document in documents.tolist()]
    sides: tuple[tuple[Role, Sequence[str]], ...] = (("query", texts.queries), ("document", texts.documents))
    starts = np.array(list(lists.values()), np.int64)
    return Items(sides, np.array(rows, np.int64).reshape(-1, 2), lists=starts), numbers


def shown_order(query: str, documents: Sequence[str], seed: int, permutation: int) -> list[int]:
    """Return the positions of a query's distinct documents in the order in which a listwise model is shown them: shuffled.

    The order follows from the seed, the permutation's number and the texts alone, whatever the order of `documents`; so neither a
    file's order nor the other queries have a part in it. It is the same in all versions of all libraries.
    """
    salt = item_key(str(seed), str(permutation), query, *sorted(documents)).hex()
    return sorted(range(len(documents)), key=lambda place: item_key(salt, documents[place]))


def text_items(role: Role, texts: Sequence[str]) -> Items:
    """Return distinct texts in a role as items to embed."""
    return Items(((role, texts),), np.arange(len(texts)).reshape(-1, 1))


def best_of_variants(values: NDArray[np.float32], starts: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
    """Per candidate the highest of its meetings' scores: a query of several texts scores by its best one."""
    best: NDArray[np.float32] = np.maximum.reduceat(values, starts)
    return best
