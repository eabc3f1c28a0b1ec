"""Tasks as objects of mteb, in memory, and what mteb's own evaluation makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.task_metadata import TaskMetadata
from numpy.typing import NDArray

from evalkit.records import Task

UNKNOWN = ("date", "domains", "task_subtypes", "license", "annotations_creators", "dialect", "sample_creation")


def metadata(name: str, **fields: Any) -> TaskMetadata:
    given = {"type": "Reranking", "category": "t2t", "modalities": ["text"], "eval_splits": ["test"]}
    given |= {"eval_langs": ["cmn-Hans"], "dataset": {"path": "local/none", "revision": "abc"}} | fields
    return TaskMetadata(
        name=name, description="made", reference=None, main_score="map_at_1000", bibtex_citation=None,
        **dict.fromkeys(UNKNOWN), **given,
    )  # fmt: skip


def mteb_task(task: Task, **fields: Any) -> AbsTaskRetrieval:
    """The task as mteb would have read it; `fields` are of its metadata."""
    given = metadata("EvalkitReranking", **fields)

    class InMemory(AbsTaskRetrieval):
        metadata = given

        def load_data(self, **_: Any) -> None:
            self.dataset = {"default": {"test": split_data(task)}}
            self.data_loaded = True

    return InMemory()


def split_data(task: Task) -> RetrievalSplitData:
    texts = {candidate.doc_id: candidate.text for request in task.requests for candidate in request.candidates}
    return RetrievalSplitData(
        corpus=Dataset.from_list([{"id": key, "title": "", "text": text} for key, text in texts.items()]),
        queries=Dataset.from_list([{"id": one.query.query_id, "text": one.query.texts[0]} for one in task.requests]),
        relevant_docs={
            one.query.query_id: {candidate.doc_id: candidate.gain for candidate in one.candidates}
            for one in task.requests
        },
        top_ranked={one.query.query_id: [candidate.doc_id for candidate in one.candidates] for one in task.requests},
    )


def mteb_predictions(model: Any, task: AbsTaskRetrieval, folder: Path, own: Task) -> NDArray[np.float32]:
    """The score that mteb.evaluate gives each candidate."""
    import mteb

    mteb.evaluate(model, task, cache=None, prediction_folder=folder, show_progress_bar=False, co2_tracker=False)
    content = json.loads(next(folder.rglob("*predictions.json")).read_text("utf-8"))["default"]["test"]
    return np.array(
        [content[one.query.query_id][candidate.doc_id] for one in own.requests for candidate in one.candidates],
        np.float32,
    )
