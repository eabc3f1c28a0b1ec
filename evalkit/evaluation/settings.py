"""What a result records of the settings it was made with, and which of them are out of the ordinary.

Both are computed here alone, for the command line and for Python.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evalkit.backends import AUTO
from evalkit.models.server_settings import DECISIVE, ServerSettings
from evalkit.records import Task

if TYPE_CHECKING:
    from evalkit.evaluation.evaluate import Model

# what says where a run reads and writes, or is part of a result's name already, is no deviation of its settings
NEUTRAL = (
    "model.path",
    "model.kind",  # it is part of a local model's revision
    "task.name",
    "model.name",
    "model.object",
    "device",
    "offline",
    "texts",
    "reproduce",
    "results_dir",
    "cache",
    "cache_dir",
    "protocol",
    "measures",
    "runner",
    "ray",
)


def recorded_settings(
    model: Model, task: Task, protocol: str, measures: Sequence[str], seed: int, refine: str | None = None
) -> dict[str, Any]:
    """Return what a result records as its `config`: all that was asked for and can bear on its figures, as JSON holds it.

    `model` and `task` hold every setting of the model, with its recipe's, and of the one task; `backend` its name, and where it
    is a server how it was reached; `runner` is local or ray, then with `ray`. `protocol`, `measures`, `limit`, `device`,
    `dtype`, `refine`, `sample` and `sample_seed` (where they were asked for) and `seed` are as on the command line, which alone
    says `reproduce`. What the
    backend found on the machine stands in the result's own `backend`; where files lie, and what is kept in which cache, stands
    nowhere.
    """
    runtime, ray = model.runtime, model.ray
    return {
        # what an object in memory does not say is not known, and no default of evalkit's
        "model": model.settings.model_dump(mode="json", exclude_unset=model.find_object is not None),
        "task": dict(task.settings),
        "backend": backend_settings(model.backend, runtime.server),
        "protocol": protocol,
        "measures": list(measures),
        "runner": {"name": "local" if ray is None else "ray", "threads": runtime.threads},
        **({} if ray is None else {"ray": ray.model_dump(mode="json")}),
        "limit": task.limit,
        **({} if task.sample is None else {"sample": task.sample.size, "sample_seed": task.sample.seed}),
        "device": runtime.device,
        "dtype": runtime.dtype,
        **({} if refine is None else {"refine": refine}),
        "seed": seed,
        "reproduce": False,
    }


def backend_settings(name: str, server: ServerSettings | None) -> dict[str, Any]:
    """Return a backend's name, and where it is a server how it is reached."""
    return {"name": name, **({} if server is None else server.model_dump(mode="json"))}


def find_deviations(said: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings, without their group's name, that differ from what the chosen task and model say themselves.

    `said` holds what a run was told, `own` what the files of its task, model and backend and evalkit's defaults say; both are
    mappings as on the command line (`limit`, `model.pooling`). A group that `said` lacks is left out; of a group that it has,
    whatever is missing or empty counts as null.

    The path of a task that has no other place is no deviation: it is the task. That mteb runs a model is one, since its result
    would otherwise stand for evalkit's own of the same weights; so is an ONNX file in their place.
    """
    task, model, backend = (said.get(group, {}) for group in ("task", "model", "backend"))
    own = {group: own[group] for group in said if group in own}
    told, usual = dict(_flat(said)), dict(_flat(own))
    if "backend" in said:
        usual["backend.name"] = AUTO
    changed = {key: told.get(key) for key in {**told, **usual} if told.get(key) != usual.get(key)}
    if not task.get("mteb_name"):
        changed.pop("task.path", None)
    if model.get("backends") == ["mteb"]:
        changed["backend.name"] = "mteb"
    url = backend.get("url")
    if url != own.get("backend", {}).get("url"):  # whoever answers there may run another model of the name
        changed["backend.url"] = url.rstrip("/") if isinstance(url, str) else url
    if model.get("onnx_file"):
        changed["model.onnx_file"] = model["onnx_file"]
    return {
        "backend" if key == "backend.name" else key.partition(".")[2] or key: value for key, value in changed.items()
    }


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        name = prefix + key
        # what a backend can do follows from its name, and how fast a server is asked decides no score
        if name in NEUTRAL or (prefix == "backend." and key not in ("name", *DECISIVE)):
            continue
        if isinstance(value, dict) and key != "recipes":
            yield from _flat(value, f"{name}.")
        else:
            yield name, value
