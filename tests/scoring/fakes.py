"""Scorers that remember what they were asked."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from evalkit.models.interfaces import Encoding, OutOfMemoryError, Part, QueryList, ScoredList, TokenizedText
from evalkit.records import Role, Task

PairScore = Callable[[str, str], float]
SEPARATOR = 0


def overlap(query: str, document: str) -> float:
    """A score that tells pairs apart: shared characters, and a little for each length."""
    return len(set(query) & set(document)) + len(query) / 64 - len(document) / 1024


@dataclass
class Pairs:
    """A PairScorer."""

    score_pair: PairScore = overlap
    calls: list[list[tuple[str, str]]] = field(default_factory=list)

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        self.calls.append(list(pairs))
        return np.array([self.score_pair(*pair) for pair in pairs], np.float32)


def listed(query: str, documents: Sequence[str]) -> list[float]:
    """A score that depends on the whole list, and on the place in it: the overlap less the list's mean, less a bit per place."""
    scores = [overlap(query, document) for document in documents]
    return [score - sum(scores) / len(scores) - place / 256 for place, score in enumerate(scores)]


def paired(query: str, documents: Sequence[str]) -> list[float]:
    """A score that depends on the pair alone."""
    return [overlap(query, document) for document in documents]


@dataclass
class Lists:
    """A ListScorer."""

    score_documents: Callable[[str, Sequence[str]], list[float]] = listed
    calls: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)

    def score_list(self, query: str, documents: Sequence[str]) -> ScoredList:
        self.calls.append((query, tuple(documents)))
        return ScoredList(np.float32(self.score_documents(query, documents)))


@dataclass
class ListParts:
    """A ListStream that answers the last list first."""

    calls: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)

    def score_lists(self, lists: Sequence[QueryList]) -> Generator[Part]:
        ends = np.cumsum([len(documents) for _, documents in lists])
        for (query, documents), end in reversed(list(zip(lists, ends.tolist(), strict=True))):
            self.calls.append((query, tuple(documents)))
            yield Part(np.arange(end - len(documents), end), np.float32(listed(query, documents)), 0.25)


@dataclass
class Vectors:
    """A TextEmbedder: how often each of 16 kinds of character occurs; documents at twice the length of queries."""

    calls: list[tuple[Role, list[str]]] = field(default_factory=list)

    def embed(self, texts: Sequence[str], role: Role) -> NDArray[np.float32]:
        self.calls.append((role, list(texts)))
        return np.stack([vector(text, role) for text in texts])


def vector(text: str, role: Role) -> NDArray[np.float32]:
    counts = np.bincount([1 + ord(character) % 15 for character in text] + [0], minlength=16).astype(np.float32)
    return counts * (1 if role == "query" else 2)


def in_parts(count: int) -> list[NDArray[np.int64]]:
    """Positions in groups of seven, in no order."""
    positions = np.random.default_rng(0).permutation(count)
    return [positions[start : start + 7] for start in range(0, count, 7)]


@dataclass
class PairParts:
    """A PairStream."""

    calls: list[list[tuple[str, str]]] = field(default_factory=list)

    def score_parts(self, pairs: Sequence[tuple[str, str]]) -> Generator[Part]:
        self.calls.append(list(pairs))
        for positions in in_parts(len(pairs)):
            yield Part(positions, np.float32([overlap(*pairs[position]) for position in positions]), 0.25)


@dataclass
class TextParts:
    """A TextStream."""

    calls: list[tuple[Role, list[str]]] = field(default_factory=list)

    def embed_parts(self, texts: Sequence[str], role: Role) -> Generator[Part]:
        self.calls.append((role, list(texts)))
        for positions in in_parts(len(texts)):
            yield Part(positions, np.stack([vector(texts[position], role) for position in positions]), 0.25)


class Whole:
    """A TaskScorer."""

    def score_task(self, task: Task) -> NDArray[np.float32]:
        return np.float32([
            max(overlap(text, candidate.text) for text in request.query.texts)
            for request in task.requests
            for candidate in request.candidates
        ])  # fmt: skip


@dataclass
class Network:
    """A LocalNetwork whose tokens are characters. It reads `max_length` of them and scores pairs as `overlap` does.

    `most_tokens`: a batch of more padded tokens runs out of memory.
    """

    batch_tokens: int = 64
    pads: bool = True
    parallel: int = 1
    max_length: int = 10_000
    score_pair: PairScore = overlap
    most_tokens: int = 10**9
    tokenized: list[tuple[Role, str]] = field(default_factory=list)
    batches: list[list[Encoding]] = field(default_factory=list)

    def tokenize(self, texts: Sequence[str], role: Role) -> list[TokenizedText]:
        if not texts:
            return []
        self.tokenized += [(role, text) for text in texts]
        return [TokenizedText(np.array([ord(c) for c in text], np.int32), len(text)) for text in texts]

    def encode_pair(self, query: TokenizedText, document: TokenizedText) -> Encoding:
        ids = np.concatenate([query.token_ids, [SEPARATOR], document.token_ids]).astype(np.int32)
        return Encoding(ids[: self.max_length], None, len(ids) > self.max_length)

    def encode_text(self, text: TokenizedText) -> Encoding:
        ids = np.concatenate([[SEPARATOR], text.token_ids]).astype(np.int32)
        return Encoding(ids[: self.max_length], None, len(ids) > self.max_length)

    def run(self, batch: Sequence[Encoding]) -> NDArray[np.float32]:
        if len(batch) * max(len(encoding.token_ids) for encoding in batch) > self.most_tokens:
            raise OutOfMemoryError("no room")
        self.batches.append(list(batch))
        texts = ["".join(chr(token) for token in encoding.token_ids) for encoding in batch]
        if texts[0].startswith(chr(SEPARATOR)):
            return np.stack([vector(text[1:], "query") for text in texts])
        return np.array([self.score_pair(*text.split(chr(SEPARATOR), 1)) for text in texts], np.float32)
