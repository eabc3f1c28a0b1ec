"""Judges scores that were made elsewhere: a TREC run, JSON, or parquet (such as evalkit's own `*.run.parquet`)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import EvalkitError
from evalkit.models.interfaces import RunnableModel, Runtime
from evalkit.models.settings import ModelSettings
from evalkit.records import ModelIdentity, RunDict, Task
from evalkit.run_files import read_run

RUN_SUFFIX, LISTWISE = ".run.parquet", "listwise"


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


def prepare(settings: ModelSettings, runtime: Runtime) -> RunnableModel:
    """Read the run that model.path names; its content's hash stands for its revision."""
    del runtime
    if not settings.path:
        raise EvalkitError("model=run needs model.path=FILE: a TREC run, JSON or parquet")
    path = Path(settings.path).expanduser()
    file = read_run(path)
    identity = ModelIdentity(path.stem, f"local/{path.stem}", file.digest[:12], settings.kind, file.digest)
    return RunnableModel(identity, {"name": "run", **_scored_by(path)}, None, lambda: StoredRun(path, file.run))


def _scored_by(path: Path) -> dict[str, object]:
    """Return that the run is of a model that ranks whole lists, where the result of evalkit's that it belongs to says so."""
    result = path.with_name(path.name.removesuffix(RUN_SUFFIX) + ".json")
    if not path.name.endswith(RUN_SUFFIX) or not result.is_file():
        return {}
    try:
        block = json.loads(result.read_text(encoding="utf-8"))["evalkit"]
        listwise = block["model"]["kind"] == LISTWISE or block.get("backend", {}).get("scored_by") == LISTWISE
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # another file of that name, or a damaged one
        return {}
    return {"scored_by": LISTWISE} if listwise else {}
