"""The whole of a run's configuration as `configs/config.yaml` says it, checked."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from evalkit.configuration import settings_error


class Choice(BaseModel):
    """An option of the groups backend and protocol: its name decides, the rest is its module's affair."""

    model_config = ConfigDict(extra="allow")

    name: str


class RunnerSettings(BaseModel):
    """The content of `configs/runner/NAME.yaml`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    threads: int | None = Field(ge=1)


class RunConfiguration(BaseModel):
    """All of `configs/config.yaml` but Hydra's own part; tasks and models check theirs themselves."""

    model_config = ConfigDict(extra="forbid", strict=True)

    task: dict[str, Any]
    model: dict[str, Any]
    backend: Choice
    protocol: Choice
    runner: RunnerSettings
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
