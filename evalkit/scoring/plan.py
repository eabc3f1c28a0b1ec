"""Orders a local network's work: windows of items, tokenised ahead, sorted by length, packed into batches.

A window is tokenised while the one before it runs, so that the first batch starts soon and memory stays flat.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalkit.models.interfaces import Encoding, LocalNetwork, TokenizedText
from evalkit.records import Role

WINDOW_ITEMS = 2_048
Lacks = Callable[[slice], bool]


@dataclass(frozen=True, slots=True)
class Batch:
    """Inputs that run together, and the numbers of their items."""

    items: NDArray[np.int64]
    encodings: tuple[Encoding, ...]

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


def pair_windows(
    network: LocalNetwork, queries: Sequence[str], documents: Sequence[str], pairs: NDArray[np.int64], lacks: Lacks
) -> Iterator[Window]:
    """The windows of pairs that lack an output. Each text is tokenised once, and forgotten after its last pair.

    A window is encoded whole even if it lacks one output: its batches then have the shapes that they always have.
    """
    last_use = [np.zeros(len(texts), np.int64) for texts in (queries, documents)]
    for column, uses in enumerate(last_use):
        np.maximum.at(uses, pairs[:, column], np.arange(len(pairs)))
    known: list[dict[int, TokenizedText]] = [{}, {}]
    sides: tuple[tuple[Sequence[str], Role], ...] = ((queries, "query"), (documents, "document"))

    def prepare(start: int) -> Window | None:
        window = pairs[start : start + WINDOW_ITEMS]
        encodings = None
        if lacks(slice(start, start + WINDOW_ITEMS)):
            for column, (texts, role) in enumerate(sides):
                new = [text for text in dict.fromkeys(window[:, column].tolist()) if text not in known[column]]
                known[column].update(zip(new, network.tokenize([texts[text] for text in new], role), strict=True))
            encodings = [
                network.encode_pair(known[0][query], known[1][document]) for query, document in window.tolist()
            ]
        for column, uses in enumerate(last_use):
            for text in np.unique(window[:, column]).tolist():
                if uses[text] < start + WINDOW_ITEMS:
                    known[column].pop(text, None)
        return None if encodings is None else Window(start, encodings)

    return _ahead(prepare, range(0, len(pairs), WINDOW_ITEMS))


def text_windows(network: LocalNetwork, texts: Sequence[str], role: Role, lacks: Lacks) -> Iterator[Window]:
    """The windows of texts that lack an output."""

    def prepare(start: int) -> Window | None:
        if not lacks(slice(start, start + WINDOW_ITEMS)):
            return None
        window = network.tokenize(texts[start : start + WINDOW_ITEMS], role)
        return Window(start, [network.encode_text(text) for text in window])

    return _ahead(prepare, range(0, len(texts), WINDOW_ITEMS))


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
