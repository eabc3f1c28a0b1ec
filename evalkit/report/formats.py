"""How a report is written. A new format is a function of a `Report` that gives text, and a line in `FORMATS`."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evalkit.compare.shared_queries import metric_title
from evalkit.compare.systems import System
from evalkit.errors import EvalkitError
from evalkit.output.json import json_text
from evalkit.output.numbers import percent, percent_range, rank_range, tied_range
from evalkit.output.sheets import Kind, Sheet, notes_as_markdown, sheets_as_markdown
from evalkit.output.text import printable
from evalkit.report.board_titles import board_title, data_note
from evalkit.report.content import Report
from evalkit.report.latex import report_as_latex
from evalkit.report.leaderboard import Board, SliceBoard, SliceMean, Standing

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_CSV_COLUMNS = (
    *(
        "tasks",
        "limit",
        "protocol",
        "metric",
        "fingerprints",
        "slice_by",
        "slice",
        "n_queries",
        "best_rank",
        "worst_rank",
    ),
    *(
        "system",
        "hub_id",
        "revision",
        "backend",
        "dtype",
        "experiment",
        "place",
        "value",
        "low",
        "high",
        "ties_low",
        "ties_high",
    ),
)


def report_sheets(report: Report) -> list[Sheet]:
    """Tables of the leaderboards, and of the means over parts of the queries."""
    sheets = [_board_sheet(report, board) for board in report.boards]
    return sheets + [_slice_sheet(report, board) for board in report.slices]


def report_notes(report: Report) -> list[str]:
    """What is to be told below the tables."""
    ranks = (
        "ranks: those that paired randomisation tests of all pairs, adjusted by Holm, leave open at "
        f"{report.choices.alpha:g}; intervals: 95 %, BCa bootstrap over queries"
    )
    return [ranks, *report.notes]


def _as_markdown(report: Report) -> str:
    return sheets_as_markdown(report_sheets(report)) + notes_as_markdown(report_notes(report))


def _as_json(report: Report) -> str:
    """Everything, with values as fractions."""
    content = {
        "alpha": report.choices.alpha,
        "seed": report.choices.seed,
        "boards": [_board_content(report, board) for board in report.boards],
        "slices": [
            {**asdict(board), "means": [_with_label(report, mean) for mean in board.means]} for board in report.slices
        ],
        "notes": report.notes,
    }
    return json_text(content)


def _as_html(report: Report) -> str:
    from evalkit.report.html import html_page

    return html_page(report)


def _as_csv(report: Report) -> str:
    """A row per system and board, and per system and part of the queries; values are fractions."""
    file = io.StringIO()
    writer = csv.DictWriter(file, _CSV_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for board in report.boards:
        shared = {"tasks": "+".join(board.tasks), "fingerprints": "+".join(board.fingerprints), **_common(board)}
        for standing in board.standings:
            best, worst = standing.ranks
            ranks = {"n_queries": board.n_queries, "best_rank": best, "worst_rank": worst}
            ties = dict(zip(("ties_low", "ties_high"), standing.ties or (), strict=False))
            writer.writerow(_csv_row({**shared, **ranks, **ties, **_csv_system(report, standing)}))
    for cut in report.slices:
        shared = {"tasks": cut.task, "fingerprints": cut.fingerprint, "slice_by": cut.by, **_common(cut)}
        for mean in cut.means:
            writer.writerow(
                _csv_row({**shared, "slice": mean.name, "n_queries": mean.n_queries, **_csv_system(report, mean)})
            )
    return file.getvalue()


FORMATS: Mapping[str, Callable[[Report], str]] = {
    "markdown": _as_markdown,
    "json": _as_json,
    "csv": _as_csv,
    "latex": report_as_latex,
    "html": _as_html,
}


def _board_sheet(report: Report, board: Board) -> Sheet:
    with_ties = any(tied_range(one.ties, one.value) for one in board.standings)
    columns: list[tuple[str, Kind]] = [("ranks", "text"), ("system", "name")]
    columns += [(metric_title(board.metric), "number"), ("95 % interval", "number")]
    if with_ties:
        columns.append(("ties", "number"))
    rows = [
        (rank_range(one.ranks), report.labels[one.system], percent(one.value), percent_range(one.interval))
        + ((tied_range(one.ties, one.value),) if with_ties else ())
        for one in board.standings
    ]
    return Sheet(
        title=board_title(report, board),
        columns=tuple(columns),
        rows=tuple(rows),
    )


def _slice_sheet(report: Report, board: SliceBoard) -> Sheet:
    rows = [
        (
            mean.name,
            f"{mean.n_queries:,}",
            report.labels[mean.system],
            percent(mean.value),
            percent_range(mean.interval),
        )
        for mean in board.means
    ]
    title = metric_title(board.metric)
    data = data_note(report, board.task, board.protocol, board.fingerprint, board.limit)
    return Sheet(
        title=f"{board.task}{data}: {title} of {board.protocol}, by {board.by}",
        columns=(
            *((board.by, "text"), ("queries", "number"), ("system", "name")),
            *((title, "number"), ("95 % interval", "number")),
        ),
        rows=tuple(rows),
    )


def _board_content(report: Report, board: Board) -> dict[str, Any]:
    return {**asdict(board), "standings": [_with_label(report, standing) for standing in board.standings]}


def _with_label(report: Report, row: Standing | SliceMean) -> dict[str, Any]:
    content = asdict(row)
    return {**content, "system": {"label": report.labels[row.system], **content["system"]}}


def _common(board: Board | SliceBoard) -> dict[str, Any]:
    return {"limit": board.limit, "protocol": board.protocol, "metric": board.metric}


def _csv_system(report: Report, row: Standing | SliceMean) -> dict[str, Any]:
    system: System = row.system
    identity = {name: value for name, value in asdict(system).items() if name in _CSV_COLUMNS}
    low, high = row.interval
    return {"system": report.labels[system], **identity, "value": row.value, "low": low, "high": high}


def _csv_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row whose texts are no formulas: spreadsheets take for one what begins with certain signs, as no honest name does."""
    return {name: _csv_text(value) if isinstance(value, str) else value for name, value in row.items()}


def _csv_text(text: str) -> str:
    return f"'{printable(text)}" if text.startswith(_FORMULA) else printable(text)


_BEGINNINGS = {
    "markdown": "### ",
    "csv": "tasks,limit,protocol,metric,",
    "json": '{\n  "alpha": ',
    "latex": "% evalkit report",
    "html": "<!doctype html>",
}


def refuse_other_kind(path: Path | None, format_name: str) -> None:
    """Raise EvalkitError where a report is about to replace a file that is no report of its format, nor empty."""
    beginning = _BEGINNINGS.get(format_name)
    if path is None or beginning is None or not path.is_file():
        return
    with path.open("rb") as file:
        found = file.read(len(beginning.encode()))
    if found not in (b"", beginning.encode()):
        raise EvalkitError(
            f"-o {path} exists and holds no report as {format_name}; name another file, or take it away first"
        )
