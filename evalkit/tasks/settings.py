"""What a task's YAML file holds, and how it is read without Hydra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, InstanceOf, ValidationError

from evalkit.configuration.files import option_names, read_option, settings_error
from evalkit.errors import EvalkitError


def _not_empty(path: str) -> str:
    if not path:
        raise ValueError("a path has at least 1 character")
    return path


# a path may hold bytes that the locale can't decode, which are no text to pydantic
PathText = Annotated[InstanceOf[str], AfterValidator(_not_empty)]
TOP_K = 100
"""How many documents of a query a first stage hands on, where nobody says."""


def _joined(names: Any) -> Any:
    """Write several names as one text, as they stand on the command line."""
    listed = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    return ",".join(names) if listed else names


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
    a first stage, whose `top_k` best documents per query are the candidates (None: all). In its place `first_stage` names an
    embedder or `bm25` that searches the task's corpus, or several with commas between, whose runs are fused (`top_k` None: 100).

    A task of `type` retrieval needs a first stage, or candidates of its own, and is led by nDCG@10. `top_ranked` names the config
    of its Hub repository that holds candidates (None: `top_ranked`, where there is one); where these hold nothing relevant the
    dataset has appended a relevant document at `safeguard_rank`. With `ignore_identical_ids` a document that has its query's id
    is no candidate of that query.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    mteb_name: str = ""
    type: Literal["reranking", "retrieval"] = "reranking"
    description: str = ""
    split: str = Field(default="test", min_length=1)
    languages: tuple[str, ...] = ()
    source: Literal["cmteb", "mteb"] = "cmteb"
    cmteb: HubLocation | None = None
    mteb: HubLocation | None = None
    path: PathText | None = None
    bundled: str | None = None
    registry: Literal["mteb"] | None = None
    subset: str | None = Field(default=None, min_length=1)
    candidates: PathText | None = None
    first_stage: Annotated[PathText, BeforeValidator(_joined)] | None = None
    top_k: int | None = Field(default=None, ge=1)
    top_ranked: str | None = Field(default=None, min_length=1)
    safeguard_rank: int | None = Field(default=None, ge=2)
    ignore_identical_ids: bool = False
    suite: tuple[str, ...] = ()

    @property
    def first_stages(self) -> tuple[str, ...]:
        """The names of the models that search the corpus. Raises EvalkitError for a name that is empty or stands there twice."""
        if self.first_stage is None:
            return ()
        names = tuple(name.strip() for name in self.first_stage.split(","))
        if not all(names) or len(set(names)) < len(names):
            raise EvalkitError(
                f"task.first_stage={self.first_stage}: name each model once, with commas between: task.first_stage=bm25,MODEL"
            )
        return names

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


def task_names(folders: Sequence[Path] = ()) -> tuple[str, ...]:
    """Every task and suite that has a YAML file, sorted; `folders` are the user's own configs folders."""
    return option_names("task", folders)


def read_settings(name: str, folders: Sequence[Path] = ()) -> TaskSettings:
    """Return the settings in `task/NAME.yaml` of evalkit's configs folder, or of the user's own `folders`.

    Raises EvalkitError, naming the nearest tasks, where there is no such file.
    """
    return TaskSettings.from_mapping(read_option("task", name, folders))


def suite_settings(suite: TaskSettings, folders: Sequence[Path] = ()) -> tuple[TaskSettings, ...]:
    """Return the tasks of a suite in its order, with its `source` and its first stage; a single task stands for itself.

    `folders` are the user's own configs folders. Raises EvalkitError for settings that only a single task has.
    """
    if not suite.suite:
        return (suite,)
    shared = ("source", "first_stage", "top_k")
    for name, value in suite.model_dump(mode="json", exclude={"name", "description", "suite", *shared}).items():
        if value != TaskSettings.defaults()[name]:
            raise EvalkitError(
                f"task.{name} says nothing to {suite.name}, which is a suite of {', '.join(suite.suite)}; name one task (your own "
                "data: task=local task.path=PATH)"
            )
    tasks = (read_settings(name, folders) for name in suite.suite)
    said = {name: getattr(suite, name) for name in shared if getattr(suite, name) is not None}
    return tuple(task.model_copy(update=said) for task in tasks)
