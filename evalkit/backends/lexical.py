"""BM25 over Chinese (and any other) words: jieba cuts, bm25s scores."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import bm25s
import jieba
import numpy as np
from numpy.typing import NDArray

from evalkit.machine import installed_version
from evalkit.models.interfaces import RunnableModel, Runtime
from evalkit.models.settings import ModelSettings
from evalkit.records import ModelIdentity, Task

jieba.setLogLevel(logging.WARNING)
K1, B = 1.5, 0.75


@dataclass(frozen=True)
class BM25:
    """A TaskScorer: Lucene's BM25, its statistics taken over the task's unique candidate texts."""

    k1: float = K1
    b: float = B

    def score_task(self, task: Task) -> NDArray[np.float32]:
        documents: dict[str, int] = {}
        for request in task.requests:
            for candidate in request.candidates:
                documents.setdefault(candidate.text, len(documents))
        index = self._index(list(documents))
        if index is None:
            return np.zeros(task.statistics.pairs, np.float32)
        scores = []
        for request in task.requests:
            rows = [documents[candidate.text] for candidate in request.candidates]
            scores.append(
                np.max([_all_scores(index, text, len(documents))[rows] for text in request.query.texts], axis=0)
            )
        return np.concatenate(scores).astype(np.float32)

    def search(
        self, queries: Sequence[str], documents: Sequence[str], k: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Give for each query the numbers of its k best of all distinct documents, those tied with the k-th too, and their scores.

        Documents that have no word of the query's are not found.
        """
        index = self._index(documents)
        for query in queries:
            scores = (
                np.zeros(len(documents), np.float32) if index is None else _all_scores(index, query, len(documents))
            )
            least = np.partition(scores, -k)[-k] if k < len(scores) else 0
            found = np.flatnonzero((scores >= least) & (scores > 0))
            yield found, scores[found].astype(np.float32)

    def _index(self, documents: Sequence[str]) -> bm25s.BM25 | None:
        """Index the documents; None where they hold no words, nothing but punctuation."""
        corpus = [words(text) for text in documents]
        if not any(corpus):
            return None
        index = bm25s.BM25(k1=self.k1, b=self.b, method="lucene")
        index.index(corpus, show_progress=False)
        return index


@cache
def _tokenizer() -> jieba.Tokenizer:
    """Return jieba with its own dictionary, and without its cache: that lies in the temporary folder, where anyone may put one."""
    tokenizer = jieba.Tokenizer()
    tokenizer.FREQ, tokenizer.total = tokenizer.gen_pfdict(tokenizer.get_dict_file())
    tokenizer.initialized = True
    return tokenizer


def words(text: str) -> list[str]:
    """Return the words of a text, in lower case, without white space and punctuation."""
    return [word for word in _tokenizer().cut(text.lower()) if any(character.isalnum() for character in word)]


def _all_scores(index: bm25s.BM25, query: str, documents: int) -> NDArray[np.float32]:
    known = [word for word in words(query) if word in index.vocab_dict]
    if not known:
        return np.zeros(documents, np.float32)
    scores: NDArray[np.float32] = index.get_scores(known)
    return scores


def prepare(settings: ModelSettings, runtime: Runtime) -> RunnableModel:
    """Return BM25, which has no weights to load; its version is its revision."""
    del runtime
    revision = f"bm25s-{installed_version('bm25s')}"
    identity = ModelIdentity(settings.name, f"local/{settings.name}", revision, settings.kind)
    description = {"name": "lexical", "k1": K1, "b": B, "tokenizer": f"jieba-{installed_version('jieba')}"}
    return RunnableModel(identity, description, None, BM25)
