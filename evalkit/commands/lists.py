"""`evalkit list`: the models, tasks, backends and protocols there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from statistics import fmean

from evalkit.backends import AUTO, backends_for, how_to_install, is_installed, read_backend
from evalkit.configuration.files import option_names, read_option
from evalkit.errors import unknown_name
from evalkit.models.settings import read_model
from evalkit.output.console import OutputConsole
from evalkit.output.numbers import percent
from evalkit.output.sheets import Sheet, print_sheets
from evalkit.results import published
from evalkit.tasks.settings import read_settings, task_names

SUITES = ("C-MTEB-6", "C-MTEB")
"""Suites whose averages are published, the widest first."""
JUDGED_BY = ("map", "cmteb-v1")


def print_lists(what: str) -> None:
    """Print one of the lists, or all. Raises EvalkitError for a list that is not there."""
    if what and what not in LISTS:
        raise unknown_name("list", what, LISTS)
    print_sheets([LISTS[name]() for name in ([what] if what else LISTS)], OutputConsole())


def model_sheet() -> Sheet:
    """One row per model: kind, size, Hub id, what is published of it, its recipes, and the backends that can run it.

    Most models are run by all backends of their kind, which the lines below name.
    """
    figures = Counter(figure.model for figure in published.all_figures())
    suites = [read_settings(suite).suite for suite in SUITES]
    by_kind = _backends_by_kind()
    rows = []
    for name in sorted(option_names("model"), key=str.lower):
        model = read_model(name)
        hub_id, able = model.hub_id or "", backends_for(model)
        cells = (
            name,
            model.kind,
            f"{model.parameters:.0f} M" if model.parameters else "",
            hub_id,
            published_mean(hub_id, suites),
            str(figures[hub_id] or ""),
            ", ".join(model.recipes),
            "all" if able == by_kind.get(model.kind) else ", ".join(able),
        )
        rows.append(cells)
    titles = ("model", "kind", "parameters", "Hub id", "published MAP", "figures", "recipes", "backends")
    return Sheet(
        title="models",
        columns=tuple((title, "name") for title in titles),
        rows=tuple(rows),
        below=tuple(f"all {kind} backends: {', '.join(names)}" for kind, names in by_kind.items()),
    )


def _backends_by_kind() -> dict[str, tuple[str, ...]]:
    """The backends that run any model of a kind, where there are several."""
    backends = [read_backend(name) for name in option_names("backend")]
    by_kind = {
        kind: tuple(backend.name for backend in backends if kind in backend.kinds)
        for kind in sorted({kind for backend in backends for kind in backend.kinds})
    }
    return {kind: names for kind, names in by_kind.items() if len(names) > 1}


def published_mean(hub_id: str, suites: Sequence[Sequence[str]]) -> str:
    """A model's mean MAP in percent, with the number of tasks that it is of; empty where too little is published.

    It is the preferred published average of the first suite's tasks, or the next one's; else the mean of the preferred
    figures of the last one's tasks, where each has one.
    """
    for tasks in suites:
        average = published.find_average(hub_id, tasks, *JUDGED_BY)
        if average:
            return f"{percent(average.value)} of {len(tasks)}"
    figures = [published.preferred(hub_id, task, *JUDGED_BY) for task in tasks]
    values = [figure.value for figure in figures if figure]
    return f"{percent(fmean(values))} of {len(tasks)}" if len(values) == len(tasks) else ""


def task_sheet() -> Sheet:
    """One row per task or suite: what it is and where it comes from."""
    rows = []
    for name in task_names():
        task = read_settings(name)
        place = task.cmteb.repo if task.cmteb else "bundled" if task.bundled else ", ".join(task.suite)
        place = place or ("task.name=NAME" if task.registry else "task.path=PATH")
        same = f"the same as {task.name}" if task.name != name else task.description
        rows.append((name, same, place))
    return Sheet("tasks", (("task", "name"), ("what", "name"), ("from", "name")), tuple(rows))


def backend_sheet() -> Sheet:
    """One row per backend: the kinds of model that it runs, and in which precisions."""
    rows = []
    naming = [(model, read_model(model).backends) for model in option_names("model")]
    for name in option_names("backend"):
        backend = read_backend(name)
        named = [model for model, backends in naming if name in backends]
        runs = ", ".join([*backend.kinds, *named]) or "torch, or on a CPU the fastest that agrees with it"
        installed = "yes" if is_installed(backend) else how_to_install(backend)
        dtypes = "the server's" if backend.server else ", ".join(backend.dtypes) if name != AUTO else ""
        rows.append((name, runs, dtypes, installed))
    titles = ("backend", "runs", "dtype", "installed")
    return Sheet("backends", tuple((title, "name") for title in titles), tuple(rows))


def protocol_sheet() -> Sheet:
    """One row per protocol: what it is."""
    rows = ((name, str(read_option("protocol", name)["description"])) for name in option_names("protocol"))
    return Sheet("protocols", (("protocol", "name"), ("what", "name")), tuple(rows))


LISTS: dict[str, Callable[[], Sheet]] = {
    "models": model_sheet,
    "tasks": task_sheet,
    "backends": backend_sheet,
    "protocols": protocol_sheet,
}
