"""Real models through the command line, against mteb, scikit-learn, transformers and sentence-transformers themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from command import run_here
from oracles.metric_references import cmteb_v1_values
from oracles.mteb_reference import evaluate_folder
from sentence_transformers import CrossEncoder, SentenceTransformer
from task_files import Rows, mteb_parts, write_hub_parts, write_jsonl
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import evalkit.tasks

# the reference system; that others agree with it is for the tests of backends
TORCH = "backend=torch"
DEMO = Path(evalkit.tasks.__file__).parent / "demo"
E5_RECIPE = ("model.query_prompt='query: '", "model.document_prompt='passage: '", "model.pooling=mean")


def demo_rows(name: str) -> Rows:
    """A bundled task's rows, each with half of its negatives: a real network takes its time."""
    rows = [json.loads(line) for line in (DEMO / name).read_text(encoding="utf-8").splitlines()]
    return [row | {"negative": row["negative"][:4]} for row in rows]


def odd_parts() -> dict[str, Rows]:
    """What only mteb 2's layout can say: titles, grades, shared documents, a missed one, queries that can't be scored."""
    parts = mteb_parts(demo_rows("zh2en.jsonl")[:8], split="test")
    for row in parts["corpus"][::3]:
        row["title"] = "标题 title"
    queries = [row["id"] for row in parts["queries"]]
    ranked = {row["query-id"]: row["corpus-ids"] for row in parts["top_ranked"]}
    positive = next(row for row in parts["qrels"] if row["query-id"] == queries[0] and row["score"])
    positive["score"] = 3
    # the fifth query borrows documents of the fourth, and a positive of the sixth was not retrieved
    ranked[queries[4]].extend(ranked[queries[3]][:3])
    ranked[queries[5]].remove(
        next(row["corpus-id"] for row in parts["qrels"] if row["query-id"] == queries[5] and row["score"])
    )
    # nothing is relevant to the seventh, everything to the eighth
    for row in parts["qrels"]:
        if row["query-id"] in queries[6:]:
            row["score"] = int(row["query-id"] == queries[7])
    return parts


def read_one(results: Path) -> tuple[dict[str, Any], pd.DataFrame, pd.DataFrame]:
    """The JSON's scores, the candidates and the queries of the only result in a folder."""
    (table,) = results.rglob("*.run.parquet")
    stem = str(table).removesuffix(".run.parquet")
    content = json.loads(Path(f"{stem}.json").read_text(encoding="utf-8"))
    ((scores,),) = content["scores"].values()
    return scores, pd.read_parquet(table), pd.read_parquet(f"{stem}.queries.parquet")


def assert_agrees_with_mteb(
    scores: dict[str, Any], table: pd.DataFrame, reference: Any, parts: dict[str, Rows]
) -> None:
    metrics, predictions = reference
    for name in ("map_at_1000", "mrr_at_10", "ndcg_at_10", "recall_at_5"):
        assert scores[name] == pytest.approx(metrics[name], abs=1e-4), name
    theirs = np.array([predictions[q][d] for q, d in zip(table["query_id"], table["doc_id"], strict=True)])
    assert sum(map(len, predictions.values())) == len(table)
    np.testing.assert_allclose(table["score"], theirs, atol=1e-5)
    # C-MTEB's definition on mteb's scores, positives first as its rows have them
    gains: dict[str, dict[str, int]] = {}
    for row in parts["qrels"]:
        gains.setdefault(row["query-id"], {})[row["corpus-id"]] = row["score"]
    judged = [cmteb_v1_values(predictions[query_id], gains[query_id]) for query_id in predictions]
    means = np.mean([values for values in judged if values is not None], axis=0)
    assert [scores["map"], scores["mrr"]] == pytest.approx(means.tolist(), abs=1e-6)


def test_embedder_agrees_with_mteb_in_both_layouts(
    e5_small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows, parts = demo_rows("en2zh.jsonl"), odd_parts()
    row_parts = mteb_parts(rows, split="test")
    folders = {
        "in rows": write_jsonl(tmp_path / "in rows" / "test.jsonl", rows).parent,
        "四 configs [a=b]": write_hub_parts(tmp_path / "四 configs [a=b]", parts, split="test"),
    }
    # mteb can't read from a folder with brackets in its name
    references = {
        "in rows": write_hub_parts(tmp_path / "rows as parts", row_parts, split="test"),
        "四 configs [a=b]": write_hub_parts(tmp_path / "parts", parts, split="test"),
    }
    for name, folder in folders.items():
        done = run_here(
            "task=local",
            f"task.path={folder}",
            "model=local-embedder",
            TORCH,
            f"model.path={e5_small}",
            *E5_RECIPE,
            f"results_dir={tmp_path / 'results' / name}",
        )
        assert done.code == 0, done.stderr

    model = SentenceTransformer(str(e5_small), prompts={"query": "query: ", "document": "passage: "}, device="cpu")
    of_rows, of_parts = (
        evaluate_folder(model, folder, "test", tmp_path / "mteb" / name) for name, folder in references.items()
    )

    scores, table, _ = read_one(tmp_path / "results" / "in rows")
    assert_agrees_with_mteb(scores, table, of_rows, row_parts)
    scores, table, queries = read_one(tmp_path / "results" / "四 configs [a=b]")
    assert_agrees_with_mteb(scores, table, of_parts, parts)
    assert queries["ap"].isna().sum() == 2
    assert 0.3 < of_parts[0]["map_at_1000"] < 1  # a comparison that random scores would not pass


def test_cross_encoder_gives_raw_logits(tiny_reranker: Path, tmp_path: Path) -> None:
    done = run_here(
        "task=demo-zh2en",
        "model=local-cross-encoder",
        TORCH,
        f"model.path={tiny_reranker}",
        "texts=true",
        f"results_dir={tmp_path}",
    )
    assert done.code == 0, done.stderr
    _, table, queries = read_one(tmp_path)
    (path,) = tmp_path.rglob("*.run.parquet")
    assert path.parts[-3:-1] == ("experiments", "backend-torch")
    texts = dict(zip(queries["query_id"], queries["query"], strict=True))
    pairs = [(texts[query_id], text) for query_id, text in zip(table["query_id"], table["text"], strict=True)]

    tokenizer = AutoTokenizer.from_pretrained(tiny_reranker)
    classifier = AutoModelForSequenceClassification.from_pretrained(tiny_reranker).eval()
    with torch.inference_mode():
        plain = [
            classifier(**tokenizer([pair], truncation=True, max_length=512, return_tensors="pt")).logits.item()
            for pair in pairs
        ]
    sentence = CrossEncoder(str(tiny_reranker), activation_fn=torch.nn.Identity(), device="cpu").predict(pairs)

    assert len(pairs) == 160
    assert np.std(plain) > 2e-3  # scores that differ by far more than the tolerance
    np.testing.assert_allclose(table["score"], plain, atol=1e-5, rtol=0)
    np.testing.assert_allclose(table["score"], sentence, atol=1e-5, rtol=0)
