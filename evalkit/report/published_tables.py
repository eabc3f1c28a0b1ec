"""The two published reranking tables of C-MTEB, digit for digit as printed, with a user's own runs among their rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from evalkit.compare.systems import system_labels, systems_of
from evalkit.output.numbers import counted, percent, signed
from evalkit.output.sheets import Sheet, SheetCell, SheetRow
from evalkit.results.published import AVERAGE_TASK, PublishedFigure, all_figures
from evalkit.results.result import Result

_CARD = "BAAI/bge-reranker-base README.md, table Reranking"
_CMTEB = "FlagOpen/FlagEmbedding research/C_MTEB/README.md, table 2.5"
_TITLES = {_CARD: "The reranking table of bge-reranker-base's card", _CMTEB: "C-MTEB, table 2.5: reranking"}
_METRIC = "map"
_RUN_MARK = "›"


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """A row: a published model's figures as printed, or a run's with two decimals. Percent, empty where there is none.

    `differences` are a run's from the published row of its model, in percentage points; `average` is a fraction.
    """

    model: str
    cells: tuple[str, ...]
    differences: tuple[str, ...]
    average: float | None
    is_run: bool = False
    label: str = ""


@dataclass(frozen=True, slots=True)
class PublishedTable:
    """A published table: `columns` are its tasks and Avg, `reference` says where it stands."""

    title: str
    reference: str
    columns: tuple[str, ...]
    rows: tuple[PublishedRow, ...]


@dataclass(frozen=True, slots=True)
class _Run:
    """One system's MAPs by task: fractions."""

    model: str
    label: str
    values: dict[str, float]


def published_tables(results: Sequence[Result] = ()) -> list[PublishedTable]:
    """Give both tables in the printed order, with the runs among the rows.

    A run stands below its model's published row, or, where there is none, before the first row with a higher average (at
    the end if it has none). Its average is over precisely the table's tasks, or missing. Results of a part of a task, or of other
    data, are not comparable and left out: see `left_out`.
    """
    runs = _runs([result for result in results if not _why_left_out(result)])
    return [_table(reference, runs) for reference in _TITLES]


def left_out(results: Sequence[Result]) -> list[str]:
    """Say in a line each which results stand in neither table, and why."""
    return [
        f"{result.model.name} on {result.task.name} is left out: {why}"
        for result in results
        if (why := _why_left_out(result))
    ]


def published_sheets(results: Sequence[Result] = ()) -> list[Sheet]:
    """Give both tables as they are shown; a run's cell holds its difference from the figure above it, too."""
    return [_sheet(table) for table in published_tables(results)]


def published_notes(results: Sequence[Result]) -> list[str]:
    """Return the lines below the tables."""
    explained = [f"{_RUN_MARK} a run, with its difference from its model's published figure"] if results else []
    return explained + left_out(results)


def _table(reference: str, runs: Sequence[_Run]) -> PublishedTable:
    figures: dict[str, dict[str, PublishedFigure]] = {}
    for figure in all_figures():
        if figure.source == "table" and figure.reference == reference:
            figures.setdefault(figure.model, {})[figure.task] = figure
    columns = tuple(dict.fromkeys(task for row in figures.values() for task in row))
    rows = [_published_row(model, row, columns) for model, row in figures.items()]
    for run in runs:
        run_row = _run_row(run, figures.get(run.model, {}), columns)
        if any(run_row.cells):
            rows.insert(_place(run_row, rows), run_row)
    return PublishedTable(_TITLES[reference], reference, columns, tuple(rows))


def _published_row(model: str, figures: dict[str, PublishedFigure], columns: Sequence[str]) -> PublishedRow:
    average = figures.get(AVERAGE_TASK)
    return PublishedRow(
        model=model,
        cells=tuple(figures[task].printed if task in figures else "" for task in columns),
        differences=("",) * len(columns),
        average=average.value if average else None,
        label=model.rpartition("/")[2],
    )


def _run_row(run: _Run, figures: dict[str, PublishedFigure], columns: Sequence[str]) -> PublishedRow:
    values = dict(run.values)
    tasks = [task for task in columns if task != AVERAGE_TASK]
    if all(task in values for task in tasks):
        values[AVERAGE_TASK] = math.fsum(values[task] for task in tasks) / len(tasks)
    differences = {task: figures[task].points(values[task]) for task in values if task in figures}
    return PublishedRow(
        model=run.model,
        cells=tuple(percent(values[task]) if task in values else "" for task in columns),
        differences=tuple(signed(differences[task]) if task in differences else "" for task in columns),
        average=values.get(AVERAGE_TASK),
        is_run=True,
        label=run.label,
    )


def _place(run: PublishedRow, rows: Sequence[PublishedRow]) -> int:
    """Find where a run's row belongs: below its model's rows, else before the first published row with a higher average."""
    same_model = [number for number, row in enumerate(rows) if row.model == run.model]
    if same_model:
        return same_model[-1] + 1
    higher = [
        number
        for number, row in enumerate(rows)
        if not row.is_run and run.average is not None and row.average is not None and row.average > run.average
    ]
    return higher[0] if higher else len(rows)


def _runs(results: Sequence[Result]) -> list[_Run]:
    """Put together the results of one model with one set of settings."""
    runs: dict[tuple[object, ...], _Run] = {}
    systems = systems_of(results)
    # the published rows are of each model's own settings
    labels = system_labels([*systems, *(replace(system, experiment="", settings={}) for system in systems)])
    for result, system in zip(results, systems, strict=True):
        label, backend = labels[system], str(sorted(result.backend.items()))
        key = (result.model, result.experiment, backend, result.path and result.path.parent)
        run = runs.setdefault(key, _Run(result.model.hub_id, label, {}))
        run.values[result.task.name] = result.scores[_METRIC]
    return list(runs.values())


def _why_left_out(result: Result) -> str:
    if result.task.name not in {figure.task for figure in all_figures() if figure.source == "table"}:
        return "neither table has this task"
    if result.incomparable == "limit":
        return f"it is of {counted(result.limit or 0, 'query')} only"
    if result.incomparable == "sample":
        return f"it is of a sample of {counted(result.task.statistics.queries, 'query')} only"
    if result.incomparable:
        return f"its data differ from the published: {result.task.differences[0]}"
    return "" if math.isfinite(result.scores.get(_METRIC, math.nan)) else f"it has no {_METRIC}"


def _sheet(table: PublishedTable) -> Sheet:
    rows: list[SheetRow] = [
        (
            f"{_RUN_MARK} {row.label}" if row.is_run else row.label,
            *(SheetCell(cell, aside=apart) for cell, apart in zip(row.cells, row.differences, strict=True)),
        )
        for row in table.rows
    ]
    return Sheet(
        title=f"{table.title} (MAP, %; {table.reference})",
        columns=(("model", "name"), *((task, "number") for task in table.columns)),
        rows=tuple(rows),
    )
