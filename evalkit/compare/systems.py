"""Which system made a result, and what to call it among others."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from evalkit.output.numbers import counted
from evalkit.output.text import one_line, without_home
from evalkit.results.folders import file_name
from evalkit.results.result import Result

_HASH = re.compile("[0-9a-f]{16,64}")
_SHORT_HASH = 12
_SHOWN_SETTINGS = 3
_LONGEST_VALUE = 24


@dataclass(frozen=True, slots=True)
class System:
    """What tells one system from another; empty where a result does not say.

    `settings` are those of a run that deviate from the model's, and `experiment` names them (all that an older result has);
    `place` says where the files are, and only where nothing else tells two systems apart.
    """

    hub_id: str
    name: str
    revision: str
    backend: str
    dtype: str
    experiment: str
    place: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict, compare=False)


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
    """Call each system by its model and, in a few words, by whatever else tells it from the others of that name."""
    distinct = list(dict.fromkeys(systems))
    labels = {one: _label(one, [other for other in distinct if other.name == one.name]) for one in distinct}
    times = Counter(labels.values())
    # values that were shortened may read alike
    return {one: label if times[label] == 1 else f"{label} [{one.experiment}]" for one, label in labels.items()}


def result_labels(results: Sequence[Result]) -> list[str]:
    """Call each result by its system, in the same order."""
    systems = systems_of(results)
    labels = system_labels(systems)
    return [labels[system] for system in systems]


def _system(result: Result) -> System:
    model, backend = result.model, result.backend
    return System(
        hub_id=model.hub_id,
        name=model.name,
        revision=model.revision,
        backend=str(backend.get("name", "")),
        dtype=str(backend.get("dtype", "")),
        experiment=result.experiment,
        settings=result.deviations or {},
    )


def _place(result: Result) -> str:
    if result.path is None:
        return ""
    named_after_task = result.path.name == f"{file_name(result.task.mteb_name)}.json"
    return without_home(str(result.path.parent if named_after_task else result.path))


def _label(system: System, namesakes: Sequence[System]) -> str:
    model = system.hub_id if len({other.hub_id for other in namesakes}) > 1 else system.name
    needed: list[str] = []
    for part in ("backend", "dtype", "experiment", "revision", "place"):
        if _count_distinct(namesakes, [*needed, part]) > _count_distinct(namesakes, needed):
            needed.append(part)
    said: list[str] = []
    for part in needed:
        if part == "experiment" and system.settings:
            said += _differing(system, namesakes, needed)
        elif getattr(system, part):
            said.append(_short(getattr(system, part)))
    return f"{model} ({', '.join(said)})" if said else model


def _differing(system: System, namesakes: Sequence[System], said: Sequence[str]) -> list[str]:
    """Write the settings of a system that others of its name do not have: `max_length=64`."""
    names = [
        name
        for name in sorted(system.settings, key=lambda name: (name != "recipe", name))
        if name not in said and any(other.settings.get(name, ...) != system.settings[name] for other in namesakes)
    ]
    return [f"{name}={_value(system.settings[name])}" for name in names[:_SHOWN_SETTINGS]] + (
        [counted(len(names) - _SHOWN_SETTINGS, "more setting")] if len(names) > _SHOWN_SETTINGS else []
    )


def _value(value: Any) -> str:
    """Write a setting's value in a word or two: of a path its last part, of a long text its beginning."""
    text = one_line(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))
    text = text.rstrip("/").rpartition("/")[2] if text.startswith(("/", "~", ".")) else text
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1].rstrip()}…"


def _count_distinct(systems: Sequence[System], parts: Sequence[str]) -> int:
    return len({(system.hub_id, *(getattr(system, part) for part in parts)) for system in systems})


def _short(text: str) -> str:
    return text[:_SHORT_HASH] if _HASH.fullmatch(text) else text
