"""Scorers with a fault, behind the public interfaces, as models that doctor can examine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from evalkit.evaluation.evaluate import Model
from evalkit.models.interfaces import RunnableModel, Scorer
from evalkit.records import ModelIdentity, Role, Task

Pair = tuple[str, str]
DIMENSIONS = 24
PairScore = Callable[[Pair], float]


@dataclass(frozen=True)
class GivenModel(Model):
    """A model whose scorer is given."""

    scorer: Scorer = field(default=None, kw_only=True)

    @property
    def runnable(self) -> RunnableModel:
        identity = ModelIdentity("made", "local/made", "made", self.settings.kind)
        return RunnableModel(identity, {"name": "made"}, None, lambda: self.scorer)


def noise(pair: Pair) -> float:
    """Normal noise that belongs to the pair."""
    digest = hashlib.sha256("\0".join(pair).encode()).digest()
    return float(np.random.default_rng(int.from_bytes(digest[:8], "big")).normal())


def direction(name: str) -> NDArray[np.float64]:
    """A random vector that belongs to the name."""
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big")).normal(size=DIMENSIONS)


def informed(task: Task, strength: float = 2.0) -> PairScore:
    """A good model: the label, in noise."""
    gains = {
        (request.query.texts[0], candidate.text): candidate.gain
        for request in task.requests
        for candidate in request.candidates
    }
    return lambda pair: strength * gains[pair] + noise(pair)


@dataclass(frozen=True)
class Pairs:
    """A PairScorer: each pair's own score."""

    score_pair: PairScore

    def score(self, pairs: Sequence[Pair]) -> NDArray[np.float32]:
        return np.array([self.score_pair(pair) for pair in pairs], np.float32)


@dataclass(frozen=True)
class FirstOfQuery(Pairs):
    """The first document that comes with a query gets more."""

    def score(self, pairs: Sequence[Pair]) -> NDArray[np.float32]:
        queries = [None, *(query for query, _ in pairs)]
        first = np.array([query != before for (query, _), before in zip(pairs, queries, strict=False)])
        return super().score(pairs) + 3 * first.astype(np.float32)


@dataclass(frozen=True)
class LessAndLess(Pairs):
    """The later in a batch, the lower."""

    def score(self, pairs: Sequence[Pair]) -> NDArray[np.float32]:
        return super().score(pairs) - np.arange(len(pairs), dtype=np.float32) / 8


@dataclass(frozen=True)
class Centred(Pairs):
    """Scores less their batch's mean."""

    def score(self, pairs: Sequence[Pair]) -> NDArray[np.float32]:
        scores = super().score(pairs)
        return scores - scores.mean()


@dataclass(frozen=True)
class PromptedEmbedder:
    """A TextEmbedder that knows the labels of texts behind its prompts, and is noisy without."""

    task: Task
    query: str = "query: "
    document: str = "passage: "
    strength: float = 3.0

    def embed(self, texts: Sequence[str], role: Role) -> NDArray[np.float32]:
        return np.stack([self._vector(text, role) for text in texts])

    def _vector(self, text: str, role: Role) -> NDArray[np.float32]:
        prompt = self.query if role == "query" else self.document
        plain = text.removeprefix(prompt)
        strength = self.strength if text.startswith(prompt) else self.strength / 3
        vector = direction(plain)
        for query_id in self._subjects.get(plain, ()):
            vector = vector + strength * direction(query_id)
        return vector.astype(np.float32)

    @cached_property
    def _subjects(self) -> dict[str, set[str]]:
        """Which queries a text belongs to: its own, or those that it answers."""
        found: dict[str, set[str]] = {}
        for request in self.task.requests:
            relevant = [candidate.text for candidate in request.candidates if candidate.gain]
            for text in (*request.query.texts, *relevant):
                found.setdefault(text, set()).add(request.query.query_id)
        return found
