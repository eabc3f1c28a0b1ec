"""What a store is asked and told in tests: the engine on a made task, with a store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from fakes import overlap
from made_tasks import make_task
from numpy.typing import NDArray

from evalkit.models.interfaces import RunnableModel, Scorer
from evalkit.models.settings import model_settings
from evalkit.records import ModelIdentity, Run, Task
from evalkit.scoring.engine import ScoreMemory, score_task
from evalkit.scoring.store import ScoreStore, open_store

TASK = make_task(*(([f"问题{q}"], [(f"答案{q}-{d}" * (1 + d % 3), d % 2) for d in range(20)]) for q in range(20)))
WAY: Mapping[str, Any] = {"model": "local/made", "weights_hash": "ab" * 32}


def score(
    folder: Path,
    scorer: Scorer,
    task: Task = TASK,
    *,
    kind: str = "cross-encoder",
    refresh: bool = False,
    independent: bool = False,
    **recipe: object,
) -> Run:
    """Through the engine, with the store of that folder."""
    identity = ModelIdentity("made", "local/made", "made", kind)
    model = RunnableModel(identity, {}, WAY, lambda: scorer, independent=independent)
    with closing(open_store(folder, WAY | {"kind": kind})) as store:
        return score_task(
            model, model_settings({"name": "made", "kind": kind, **recipe}), task, ScoreMemory(store, refresh)
        )


def truth(task: Task = TASK) -> NDArray[np.float32]:
    return np.float32([
        max(overlap(text, candidate.text) for text in request.query.texts)
        for request in task.requests
        for candidate in request.candidates
    ])  # fmt: skip


@contextmanager
def opened(folder: Path, way: Mapping[str, Any] = WAY) -> Iterator[ScoreStore]:
    with closing(open_store(folder, way)) as store:
        yield store
