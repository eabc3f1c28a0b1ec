"""Re-runs, checks and extends the C-MTEB reranking benchmark.

>>> task = evalkit.load_task("T2Reranking")  # or evalkit.load_task(path="data/")
>>> model = evalkit.load_model("bge-reranker-base")
>>> result = evalkit.evaluate(model, task)
>>> result.scores["map"], result.intervals["map"]  # fractions
>>> evalkit.save_result(result, "results")
>>> evalkit.leaderboard("results"), evalkit.compare_results("results")  # pandas tables
>>> evalkit.metrics.score_run(run, qrels, protocol="cmteb-v1")  # scores made elsewhere
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from evalkit.version import __version__ as __version__

if TYPE_CHECKING:
    from evalkit import metrics
    from evalkit.api import compare_results, leaderboard, load_results, save_result
    from evalkit.cluster.settings import RaySettings
    from evalkit.errors import EvalkitError
    from evalkit.evaluation.evaluate import Model, evaluate, load_model, load_task, wrap
    from evalkit.models.server_settings import ServerSettings
    from evalkit.records import Task
    from evalkit.results.result import Result

_PLACES = {
    "EvalkitError": "evalkit.errors",
    "Model": "evalkit.evaluation.evaluate",
    "RaySettings": "evalkit.cluster.settings",
    "Result": "evalkit.results.result",
    "ServerSettings": "evalkit.models.server_settings",
    "Task": "evalkit.records",
    "compare_results": "evalkit.api",
    "evaluate": "evalkit.evaluation.evaluate",
    "leaderboard": "evalkit.api",
    "load_model": "evalkit.evaluation.evaluate",
    "load_results": "evalkit.api",
    "load_task": "evalkit.evaluation.evaluate",
    "save_result": "evalkit.api",
    "wrap": "evalkit.evaluation.evaluate",
}
__all__ = [
    "EvalkitError",
    "Model",
    "RaySettings",
    "Result",
    "ServerSettings",
    "Task",
    "compare_results",
    "evaluate",
    "leaderboard",
    "load_model",
    "load_results",
    "load_task",
    "metrics",
    "save_result",
    "wrap",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import evalkit` costs nothing."""
    if name == "metrics":
        return importlib.import_module("evalkit.metrics")
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'evalkit' has no attribute {name!r}")
