"""Which system made a result, and what to call it among others."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from evalkit.output.text import without_home
from evalkit.results.folders import file_name
from evalkit.results.result import Result

_COMMIT = re.compile("[0-9a-f]{40}")
_SHORT_COMMIT = 12


@dataclass(frozen=True, slots=True)
class System:
    """What tells one system from another; empty where a result does not say.

    `experiment` names the settings of a run whose settings deviate from the model's; `place` says where the files are, and only
    where nothing else tells two systems apart.
    """

    hub_id: str
    name: str
    revision: str
    backend: str
    dtype: str
    experiment: str
    place: str = ""


def systems_of(results: Sequence[Result], protocol: str | None = None) -> list[System]:
    """Name the system of each result, in the same order.

    Where two results on the same data would be the same system's, where they lie tells them apart. So do their protocols, but
    where all are put under one `protocol`.
    """
    plain = [_system(result) for result in results]
    data = [(result.task.name, protocol or result.protocol, result.task.fingerprint) for result in results]
    repeated = {system for (system, _), times in Counter(zip(plain, data, strict=True)).items() if times > 1}
    return [
        replace(system, place=_place(result)) if system in repeated else system
        for system, result in zip(plain, results, strict=True)
    ]


def system_labels(systems: Sequence[System]) -> dict[System, str]:
    """Call each system by its model and by whatever else tells it from the others of that name."""
    distinct = list(dict.fromkeys(systems))
    return {one: _label(one, [other for other in distinct if other.name == one.name]) for one in distinct}


def _system(result: Result) -> System:
    model, backend = result.model, result.backend
    return System(
        hub_id=model.hub_id,
        name=model.name,
        revision=model.revision,
        backend=str(backend.get("name", "")),
        dtype=str(backend.get("dtype", "")),
        experiment=result.experiment,
    )


def _place(result: Result) -> str:
    if result.path is None:
        return ""
    named_after_task = result.path.name == f"{file_name(result.task.mteb_name)}.json"
    return without_home(str(result.path.parent if named_after_task else result.path))


def _label(system: System, namesakes: Sequence[System]) -> str:
    model = system.hub_id if len({other.hub_id for other in namesakes}) > 1 else system.name
    needed: list[str] = []
    for part in ("revision", "backend", "dtype", "experiment", "place"):
        if _count_distinct(namesakes, [*needed, part]) > _count_distinct(namesakes, needed):
            needed.append(part)
    said = [_short(getattr(system, part)) for part in needed if getattr(system, part)]
    return f"{model} ({', '.join(said)})" if said else model


def _count_distinct(systems: Sequence[System], parts: Sequence[str]) -> int:
    return len({(system.hub_id, *(getattr(system, part) for part in parts)) for system in systems})


def _short(text: str) -> str:
    return text[:_SHORT_COMMIT] if _COMMIT.fullmatch(text) else text
