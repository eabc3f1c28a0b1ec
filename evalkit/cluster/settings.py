"""What `runner=ray` is told. Nothing here needs Ray."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, ClassVar

from pydantic import ConfigDict, NonNegativeFloat, PositiveInt, field_validator

from evalkit.configuration.files import GroupSettings
from evalkit.errors import EvalkitError, install_command

CLIENT = "ray://"


class RaySettings(GroupSettings):
    """The node `ray` of `configs/runner/ray.yaml`.

    `address` is `local` (a Ray of this run's own, on this machine), `auto` (the cluster that this machine belongs to), `HOST:PORT`
    or `ray://HOST:PORT` (a cluster elsewhere). `actors` hold the model, each once, with so many processors and GPUs; without a
    number there are as many as the cluster has room for. An actor runs as many threads as it has processors.
    """

    model_config = ConfigDict(strict=True)

    group: ClassVar[str] = "ray"

    address: str = "local"
    actors: PositiveInt | None = None
    cpus_per_actor: PositiveInt = 1
    gpus_per_actor: NonNegativeFloat = 0.0

    @field_validator("address")
    @classmethod
    def _known_form(cls, address: str) -> str:
        host, _, port = address.removeprefix(CLIENT).rpartition(":")
        if any(sign in address for sign in "@?#"):  # it is written into results
            raise ValueError("an address holds no user, password, query or fragment")
        if address not in ("local", "auto") and not (host and port.isdecimal()):
            raise ValueError("an address is auto, local, HOST:PORT or ray://HOST:PORT")
        return address


def ray_settings(said: RaySettings | Mapping[str, Any]) -> RaySettings:
    """Check the settings; EvalkitError in one line names what is wrong, or that Ray is not installed."""
    if not isinstance(said, RaySettings | Mapping):
        raise EvalkitError(f"ray={said!r}: give its settings, such as {{'address': 'auto'}}")
    settings = said if isinstance(said, RaySettings) else RaySettings.model_validate(dict(said))
    if find_spec("ray") is None:
        raise EvalkitError(f"runner=ray is not installed: {install_command('ray')}")
    return settings
