"""Scores and vectors as the models' cards make them with transformers alone, the runs that are compared with them, and how."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

import evalkit

TOLERANCE = 1e-4


@cache
def _loaded(folder: Path, kind: Any) -> tuple[Any, Any]:
    return AutoTokenizer.from_pretrained(folder), kind.from_pretrained(folder).eval()


def reference_scores(folder: Path, pairs: Sequence[tuple[str, str]], max_length: int = 512) -> NDArray[np.float32]:
    """bge-reranker-base's card: logits of tokenised pairs, one by one, so that no padding is involved."""
    tokenizer, model = _loaded(folder, AutoModelForSequenceClassification)
    scores = []
    with torch.no_grad():
        for pair in pairs:
            inputs = tokenizer([list(pair)], truncation=True, max_length=max_length, return_tensors="pt")
            scores.append(model(**inputs).logits.view(-1).float())
    return torch.cat(scores).numpy()


def reference_vectors(folder: Path, texts: Sequence[str]) -> NDArray[np.float32]:
    """multilingual-e5-small's card: mean over the tokens, length one. The prompts are in the texts."""
    tokenizer, model = _loaded(folder, AutoModel)
    vectors = []
    with torch.no_grad():
        for text in texts:
            inputs = tokenizer(text, truncation=True, max_length=512, return_tensors="pt")
            vectors.append(torch.nn.functional.normalize(model(**inputs).last_hidden_state.mean(1), dim=1))
    return torch.cat(vectors).numpy()


def run_scores(results: Path, task: str) -> tuple[list[tuple[str, str]], NDArray[np.float32]]:
    """The pairs of the one result in that folder, and the scores that they got."""
    (path,) = results.rglob("*.run.parquet")
    run = pd.read_parquet(path)
    texts = {
        (request.query.query_id, candidate.doc_id): (request.query.texts[0], candidate.text)
        for request in evalkit.load_task(task).requests
        for candidate in request.candidates
    }
    pairs = [texts[query_id, doc_id] for query_id, doc_id in zip(run["query_id"], run["doc_id"], strict=True)]
    return pairs, run["score"].to_numpy(np.float32)


def assert_same_ranking(found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    """Scores within the tolerance, and no two in another order unless they nearly tie."""
    assert found.shape == expected.shape
    assert np.ptp(expected) > 100 * TOLERANCE  # else the agreement would say nothing
    np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)
    apart = np.abs(expected[:, None] - expected) > TOLERANCE
    flipped = np.sign(found[:, None] - found) != np.sign(expected[:, None] - expected)
    assert not (apart & flipped).any()
