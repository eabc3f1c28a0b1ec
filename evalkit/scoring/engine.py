"""Scores a task with a model: unique work once, the results back in the task's order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import EvalkitError
from evalkit.models.interfaces import Encoding, LocalNetwork, PairScorer, Scorer, TaskScorer, TextEmbedder
from evalkit.models.settings import ModelSettings
from evalkit.records import Role, Run, Task, Usage
from evalkit.scoring.items import TaskTexts, best_of_variants, task_texts, unique_pairs
from evalkit.scoring.plan import pack, pair_windows, text_windows
from evalkit.scoring.progress import progress

CHUNK = 256  # items per call of a scorer that batches by itself, between two steps of the progress bar
SIMILARITY_ROWS = 8_192


@dataclass(frozen=True, slots=True)
class Outputs:
    """Per item: the score or vector; from a local network also the tokens read and whether text was cut."""

    values: NDArray[np.float32]
    tokens: NDArray[np.int32] | None = None
    truncated: NDArray[np.bool_] | None = None
    padded_tokens: int = 0


def score_task(scorer: Scorer, settings: ModelSettings, task: Task) -> Run:
    """The model's score for every candidate of the task.

    Raises EvalkitError, naming the texts, where a score or vector is not finite.
    """
    started = time.perf_counter()
    if isinstance(scorer, TaskScorer):
        scores = scorer.score_task(task)
        _refuse_non_finite(scores, lambda item: f"candidate {item + 1} of task {task.name}")
        return Run(scores, Usage(time.perf_counter() - started, len(scores)))
    texts = task_texts(task)
    if settings.kind == "cross-encoder":
        return _score_pairs(scorer, texts, started)
    return _score_vectors(scorer, settings, texts, started)


def _score_pairs(scorer: Scorer, texts: TaskTexts, started: float) -> Run:
    pairs, meeting_pairs = unique_pairs(texts)

    def name(item: int) -> str:
        query, document = pairs[item]
        return f"query {_short(texts.queries[query])} with document {_short(texts.documents[document])}"

    if isinstance(scorer, LocalNetwork):
        outputs = _run_network(scorer, pair_windows(scorer, texts.queries, texts.documents, pairs), len(pairs), "pair")
    else:
        outputs = _score_in_chunks(cast(PairScorer, scorer), texts, pairs)
    _refuse_non_finite(outputs.values, name)
    first = meeting_pairs[texts.starts]
    return Run(
        scores=best_of_variants(outputs.values[meeting_pairs], texts.starts),
        usage=_usage(started, [outputs]),
        tokens=None if outputs.tokens is None else outputs.tokens[first],
        truncated=None if outputs.truncated is None else outputs.truncated[first],
    )


def _score_vectors(scorer: Scorer, settings: ModelSettings, texts: TaskTexts, started: float) -> Run:
    queries = _embed(scorer, texts.queries, "query")
    documents = _embed(scorer, texts.documents, "document")
    scores = similarities(queries.values, documents.values, texts.meetings, cosine=settings.similarity == "cosine")
    of_candidate = texts.meetings[texts.starts, 1]
    return Run(
        scores=best_of_variants(scores, texts.starts),
        usage=_usage(started, [queries, documents]),
        tokens=None if documents.tokens is None else documents.tokens[of_candidate],
        truncated=None if documents.truncated is None else documents.truncated[of_candidate],
    )


def similarities(
    queries: NDArray[np.float32], documents: NDArray[np.float32], meetings: NDArray[np.int64], *, cosine: bool
) -> NDArray[np.float32]:
    """Cosine or dot product of each meeting's two vectors, summed in float64 so that equal texts score equally."""
    scores = np.empty(len(meetings), np.float32)
    for start in range(0, len(meetings), SIMILARITY_ROWS):
        rows = meetings[start : start + SIMILARITY_ROWS]
        left, right = queries[rows[:, 0]].astype(np.float64), documents[rows[:, 1]].astype(np.float64)
        products = np.einsum("ij,ij->i", left, right)
        if cosine:
            products /= np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
        scores[start : start + SIMILARITY_ROWS] = products
    return scores


def _embed(scorer: Scorer, texts: Sequence[str], role: Role) -> Outputs:
    unit = "query" if role == "query" else "document"
    if isinstance(scorer, LocalNetwork):
        outputs = _run_network(scorer, text_windows(scorer, texts, role), len(texts), unit)
    else:
        embedder = cast(TextEmbedder, scorer)
        with progress("embedding", len(texts), unit) as advance:
            chunks = []
            for start in range(0, len(texts), CHUNK):
                chunks.append(embedder.embed(texts[start : start + CHUNK], role))
                advance(len(chunks[-1]))
        outputs = Outputs(np.concatenate(chunks))
    _refuse_non_finite(outputs.values, lambda item: f"{unit} {_short(texts[item])}")
    return outputs


def _score_in_chunks(scorer: PairScorer, texts: TaskTexts, pairs: NDArray[np.int64]) -> Outputs:
    with progress("scoring", len(pairs), "pair") as advance:
        chunks = []
        for start in range(0, len(pairs), CHUNK):
            chunk = [(texts.queries[q], texts.documents[d]) for q, d in pairs[start : start + CHUNK].tolist()]
            chunks.append(scorer.score(chunk))
            advance(len(chunk))
    return Outputs(np.concatenate(chunks))


def _run_network(network: LocalNetwork, windows: Iterator[list[Encoding]], total: int, unit: str) -> Outputs:
    values: NDArray[np.float32] | None = None
    tokens, truncated, padded, first = np.zeros(total, np.int32), np.zeros(total, np.bool_), 0, 0
    with progress("scoring" if unit == "pair" else "embedding", total, unit) as advance:
        for window in windows:
            for batch in pack(window, first, network.batch_tokens):
                outputs = network.run(batch.encodings)
                if values is None:
                    values = np.empty((total, *outputs.shape[1:]), np.float32)
                values[batch.items] = outputs
                tokens[batch.items] = [len(encoding.token_ids) for encoding in batch.encodings]
                truncated[batch.items] = [encoding.truncated for encoding in batch.encodings]
                padded += batch.padded_tokens
                advance(len(batch.items))
            first += len(window)
    return Outputs(np.empty(0, np.float32) if values is None else values, tokens, truncated, padded)


def _usage(started: float, outputs: Sequence[Outputs]) -> Usage:
    tokens = sum(int(part.tokens.sum()) for part in outputs if part.tokens is not None)
    return Usage(
        seconds=time.perf_counter() - started,
        items=sum(len(part.values) for part in outputs),
        tokens=tokens,
        padding_tokens=sum(part.padded_tokens for part in outputs) - tokens,
        truncated_items=sum(int(part.truncated.sum()) for part in outputs if part.truncated is not None),
    )


def _refuse_non_finite(values: NDArray[np.float32], name: Callable[[int], str]) -> None:
    finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if not finite.all():
        item = int(np.argmin(finite))
        raise EvalkitError(
            f"the model's output is not a finite number for {int((~finite).sum())} of {len(values)} items, the first: "
            f"{name(item)}. NaN weights, or overflow in fp16: try dtype=bf16 or dtype=fp32"
        )


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")
