"""Which results speak for a model, and what they are of: the dataset's name on the Hub, figures in percent."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from evalkit.errors import EvalkitError
from evalkit.metrics.measures import PROTOCOLS
from evalkit.output.numbers import listed
from evalkit.results.result import Result

_COMMIT = re.compile("[0-9a-f]{40}")
_NAMED = 3

logger = logging.getLogger("evalkit")


@dataclass(frozen=True, slots=True)
class Dataset:
    """The data that a result is of, as the Hub names them; `identifier` is the task's name where they are not of the Hub.

    `revision` is a commit, or empty where it is not known; `changes` say what sets a figure on them apart from the model's on the
    dataset: the settings of an experiment, the number of queries that the data were cut to, and whose candidates they have.
    """

    identifier: str
    name: str
    subset: str
    split: str
    revision: str
    changes: Mapping[str, Any]


def results_of_one_model(results: Sequence[Result], format_name: str) -> list[Result]:
    """Choose the results that speak for a model: one per task; an experiment only where its task has no other result.

    Raises EvalkitError for results of several models, and for two of one task.
    """
    models = list(dict.fromkeys(f"{result.model.hub_id} ({result.model.revision})" for result in results))
    if len(models) > 1:
        raise EvalkitError(
            f"{format_name} is of one model, but the results are of {listed(models, _NAMED)}; give one model's"
        )
    whole = {result.task.name for result in results if not result.experiment}
    chosen: dict[str, Result] = {}
    for result in results:
        if result.experiment and result.task.name in whole:
            logger.warning(
                "%s is an experiment and left out: %s has a result of its own", result.path, result.task.name
            )
            continue
        other = chosen.setdefault(result.task.name, result)
        if other is not result and not _is_same_file(other, result):
            raise EvalkitError(
                f"{format_name} has one result per task, but {other.path} and {result.path} are both of {result.task.name}; "
                "give one of them"
            )
    for result in chosen.values():
        changes = dataset_of(result).changes
        if changes:
            said = ", ".join(f"{name} {value}" for name, value in changes.items())
            logger.warning("%s: not %s as it is (%s); the figures say so", result.path, result.task.name, said)
    return list(chosen.values())


def dataset_of(result: Result) -> Dataset:
    """Name the data of a result. A folder of the user's is named by its task alone, never by its path."""
    task, changes = result.task, _changes(result)
    repository = _repository(result)
    name = f"MTEB {task.name}" if repository else task.name
    said = ", ".join(f"{key} {value}" for key, value in changes.items())
    return Dataset(
        identifier=repository or task.mteb_name,
        name=f"{name} ({said})" if said else name,
        subset=task.subset,
        split=task.split,
        revision=task.revision if _COMMIT.fullmatch(task.revision) else "",
        changes=changes,
    )


def main_figures(result: Result) -> Mapping[str, float]:
    """Return the leading protocol's metrics, in percent: a fraction's own digits with the point moved."""
    return {metric: in_percent(result.scores[metric]) for metric in PROTOCOLS[result.protocol].leading_names}


def in_percent(fraction: float) -> float:
    """Move the point: 0.8127206722525007 is 81.27206722525007, which a multiplication may miss."""
    return float(Decimal(repr(float(fraction))).scaleb(2))


def _is_same_file(one: Result, other: Result) -> bool:
    return one.path is not None and other.path is not None and one.path.resolve() == other.path.resolve()


def _changes(result: Result) -> dict[str, Any]:
    task, first = result.task, result.task.first_stage
    of_data = {"limit", "sample", "sample_seed", "candidates", "first_stage", "top_k"}
    sample = None if task.sample is None or task.sample.is_whole else task.sample
    settings = {"experiment": result.experiment or None} if result.deviations is None else result.deviations
    said = {
        **{name: value for name, value in settings.items() if name not in of_data},
        "limit": task.limit,
        "sample": sample and sample.size,
        "sample_seed": sample and sample.seed,
        "candidates": first and first.name,
        "top_k": first and first.top_k,
    }
    return {key: value for key, value in said.items() if value is not None}


def _repository(result: Result) -> str:
    """Return the dataset's repository on the Hub; empty for data that are not of the Hub, or are not those that it holds."""
    if _COMMIT.fullmatch(result.task.revision):
        return result.task.source
    if result.task.differences:
        return ""
    said: Any = result.config.get("task")
    location = said.get(said.get("source")) if isinstance(said, dict) else None
    repository = location.get("repo") if isinstance(location, dict) else None
    return repository if isinstance(repository, str) else ""
