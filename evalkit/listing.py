"""`evalkit list`: the models, tasks, backends and protocols there are."""

from __future__ import annotations

from collections.abc import Callable

from rich.table import Table
from rich.text import Text

from evalkit.backends import AUTO, backends_for, is_installed, read_backend
from evalkit.configuration import option_names, read_option, unknown_name
from evalkit.console import OutputConsole
from evalkit.models.settings import read_model
from evalkit.tasks.settings import read_settings, task_names

WIDE = 200


def print_lists(what: str) -> None:
    """Print one of the lists, or all. Raises EvalkitError for a list that is not there."""
    if what and what not in LISTS:
        raise unknown_name("list", what, LISTS)
    console = OutputConsole()
    if not console.is_terminal:
        console = OutputConsole(width=WIDE)
    for name in [what] if what else LISTS:
        console.print(LISTS[name]())


def model_table() -> Table:
    """One row per model: kind, size, Hub id, recipes and the backends that can run it."""
    table = _table("models", "model", "kind", "parameters", "Hub id", "recipes", "backends")
    for name in option_names("model"):
        model = read_model(name)
        size = f"{model.parameters:.0f} M" if model.parameters else ""
        recipes = ", ".join(model.recipes)
        table.add_row(name, model.kind, size, model.hub_id or "", recipes, ", ".join(backends_for(model)))
    return table


def task_table() -> Table:
    """One row per task or suite: what it is and where it comes from."""
    table = _table("tasks", "task", "what", "from")
    for name in task_names():
        task = read_settings(name)
        place = task.cmteb.repo if task.cmteb else "bundled" if task.bundled else ", ".join(task.suite)
        place = place or ("task.name=NAME" if task.registry else "task.path=PATH")
        same = f"the same as {task.name}" if task.name != name else task.description
        table.add_row(name, same, place)
    return table


def backend_table() -> Table:
    """One row per backend: the kinds of model that it runs, and in which precisions."""
    table = _table("backends", "backend", "runs", "dtype", "installed")
    for name in option_names("backend"):
        backend = read_backend(name)
        named = [model for model in option_names("model") if name in read_model(model).backends]
        runs = ", ".join([*backend.kinds, *named]) or "torch, or on a CPU the fastest that agrees with it"
        installed = "yes" if is_installed(backend) else Text(f'pip install "evalkit-reranking[{name}]"')
        table.add_row(name, runs, ", ".join(backend.dtypes) if name != AUTO else "", installed)
    return table


def protocol_table() -> Table:
    """One row per protocol: what it is."""
    table = _table("protocols", "protocol", "what")
    for name in option_names("protocol"):
        table.add_row(name, read_option("protocol", name)["description"])
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


LISTS: dict[str, Callable[[], Table]] = {
    "models": model_table,
    "tasks": task_table,
    "backends": backend_table,
    "protocols": protocol_table,
}
