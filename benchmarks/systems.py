"""The systems that are compared, each as its documentation says and at its best. A system is a call from texts to scores."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evalkit.evaluation.evaluate import load_model
from evalkit.records import Candidate, Query, Request, Task, TaskStatistics
from evalkit.scoring.engine import score_task

Pair = tuple[str, str]
Scores = Callable[[], np.ndarray]
PairScores = Callable[[Sequence[Pair]], np.ndarray]


def task_of_pairs(pairs: Sequence[Pair]) -> Task:
    """Return a task with one query per pair; only its texts matter here."""
    requests = tuple(
        Request(Query(f"q{number}", (query,)), (Candidate(f"d{number}", document, 1),))
        for number, (query, document) in enumerate(pairs)
    )
    return task_of(requests)


def task_of(requests: tuple[Request, ...]) -> Task:
    """Return a task around requests."""
    pairs = sum(len(request.candidates) for request in requests)
    statistics = TaskStatistics(len(requests), pairs, 0, 0, 0, 0, 0, 0, 0)
    return Task("benchmark", "benchmark", "test", (), "cmteb", "", "", "", statistics, requests=requests)


def evalkit_cross_encoder(folder: Path, backend: str, dtype: str, device: str = "cpu") -> PairScores:
    """evalkit, from the task to scores in the task's order, without the store."""
    model = load_model("local-cross-encoder", path=str(folder), backend=backend, dtype=dtype, device=device)
    _ = model.runnable.scorer
    return lambda pairs: score_task(model.runnable, model.settings, task_of_pairs(pairs)).scores


def evalkit_padded(folder: Path, dtype: str) -> PairScores:
    """Evalkit on a GPU, but with padding and PyTorch's general attention."""
    from unittest.mock import patch

    with patch("evalkit.backends.torch._runs_packed", return_value=False):
        return evalkit_cross_encoder(folder, "torch", dtype, "cuda")


def sentence_transformers_cross_encoder(
    folder: Path, dtype: torch.dtype, batch_size: int = 32, device: str = "cpu"
) -> PairScores:
    """CrossEncoder.predict, which sorts by length itself; batches of 32, as documented."""
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(folder), device=device, max_length=512, model_kwargs={"dtype": dtype})

    def call(pairs: Sequence[Pair]) -> np.ndarray:
        raw = torch.nn.Identity()
        scores = model.predict(list(pairs), batch_size=batch_size, activation_fn=raw, show_progress_bar=False)
        return np.asarray(scores)

    return call


class FlagRerankerCall:
    """FlagReranker.compute_score as documented (sorted, batches of 128, the first of which it runs twice as a probe)."""

    def __init__(self, folder: Path, batch_size: int = 128, device: str = "cpu", fp16: bool = False) -> None:
        from FlagEmbedding import FlagReranker

        self._reranker = FlagReranker(str(folder), use_fp16=fp16, devices=device, batch_size=batch_size)
        self._calls: list[float] = []
        self.probe_seconds: list[float] = []
        forward = self._reranker.model.forward

        def timed(*arguments: Any, **named: Any) -> Any:
            started = time.perf_counter()
            output = forward(*arguments, **named)
            self._calls.append(time.perf_counter() - started)
            return output

        self._reranker.model.forward = timed

    def __call__(self, pairs: Sequence[Pair]) -> np.ndarray:
        self._calls.clear()
        scores = np.asarray(self._reranker.compute_score([list(pair) for pair in pairs], normalize=False))
        self.probe_seconds.append(self._calls[0])
        return scores


def plain_openvino(folder: Path) -> PairScores:
    """OpenVINO as a short script drives it: the whole network, sorted batches of 1,024 tokens, a stream per processor."""
    import openvino
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    names = tokenizer.model_input_names
    converted = openvino.convert_model(network, example_input=dict(tokenizer(["问"], ["答"], return_tensors="pt")))
    cores = str(os.cpu_count())
    options = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": cores, "INFERENCE_NUM_THREADS": cores}
    queue = openvino.AsyncInferQueue(openvino.Core().compile_model(converted, "CPU", options), int(cores))

    def call(pairs: Sequence[Pair]) -> np.ndarray:
        encoded = tokenizer([q for q, _ in pairs], [d for _, d in pairs], truncation=True, max_length=512)
        lengths = [len(ids) for ids in encoded["input_ids"]]
        batches: list[list[int]] = [[]]
        for place in sorted(range(len(pairs)), key=lengths.__getitem__, reverse=True):
            if batches[-1] and (len(batches[-1]) + 1) * lengths[batches[-1][0]] > 1024:
                batches.append([])
            batches[-1].append(place)
        scores = np.empty(len(pairs), np.float32)
        queue.set_callback(lambda request, batch: scores.__setitem__(batch, request.get_output_tensor(0).data[:, 0]))
        for batch in batches:
            rows = {name: [encoded[name][place] for place in batch] for name in names}
            queue.start_async(dict(tokenizer.pad(rows, return_tensors="np")), batch)
        queue.wait_all()
        return scores

    return call


def evalkit_embedder(folder: Path, task: Task, backend: str) -> Scores:
    """Evalkit's evaluation of an embedder, from the task to its metrics, without the store."""
    from evalkit import evaluate

    model = load_model(
        "local-embedder",
        path=str(folder),
        backend=backend,
        pooling="mean",
        query_prompt="query: ",
        document_prompt="passage: ",
    )
    _ = model.runnable.scorer
    return lambda: evaluate(model, task, cache="off").candidates["score"].to_numpy()


def mteb_embedder(folder: Path, task: Task, work: Path, batch_size: int = 32) -> Scores:
    """mteb.evaluate with a SentenceTransformer, on the same task in memory; batches of 32, as documented."""
    import mteb
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", prompts={"query": "query: ", "document": "passage: "})
    number = 0

    def call() -> np.ndarray:
        nonlocal number
        number += 1
        predictions = work / f"mteb-{number}"
        mteb.evaluate(
            model,
            _mteb_task(task),
            encode_kwargs={"batch_size": batch_size},
            cache=None,
            prediction_folder=predictions,
            show_progress_bar=False,
            co2_tracker=False,
        )
        return _predictions(predictions, task)

    return call


def encode_embedder(folder: Path, texts: Sequence[str]) -> Scores:
    """SentenceTransformer.encode of passages, as documented."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")
    return lambda: model.encode(list(texts), prompt="passage: ", show_progress_bar=False)


def evalkit_encode(folder: Path, texts: Sequence[str], backend: str) -> Scores:
    """Evalkit's vectors of the same passages."""
    from evalkit.scoring.adapters import adapter_of
    from evalkit.scoring.execution import fill
    from evalkit.scoring.items import text_items
    from evalkit.scoring.outputs import OutputTable
    from evalkit.scoring.store import item_key

    model = load_model("local-embedder", path=str(folder), backend=backend, pooling="mean", document_prompt="passage: ")
    network = model.runnable.scorer
    items = text_items("document", texts)

    def call() -> np.ndarray:
        table = OutputTable([item_key(text) for text in texts], None)
        fill(table, items, adapter_of(network).batches(items, table.known))
        return table.values

    return call


def _mteb_task(task: Task) -> Any:
    from datasets import Dataset
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
    from mteb.abstasks.task_metadata import TaskMetadata

    unknown = ("date", "domains", "task_subtypes", "license", "annotations_creators", "dialect", "sample_creation")

    class InMemory(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name="EvalkitBenchmark",
            description="texts for timing",
            reference=None,
            type="Reranking",
            category="t2t",
            modalities=["text"],
            dataset={"path": "local/none", "revision": "none"},
            eval_splits=["test"],
            eval_langs=["cmn-Hans"],
            main_score="map_at_1000",
            bibtex_citation=None,
            **dict.fromkeys(unknown),
        )

        def load_data(self, **_: Any) -> None:
            candidates = {c.doc_id: c.text for request in task.requests for c in request.candidates}
            self.dataset = {
                "default": {
                    "test": RetrievalSplitData(
                        corpus=Dataset.from_list(
                            [{"id": key, "title": "", "text": text} for key, text in candidates.items()]
                        ),
                        queries=Dataset.from_list(
                            [{"id": r.query.query_id, "text": r.query.texts[0]} for r in task.requests]
                        ),
                        relevant_docs={
                            r.query.query_id: {c.doc_id: c.gain for c in r.candidates} for r in task.requests
                        },
                        top_ranked={r.query.query_id: [c.doc_id for c in r.candidates] for r in task.requests},
                    )
                }
            }
            self.data_loaded = True

    return InMemory()


def _predictions(folder: Path, task: Task) -> np.ndarray:
    import json

    content = json.loads(next(folder.rglob("*predictions.json")).read_text("utf-8"))
    run = content["default"]["test"]
    return np.array([run[r.query.query_id][c.doc_id] for r in task.requests for c in r.candidates], np.float32)


def reranking_task(queries: Sequence[str], documents: Sequence[str], repeated: float, candidates: int = 10) -> Task:
    """Return a task whose queries have `candidates` documents each, of which that share repeats a document of an earlier query."""
    repeats = round(len(documents) * repeated / (1 - repeated))
    texts = [*documents, *documents[:repeats]]
    requests = []
    for number, start in enumerate(range(0, len(texts) - candidates + 1, candidates)):
        chosen = [
            Candidate(f"d{start + i}", text, int(i == 0)) for i, text in enumerate(texts[start : start + candidates])
        ]
        requests.append(Request(Query(f"q{number}", (queries[number],)), tuple(chosen)))
    return replace(task_of(tuple(requests)), mteb_name="EvalkitBenchmark")
