"""A window of the plan as texts, for a scorer in another process: what it holds, and how it is encoded there.

The windows are those of plan.py, item by item, so that their batches are the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evalkit.models.interfaces import LocalNetwork, TextWindow
from evalkit.records import Role
from evalkit.scoring.items import name_pair, name_text
from evalkit.scoring.plan import WINDOW_ITEMS, Lacks, Window


def lacking_windows(items: int, lacks: Lacks) -> list[int]:
    """Where the windows start that lack an output."""
    return [start for start in range(0, items, WINDOW_ITEMS) if lacks(slice(start, start + WINDOW_ITEMS))]


def pair_text_window(
    queries: Sequence[str],
    documents: Sequence[str],
    pairs: NDArray[np.int64],
    known: NDArray[np.bool_],
    start: int,
) -> TextWindow | None:
    """The window of pairs that starts there, with each of its texts once; None where every pair has its output."""
    here = slice(start, start + WINDOW_ITEMS)
    if known[here].all():
        return None
    sides, rows = [], []
    for column, texts in enumerate((queries, documents)):
        numbers, row = np.unique(pairs[here, column], return_inverse=True)
        sides.append(tuple(texts[number] for number in numbers.tolist()))
        rows.append(row)
    return TextWindow(start, sides[0], sides[1], np.stack(rows, axis=1), known[here].copy())


def role_text_window(texts: Sequence[str], role: Role, known: NDArray[np.bool_], start: int) -> TextWindow | None:
    """The same of texts in a role."""
    here = slice(start, start + WINDOW_ITEMS)
    if known[here].all():
        return None
    chosen = tuple(texts[here])
    return TextWindow(
        start, chosen if role == "query" else (), chosen if role == "document" else (), None, known[here].copy()
    )


def role_of(window: TextWindow) -> Role:
    """The role of a window of texts."""
    return "query" if window.queries else "document"


def encode_window(network: LocalNetwork, window: TextWindow) -> Window:
    """The window as plan.py has it: tokenised, encoded."""
    if window.pairs is None:
        tokenized = network.tokenize(window.queries or window.documents, role_of(window))
        return Window(window.start, [network.encode_text(text) for text in tokenized])
    queries = network.tokenize(window.queries, "query")
    documents = network.tokenize(window.documents, "document")
    encodings = [network.encode_pair(queries[query], documents[document]) for query, document in window.pairs.tolist()]
    return Window(window.start, encodings)


def name_item(window: TextWindow, item: int) -> str:
    """How messages name an item of the window, by its number in the plan."""
    row = item - window.start
    if window.pairs is None:
        return name_text(role_of(window), (window.queries or window.documents)[row])
    query, document = window.pairs[row].tolist()
    return name_pair(window.queries[query], window.documents[document])
