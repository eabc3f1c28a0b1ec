"""The plan of the work: windows of items, and the batches of each window. It is the same whatever has its output already.

A local network's windows are tokenised ahead, sorted by length and packed into batches: a window is tokenised while the one before
it runs, so that the first batch starts soon and memory stays flat. A scorer that batches by itself gets a few items at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalkit.models.interfaces import Encoding, Items, LocalNetwork, TextWindow, TokenizedText

WINDOW_ITEMS = 2_048
CHUNK = 256  # items that a scorer that batches by itself gets sorted by length, a whole number of which make a window
CALL = 32  # items per call of such a scorer: what the libraries run at once; a killed run loses no more


@dataclass(frozen=True, slots=True)
class Batch:
    """The numbers of items that run together, and their inputs; none where the scorer tokenises by itself."""

    items: NDArray[np.int64]
    encodings: tuple[Encoding, ...] = ()

    @property
    def tokens(self) -> int:
        """Tokens without padding."""
        return sum(len(encoding.token_ids) for encoding in self.encodings)

    @property
    def padded_tokens(self) -> int:
        """Tokens that the network computes."""
        return len(self.encodings) * max(len(encoding.token_ids) for encoding in self.encodings)


@dataclass(frozen=True, slots=True)
class Window:
    """The encodings of consecutive items, the first of which has the number `start`."""

    start: int
    encodings: list[Encoding]


def encoded_windows(network: LocalNetwork, items: Items, known: NDArray[np.bool_]) -> Iterator[Window]:
    """Encode the windows that lack an output. Each text is tokenised once, and forgotten after its last item.

    `known`, shape (items,), says which items have their output. A window is encoded whole even if it lacks one output: its
    batches then have the shapes that they always have.
    """
    if items.lists is not None:
        raise TypeError("the items are whole lists: a network of single pairs can't score them")
    last_use = [np.zeros(len(texts), np.int64) for _, texts in items.sides]
    for column, uses in enumerate(last_use):
        np.maximum.at(uses, items.rows[:, column], np.arange(len(items)))
    tokenized: list[dict[int, TokenizedText]] = [{} for _ in items.sides]
    encode: Callable[..., Encoding] = network.encode_pair if len(items.sides) == 2 else network.encode_text

    def prepare(start: int) -> Window | None:
        window = items.rows[start : start + WINDOW_ITEMS]
        encodings = None
        if not known[start : start + WINDOW_ITEMS].all():
            inputs = []
            for (role, texts), column, there in zip(items.sides, window.T.tolist(), tokenized, strict=True):
                new = [text for text in dict.fromkeys(column) if text not in there]
                there.update(zip(new, network.tokenize([texts[text] for text in new], role), strict=True))
                inputs.append([there[text] for text in column])
            encodings = [encode(*item) for item in zip(*inputs, strict=True)]
        for column, uses, there in zip(window.T, last_use, tokenized, strict=True):
            for text in np.unique(column).tolist():
                if uses[text] < start + WINDOW_ITEMS:
                    there.pop(text, None)
        return None if encodings is None else Window(items.first + start, encodings)

    return _ahead(prepare, range(0, len(items), WINDOW_ITEMS))


def window_keys(keys: Sequence[bytes]) -> list[bytes]:
    """Return the items' keys in their windows: equal where an item has the same place in the same window.

    An item's batch, and so the last bits of its output, depends on the whole window: a run of the task's first queries may
    share its full windows with a run of the whole task, and its last one never.
    """
    found = []
    for start in range(0, len(keys), WINDOW_ITEMS):
        window = keys[start : start + WINDOW_ITEMS]
        context = hashlib.blake2b(b"".join(window), digest_size=len(window[0])).digest()
        found += [hashlib.blake2b(context + key, digest_size=len(key)).digest() for key in window]
    return found


def lacking_windows(items: Items, known: NDArray[np.bool_]) -> list[int]:
    """Return where the windows start that lack an output; a list is a window of its own."""
    starts = range(0, len(items), WINDOW_ITEMS) if items.lists is None else items.lists.tolist()
    return [start for start in starts if not known[start : _window_end(items, start)].all()]


def _window_end(items: Items, start: int) -> int:
    """Return where the window ends that starts there."""
    if items.lists is None:
        return min(start + WINDOW_ITEMS, len(items))
    following = int(np.searchsorted(items.lists, start, side="right"))
    return int(items.lists[following]) if following < len(items.lists) else len(items)


def whole_lists(items: Items, known: NDArray[np.bool_]) -> Iterator[Batch]:
    """Give each list that lacks an output as one batch. Raises TypeError where items are no lists."""
    if items.lists is None:
        raise TypeError("the items are single pairs or texts: a scorer of lists can't score them")
    for start in lacking_windows(items, known):
        yield Batch(items.first + np.arange(start, _window_end(items, start)))


def text_window(items: Items, known: NDArray[np.bool_], start: int) -> TextWindow | None:
    """Return the window that starts there, with each of its texts once; None where every item has its output."""
    here = slice(start, _window_end(items, start))
    if known[here].all():
        return None
    sides, columns = [], []
    for (role, texts), column in zip(items.sides, items.rows[here].T, strict=True):
        positions, rows = np.unique(column, return_inverse=True)
        sides.append((role, tuple(texts[position] for position in positions.tolist())))
        columns.append(rows)
    lists = None if items.lists is None else np.zeros(1, np.int64)
    return TextWindow(Items(tuple(sides), np.stack(columns, axis=1), items.first + start, lists), known[here].copy())


def chunks(items: Items, known: NDArray[np.bool_]) -> Iterator[Batch]:
    """Cut the windows that lack an output into the calls of a scorer that batches by itself, the longest texts of a chunk first."""
    lengths = [np.array([len(text) for text in texts], np.int64) for _, texts in items.sides]
    for window in lacking_windows(items, known):
        end = _window_end(items, window)
        for start in range(window, end, CHUNK):
            rows = items.rows[start : min(start + CHUNK, end)]
            total = sum(side[column] for side, column in zip(lengths, rows.T, strict=True))
            order = start + np.argsort(-total, kind="stable")
            for call in range(0, len(order), CALL):
                yield Batch(items.first + order[call : call + CALL])


def pack(encodings: Sequence[Encoding], first_item: int, batch_tokens: int) -> Iterator[Batch]:
    """Batches of a window's encodings, longest first, each within the token budget (a single input may exceed it)."""
    lengths = np.array([len(encoding.token_ids) for encoding in encodings])
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, batch_tokens // int(lengths[order[start]]))
        chosen = order[start : start + size]
        yield Batch(first_item + chosen, tuple(encodings[item] for item in chosen.tolist()))
        start += size


def _ahead(prepare: Callable[[int], Window | None], starts: Sequence[int]) -> Iterator[Window]:
    """`prepare` each window in a thread of its own, one window ahead of its use."""
    with ThreadPoolExecutor(1) as pool:
        upcoming = [pool.submit(prepare, start) for start in starts[:1]]
        for start in [*starts[1:], None]:
            if not upcoming:
                return
            window = upcoming.pop().result()
            if start is not None:
                upcoming.append(pool.submit(prepare, start))
            if window is not None:
                yield window
