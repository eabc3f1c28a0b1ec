"""From the words of `run`, `doctor` and `parity` to a run's settings: composed by Hydra, checked, each of its own type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from evalkit import backends
from evalkit.cluster.settings import RaySettings, ray_settings
from evalkit.configuration.files import default_options, default_settings, settings_error
from evalkit.configuration.hydra import Composed, Schema, Words, compose_each
from evalkit.evaluation.runs import RunSettings
from evalkit.evaluation.settings import find_deviations
from evalkit.metrics import read_measures
from evalkit.models import settings as models
from evalkit.models.interfaces import Runtime
from evalkit.models.server_settings import ServerSettings
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
    """All of `configs/config.yaml` but Hydra's own part; tasks, models and `ray` (with runner=ray) are checked elsewhere."""

    model_config = ConfigDict(extra="forbid", strict=True)

    task: dict[str, Any]
    model: dict[str, Any]
    backend: Choice
    protocol: Choice
    runner: RunnerSettings
    ray: dict[str, Any] | None = None
    limit: int | None = Field(ge=1)
    measures: list[str] | str
    device: str | None
    dtype: str
    seed: int = Field(ge=0)
    offline: bool
    texts: bool
    reproduce: bool
    cache: Literal["on", "off", "refresh"]
    cache_dir: str | None
    results_dir: str = Field(min_length=1)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Self:
        """Check the composed settings; EvalkitError in one line names what is wrong."""
        try:
            return cls.model_validate(dict(mapping))
        except ValidationError as error:
            raise settings_error("", error) from error


def settle_each(words: Words, act: Callable[[RunSettings], None]) -> None:
    """Act on the settings of each run that the words ask for. Raises EvalkitError for whatever is wrong with them."""
    compose_each(words, schema(), lambda composed: act(run_settings(composed)))


def schema() -> Schema:
    """What Hydra has to know: every setting of a task, model or backend with its default, and all that can be overridden."""
    fields: dict[str, Any] = {
        "task": TaskSettings.defaults(),
        "model": models.default_model(),
        "backend": ServerSettings.model_fields,
        "runner": {"threads": None},
        "ray": RaySettings.model_fields,
    }
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
    checked = RunConfiguration.from_mapping(composed.values)
    own = composed.own["model"]
    changed = {key: value for key, value in checked.model.items() if own.get(key) != value}
    model = models.model_settings(own, changed)
    backend = backends.read_backend(checked.backend.name).model_dump(mode="json")
    return RunSettings(
        task=TaskSettings.from_mapping(checked.task),
        model=model,
        backend=checked.backend.name,
        runtime=_runtime(checked, backend),
        protocol=checked.protocol.name,
        measures=read_measures(checked.measures),
        limit=checked.limit,
        texts=checked.texts,
        reproduce=checked.reproduce,
        cache=checked.cache,
        results_dir=Path(checked.results_dir).expanduser(),
        config_folders=composed.folders,
        deviations=find_deviations(composed.values, {**composed.own, "backend": backend}),
        origins=composed.origins,
        ray=ray_settings(checked.ray or {}) if checked.runner.name == "ray" else None,
    )


def _runtime(checked: RunConfiguration, backend: Mapping[str, Any]) -> Runtime:
    """Where and how the model runs; `backend` holds the backend's own settings, of which the run may say others."""
    says = {key: value for key, value in (checked.backend.model_extra or {}).items() if backend.get(key) != value}
    return Runtime(
        device=checked.device,
        dtype=checked.dtype,
        threads=checked.runner.threads,
        seed=checked.seed,
        offline=checked.offline,
        cache_dir=Path(checked.cache_dir).expanduser() if checked.cache_dir else None,
        server=backends.server_settings(checked.backend.name, says),
    )
