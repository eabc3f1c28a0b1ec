"""How servers are asked: a field map each for those that rank a query's documents and for those that embed texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from evalkit.backends.parts import by_query
from evalkit.backends.servers.answers import by_index, member, numbers, vectors
from evalkit.backends.servers.client import Question


class PairCodec(Protocol):
    """Makes requests out of (query, document) pairs, each of at most `size` pairs."""

    def questions(self, model: str, pairs: Sequence[tuple[str, str]], size: int) -> Iterator[Question]: ...


@dataclass(frozen=True)
class RerankCodec:
    """One query and its documents per request; the answer is a list of index and score, in any order.

    The fields of the request are named by `model` (None where a server runs one), `query`, `documents` and `top` (how many results
    are wanted: all; None where it can't be said), those of the answer by `results` (None: the answer itself is the list) and
    `score`. `wishes` are sent with every request.
    `characters` is how many a request has at most, the query's counted once per document; a document too long for that goes alone.
    """

    path: str
    wishes: Mapping[str, Any]
    query: str = "query"
    documents: str = "documents"
    top: str | None = "top_n"
    results: str | None = "results"
    score: str = "relevance_score"
    model: str | None = "model"
    characters: int | None = None

    def questions(self, model: str, pairs: Sequence[tuple[str, str]], size: int) -> Iterator[Question]:
        """Yield the requests; pairs of one query go together, wherever they stand."""
        for positions in by_query(pairs, size, self.characters):
            body: dict[str, Any] = {
                **({self.model: model} if self.model else {}),
                self.query: pairs[positions[0]][0],
                self.documents: [pairs[position][1] for position in positions],
            }
            if self.top:
                body[self.top] = len(positions)
            yield Question(positions, self.path, {**body, **self.wishes}, self._reader(len(positions)))

    def _reader(self, count: int) -> Callable[[Any], NDArray[np.float32]]:
        def read(answer: Any) -> NDArray[np.float32]:
            entries = answer if self.results is None else member(answer, self.results)
            return numbers(by_index(entries, count, self.score))

        return read


@dataclass(frozen=True)
class Opened:
    """A codec that fits a server, with what was seen when it was found, and what a reader of its scores should know."""

    codec: PairCodec
    seen: tuple[str, ...]
    findings: tuple[str, ...] = ()


@dataclass(frozen=True)
class LateCodec:
    """A codec that depends on what the server can do, which `find` asks it."""

    find: Callable[[], Opened]


@dataclass(frozen=True)
class EmbeddingCodec:
    """Texts per request; `entries` finds as many vectors in the answer, in the order of the texts."""

    path: str
    entries: Callable[[Any, int], list[Any]]
    wishes: Mapping[str, Any] = field(default_factory=dict)
    texts: str = "input"
    model: str | None = "model"

    def questions(self, model: str, texts: Sequence[str], size: int, role: Mapping[str, str]) -> Iterator[Question]:
        """Yield the requests, each of at most `size` texts and the fields of `role`."""
        named = {self.model: model} if self.model else {}
        for start in range(0, len(texts), size):
            chosen = texts[start : start + size]
            body = {**named, self.texts: list(chosen), **self.wishes, **role}
            yield Question(np.arange(start, start + len(chosen)), self.path, body, self._reader(len(chosen)))

    def _reader(self, count: int) -> Callable[[Any], NDArray[np.float32]]:
        packed = self.wishes.get("encoding_format") == "base64"
        return lambda answer: vectors(self.entries(answer, count), packed=packed)


def openai_entries(answer: Any, count: int) -> list[Any]:
    """Return the vectors in an answer of OpenAI's shape. Raises WrongAnswerError where some are missing or doubled."""
    return by_index(member(answer, "data"), count, "embedding")
