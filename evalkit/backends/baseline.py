"""Scorers without a model: what any model must beat, and the ends that a metric can reach. Tests use them as fakes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import unknown_name
from evalkit.models.interfaces import RunnableModel, Runtime, TaskScorer
from evalkit.models.settings import ModelSettings
from evalkit.records import ModelIdentity, Task


def gains(task: Task) -> NDArray[np.float32]:
    """Return the gain of each candidate."""
    return np.array([candidate.gain for request in task.requests for candidate in request.candidates], np.float32)


@dataclass(frozen=True)
class Constant:
    """The same score for every candidate: all that it gets, ties give it."""

    value: float = 0.0

    def score_task(self, task: Task) -> NDArray[np.float32]:
        return np.full(task.statistics.pairs, self.value, np.float32)


@dataclass(frozen=True)
class Random:
    """Independent uniform scores."""

    seed: int = 42

    def score_task(self, task: Task) -> NDArray[np.float32]:
        return np.random.default_rng(self.seed).random(task.statistics.pairs, np.float32)


@dataclass(frozen=True)
class Oracle:
    """The labels themselves: the best order there is."""

    def score_task(self, task: Task) -> NDArray[np.float32]:
        return gains(task)


@dataclass(frozen=True)
class Reversed:
    """The labels turned round: the worst order there is."""

    def score_task(self, task: Task) -> NDArray[np.float32]:
        return -gains(task)


def prepare(settings: ModelSettings, runtime: Runtime) -> RunnableModel:
    """Return the baseline of that name."""
    scorers: dict[str, TaskScorer] = {
        "constant": Constant(),
        "random": Random(runtime.seed),
        "oracle": Oracle(),
        "reversed": Reversed(),
    }
    if settings.name not in scorers:
        raise unknown_name("baseline", settings.name, scorers)
    identity = ModelIdentity(settings.name, f"local/{settings.name}", "builtin", settings.kind)
    return RunnableModel(identity, {"name": "baseline"}, None, lambda: scorers[settings.name])
