"""The whole of a run's configuration as `configs/config.yaml` says it: checked, and what in it is out of the ordinary."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from evalkit.backends import AUTO
from evalkit.configuration.files import settings_error
from evalkit.models.server_settings import DECISIVE

# what says where a run reads and writes, or is part of a result's name already, is no deviation of its settings
NEUTRAL = (
    "model.path",
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
    "runner",
    "ray",
)


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
    def from_mapping(cls, mapping: dict[str, Any]) -> Self:
        """Check the composed configuration; EvalkitError in one line names what is wrong."""
        try:
            return cls.model_validate(mapping)
        except ValidationError as error:
            raise settings_error("", error) from error


def deviations(content: dict[str, Any], pristine: dict[str, Any]) -> dict[str, Any]:
    """The settings, without their group's name, that differ from what the chosen task and model say themselves.

    The path of a task that has no other place is no deviation: it is the task. That mteb runs a model is one, since its result
    would otherwise stand for evalkit's own of the same weights; so is an ONNX file in their place.
    """
    own = {**dict(_flat(pristine)), "backend.name": AUTO}
    changed = {key: value for key, value in _flat(content) if own.get(key) != value}
    if not content["task"].get("mteb_name"):
        changed.pop("task.path", None)
    if content["model"].get("backends") == ["mteb"]:
        changed["backend.name"] = "mteb"
    usual = pristine["backend"].get("url")
    if (
        usual and content["backend"].get("url") != usual
    ):  # whoever answers there is not the one that the backend is named after
        changed["backend.url"] = content["backend"].get("url")
    if content["model"].get("onnx_file"):
        changed["model.onnx_file"] = content["model"]["onnx_file"]
    return {
        "backend" if key == "backend.name" else key.partition(".")[2] or key: value for key, value in changed.items()
    }


def _flat(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        name = prefix + key
        # what a backend can do follows from its name, and where a server is decides no score
        if name in NEUTRAL or (prefix == "backend." and key not in ("name", *DECISIVE)):
            continue
        if isinstance(value, dict) and key != "recipes":
            yield from _flat(value, f"{name}.")
        else:
            yield name, value
