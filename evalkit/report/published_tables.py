"""The published tables of C-MTEB's tasks, digit for digit as printed, with a user's own runs among their rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from evalkit.compare.shared_queries import metric_title
from evalkit.compare.systems import system_labels, systems_of
from evalkit.metrics.measures import RETRIEVAL_PROTOCOL
from evalkit.output.numbers import counted, percent, signed
from evalkit.output.sheets import Sheet, SheetCell, SheetRow
from evalkit.results.published import AVERAGE_TASK, SUITES, PublishedFigure, all_figures
from evalkit.results.result import Result

_RUN_MARK = "›"


@dataclass(frozen=True, slots=True)
class _Source:
    """A table where it stands: its title, the metric of its figures, and whose candidates were reranked, as `Result.stage` says."""

    title: str
    metric: str = "map"
    stage: str = ""


_SOURCES = {
    "BAAI/bge-reranker-base README.md, table Reranking": _Source("The reranking table of bge-reranker-base's card"),
    "FlagOpen/FlagEmbedding research/C_MTEB/README.md, table 2.5": _Source("C-MTEB, table 2.5: reranking"),
    "QwenLM/Qwen3-Embedding README.md, table Reranker": _Source(
        "CMTEB-R: C-MTEB's retrieval tasks, the top 100 of Qwen3-Embedding-0.6B reranked",
        "ndcg_at_10",
        "Qwen3-Embedding-0.6B@100",
    ),
    "hakari-bench/hakari-bench task_docs/docs/NanoCMTEB/index.md": _Source(
        "NanoCMTEB: its fixed rankings, none of them reranked", "ndcg_at_10", "reranking_hybrid"
    ),
}


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
    measure: str = "MAP"
    unit: str = "percent"


@dataclass(frozen=True, slots=True)
class _Run:
    """One system's results by task."""

    model: str
    label: str
    results: dict[str, Result]


def published_tables(results: Sequence[Result] = ()) -> list[PublishedTable]:
    """Give the tables in the printed order, with the runs among the rows.

    A run stands below its model's published row, or, where there is none, before the first row with a higher average (at
    the end if it has none). Its average is over precisely the table's tasks, or missing, like the mean of a suite. Results of a
    part of a task, of other data, or on another first stage's candidates are not comparable and left out: see `left_out`.
    """
    runs = _runs([result for result in results if not _why_left_out(result)])
    return [_table(reference, runs) for reference in _SOURCES]


def left_out(results: Sequence[Result]) -> list[str]:
    """Say in a line each which results stand in no table, and why."""
    return [
        f"{result.model.name} on {result.task.name} is left out: {why}"
        for result in results
        if (why := _why_left_out(result))
    ]


def published_sheets(results: Sequence[Result] = ()) -> list[Sheet]:
    """Give the tables as they are shown; a run's cell holds its difference from the figure above it, too."""
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
    source, first = _SOURCES[reference], next(iter(next(iter(figures.values())).values()))
    for run in runs:
        values = _values(run, source, columns)
        run_row = _run_row(run, values, figures.get(run.model, {}), columns, first)
        if any(run_row.cells):
            rows.insert(_place(run_row, rows), run_row)
    return PublishedTable(source.title, reference, columns, tuple(rows), metric_title(source.metric), first.unit)


def _published_row(model: str, figures: dict[str, PublishedFigure], columns: Sequence[str]) -> PublishedRow:
    average = figures.get(AVERAGE_TASK) or next((figures[task] for task in figures if task in SUITES), None)
    return PublishedRow(
        model=model,
        cells=tuple(figures[task].printed if task in figures else "" for task in columns),
        differences=("",) * len(columns),
        average=average.value if average else None,
        label=model.rpartition("/")[2],
    )


def _values(run: _Run, source: _Source, columns: Sequence[str]) -> dict[str, float]:
    """Give a system's values in a table's metric by column: fractions, of the results that reranked the table's candidates."""
    own = {task: one.scores[source.metric] for task, one in run.results.items() if one.stage == source.stage}
    values = {task: own[task] for task in columns if task in own}
    means = {suite: SUITES[suite] for suite in columns if suite in SUITES}
    if AVERAGE_TASK in columns:
        means[AVERAGE_TASK] = frozenset(columns) - {AVERAGE_TASK}
    for column, tasks in means.items():
        if tasks <= own.keys():
            values[column] = math.fsum(own[task] for task in sorted(tasks)) / len(tasks)
    return values


def _run_row(
    run: _Run,
    values: dict[str, float],
    figures: dict[str, PublishedFigure],
    columns: Sequence[str],
    printed: PublishedFigure,
) -> PublishedRow:
    """Write a run's values as the table's figures, such as `printed`, are written."""
    differences = {task: figures[task].points(values[task]) for task in values if task in figures}
    return PublishedRow(
        model=run.model,
        cells=tuple(_written(values[task], printed) if task in values else "" for task in columns),
        differences=tuple(signed(differences[task]) if task in differences else "" for task in columns),
        average=values.get(AVERAGE_TASK, next((values[task] for task in values if task in SUITES), None)),
        is_run=True,
        label=run.label,
    )


def _written(value: float, printed: PublishedFigure) -> str:
    return percent(value) if printed.unit == "percent" else f"{value:.{printed.decimals}f}"


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
        run.results[result.task.name] = result
    return list(runs.values())


def _why_left_out(result: Result) -> str:
    printed = {figure.task for figure in all_figures() if figure.source == "table"}
    if result.task.name not in printed.union(*SUITES.values()):
        return "no table has this task"
    if result.incomparable == "limit":
        return f"it is of {counted(result.limit or 0, 'query')} only"
    if result.incomparable == "sample":
        return f"it is of a sample of {counted(result.task.statistics.queries, 'query')} only"
    if result.incomparable:
        return f"its data differ from the published: {result.task.differences[0]}"
    if result.task.name in frozenset().union(*SUITES.values()) and result.stage not in {
        one.stage for one in _SOURCES.values()
    }:
        first = result.task.first_stage
        return f"its candidates are those of {first.name if first else 'no first stage'}, the table's those of another"
    metric = "ndcg_at_10" if result.protocol == RETRIEVAL_PROTOCOL else "map"
    return "" if math.isfinite(result.scores.get(metric, math.nan)) else f"it has no {metric}"


def _sheet(table: PublishedTable) -> Sheet:
    rows: list[SheetRow] = [
        (
            f"{_RUN_MARK} {row.label}" if row.is_run else row.label,
            *(SheetCell(cell, aside=apart) for cell, apart in zip(row.cells, row.differences, strict=True)),
        )
        for row in table.rows
    ]
    return Sheet(
        title=f"{table.title} ({table.measure}, {'%' if table.unit == 'percent' else 'fractions'}; {table.reference})",
        columns=(("model", "name"), *((task, "number") for task in table.columns)),
        rows=tuple(rows),
    )
