"""A reranking task run by mteb itself, on a folder in mteb 2's layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import datasets
import mteb
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata

UNSAID = (
    "reference",
    "date",
    "domains",
    "task_subtypes",
    "license",
    "annotations_creators",
    "dialect",
    "sample_creation",
    "bibtex_citation",
)


def evaluate_folder(
    model: Any, folder: Path, split: str, work: Path, first_stage: Path | None = None, top_k: int = 0
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """mteb's metrics by its names, and its scores by query and document. `work` takes mteb's own files.

    With `first_stage`, the `work` of another evaluation, the best documents of that one are reranked.
    """
    metadata = TaskMetadata(
        name="LocalReranking",
        description="A reranking dataset in a folder",
        type="Reranking",
        category="t2t",
        modalities=["text"],
        dataset={"path": str(folder), "revision": "main"},
        eval_splits=[split],
        eval_langs=["cmn-Hans"],
        main_score="map_at_1000",
        **dict.fromkeys(UNSAID),
    )
    task = type("LocalReranking", (AbsTaskRetrieval,), {"metadata": metadata})()
    # the common cache of `datasets` knows a folder by its name, whatever it holds by now
    with patch.object(datasets.config, "HF_DATASETS_CACHE", work / "datasets"):
        if first_stage is not None:
            task.convert_to_reranking(first_stage / "predictions", top_k)
        done = mteb.evaluate(
            model,
            task,
            cache=mteb.ResultCache(work / "cache"),
            overwrite_strategy="always",
            prediction_folder=work / "predictions",
            encode_kwargs={"batch_size": 16, "show_progress_bar": False},
            show_progress_bar=False,
            co2_tracker=False,
        )
    predictions = json.loads((work / "predictions" / "LocalReranking_predictions.json").read_text(encoding="utf-8"))
    return done.task_results[0].scores[split][0], predictions["default"][split]
