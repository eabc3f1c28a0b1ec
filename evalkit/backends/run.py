"""Judges scores that were made elsewhere: a TREC run, JSON, or parquet (such as evalkit's own `*.run.parquet`)."""

from __future__ import annotations

import csv
import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evalkit.errors import EvalkitError
from evalkit.models.interfaces import RunnableModel, Runtime
from evalkit.models.settings import ModelSettings
from evalkit.records import ModelIdentity, RunDict, Task

TREC_COLUMNS = ["query_id", "q0", "doc_id", "rank", "score", "tag"]


@dataclass(frozen=True)
class StoredRun:
    """A TaskScorer that looks scores up by query id and document id."""

    path: Path
    run: RunDict

    def score_task(self, task: Task) -> NDArray[np.float64]:
        scores = []
        for request in task.requests:
            found = self.run.get(request.query.query_id, {})
            for candidate in request.candidates:
                if candidate.doc_id not in found:
                    raise EvalkitError(
                        f"{self.path} has no score for query {request.query.query_id!r}, document {candidate.doc_id!r} of task "
                        f"{task.name}; every candidate needs one (ids as in the task's own *.run.parquet)"
                    )
                scores.append(found[candidate.doc_id])
        return np.array(scores, np.float64)


def read_run(path: Path) -> RunDict:
    """Scores by query id and document id, from `.json`, `.parquet`, or else TREC's six columns.

    Raises EvalkitError for a wrong shape, a score that is no finite number, and a document scored twice.
    """
    if not path.is_file():
        raise EvalkitError(f"model.path={path}: there is no such file")
    try:
        if path.suffix == ".json":
            return _checked(path, json.loads(path.read_text(encoding="utf-8")))
        table = pd.read_parquet(path) if path.suffix == ".parquet" else _read_trec(path)
    except (ValueError, OSError) as error:
        raise EvalkitError(f"{path} is not a TREC run, JSON or parquet: {str(error).splitlines()[0]}") from error
    lacking = {"query_id", "doc_id", "score"} - set(table.columns)
    if lacking:
        raise EvalkitError(
            f"{path} lacks the columns {', '.join(sorted(lacking))}; it has {', '.join(map(str, table.columns))}"
        )
    twice = table.duplicated(["query_id", "doc_id"])
    if twice.any():
        row = int(np.argmax(twice.to_numpy()))
        raise EvalkitError(
            f"{path}, row {row + 1}: document {table['doc_id'].iloc[row]!r} is scored twice for one query"
        )
    run: dict[str, dict[str, float]] = {}
    for query_id, doc_id, score in zip(table["query_id"], table["doc_id"], table["score"], strict=True):
        run.setdefault(str(query_id), {})[str(doc_id)] = score
    return _checked(path, run)


def _read_trec(path: Path) -> pd.DataFrame:
    """The six columns; ids such as `NA` and `007` stay as they are, and a score that is no number stays text."""
    table = pd.read_csv(
        path, sep=r"\s+", names=TREC_COLUMNS, dtype=str, keep_default_na=False, index_col=False, quoting=csv.QUOTE_NONE
    )
    numbers = pd.to_numeric(table["score"], errors="coerce")
    return table.assign(score=numbers.astype(object).where(numbers.notna(), table["score"]))


def _checked(path: Path, run: object) -> RunDict:
    if not run:
        raise EvalkitError(f"{path} holds no scores")
    if not isinstance(run, dict) or not all(isinstance(found, dict) for found in run.values()):
        raise EvalkitError(f'{path} is not an object of the form {{"query id": {{"document id": score}}}}')
    for query_id, found in run.items():
        for doc_id, score in found.items():
            if not _is_finite(score):
                raise EvalkitError(
                    f"{path}: query {query_id!r}, document {doc_id!r} has the score {score!r}, not a finite number"
                )
    return run


def _is_finite(score: object) -> bool:
    if isinstance(score, bool) or not isinstance(score, int | float | np.number):
        return False
    try:
        return math.isfinite(score)
    except OverflowError:  # an integer beyond any float
        return False


def prepare(settings: ModelSettings, runtime: Runtime) -> RunnableModel:
    """Read the run that model.path names; its content's hash stands for its revision."""
    del runtime
    if not settings.path:
        raise EvalkitError("model=run needs model.path=FILE: a TREC run, JSON or parquet")
    path = Path(settings.path).expanduser()
    run = read_run(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    identity = ModelIdentity(path.stem, f"local/{path.stem}", digest[:12], settings.kind, digest)
    return RunnableModel(identity, {"name": "run"}, None, lambda: StoredRun(path, run))
