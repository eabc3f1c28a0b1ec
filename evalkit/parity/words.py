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
from evalkit.output.json import STDOUT

JSON = "--json"
MULTIRUN = ("-m", "--multirun")
LOCAL = ("device", "dtype", "runner.threads")


@dataclass(frozen=True)
class Words:
    """What the user said. `common` are the overrides of every run, `own` by backend those of one backend's alone.

    `json_file` is STDOUT where JSON is to stand in the tables' place; `tolerance` None where each precision has its own.
    """

    backends: tuple[str, ...]
    tolerance: float | None
    json_file: Path | None
    common: tuple[str, ...]
    own: Mapping[str, tuple[str, ...]]

    def overrides(self, backend: str) -> list[str]:
        """The overrides of a backend's run: the common ones, then its own.

        Where a backend is told of another option of a group (`mteb.model=mteb`), what all are told of that group is meant for
        the others; and what a server decides for itself is meant for those that are none.
        """
        own = self.own.get(backend, ())
        keys = {_key(word) for word in own}
        others = keys | set(LOCAL if read_backend(backend).server else ())
        common = [word for word in self.common if _key(word) not in others and _key(word).partition(".")[0] not in keys]
        return [*common, *own, f"backend={backend}"]


def read_words(arguments: Sequence[str]) -> Words:
    """Sort the arguments. Raises EvalkitError for those that no comparison of backends has."""
    arguments, json_file = _take_json(list(arguments))
    backends: tuple[str, ...] = ()
    tolerance = None
    common: list[str] = []
    own: dict[str, list[str]] = {}
    for word in arguments:
        key, _, value = word.partition("=")
        first, _, rest = key.partition(".")
        if word in MULTIRUN:
            raise EvalkitError("evalkit parity looks at one model: leave out -m, and run it once for each")
        if key == "backends":
            backends = _names(value)
        elif key == "tolerance":
            tolerance = _positive(value)
        elif first == "backend":
            raise EvalkitError(f"{word}: say backends=a,b,… and to one of them alone NAME.{rest or 'url'}=…")
        elif rest and first in option_names("backend"):
            setting = f"backend.{rest}" if rest in ServerSettings.model_fields else rest
            own.setdefault(first, []).append(f"{setting}={value}")
        else:
            common.append(word)
    _refuse_unnamed(own, backends)
    return Words(backends, tolerance, json_file, tuple(common), {name: tuple(words) for name, words in own.items()})


def _take_json(arguments: list[str]) -> tuple[list[str], Path | None]:
    """The arguments without `--json [FILE]`, and where JSON goes; a word with `=` is an override and no file."""
    rest: list[str] = []
    target: Path | None = None
    while arguments:
        word = arguments.pop(0)
        if word == JSON:
            is_file = bool(arguments) and "=" not in arguments[0] and not arguments[0].startswith("-")
            target = Path(arguments.pop(0)) if is_file else STDOUT
        elif word.startswith(f"{JSON}="):
            target = Path(word.removeprefix(f"{JSON}="))
        else:
            rest.append(word)
    return rest, target


def _names(value: str) -> tuple[str, ...]:
    known = [name for name in option_names("backend") if name != AUTO]
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
