"""A first stage's run over a small corpus, and results that rerank it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from task_files import mteb_parts, write_hub_parts

import evalkit
from evalkit.results.result import Result

DEMO = Path(evalkit.__file__).parent / "tasks" / "demo"
QUERIES, HANDED_ON = 12, 30


def by_hash(pairs: Sequence[tuple[str, str]]) -> list[float]:
    """A score of each pair alone, some of them tied."""
    return [int(hashlib.sha256(f"{query}\n{text}".encode()).hexdigest()[:4], 16) % 500 / 10 for query, text in pairs]


def write_staged(folder: Path) -> tuple[Path, Path]:
    """Write a task whose queries share a corpus, and a first stage's run over it that ties at cuts and misses documents."""
    rows = [json.loads(line) for line in (DEMO / "zh2en.jsonl").read_text(encoding="utf-8").splitlines()][:QUERIES]
    parts = mteb_parts([row | {"negative": row["negative"][:4]} for row in rows], split="test")
    del parts["top_ranked"]
    task = write_hub_parts(folder / "corpus", parts, split="test")
    draw = np.random.default_rng(5)
    documents = [row["id"] for row in parts["corpus"]]
    relevant = {(row["query-id"], row["corpus-id"]) for row in parts["qrels"] if row["score"] > 0}
    lines = []
    for number, query in enumerate(row["id"] for row in parts["queries"]):
        for document in draw.permutation(documents)[: HANDED_ON - number]:
            score = round(float(draw.normal() + 1.5 * ((query, document) in relevant)), 1)
            lines.append(f"{query} Q0 {document} 0 {score} first")
    run = folder / "first.trec"
    run.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return task, run


def reranked(corpus: tuple[Path, Path], top_k: int | None = None) -> Result:
    task = evalkit.load_task(path=corpus[0], candidates=corpus[1], top_k=top_k)
    return evalkit.evaluate(evalkit.wrap(by_hash, kind="cross-encoder", name="hash", identity="1"), task, cache="off")
