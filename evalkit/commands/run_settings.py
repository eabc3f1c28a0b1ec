"""From the words of `run`, `doctor` and `parity` to a run's settings: composed by Hydra, checked, each of its own type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from evalkit import backends
from evalkit.cluster.settings import ray_settings
from evalkit.commands.settings_arguments import grouped_settings
from evalkit.configuration.files import default_options, default_settings, settings_error
from evalkit.configuration.hydra import Composed, Schema, Words, compose_each
from evalkit.evaluation.model_recipes import stated_fields
from evalkit.evaluation.runs import RunSettings
from evalkit.evaluation.settings import find_deviations
from evalkit.metrics import read_measures
from evalkit.models import settings as models
from evalkit.models.folders.resolving import StatedBy
from evalkit.models.interfaces import Runtime
from evalkit.models.server_settings import ServerSettings
from evalkit.output.text import printable
from evalkit.tasks.settings import TaskSettings


class Choice(BaseModel):
    """An option of the groups backend and protocol: its name decides, the rest is its module's affair."""

    model_config = ConfigDict(extra="allow")

    name: str


class RunnerSettings(BaseModel):
    """The content of `configs/runner/NAME.yaml`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Literal["local", "ray"]
    threads: int | None = Field(ge=1)


class RunConfiguration(BaseModel):
    """What the composed values must be: all of `configs/config.yaml` but Hydra's own part.

    It checks them and is let go: they need no conversion. Tasks, models and `ray` (with runner=ray) are checked elsewhere.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    task: dict[str, Any]
    model: dict[str, Any]
    backend: Choice
    protocol: Choice
    runner: RunnerSettings
    ray: dict[str, Any] | None = None
    limit: int | None = Field(ge=1)
    sample: int | None = Field(ge=1)
    sample_seed: int = Field(ge=0)
    measures: list[str]
    device: str | None
    dtype: str
    seed: int = Field(ge=0)
    offline: bool
    texts: bool
    reproduce: bool
    cache: Literal["on", "off", "refresh"]
    cache_dir: str | None
    refine: Literal["fp32"] | None
    results_dir: str = Field(min_length=1)

    @classmethod
    def check(cls, values: Mapping[str, Any]) -> None:
        """Raise EvalkitError, which names in one line what is wrong, where the composed values are not such."""
        # the bytes of a path that the locale can't decode are no text to pydantic
        readable = {key: printable(value) if isinstance(value, str) else value for key, value in values.items()}
        try:
            cls.model_validate(readable)
        except ValidationError as error:
            raise settings_error("", error) from error


def settle_each(words: Words, act: Callable[[RunSettings], None]) -> None:
    """Act on the settings of each run that the words ask for. Raises EvalkitError for whatever is wrong with them."""
    compose_each(words, schema(), lambda composed: act(run_settings(composed)))


def schema() -> Schema:
    """Return what Hydra has to know: every setting of a task, model or backend with its default, and all that can be overridden."""
    fields = grouped_settings()
    return Schema(
        bases={
            "task": {"base": fields["task"]},
            "model": {"base": fields["model"]},
            "backend": {
                "base": backends.default_backend(server=False),
                "server": backends.default_backend(server=True),
            },
        },
        keys=[
            *default_settings(),
            *default_options(),
            *(f"{group}.{name}" for group, names in fields.items() for name in names),
        ],
        absent=_why_absent,
        resolvers={"fp16_on_cuda": _fp16_on_cuda},
    )


def _why_absent(key: str) -> str:
    """Why the chosen options do not have a setting that others have."""
    group, _, name = key.partition(".")
    if group == "ray":
        return f"{key} says nothing without runner=ray"
    hint = f"; name the server's too, as in backend=openai {key}=…" if name in ServerSettings.model_fields else ""
    return f"{key} says nothing to the chosen {group}, which has no such setting{hint}"


def _fp16_on_cuda(device: str | None) -> str:
    """fp16 where the run's device is a CUDA one, else fp32: what `dtype=${fp16_on_cuda:${device}}` stands for."""
    from evalkit.backends.torch import choose_device

    return "fp16" if choose_device(device).type == "cuda" else "fp32"


def run_settings(composed: Composed) -> RunSettings:
    """All that a run is told. Raises EvalkitError for a setting that is wrong."""
    values = composed.values
    RunConfiguration.check(values)
    changed = {key: value for key, value in values["model"].items() if composed.own["model"].get(key) != value}
    settings = models.model_settings(composed.own["model"], changed)
    backend = backends.read_backend(values["backend"]["name"]).model_dump(mode="json")
    own = {**composed.own, "backend": backend}
    # what was deleted (~key) is left to the default, of a backend to its own
    cut = {name: values[name] for name in ("limit", "sample", "sample_seed")}
    task = {"task": {**TaskSettings.defaults(), **values["task"]}, **cut}
    model = {
        "model": {**models.default_model(), **values["model"]},
        "backend": {**backend, **values["backend"]},
        "dtype": values["dtype"],
        "seed": values["seed"],
    }
    return RunSettings(
        task=TaskSettings.from_mapping(values["task"]),
        model=settings,
        backend=values["backend"]["name"],
        runtime=_runtime(values, backend),
        protocol=values["protocol"]["name"],
        measures=read_measures(values["measures"]),
        **cut,
        texts=values["texts"],
        reproduce=values["reproduce"],
        cache=values["cache"],
        refine=values["refine"],
        results_dir=Path(values["results_dir"]).expanduser(),
        config_folders=composed.folders,
        model_deviations=find_deviations(model, own),
        task_deviations=find_deviations(task, own),
        origins=composed.origins,
        ray=ray_settings(values.get("ray") or {}) if values["runner"]["name"] == "ray" else None,
        stated=_stated(composed, settings),
    )


def _stated(composed: Composed, settings: models.ModelSettings) -> dict[str, StatedBy]:
    """Who states each setting of the model: the user, or a file of an option, a recipe or an experiment."""
    by: dict[str, set[str]] = {}  # of a mapping each value has who said it
    for key, origin in composed.origins.items():
        group, _, name = key.partition(".")
        if group == "model" and name:
            by.setdefault(name.partition(".")[0], set()).add(origin)
    said = {name: None for name, origins in by.items() if "user" in origins}
    filed = {name: None for name, origins in by.items() if "file" in origins and name not in said}
    return stated_fields(composed.own["model"], settings, filed, said)


def _runtime(values: Mapping[str, Any], backend: Mapping[str, Any]) -> Runtime:
    """Where and how the model runs; `backend` holds the backend's own settings, of which the run may say others."""
    says = {key: value for key, value in values["backend"].items() if backend.get(key) != value}
    return Runtime(
        device=values["device"],
        dtype=values["dtype"],
        threads=values["runner"]["threads"],
        seed=values["seed"],
        offline=values["offline"],
        cache_dir=Path(values["cache_dir"]).expanduser() if values["cache_dir"] else None,
        server=backends.server_settings(values["backend"]["name"], says),
    )
