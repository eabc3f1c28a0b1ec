"""Lucene's BM25 written out over words, one document at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence


def bm25_scores(query: Sequence[str], documents: Sequence[Sequence[str]], k1: float, b: float) -> list[float]:
    """Each document's score: over the query's words (one as often as it stands there), idf times saturated frequency."""
    average = sum(map(len, documents)) / len(documents)
    scores = []
    for document in documents:
        score = 0.0
        for word in query:
            having = sum(word in other for other in documents)
            frequency = document.count(word)
            rarity = math.log(1 + (len(documents) - having + 0.5) / (having + 0.5))
            score += rarity * frequency / (frequency + k1 * (1 - b + b * len(document) / average))
        scores.append(score)
    return scores
