"""Orders a local network's work: windows of items, tokenised ahead, sorted by length, packed into batches.

A window is tokenised while the one before it runs, so that the first batch starts soon and memory stays flat.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from evalkit.models.interfaces import Encoding, LocalNetwork, TokenizedText
from evalkit.records import Role

WINDOW_ITEMS = 4_096
Prepared = TypeVar("Prepared")


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


def pair_windows(
    network: LocalNetwork, queries: Sequence[str], documents: Sequence[str], pairs: NDArray[np.int64]
) -> Iterator[list[Encoding]]:
    """Encodings of the pairs, window by window. Each text is tokenised once, and forgotten after its last pair."""
    last_use = {column: np.zeros(len(texts), np.int64) for column, texts in enumerate((queries, documents))}
    numbers = np.arange(len(pairs))
    for column, uses in last_use.items():
        np.maximum.at(uses, pairs[:, column], numbers)
    known: tuple[dict[int, TokenizedText], dict[int, TokenizedText]] = ({}, {})

    def prepare(start: int) -> list[Encoding]:
        window = pairs[start : start + WINDOW_ITEMS]
        sides: tuple[tuple[Sequence[str], Role], ...] = ((queries, "query"), (documents, "document"))
        for column, (texts, role) in enumerate(sides):
            new = [int(text) for text in dict.fromkeys(window[:, column].tolist()) if text not in known[column]]
            known[column].update(zip(new, network.tokenize([texts[text] for text in new], role), strict=True))
        encodings = [network.encode_pair(known[0][query], known[1][document]) for query, document in window.tolist()]
        for column in (0, 1):
            for text in np.unique(window[:, column]).tolist():
                if last_use[column][text] < start + WINDOW_ITEMS:
                    del known[column][text]
        return encodings

    return _ahead(prepare, range(0, len(pairs), WINDOW_ITEMS))


def text_windows(network: LocalNetwork, texts: Sequence[str], role: Role) -> Iterator[list[Encoding]]:
    """Encodings of the texts, window by window."""

    def prepare(start: int) -> list[Encoding]:
        window = network.tokenize(texts[start : start + WINDOW_ITEMS], role)
        return [network.encode_text(text) for text in window]

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


def _ahead(prepare: Callable[[int], Prepared], starts: Sequence[int]) -> Iterator[Prepared]:
    """`prepare` each window in a thread of its own, one window ahead of its use."""
    with ThreadPoolExecutor(1) as pool:
        upcoming = [pool.submit(prepare, start) for start in starts[:1]]
        for start in [*starts[1:], None]:
            current = upcoming.pop()
            if start is not None:
                window = current.result()
                upcoming.append(pool.submit(prepare, start))
                yield window
            else:
                yield current.result()
