"""Results of scores that a test chooses: written by `evaluate`, as any run's are, and changed afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from made_tasks import make_task
from numpy.typing import NDArray

from evalkit.evaluation.evaluate import evaluate, load_model
from evalkit.metrics.measures import all_measures, find_measure
from evalkit.records import Task
from evalkit.results.folders import result_folder
from evalkit.results.writing import write_result

CANDIDATES = 10
Scores = NDArray[np.float32]


def ranking_task(queries: int, name: str = "made") -> Task:
    """Two relevant among ten candidates for each query."""
    groups = [
        ([f"q{number}"], [(f"d{number}-{place}", int(place < 2)) for place in range(CANDIDATES)])
        for number in range(queries)
    ]
    return make_task(*groups, name=name)


def noisy_scores(task: Task, seed: int = 0) -> Scores:
    """What a fair scorer says: the label, and noise. Rows are queries: float32[n_queries, CANDIDATES]."""
    gains = [[candidate.gain for candidate in request.candidates] for request in task.requests]
    noise = np.random.default_rng(seed).normal(size=(len(gains), CANDIDATES))
    return (1.5 * np.array(gains) + noise).astype(np.float32)


def shuffled(scores: Scores, share: float, seed: int) -> Scores:
    """The same scores, given to the wrong candidates in this share of the queries."""
    generator = np.random.default_rng(seed)
    chosen = generator.choice(len(scores), round(share * len(scores)), replace=False)
    changed = scores.copy()
    changed[chosen] = generator.permuted(scores[chosen], axis=1)
    return changed


def write_scores(
    folder: Path, task: Task, scores: Scores, model: str = "scorer", protocol: str = "cmteb-v1", texts: bool = False
) -> Path:
    """Evaluate the scores as those of a model of this name, and give the JSON's path."""
    rows = [(request.query.query_id, candidate.doc_id) for request in task.requests for candidate in request.candidates]
    file = folder.with_name(f"{folder.name}-scores") / f"{model}.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows, columns=["query_id", "doc_id"]).assign(score=scores.ravel()).to_parquet(file)
    result = evaluate(load_model("run", path=file), task, protocol=protocol, texts=texts)
    return write_result(result, result_folder(folder, result.model, ""), with_texts=texts)


def table_of(path: Path, kind: str = "queries") -> Path:
    """A result's table of queries, or of candidates (`run`)."""
    return path.with_name(f"{path.name.removesuffix('.json')}.{kind}.parquet")


def change_table(path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], kind: str = "queries") -> None:
    """Change a table; the JSON gets the means of the new one."""
    table = change(pd.read_parquet(table_of(path, kind)))
    table.to_parquet(table_of(path, kind))
    if kind == "queries":
        means = {one.name: table[one.column].mean() for one in all_measures() if one.column in table}

        def with_means(content: dict) -> None:
            content["scores"]["test"][0].update(means)
            for name, ties in content["evalkit"]["ties"].items():
                column = find_measure(name).column
                ties.update({part: table[f"{column}_{part}"].mean() for part in ties if f"{column}_{part}" in table})

        change_json(path, with_means)


def change_json(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")
