"""The registry of published figures as a file (`evalkit/results/data/cmteb-reranking.csv`, or a copy that was changed)."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from evalkit.audit.figures import Figure, Registry, Unit, decimals_of, value_of
from evalkit.audit.names import query_count
from evalkit.errors import EvalkitError
from evalkit.metrics.measures import METRICS, leading_like
from evalkit.results.published import PublishedFigure, all_figures

COLUMNS = ("model", "task", "metric", "value", "unit", "protocol", "source", "reference")


def csv_figures(text: str, path: Path) -> list[Figure]:
    """Read a CSV with the registry's columns.

    Raises EvalkitError where a column is missing, or a unit is neither percent nor fraction.
    """
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""))
        missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
        if missing:
            raise EvalkitError(
                f"{path} is no registry of figures: column {missing[0]} is missing; it has to have {', '.join(COLUMNS)}"
            )
        return [_figure(row, number, path) for number, row in enumerate(reader, start=2)]
    except csv.Error as error:
        raise EvalkitError(f"{path} is no valid CSV ({error}); save it as CSV with commas") from error


@cache
def published_registry() -> Registry:
    """Give the published figures in the form that audits compare."""
    return Registry(tuple(_published(figure) for figure in all_figures()))


def _figure(row: Mapping[str, str | None], number: int, path: Path) -> Figure:
    cells = {column: (row[column] or "").strip() for column in COLUMNS}
    if cells["unit"] not in ("percent", "fraction"):
        raise EvalkitError(f"{path}, row {number}: unit is {cells['unit']!r}; write percent or fraction")
    unit: Unit = "percent" if cells["unit"] == "percent" else "fraction"
    return Figure(
        model=cells["model"],
        task=cells["task"],
        metric=_metric(cells["metric"], cells["protocol"]),
        value=value_of(cells["value"], unit),
        printed=cells["value"],
        decimals=decimals_of(cells["value"]),
        unit=unit,
        protocol=cells["protocol"],
        file=str(path),
        place=f"row {number}",
        row=f"{cells['model']}, {cells['reference']}",
        kind="registry",
        queries=query_count(cells["task"]),
    )


def _metric(name: str, protocol: str) -> str:
    """Name a metric as results do: registries call the leading ones of every protocol `map` and `mrr`."""
    return leading_like(name, protocol) if name in METRICS else name


def _published(figure: PublishedFigure) -> Figure:
    return Figure(
        model=figure.model,
        task=figure.task,
        metric=figure.metric,
        value=figure.value,
        printed=figure.printed,
        decimals=figure.decimals,
        unit="percent" if figure.unit == "percent" else "fraction",
        protocol=figure.protocol,
        file="",
        place=figure.reference,
        row=f"{figure.model}, {figure.reference}",
        kind="registry",
        queries=query_count(figure.task),
    )
