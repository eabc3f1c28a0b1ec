"""The figures that others claim, and which of them a result is held against.

They are in `data/cmteb-reranking.csv` and `data/cmteb-retrieval.csv` as they were printed. Of several figures for one model and
task the model's own card comes first: it is the claim. A copy of a card on someone else's page comes after the published
tables: the one at hand stands in for bge-reranker-large's card, which today repeats another model's figures.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path

from evalkit.errors import EvalkitError

NOISE_POINTS = 0.03
"""How far honest runs of one model lie apart, in percentage points of MAP: fp16, padding and hardware."""

AVERAGE_TASK = "Avg"

SUITES = {
    "CMTEB-R": frozenset(
        {
            *("T2Retrieval", "MMarcoRetrieval", "DuRetrieval", "CovidRetrieval"),
            *("CmedqaRetrieval", "EcomRetrieval", "MedicalRetrieval", "VideoRetrieval"),
        }
    )
}
"""Suites whose means are published by their name, without the tasks' own figures."""


@dataclass(frozen=True, slots=True)
class KnownMistake:
    """The figures of cmteb-v1 (fractions) that a mistake leaves on a task: by them it is known again."""

    task: str
    map: float
    mrr: float | None
    cause: str


HEADLESS = KnownMistake(
    "T2Reranking",
    0.5107,
    0.5836,
    "bge-reranker-large loaded as a SentenceTransformer, which drops the scoring head in silence",
)
RANDOM_HEAD = KnownMistake(
    "MMarcoReranking", 0.006, None, "an embedder loaded as a cross-encoder, which gets a new, random head"
)

_DATA = Path(__file__).parent / "data"
_FILES = (_DATA / "cmteb-reranking.csv", _DATA / "cmteb-retrieval.csv")
_CARD, _CARD_TABLE, _CMTEB_TABLE, _CARD_COPY, _REPOSITORY = range(5)
_ORIGINS = ("card", "table", "C-MTEB", "card copy", "MTEB")


@dataclass(frozen=True, slots=True)
class PublishedFigure:
    """One figure as published.

    `value` is a fraction, `printed` the figure's own digits in `unit` (`percent` or `fraction`) and `decimals` how many
    of them follow the point; `metric` is named as in results; `model_revision` is empty where nobody says. `first_stage` says whose
    candidates were reranked, as `Result.stage` does; it is empty where they are the dataset's, and where nothing was reranked.
    """

    model: str
    model_revision: str
    task: str
    metric: str
    value: float
    printed: str
    unit: str
    decimals: int
    protocol: str
    source: str
    reference: str
    note: str
    first_stage: str = ""

    def points(self, value: float) -> float:
        """Return how far a value (a fraction) lies above the figure, in percentage points; below it, less than zero."""
        return (value - self.value) * 100


def find(
    model_hub_id: str, task_name: str, metric: str, protocol: str, first_stage: str = ""
) -> tuple[PublishedFigure, ...]:
    """List every figure published for a model, task, metric, protocol and first stage, the preferred one first.

    The order: the model's own card, the reranking table of a card, C-MTEB's table, a copy of a card, the MTEB results
    repository (the author's own claim before others' runs, those by the newest mteb first). Figures that disagree are
    kept. Metrics are `map` and `mrr`, under mteb-v2 `map_at_1000` and `mrr_at_10`; the task may have mteb's name.
    """
    return _by_key().get((model_hub_id, task_name.removesuffix("-reranking"), metric, protocol, first_stage), ())


def preferred(
    model_hub_id: str, task_name: str, metric: str, protocol: str, first_stage: str = ""
) -> PublishedFigure | None:
    """Find the figure that a result is held against, or None where nothing was published."""
    return next(iter(find(model_hub_id, task_name, metric, protocol, first_stage)), None)


def find_average(
    model_hub_id: str, task_names: Collection[str], metric: str, protocol: str, first_stage: str = ""
) -> PublishedFigure | None:
    """Find the preferred published mean over precisely these tasks: a mean of six says nothing of a mean of four."""
    wanted = {name.removesuffix("-reranking") for name in task_names}
    for figure in find(model_hub_id, AVERAGE_TASK, metric, protocol, first_stage):
        if _averaged_tasks(figure) == wanted:
            return figure
    suite = next((name for name, tasks in SUITES.items() if tasks == wanted), "")
    return preferred(model_hub_id, suite, metric, protocol, first_stage)


def disagreeing(figures: tuple[PublishedFigure, ...]) -> tuple[PublishedFigure, ...]:
    """List those of a model's figures for one task that differ from the first by more than honest runs do."""
    return tuple(figure for figure in figures if abs(figures[0].points(figure.value)) > NOISE_POINTS + 1e-9)


def origin(figure: PublishedFigure) -> str:
    """Say in a word or two where a figure was published: `table` is a card's, `MTEB` is its results repository."""
    return _ORIGINS[_rank(figure)]


@cache
def all_figures() -> tuple[PublishedFigure, ...]:
    """Load every figure, in the files' order.

    Raises EvalkitError where a file is missing from the installation.
    """
    return tuple(figure for file in _FILES for figure in _read(file))


def _read(file: Path) -> list[PublishedFigure]:
    try:
        with file.open(encoding="utf-8", newline="") as rows:
            return [_figure(row) for row in csv.DictReader(rows)]
    except OSError as error:
        raise EvalkitError(f"cannot read published figures {file} ({error.strerror}); install evalkit again") from error


@cache
def _by_key() -> Mapping[tuple[str, ...], tuple[PublishedFigure, ...]]:
    groups: dict[tuple[str, ...], list[PublishedFigure]] = defaultdict(list)
    for figure in all_figures():
        groups[figure.model, figure.task, figure.metric, figure.protocol, figure.first_stage].append(figure)
    return {key: tuple(sorted(group, key=_preference)) for key, group in groups.items()}


def _figure(row: Mapping[str, str]) -> PublishedFigure:
    printed = Decimal(row["value"])
    return PublishedFigure(
        model=row["model"],
        model_revision=row["model_revision"],
        task=row["task"],
        metric=row["metric"],
        value=float(printed / 100 if row["unit"] == "percent" else printed),
        printed=row["value"],
        unit=row["unit"],
        decimals=len(row["value"].partition(".")[2]),
        protocol=row["protocol"],
        source=row["source"],
        reference=row["reference"],
        note=row["note"],
        first_stage=row.get("first_stage") or "",
    )


def _rank(figure: PublishedFigure) -> int:
    if figure.source == "model-index":
        return _CARD if figure.reference.startswith(f"{figure.model} ") else _CARD_COPY
    if figure.source == "table":
        return _CMTEB_TABLE if "C_MTEB" in figure.reference else _CARD_TABLE
    return _REPOSITORY


def _preference(figure: PublishedFigure) -> tuple[int, list[int]]:
    # newer versions first; an author's own claim has none, and the empty list comes before all
    version = [-int(part) for part in re.findall(r"\d+", figure.note)] if figure.note.startswith("mteb ") else []
    return _rank(figure), version


def _averaged_tasks(average: PublishedFigure) -> set[str]:
    """List the tasks beside an average in its row of the table that printed it."""
    row = (average.model, average.metric, average.protocol, average.source, average.reference)
    return {
        figure.task
        for figure in all_figures()
        if figure.task != AVERAGE_TASK
        and (figure.model, figure.metric, figure.protocol, figure.source, figure.reference) == row
    }
