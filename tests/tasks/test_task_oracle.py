"""mteb's own loaders are the reference for ids, order and texts."""

from __future__ import annotations

from typing import Any

import datasets
import pytest
from task_files import ROWS, load, mteb_parts, write_hub_parts, write_jsonl

from evalkit.records import Task

pytest.importorskip("mteb")


def _flat(task: Task) -> list[tuple[str, str, list[tuple[str, str, int]]]]:
    """Per query: id, text, candidates."""
    return [
        (r.query.query_id, r.query.texts[0], [(c.doc_id, c.text, c.gain) for c in r.candidates]) for r in task.requests
    ]


def _flat_mteb(split: Any) -> list[tuple[str, str, list[tuple[str, str, int]]]]:
    from mteb._create_dataloaders import _corpus_to_dict

    texts = {row["id"]: _corpus_to_dict(row)["text"] for row in split["corpus"]}
    return [
        (
            query["id"],
            query["text"],
            [(doc_id, texts[doc_id], split["relevant_docs"][query["id"]].get(doc_id, 0)) for doc_id in ranked],
        )
        for query in split["queries"]
        if (ranked := split["top_ranked"][query["id"]]) is not None
    ]


def test_rows_as_mteb_converts_them(tmp_path, monkeypatch):
    from mteb.abstasks import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.abstasks.text import reranking

    class OldRows(reranking.AbsTaskReranking):
        metadata = TaskMetadata(
            name="OldRows",
            description="rows",
            reference=None,
            dataset={"path": "local/rows", "revision": "main"},
            type="Reranking",
            category="t2t",
            modalities=["text"],
            eval_splits=["dev"],
            eval_langs=["cmn-Hans"],
            main_score="map_at_1000",
            date=None,
            domains=None,
            task_subtypes=None,
            license=None,
            annotations_creators=None,
            dialect=None,
            sample_creation=None,
            bibtex_citation=None,
        )

    monkeypatch.setattr(reranking, "OLD_FORMAT_RERANKING_TASKS", ["OldRows"])
    reference = OldRows()
    assert isinstance(reference, AbsTaskRetrieval)
    reference.transform_old_dataset_format({"default": {"dev": datasets.Dataset.from_list(ROWS)}})
    task = load(write_jsonl(tmp_path / "rows.jsonl", ROWS))
    kept = [row for row in _flat(task) if "_dropped" not in row[0]]
    assert len(kept) == 3
    assert kept == _flat_mteb(reference.dataset["default"]["dev"])


def test_parts_as_mteb_loads_them(tmp_path):
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalDatasetLoader

    parts = mteb_parts(ROWS)
    for row in parts["corpus"]:
        row["title"] = f"题{row['id'][:2]} " if "query1" in row["id"] else ""
        row["text"] += "  "
    parts["qrels"][0]["score"] = 2
    parts["qrels"].pop(2)  # ranked but not judged
    parts["queries"].insert(1, {"id": "stray", "text": "not judged"})
    parts["queries"].append(parts["queries"].pop(0))
    parts["top_ranked"].reverse()
    folder = write_hub_parts(tmp_path / "folder", parts)
    reference = RetrievalDatasetLoader(str(folder), revision="main", split="dev").load()
    assert _flat(load(folder)) == _flat_mteb(reference)
    assert load(folder).requests[-1].candidates[0].gain == 2
