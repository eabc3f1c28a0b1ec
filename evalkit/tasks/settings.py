"""What a task's YAML file holds, and how it is read without Hydra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from evalkit.configuration.files import configs_dir, option_file, option_names, parse_yaml, settings_error
from evalkit.errors import EvalkitError, unknown_name


class HubLocation(BaseModel):
    """A dataset repository on the Hub, and the commit to take (None: its newest)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    repo: str = Field(min_length=1)
    revision: str | None = None


class TaskSettings(BaseModel):
    """One task, or with `suite` a list of tasks that run together.

    `source` chooses between the two Hub locations, which also say the layout; `path` (a file or folder) or `bundled`
    (a file of the package) replaces both. Where `mteb_name` is empty, the task is named after its path. A task of a `registry`
    is what that knows under `name`; `subset` chooses one of its subsets, where it has several. `candidates` is a file, the run of
    a first stage, whose `top_k` best documents per query are the candidates.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    mteb_name: str = ""
    description: str = ""
    split: str = Field(default="test", min_length=1)
    languages: tuple[str, ...] = ()
    source: Literal["cmteb", "mteb"] = "cmteb"
    cmteb: HubLocation | None = None
    mteb: HubLocation | None = None
    path: str | None = Field(default=None, min_length=1)
    bundled: str | None = None
    registry: Literal["mteb"] | None = None
    subset: str | None = Field(default=None, min_length=1)
    candidates: str | None = Field(default=None, min_length=1)
    top_k: int | None = Field(default=None, ge=1)
    suite: tuple[str, ...] = ()

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Every field with its default, as plain containers: what a YAML file is merged over."""
        return cls.model_construct(name="").model_dump(mode="json")

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Self:
        """Check a mapping; EvalkitError in one line names the field that is wrong."""
        try:
            return cls.model_validate(dict(mapping))
        except ValidationError as error:
            raise settings_error("task", error) from error


def task_names() -> tuple[str, ...]:
    """Every task and suite that has a YAML file, sorted."""
    return option_names("task")


def read_settings(name: str, folder: Path | None = None) -> TaskSettings:
    """The settings in `task/NAME.yaml` of a configs folder (default: evalkit's own).

    Raises EvalkitError, naming the nearest tasks, where there is no such file.
    """
    return TaskSettings.from_mapping(_merged(name, (folder or configs_dir()) / "task"))


def suite_settings(suite: TaskSettings, folders: Sequence[Path] = ()) -> tuple[TaskSettings, ...]:
    """The tasks of a suite in its order, taken from the suite's `source`; a single task stands for itself.

    `folders` are configs folders to look for tasks in before evalkit's own. Raises EvalkitError for settings that only a
    single task has.
    """
    if not suite.suite:
        return (suite,)
    for name, value in suite.model_dump(mode="json", exclude={"name", "description", "suite", "source"}).items():
        if value != TaskSettings.defaults()[name]:
            raise EvalkitError(
                f"task.{name} says nothing to {suite.name}, which is a suite of {', '.join(suite.suite)}; name one task (your own "
                "data: task=local task.path=PATH)"
            )
    places = {name: next((f for f in folders if (f / "task" / f"{name}.yaml").is_file()), None) for name in suite.suite}
    tasks = (read_settings(name, folder) for name, folder in places.items())
    return tuple(task.model_copy(update={"source": suite.source}) for task in tasks)


def _merged(name: object, folder: Path, above: tuple[object, ...] = ()) -> dict[str, Any]:
    """A file's mapping over those of the files that its `defaults` name: an alias names the file it stands for.

    `base` is left out, since it holds the defaults of TaskSettings.
    """
    path = option_file(folder, name)
    if path is None or name in above:
        raise unknown_name(
            "task", str(name), sorted(file.stem for file in folder.glob("*.yaml") if file.stem not in above)
        )
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise EvalkitError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise EvalkitError(f"{path} must hold a mapping such as `name: {name}`")
    defaults = content.pop("defaults", [])
    if not isinstance(defaults, list):
        raise EvalkitError(f"{path}: defaults must be a list such as [base, _self_]")
    merged: dict[str, Any] = {}
    for default in defaults:
        if default not in ("base", "_self_"):
            merged |= _merged(default, folder, (*above, name))
    return merged | content
