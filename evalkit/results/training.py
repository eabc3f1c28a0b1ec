"""Whether a model was trained on a task's data, by what is known of it without loading it.

`data/training.json` is what mteb's registry says (`make training-data` writes it), `data/training.yaml` what evalkit knows beside
that, each with its source. Of a model in a folder its card says what it was trained on, and from which model it was made.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.configuration.files import parse_yaml
from evalkit.output.numbers import listed
from evalkit.output.text import printable
from evalkit.published_statistics import published_statistics
from evalkit.records import ModelIdentity, TaskIdentity, TrainingMark

if TYPE_CHECKING:
    from evalkit.results.result import Result  # which needs numpy, and lists do without

CARD = "README.md"
_DATA = Path(__file__).parent / "data"
_FRONT_MATTER = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*---[ \t]*(?:\r\n|\r|\n)(.*?)(?:\r\n|\r|\n)---[ \t]*(?:\r\n|\r|\n|$)", re.DOTALL
)
_ADDRESS = re.compile(r"^(https?://)?(www\.)?(huggingface\.co|hf\.co)/(datasets/)?")
_LONGEST_CARD = 1_000_000
_LONGEST_NAME = 200
_UNTRAINED = ("lexical", "baseline")  # kinds of models


@dataclass(frozen=True, slots=True)
class Card:
    """What a model's card says of its training: datasets, the models that it was made from, and whether it is the same weights.

    `problem` says why it could not be read; empty where it could.
    """

    datasets: tuple[str, ...] = ()
    base_models: tuple[str, ...] = ()
    quantized: bool = False
    problem: str = ""


def read_card(folder: Path) -> Card:
    """Read the card of a model's folder (the YAML at the top of README.md). What is wrong with it is its `problem`."""
    path = folder / CARD
    if not path.is_file():
        return Card(problem=f"the folder has no {CARD}")
    try:
        with path.open("rb") as file:
            found = _FRONT_MATTER.match(file.read(_LONGEST_CARD))
    except OSError as error:
        return Card(problem=f"its {CARD} can't be read ({error.strerror})")
    if found is None:
        return Card(problem=f"its {CARD} has no YAML at its top")
    try:
        content = parse_yaml(found[1].decode("utf-8"))
    except UnicodeDecodeError:
        return Card(problem=f"the YAML of its {CARD} is not UTF-8")
    except ValueError as error:
        return Card(problem=f"the YAML of its {CARD} is broken ({error})")
    if not isinstance(content, dict):
        return Card(problem=f"the YAML of its {CARD} is no mapping")
    datasets, bases = _names(content.get("datasets")), _names(content.get("base_model"))
    if datasets is None or bases is None:
        wrong = "datasets" if datasets is None else "base_model"
        return Card(problem=f"{wrong} of its {CARD} is no list of names")
    return Card(datasets, bases, content.get("base_model_relation") == "quantized")


def _names(value: object) -> tuple[str, ...] | None:
    """Return the names that a card's field lists, without the Hub's address; None where it is something else."""
    values = [] if value is None else value if isinstance(value, list) else [value]
    texts = [one for one in values if isinstance(one, str) and len(one) <= _LONGEST_NAME]
    if len(texts) < len(values):
        return None
    return tuple(name for one in texts if (name := _ADDRESS.sub("", printable(one).strip()).rstrip("/")))


def mark_training(
    model: ModelIdentity, task: TaskIdentity, settings: Mapping[str, Any], card: Card | None
) -> TrainingMark | None:
    """Return whether a model was trained on a task's data: having seen the dataset's training part counts, as it does in mteb.

    `settings` are those that the task was loaded with. `card` is that of a model in a folder, whose name says nothing; None where
    the model is known by its name. The answer is None for data that are no benchmark's, except where the card names them.
    """
    benchmark = _benchmark(task, settings)
    if benchmark is None:
        own = {name.casefold() for name in (task.name, *_repositories(settings).values())}
        named = () if card is None else tuple(name for name in card.datasets if name.casefold() in own)
        return TrainingMark("trained", named, "its card") if named else None
    if not _is_compared(task, settings, benchmark):
        return TrainingMark("not stated", (), f"{task.source} was not compared with the published data of this name")
    return training_of_model(model.hub_id, model.kind, benchmark, card)


def training_of(result: Result) -> TrainingMark | None:
    """Return a result's own mark, or for one without, of a model of the Hub, what is known today; else None."""
    if result.training is not None or result.model.hub_id.startswith("local/"):
        return result.training
    settings = result.config.get("task")
    return mark_training(result.model, result.task, settings if isinstance(settings, Mapping) else {}, None)


def training_of_model(hub_id: str, kind: str, mteb_name: str, card: Card | None = None) -> TrainingMark | None:
    """Return whether a model, by its name or its card, was trained on the data of a task; None where mteb has no such task."""
    benchmark = _known_task(mteb_name)
    if benchmark is None:
        return None
    if kind in _UNTRAINED:
        return TrainingMark("not trained", (), "nothing of it is trained")
    return _by_name(hub_id, benchmark) if card is None else _by_card(card, benchmark)


def training_phrase(marks: Sequence[TrainingMark | None]) -> str:
    """Say in a few words what a table has room for: of one task its mark, of several how many have which; empty without marks."""
    counts = Counter(mark.verdict for mark in marks if mark is not None)
    if not counts:
        return ""
    if len(marks) == 1:
        return {
            "trained": "trained on this task",
            "not trained": "not trained on this task",
            "not stated": "training not stated",
        }[counts.most_common()[0][0]]
    unstated = f", {counts['not stated']} not stated" if counts["not stated"] else ""
    return f"{counts['trained']} of {len(marks)} tasks marked as trained on{unstated}"


def training_line(marks: Mapping[str, TrainingMark | None]) -> str:
    """Say in a line what is known of a model's training on tasks, by their names, and who says it; empty without marks."""
    verbs = {
        "trained": "trained on the data of",
        "not trained": "not trained on the data of",
        "not stated": "not stated whether trained on the data of",
    }
    by_source: dict[str, dict[str, list[str]]] = {}
    for task, mark in marks.items():
        if mark is not None:
            by_source.setdefault(mark.source, {}).setdefault(mark.verdict, []).append(task)
    parts = [
        f"{', '.join(f'{verbs[verdict]} {listed(own[verdict], len(marks))}' for verdict in verbs if verdict in own)} ({source})"
        for source, own in by_source.items()
    ]
    return "; ".join([*parts, training_phrase(tuple(marks.values()))] if parts and len(marks) > 1 else parts)


# --- the task


def _benchmark(task: TaskIdentity, settings: Mapping[str, Any]) -> str | None:
    """Return mteb's name of the task that the data are; None where they are others, whatever they are called."""
    declared = settings.get("mteb_name") or (settings.get("registry") and not settings.get("path"))
    if not declared or (task.differences and task.first_stage is None):
        return None
    return _known_task(task.mteb_name)


def _is_compared(task: TaskIdentity, settings: Mapping[str, Any], benchmark: str) -> bool:
    """Tell whether the data are known to be the benchmark's: of a repository of its, or found to be like what it publishes."""
    if not settings.get("path"):
        repository = _repositories(settings).get(task.layout)
        if repository is None or not _kin(benchmark).isdisjoint(_tasks_named(repository)):
            return True
    return not task.part and task.first_stage is None and task.mteb_name in published_statistics()


def _repositories(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the repositories of the Hub that a task's settings name, by layout."""
    places = {layout: settings.get(layout) for layout in ("cmteb", "mteb")}
    return {layout: str(one["repo"]) for layout, one in places.items() if isinstance(one, Mapping) and one.get("repo")}


def _known_task(mteb_name: str) -> str | None:
    """Return the task of mteb's whose data a task has, or None."""
    name = _known()["tasks"].get(mteb_name, mteb_name)
    return name if name in _snapshot()["tasks"] else None


def _kin(task: str) -> frozenset[str]:
    """Return the tasks on the same data: the task itself, its adaptations, and what they were adapted from."""
    return _groups().get(task, frozenset({task}))


def _tasks_named(dataset: str) -> frozenset[str]:
    """Return mteb's tasks that a dataset may mean: by their names, their repositories, or another name that is known."""
    return _task_names().get(dataset.casefold(), frozenset())


def _of_task(datasets: Iterable[str], task: str) -> tuple[str, ...]:
    """Return those of the datasets, by whatever name, that are a task's data."""
    kin = _kin(task)
    return tuple(sorted(name for name in datasets if not kin.isdisjoint(_tasks_named(name))))


# --- the model


def _by_name(hub_id: str, task: str) -> TrainingMark:
    """Return what the registry, or evalkit's own file, says of a model and one of mteb's tasks."""
    hub_id = _known()["weights_of"].get(hub_id, hub_id)
    name = _registered(hub_id)
    if name is None:
        own = {key.casefold(): one for key, one in _known()["models"].items()}.get(hub_id.casefold())
        if own is None:
            return TrainingMark("not stated", (), f"{_registry()} does not have the model")
        named = _of_task(own["datasets"], task)
        return TrainingMark("trained" if named else "not trained", named, own["source"])
    datasets = _datasets_of(name)
    base = _snapshot()["adapted_from"].get(name)
    if datasets is None:
        mark = None if base is None or base == name else _by_name(base, task)
        trained = f"; it says that its base {base} was trained on it" if mark and mark.verdict == "trained" else ""
        return TrainingMark("not stated", (), f"{_registry()} does not say{trained}")
    named = _of_task(datasets, task)
    return TrainingMark("trained" if named else "not trained", named, _registry())


def _by_card(card: Card, task: str) -> TrainingMark:
    """Return what the card of a model's folder says, with what is known of the models that it was made from."""
    named = _of_task(card.datasets, task)
    if named:
        return TrainingMark("trained", named, "its card")
    bases = [(base, _by_name(base, task)) for base in card.base_models]
    for base, mark in bases:
        if mark.verdict == "trained":
            return TrainingMark("trained", mark.datasets, f"its card: made from {base}; {mark.source}")
    if card.problem:
        return TrainingMark("not stated", (), card.problem)
    for base, mark in bases:
        if mark.verdict == "not stated":
            return TrainingMark("not stated", (), f"its card: made from {base}; {mark.source}")
    if card.datasets or (bases and card.quantized):
        return TrainingMark("not trained", (), "its card")
    return TrainingMark("not stated", (), "its card lists no datasets")


def _registered(hub_id: str) -> str | None:
    """Return the registry's name of a model: as it is, as it is called today, or in other letters, as the Hub reads them."""
    snapshot = _snapshot()
    name = snapshot["renamed"].get(hub_id, hub_id)
    return name if name in snapshot["models"] else _model_names().get(name.casefold())


def _datasets_of(name: str, seen: frozenset[str] = frozenset()) -> frozenset[str] | None:
    """Return what a registered model was trained on, with what its base was; None where the registry does not say.

    As in mteb, a base that is not registered, or of which the registry does not say, adds nothing.
    """
    snapshot = _snapshot()
    place = snapshot["models"][name]
    if place is None:
        return None
    own = frozenset(snapshot["datasets"][place])
    base = snapshot["adapted_from"].get(name)
    base = snapshot["renamed"].get(base, base)
    if base is None or base in seen or base not in snapshot["models"]:
        return own
    return own | (_datasets_of(base, seen | {name}) or frozenset())


# --- the files


def _registry() -> str:
    return f"mteb {_snapshot()['mteb']}'s registry"


@cache
def _snapshot() -> Mapping[str, Any]:
    content: dict[str, Any] = json.loads((_DATA / "training.json").read_text(encoding="utf-8"))
    return content


@cache
def _known() -> Mapping[str, Any]:
    content: dict[str, Any] = parse_yaml((_DATA / "training.yaml").read_text(encoding="utf-8"))
    return content


@cache
def _model_names() -> Mapping[str, str]:
    """Return the registry's models by their names in small letters."""
    return {name.casefold(): name for name in _snapshot()["models"]}


@cache
def _task_names() -> Mapping[str, frozenset[str]]:
    """Tasks by all that their data are called, in small letters."""
    found: dict[str, set[str]] = {}
    for task, repository in _snapshot()["tasks"].items():
        for name in (task, repository):
            found.setdefault(name.casefold(), set()).add(task)
    for name, task in _known()["datasets"].items():
        found.setdefault(name.casefold(), set()).add(task)
    return {name: frozenset(tasks) for name, tasks in found.items()}


@cache
def _groups() -> Mapping[str, frozenset[str]]:
    """Return the tasks on the same data, by each of them."""
    return {task: frozenset(group) for group in _snapshot()["related"] for task in group}
