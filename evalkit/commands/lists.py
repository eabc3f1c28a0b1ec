"""What `evalkit list` shows: the models, tasks, backends and protocols there are, as tables or as JSON of the same entries."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

from evalkit.backends import AUTO, backends_for, how_to_install, is_installed, read_backend
from evalkit.configuration.files import option_names, read_option
from evalkit.evaluation.certificates import CODE_OF_ITS_OWN, verification
from evalkit.evaluation.model_recipes import complete_recipe, recipe_fields, recipe_sheet, stated_fields
from evalkit.models.choosing import choose_model
from evalkit.models.interfaces import Runtime
from evalkit.models.settings import ModelSettings, default_model, model_settings, read_model
from evalkit.output.console import OutputConsole
from evalkit.output.json import STDOUT, write_json
from evalkit.output.sheets import Sheet, print_sheets
from evalkit.records import TrainingMark
from evalkit.results import published
from evalkit.results.training import read_card, training_line, training_of_model
from evalkit.tasks.settings import read_settings, task_names

SUITES = ("C-MTEB-6", "C-MTEB")
"""Suites whose averages are published, the widest first."""
JUDGED_BY = ("map", "cmteb-v1")
NOTE_WIDTH = 160  # characters of a line below a table

Entry = dict[str, Any]
Folders = Sequence[Path]
Cells = tuple[str, ...]


@dataclass(frozen=True)
class Listing:
    """One list: its entries, as JSON holds them, the columns and rows of their table, and the lines below it."""

    columns: tuple[str, ...]
    entries: Callable[[Folders], list[Entry]]
    row: Callable[[Entry], Cells]
    below: Callable[[], tuple[str, ...]] = tuple


def model_entries(folders: Folders) -> list[Entry]:
    """Per model: kind, Hub id and revision, millions of parameters, recipes, the backends that can run it, and what is published.

    `verified` says whether it has a certificate, null where there is nothing to verify. `published_map` is a mean
    in percent, of as many tasks as `published_tasks` says; `figures` counts all published ones.
    """
    figures = Counter(figure.model for figure in published.all_figures())
    return [_model_entry(name, folders, figures) for name in sorted(option_names("model", folders), key=str.lower)]


def _model_entry(name: str, folders: Folders, figures: Mapping[str, int]) -> Entry:
    model = read_model(name, folders)
    mean, tasks = published_mean(model.hub_id or "")
    return {
        "name": name,
        "kind": model.kind,
        "hub_id": model.hub_id,
        "revision": model.revision,
        "parameters_millions": model.parameters,
        "recipes": list(model.recipes),
        "backends": list(backends_for(model)),
        "verified": verification(name, model, folders),
        "published_map": mean,
        "published_tasks": tasks,
        "figures": figures.get(model.hub_id or "", 0),
    }


def published_mean(hub_id: str) -> tuple[float | None, int]:
    """Return a model's mean MAP in percent, and the number of tasks that it is of; None and 0 where too little is published.

    It is the preferred published average of the first suite's tasks, or the next one's; else the mean of the preferred
    figures of the last one's tasks, where each has one.
    """
    suites = [read_settings(suite).suite for suite in SUITES]
    for tasks in suites:
        average = published.find_average(hub_id, tasks, *JUDGED_BY)
        if average:
            return average.value * 100, len(tasks)
    figures = [published.preferred(hub_id, task, *JUDGED_BY) for task in suites[-1]]
    values = [figure.value for figure in figures if figure]
    return (fmean(values) * 100, len(values)) if len(values) == len(suites[-1]) else (None, 0)


def _model_row(entry: Entry) -> Cells:
    """Return a model's cells; most are run by all backends of their kind, which the lines below name."""
    millions, mean, able = entry["parameters_millions"], entry["published_map"], tuple(entry["backends"])
    return (
        entry["name"],
        entry["kind"],
        f"{millions:.0f} M" if millions else "",
        entry["hub_id"] or "",
        (entry["verified"] or "").replace(CODE_OF_ITS_OWN, "own code"),  # the table is wide enough
        f"{mean:.2f} of {entry['published_tasks']}" if mean is not None else "",
        str(entry["figures"] or ""),
        ", ".join(entry["recipes"]),
        _able(able, _backends_by_kind().get(entry["kind"], ())),
    )


def _able(able: tuple[str, ...], of_kind: tuple[str, ...]) -> str:
    """Name the backends that can run a model, in few words where they are all of its kind, or all servers among these."""
    if able == of_kind:
        return "all"
    servers = {name for name in of_kind if read_backend(name).server}
    if servers and servers < set(able):
        return ", ".join((*(name for name in able if name not in servers), "servers"))
    return ", ".join(able)


@cache
def _backends_by_kind() -> dict[str, tuple[str, ...]]:
    """Return the backends that run any model of a kind, where it is not one of the kind's own name."""
    backends = [read_backend(name) for name in option_names("backend")]
    by_kind = {
        kind: tuple(backend.name for backend in backends if kind in backend.kinds)
        for kind in sorted({kind for backend in backends for kind in backend.kinds})
    }
    return {kind: names for kind, names in by_kind.items() if names != (kind,)}


def _backends_of_kinds() -> tuple[str, ...]:
    said = (f"all {kind} backends: {', '.join(names)}" for kind, names in _backends_by_kind().items())
    return tuple(line for text in said for line in textwrap.wrap(text, NOTE_WIDTH, subsequent_indent="    "))


def task_entries(folders: Folders) -> list[Entry]:
    """Per task, alias or suite: which task it is, what mteb calls it, and where it comes from."""
    places = ("mteb_name", "description", "split", "languages", "cmteb", "mteb", "path", "bundled", "registry", "suite")
    entries = []
    for name in task_names(folders):
        task = read_settings(name, folders).model_dump(mode="json")
        entries.append({"name": name, "task": task["name"], **{key: task[key] for key in places}})
    return entries


def _task_row(entry: Entry) -> Cells:
    same = f"the same as {entry['task']}" if entry["task"] != entry["name"] else entry["description"]
    location = entry["cmteb"] or entry["mteb"]
    repository = location and location["repo"]
    place = repository or (entry["bundled"] and "bundled") or ", ".join(entry["suite"]) or entry["path"]
    return entry["name"], same, place or ("task.name=NAME" if entry["registry"] else "task.path=PATH")


def backend_entries(folders: Folders) -> list[Entry]:
    """Per backend: the kinds of model and the models that it runs, its precisions, whether it is a server, and installed."""
    naming = [(model, read_model(model).backends) for model in option_names("model")]
    entries = []
    for name in option_names("backend", folders):
        backend = read_backend(name, folders)
        entries.append(
            {
                "name": name,
                "kinds": list(backend.kinds),
                "models": [model for model, backends in naming if name in backends],
                "dtypes": list(backend.dtypes),
                "server": bool(backend.server),
                "installed": is_installed(backend),
                "install": how_to_install(backend),
            }
        )
    return entries


def _backend_row(entry: Entry) -> Cells:
    runs = ", ".join([*entry["kinds"], *entry["models"]]) or "torch, or on a CPU the fastest that agrees with it"
    dtypes = "the server's" if entry["server"] else ", ".join(entry["dtypes"]) if entry["name"] != AUTO else ""
    return entry["name"], runs, dtypes, "yes" if entry["installed"] else entry["install"]


def described_entries(group: str) -> Callable[[Folders], list[Entry]]:
    """Per option of a group: what its file says that it is."""

    def entries(folders: Folders) -> list[Entry]:
        return [
            {"name": name, "description": str(read_option(group, name, folders).get("description", ""))}
            for name in option_names(group, folders)
        ]

    return entries


def _described_row(entry: Entry) -> Cells:
    return entry["name"], entry["description"]


LISTS: Mapping[str, Listing] = {
    "models": Listing(
        ("model", "kind", "size", "Hub id", "verified", "published MAP", "figures", "recipes", "backends"),
        model_entries,
        _model_row,
        _backends_of_kinds,
    ),
    "tasks": Listing(("task", "what", "from"), task_entries, _task_row),
    "backends": Listing(("backend", "runs", "dtype", "installed"), backend_entries, _backend_row),
    "protocols": Listing(("protocol", "what"), described_entries("protocol"), _described_row),
}


def print_lists(what: str, folders: Folders, json_file: Path | None) -> None:
    """Print one of the lists, or all; JSON goes to a file beside the tables, or to standard output in their place."""
    content = {name: LISTS[name].entries(folders) for name in ([what] if what else LISTS)}
    if json_file is not None:
        write_json(content, json_file)
    if json_file == STDOUT:
        return
    print_sheets([_sheet(name, LISTS[name], entries) for name, entries in content.items()], OutputConsole())


def print_recipe(word: str, folders: Folders, json_file: Path | None) -> None:
    """Print a model's whole recipe, and where each part of it comes from. No weights are read."""
    choice = choose_model(word, folders)
    content = read_option("model", choice.option, folders)
    own = default_model() | content
    settings = model_settings(own, dict(choice.settings))
    stated = stated_fields(own, settings, content, choice.settings)
    recipe = complete_recipe(settings, stated, "torch", Runtime())
    fields = recipe_fields(recipe)
    training = _training_marks(recipe.settings)
    entry = {
        "name": word,
        "hub_id": recipe.settings.hub_id,
        "revision": recipe.settings.revision,
        "parameters_millions": recipe.settings.parameters,
        "recipe": {name: asdict(one) for name, one in fields.items()},
        "findings": recipe.findings,
        "training": {task: asdict(mark) for task, mark in training.items()},
    }
    if json_file is not None:
        write_json(entry, json_file)
    if json_file != STDOUT:
        below = (*recipe.findings, training_line(training))
        print_sheets([recipe_sheet(word, fields, below, _origin_lines(recipe.settings))], OutputConsole())


def _origin_lines(model: ModelSettings) -> tuple[str, ...]:
    """Say where a model's files come from, and how large it is where that is known."""
    size = f"{model.parameters:.0f} M parameters" if model.parameters else ""
    if model.path is not None:
        place = f"folder: {model.path}"
    elif model.hub_id:
        place = f"Hub: {model.hub_id}, revision {model.revision or 'not pinned'}"
    else:
        place = ""
    said = ", ".join(filter(None, (place, size)))
    return (said,) if said else ()


def _training_marks(model: ModelSettings) -> dict[str, TrainingMark]:
    """Say of each task of C-MTEB whether the model was trained on its data, by its name or by its folder's card."""
    card = None if model.path is None else read_card(Path(model.path).expanduser())
    hub_id = model.hub_id or f"local/{model.name}"
    found = {}
    for name in read_settings(SUITES[-1]).suite:
        mark = training_of_model(hub_id, model.kind, read_settings(name).mteb_name, card)
        if mark is not None:
            found[name] = mark
    return found


def _sheet(title: str, listing: Listing, entries: Sequence[Entry]) -> Sheet:
    return Sheet(
        title=title,
        columns=tuple((column, "name") for column in listing.columns),
        rows=tuple(listing.row(entry) for entry in entries),
        below=listing.below(),
    )
