"""The command line of `evalkit parity`: its own words, those of a run, and those of a run that one backend alone is told."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evalkit.backends import AUTO, read_backend
from evalkit.configuration.files import option_names
from evalkit.errors import EvalkitError, unknown_name
from evalkit.models.server_settings import ServerSettings

LOCAL = ("device", "dtype", "runner.threads")


@dataclass(frozen=True)
class ParityWords:
    """What the user said. `common` are the overrides of every run, `own` by backend those of one backend's alone.

    `tolerance` is None where each precision has its own; `folders` hold backends of the user's own.
    """

    backends: tuple[str, ...]
    tolerance: float | None
    folders: tuple[Path, ...]
    common: tuple[str, ...]
    own: Mapping[str, tuple[str, ...]]

    def overrides(self, backend: str) -> list[str]:
        """Return the overrides of a backend's run: the common ones, then its own.

        Where a backend is told of another option of a group (`mteb.model=mteb`), what all are told of that group is meant for
        the others; and what a server decides for itself is meant for those that are none.
        """
        own = self.own.get(backend, ())
        keys = {_key(word) for word in own}
        others = keys | set(LOCAL if read_backend(backend, self.folders).server else ())
        common = [word for word in self.common if _key(word) not in others and _key(word).partition(".")[0] not in keys]
        return [*common, *own, f"backend={backend}"]


def parity_words(arguments: Sequence[str], folders: tuple[Path, ...] = ()) -> ParityWords:
    """Sort the overrides. Raises EvalkitError for those that no comparison of backends has."""
    backends: tuple[str, ...] = ()
    tolerance = None
    common: list[str] = []
    own: dict[str, list[str]] = {}
    for word in arguments:
        key, _, value = word.partition("=")
        first, _, rest = key.partition(".")
        if key == "backends":
            backends = _names(value, folders)
        elif key == "tolerance":
            tolerance = _positive(value)
        elif first == "backend":
            raise EvalkitError(f"{word}: say backends=a,b,… and to one of them alone NAME.{rest or 'url'}=…")
        elif rest and first in option_names("backend", folders):
            setting = f"backend.{rest}" if rest in ServerSettings.model_fields else rest
            own.setdefault(first, []).append(f"{setting}={value}")
        else:
            common.append(word)
    _refuse_unnamed(own, backends)
    return ParityWords(backends, tolerance, folders, tuple(common), {name: tuple(words) for name, words in own.items()})


def _names(value: str, folders: Sequence[Path]) -> tuple[str, ...]:
    known = [name for name in option_names("backend", folders) if name != AUTO]
    names = tuple(name.strip() for name in value.strip("[]'\"").split(",") if name.strip())
    if AUTO in names:
        raise EvalkitError(f"backends={value}: {AUTO} stands for one of the others; name those that are to be compared")
    for name in names:
        if name not in known:
            raise unknown_name("backend", name, known)
    doubled = [name for name in names if names.count(name) > 1]
    if doubled:
        raise EvalkitError(f"backends={value} names {doubled[0]} twice")
    if len(names) == 1:
        raise EvalkitError(f"backends={value} names one backend; the first one is what the others are compared with")
    return names


def _positive(value: str) -> float:
    try:
        tolerance = float(value)
    except ValueError:
        tolerance = math.nan
    if not math.isfinite(tolerance) or tolerance < 0:
        raise EvalkitError(f"tolerance={value} is no difference of scores such as 1e-4")
    return tolerance


def _refuse_unnamed(own: Iterable[str], backends: Sequence[str]) -> None:
    for name in own:
        if backends and name not in backends:
            raise EvalkitError(f"{name}.…= is for backend {name}, which backends={','.join(backends)} does not name")


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+")
