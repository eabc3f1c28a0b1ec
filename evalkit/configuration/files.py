"""Where the configuration files are, and how one option is read without Hydra.

Each file `configs/GROUP/NAME.yaml` is a plain mapping, merged over the options of its group that its `defaults` list names. Of
these, `base` and `server` stand for the defaults of the settings classes, which are no files.

A folder of the user's own (`--config-dir`, `config_dir=`) has the same form. evalkit's own folder comes first, as Hydra's primary
folder does: a user's file adds an option, and one named as an option of evalkit's is refused, since nobody would read it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator

from evalkit.errors import EvalkitError, unknown_name

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Origin = Literal["user", "file", "default"]
"""Who said a setting: the user, a file (an option's or an experiment's), or nobody."""

BASES = ("base", "server")
_MOST_VALUES = 100_000
_DEEPEST = 200
_LONGEST_NAME = 200
SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C, where PyYAML was built so: eight times as fast


@cache
def configs_dir() -> Path:
    """Return the packaged `configs/` of an installed wheel, else the repository's."""
    package = Path(__file__).parents[1]
    packaged = package / "configs"
    return packaged if packaged.is_dir() else package.parent / "configs"


def config_folders(config_dir: Path | str | None) -> tuple[Path, ...]:
    """Return the user's own configs folders, absolute, to be read after evalkit's: none, or the one that is named.

    Raises EvalkitError where it is no folder, or holds a file that is not YAML, is its own default or would never be read.
    """
    if config_dir is None:
        return ()
    folder = Path(config_dir).expanduser().absolute()
    if not folder.is_dir():
        raise EvalkitError(
            f"--config-dir {config_dir}: the folder was not found; name one with files such as model/NAME.yaml"
        )
    _refuse_endless_defaults(folder)
    for group in default_options():
        for file in sorted((folder / group).glob("*.yaml")):
            if file.stem in BASES or (configs_dir() / group / file.name).is_file():
                raise EvalkitError(
                    f"{file}: {group}={file.stem} is an option of evalkit's, which comes first; rename the file"
                )
    return (folder,)


def default_settings() -> dict[str, Any]:
    """Return the settings in `configs/config.yaml` that belong to no group, with their values there."""
    return {
        key: value for key, value in _parse(configs_dir() / "config.yaml").items() if key not in ("defaults", "hydra")
    }


def default_options() -> dict[str, str | None]:
    """Return the groups, each with the option that is taken where the user names none."""
    defaults = _parse(configs_dir() / "config.yaml")["defaults"]
    return {
        group: option
        for one in defaults
        if isinstance(one, dict)
        for group, option in one.items()
        if not group.startswith("override ")
    }


def option_names(group: str, folders: Sequence[Path] = ()) -> tuple[str, ...]:
    """Return the options of a configuration group, by file name, sorted; `folders` are the user's own configs folders."""
    return tuple(
        sorted({path.stem for folder in (configs_dir(), *folders) for path in (folder / group).glob("*.yaml")})
    )


def read_option(group: str, name: object, folders: Sequence[Path] = ()) -> dict[str, Any]:
    """Return the mapping in `GROUP/NAME.yaml`, merged over those that its `defaults` list names.

    Raises EvalkitError, naming the nearest options, where there is no such file in evalkit's folder or the user's `folders`, and
    where it can't be read.
    """
    return _merged(group, name, (configs_dir(), *folders), ())


def _merged(group: str, name: object, places: Sequence[Path], above: tuple[object, ...]) -> dict[str, Any]:
    found = (option_file(place / group, name) for place in places)
    path = next((path for path in found if path is not None), None)
    if path is None or name in above:
        known = (option for option in option_names(group, places[1:]) if option not in above)
        raise unknown_name(group, str(name), known)
    content = dict(_parse(path) if path.is_relative_to(configs_dir()) else _parse_own(path))
    defaults = content.pop("defaults", [])
    if not isinstance(defaults, list):
        raise EvalkitError(f"{path}: defaults must be a list such as [base, _self_]")
    if "_self_" not in defaults:
        defaults = [*defaults, "_self_"]
    merged: dict[str, Any] = {}
    for default in defaults:
        if default == "_self_":
            merged = merge(merged, content)
        elif not isinstance(default, dict) and default not in BASES:  # a mapping names another group's option
            merged = merge(merged, _merged(group, _option_of(default, group), places, (*above, name)))
    return merged


def _option_of(default: object, group: str) -> object:
    """Return the option that an entry of a `defaults` list names, which may be written `/GROUP/NAME@_here_`."""
    return default.partition("@")[0].removeprefix(f"/{group}/") if isinstance(default, str) else default


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two mappings as Hydra does: mappings within them too, and nothing else."""
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def option_file(folder: Path, name: object) -> Path | None:
    """Return the file of an option in its group's folder, and nowhere else; None where there is none of that name."""
    path = folder / f"{name}.yaml"
    is_name = isinstance(name, str) and path.parent == folder and "\\" not in name and len(name) < _LONGEST_NAME
    return path if is_name and path.is_file() else None


@cache
def _parse(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = read_yaml(path)
    return content


def _parse_own(path: Path) -> dict[str, Any]:
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"), _OwnLoader)
    except (OSError, ValueError) as error:
        raise EvalkitError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise EvalkitError(f"{path} must hold a mapping such as `name: {path.stem}`")
    return content


class _OwnLoader(yaml.SafeLoader):
    """Reads a user's configuration as Hydra does, for which 1e-3 is a number."""


_OwnLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file. Raises yaml.YAMLError and UnicodeDecodeError."""
    return yaml.load(path.read_text(encoding="utf-8"), Loader=SAFE_LOADER)  # noqa: S506 it is a safe loader


def parse_yaml(text: str, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> Any:
    """Return the content of YAML of other people's making, of plain values alone.

    Raises ValueError, with the reason in one line, where it is broken, or where its anchors stand for more than it could say.
    """
    if is_nested_deep(text):  # which parsers take long to give up on
        raise ValueError(f"brackets nested more than {_DEEPEST} deep")
    try:
        content = loader(text).get_single_data()
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


def _refuse_endless_defaults(folder: Path) -> None:
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
    """Return the options of its own group that a file is merged over. Raises EvalkitError where it can't be read."""
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


class GroupSettings(BaseModel):
    """Settings of one group, typed and frozen; what is wrong raises EvalkitError, which names the group and the field."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    group: ClassVar[str]

    @model_validator(mode="wrap")
    @classmethod
    def _say_what_is_wrong(cls, said: Any, check: ModelWrapValidatorHandler[Self]) -> Self:
        """Raise EvalkitError in place of pydantic's own."""
        try:
            return check(said)
        except ValidationError as error:
            raise settings_error(cls.group, error) from error


def settings_error(what: str, error: ValidationError) -> EvalkitError:
    """Return a pydantic error as one line: the field (of `what`), what it holds, what it should hold."""
    return EvalkitError("; ".join(_problem(what, problem) for problem in error.errors()))


def _problem(what: str, problem: ErrorDetails) -> str:
    name = ".".join(str(part) for part in (what, *problem["loc"]) if part != "")
    if problem["type"] == "missing":
        return f"{name} is missing: it was deleted, but a run needs it"
    if problem["type"] == "extra_forbidden":
        return f"there is no setting {name!r}; evalkit run --help shows all"
    return f"{name}={problem['input']!r}: {problem['msg']}"
