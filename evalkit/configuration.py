"""Where the configuration files are, and how one option is read without Hydra.

Each file `configs/GROUP/NAME.yaml` is a plain mapping. Its `defaults` list is for Hydra, which merges the file over the
group's base option; here the settings classes supply those defaults.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from evalkit.errors import EvalkitError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C, where PyYAML was built so: eight times as fast


@cache
def configs_dir() -> Path:
    """The packaged `configs/` of an installed wheel, else the repository's."""
    packaged = Path(__file__).parent / "configs"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "configs"


def option_names(group: str) -> tuple[str, ...]:
    """The options of a configuration group, by file name, sorted."""
    return tuple(sorted(path.stem for path in (configs_dir() / group).glob("*.yaml")))


def read_option(group: str, name: str) -> dict[str, Any]:
    """The mapping in `configs/GROUP/NAME.yaml`, without its `defaults` list.

    Raises EvalkitError, naming the nearest options, where there is no such file.
    """
    path = configs_dir() / group / f"{name}.yaml"
    if not path.is_file():
        raise unknown_name(group, name, option_names(group))
    content = dict(_parse(path))
    content.pop("defaults", None)
    return content


@cache
def _parse(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = read_yaml(path)
    return content


def read_yaml(path: Path) -> Any:
    """The content of a YAML file. Raises yaml.YAMLError and UnicodeDecodeError."""
    return yaml.load(path.read_text(encoding="utf-8"), Loader=SAFE_LOADER)  # noqa: S506 it is a safe loader


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """At most three known names that resemble `name`, whatever the case."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    return [by_lower[match] for match in difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.45)]


def unknown_name(what: str, name: str, known: Iterable[str]) -> EvalkitError:
    """The error for a name that nothing has: it offers the nearest right ones."""
    known = tuple(known)
    close = nearest(name, known)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known) or 'none'}"
    return EvalkitError(f"there is no {what} {name!r}; {hint}")


def settings_error(what: str, error: ValidationError) -> EvalkitError:
    """A pydantic error as one line: the field (of `what`), what it holds, what it should hold."""
    return EvalkitError("; ".join(_problem(what, problem) for problem in error.errors()))


def _problem(what: str, problem: ErrorDetails) -> str:
    name = ".".join(str(part) for part in (what, *problem["loc"]) if part != "")
    if problem["type"] == "missing":
        return f"{name} is missing: it was deleted, but a run needs it"
    if problem["type"] == "extra_forbidden":
        return f"there is no setting {name!r}; evalkit run --help shows all"
    return f"{name}={problem['input']!r}: {problem['msg']}"
