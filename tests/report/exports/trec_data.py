"""A task with all that a run can hold: ties, graded gains, missed documents, ids in any script; and its result."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from command import run_here
from task_files import write_parts

DEPTH = 30


@dataclass(frozen=True)
class Made:
    task: Path
    results: Path

    @cached_property
    def queries(self) -> pd.DataFrame:
        return pd.read_parquet(next(self.results.rglob("*.queries.parquet"))).set_index("query_id")


def write_task(folder: Path, queries: int = 40, seed: int = 5) -> Path:
    """Ten to thirty candidates of sixty documents; some relevant documents are no candidates, some queries have none."""
    draw = np.random.default_rng(seed)
    corpus = [
        {"id": f"文档#{number}" if number % 3 else f"d{number}", "text": f"text {number}"} for number in range(60)
    ]
    doc_ids = [row["id"] for row in corpus]
    parts = {"corpus": corpus, "queries": [], "qrels": [], "top_ranked": []}
    for number in range(queries):
        query_id = f"q{number}" if number % 2 else f"问题{number}"
        chosen = draw.choice(doc_ids, int(draw.integers(10, DEPTH)), replace=False).tolist()
        missed = [one for one in doc_ids if one not in chosen][: int(draw.integers(0, 3))]
        judged = {one: int(draw.integers(0, 3)) for one in chosen[:8]} | dict.fromkeys(missed, 1)
        if number == 7:  # nothing relevant at all
            judged = dict.fromkeys(chosen[:4], 0)
        parts["queries"].append({"id": query_id, "text": f"query {number}"})
        parts["qrels"] += [{"query-id": query_id, "corpus-id": one, "score": gain} for one, gain in judged.items()]
        parts["top_ranked"].append({"query-id": query_id, "corpus-ids": chosen})
    return write_parts(folder, parts, "qrels.jsonl")


def make(folder: Path, protocol: str = "mteb-v2") -> Made:
    """Judge scores of which every other query's are rounded, so that many are tied."""
    task = write_task(folder / "任务")
    draw = np.random.default_rng(6)
    rows = [
        (query_id, doc_id, round(float(draw.normal()), 1 if query_id.startswith("q") else 9))
        for query_id, doc_ids in pd.read_json(task / "top_ranked.jsonl", lines=True).itertuples(index=False)
        for doc_id in doc_ids
    ]
    run = folder / "scored.parquet"
    pd.DataFrame(rows, columns=["query_id", "doc_id", "score"]).to_parquet(run)
    results = folder / "results"
    chosen = ("task=local", f"task.path={task}", "model=run", f"model.path={run}", f"protocol={protocol}")
    done = run_here(*chosen, f"results_dir={results}")
    assert done.code == 0, done.stderr
    return Made(task, results)
