"""`evalkit list --json`: the models, tasks, backends and protocols there are, for machines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from evalkit.backends import backends_for, is_installed, read_backend
from evalkit.configuration.files import option_names, read_option
from evalkit.errors import unknown_name
from evalkit.models.settings import read_model
from evalkit.output.json import write_json
from evalkit.tasks.settings import read_settings, task_names

Entry = dict[str, Any]


def print_lists_json(what: str) -> None:
    """Print an object with one of the lists, or all. Raises EvalkitError for a list that is not there."""
    if what and what not in ENTRIES:
        raise unknown_name("list", what, ENTRIES)
    write_json({name: ENTRIES[name]() for name in ([what] if what else ENTRIES)})


def model_entries() -> list[Entry]:
    """Per model: kind, Hub id and revision, millions of parameters, recipes, and the backends that can run it."""
    return [_model_entry(name) for name in sorted(option_names("model"), key=str.lower)]


def task_entries() -> list[Entry]:
    """Per task, alias or suite: which task it is, what mteb calls it, and where it comes from."""
    return [{"name": name, "task": task.name, **_task_entry(task.model_dump(mode="json"))} for name, task in _tasks()]


def backend_entries() -> list[Entry]:
    """Per backend: the kinds of model that it runs, its precisions, whether it is a server, and installed."""
    backends = [read_backend(name) for name in option_names("backend")]
    return [
        {
            "name": backend.name,
            "kinds": list(backend.kinds),
            "dtypes": list(backend.dtypes),
            "server": bool(backend.server),
            "installed": is_installed(backend),
        }
        for backend in backends
    ]


def protocol_entries() -> list[Entry]:
    """Per protocol: what it is."""
    return [
        {"name": name, "description": read_option("protocol", name)["description"]} for name in option_names("protocol")
    ]


ENTRIES: Mapping[str, Callable[[], list[Entry]]] = {
    "models": model_entries,
    "tasks": task_entries,
    "backends": backend_entries,
    "protocols": protocol_entries,
}


def _model_entry(name: str) -> Entry:
    model = read_model(name)
    return {
        "name": name,
        "kind": model.kind,
        "hub_id": model.hub_id,
        "revision": model.revision,
        "parameters_millions": model.parameters,
        "recipes": list(model.recipes),
        "backends": list(backends_for(model)),
    }


def _tasks() -> list[tuple[str, Any]]:
    return [(name, read_settings(name)) for name in task_names()]


def _task_entry(task: Entry) -> Entry:
    return {key: task[key] for key in ("mteb_name", "description", "split", "languages", "cmteb", "mteb", "suite")}
