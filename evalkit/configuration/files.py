"""Where the configuration files are, and how one option is read without Hydra.

Each file `configs/GROUP/NAME.yaml` is a plain mapping. Its `defaults` list is for Hydra, which merges the file over the
group's base option; here the settings classes supply those defaults.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from evalkit.errors import EvalkitError, unknown_name

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_MOST_VALUES = 100_000
_DEEPEST = 200
_LONGEST_NAME = 200
SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C, where PyYAML was built so: eight times as fast


@cache
def configs_dir() -> Path:
    """The packaged `configs/` of an installed wheel, else the repository's."""
    package = Path(__file__).parents[1]
    packaged = package / "configs"
    return packaged if packaged.is_dir() else package.parent / "configs"


def option_names(group: str) -> tuple[str, ...]:
    """The options of a configuration group, by file name, sorted."""
    return tuple(sorted(path.stem for path in (configs_dir() / group).glob("*.yaml")))


def read_option(group: str, name: str) -> dict[str, Any]:
    """The mapping in `configs/GROUP/NAME.yaml`, without its `defaults` list.

    Raises EvalkitError, naming the nearest options, where there is no such file.
    """
    path = option_file(configs_dir() / group, name)
    if path is None:
        raise unknown_name(group, name, option_names(group))
    content = dict(_parse(path))
    content.pop("defaults", None)
    return content


def option_file(folder: Path, name: object) -> Path | None:
    """The file of an option in its group's folder, and nowhere else; None where there is none of that name."""
    path = folder / f"{name}.yaml"
    is_name = isinstance(name, str) and path.parent == folder and "\\" not in name and len(name) < _LONGEST_NAME
    return path if is_name and path.is_file() else None


@cache
def _parse(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = read_yaml(path)
    return content


def read_yaml(path: Path) -> Any:
    """The content of a YAML file. Raises yaml.YAMLError and UnicodeDecodeError."""
    return yaml.load(path.read_text(encoding="utf-8"), Loader=SAFE_LOADER)  # noqa: S506 it is a safe loader


def parse_yaml(text: str) -> Any:
    """The content of YAML of other people's making, of plain values alone.

    Raises ValueError, with the reason in one line, where it is broken, or where its anchors stand for more than it could say.
    """
    if is_nested_deep(text):  # which parsers take long to give up on
        raise ValueError(f"brackets nested more than {_DEEPEST} deep")
    try:
        content = yaml.safe_load(text)
    except Exception as error:  # beside YAMLError: dates that do not exist, keys that cannot be, too deep nesting
        raise ValueError((str(error).splitlines() or [type(error).__name__])[0]) from error
    unseen: list[Any] = [content]
    count = 0
    while unseen:
        value = unseen.pop()
        if isinstance(value, dict | list):
            unseen += value.values() if isinstance(value, dict) else value
        count += 1
        if count > max(_MOST_VALUES, len(text)):
            raise ValueError("its anchors repeat themselves without end")
    return content


def is_nested_deep(text: str) -> bool:
    """Whether more brackets stand open at one place than any honest text has."""
    depth = 0
    for bracket in re.findall(r"[\[{\]}]", text):
        depth = depth + 1 if bracket in "[{" else max(0, depth - 1)
        if depth > _DEEPEST:
            return True
    return False


def refuse_endless_defaults(folder: Path) -> None:
    """Raise EvalkitError where a file of a configs folder is no YAML, or its own default, which Hydra would follow for long."""
    for group in sorted(path for path in folder.glob("*") if path.is_dir()):
        named = {file.stem: _default_names(file) for file in sorted(group.glob("*.yaml"))}
        for start in named:
            seen: set[str] = set()
            unseen = [*named[start]]
            while unseen:
                name = unseen.pop()
                if name == start:
                    raise EvalkitError(f"{group / start}.yaml is among its own defaults, or among theirs; take it out")
                unseen += [] if name in seen else named.get(name, [])
                seen.add(name)


def _default_names(file: Path) -> list[str]:
    """The options of its own group that a file is merged over. Raises EvalkitError where it can't be read."""
    try:
        content = parse_yaml(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EvalkitError(f"{file} can't be read as YAML ({error}); mend it, or take it out of the folder") from error
    defaults = content.get("defaults") if isinstance(content, dict) else None
    values = [
        value
        for one in (defaults if isinstance(defaults, list) else [])
        for value in (one.values() if isinstance(one, dict) else [one])
    ]
    return [value.partition("@")[0].rpartition("/")[2] for value in values if isinstance(value, str)]


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
