"""A report as data: JSON with everything, and CSV with a row per system; values are fractions."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from evalkit.compare.systems import System
from evalkit.output.json import json_text
from evalkit.output.text import printable
from evalkit.report.content import Report
from evalkit.report.leaderboard import Board, SliceBoard, SliceMean, Standing
from evalkit.results.result import remark_lines
from evalkit.results.training import training_phrase

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_CSV_COLUMNS = (
    *(
        "tasks",
        "limit",
        "protocol",
        "metric",
        "fingerprints",
        "part",
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
        "noise_low",
        "noise_high",
        "training",
        "remarks",
    ),
)


def report_json(report: Report) -> str:
    """Write everything that was found."""
    content = {
        "alpha": report.choices.alpha,
        "seed": report.choices.seed,
        "boards": [_board_content(report, board) for board in report.boards],
        "slices": [
            {**asdict(board), "means": [_with_label(report, mean) for mean in board.means]} for board in report.slices
        ],
        **({"depths": [asdict(table) for table in report.depths]} if report.choices.depth else {}),
        "notes": report.notes,
    }
    return json_text(content)


def report_csv(report: Report) -> str:
    """Write a row per system and board, and per system and part of the queries."""
    file = io.StringIO()
    writer = csv.DictWriter(file, _CSV_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for board in report.boards:
        shared = {"tasks": "+".join(board.tasks), "fingerprints": "+".join(board.fingerprints), **_common(board)}
        for standing in board.standings:
            best, worst = standing.ranks
            ranks = {"n_queries": board.n_queries, "best_rank": best, "worst_rank": worst}
            ties = dict(zip(("ties_low", "ties_high"), standing.ties or (), strict=False))
            noise = dict(zip(("noise_low", "noise_high"), standing.noise or (), strict=False))
            known = {
                "training": training_phrase(standing.training),
                "remarks": "\n".join(remark_lines(report.results_of(board, standing.system))),
            }
            writer.writerow(_csv_row({**shared, **ranks, **ties, **noise, **known, **_csv_system(report, standing)}))
    for cut in report.slices:
        shared = {"tasks": cut.task, "fingerprints": cut.fingerprint, "slice_by": cut.by, **_common(cut)}
        for mean in cut.means:
            writer.writerow(
                _csv_row({**shared, "slice": mean.name, "n_queries": mean.n_queries, **_csv_system(report, mean)})
            )
    return file.getvalue()


def _board_content(report: Report, board: Board) -> dict[str, Any]:
    return {**asdict(board), "standings": [_with_label(report, standing) for standing in board.standings]}


def _with_label(report: Report, row: Standing | SliceMean) -> dict[str, Any]:
    content = asdict(row)
    return {**content, "system": {"label": report.labels[row.system], **content["system"]}}


def _common(board: Board | SliceBoard) -> dict[str, Any]:
    return {"limit": board.limit, "part": board.part, "protocol": board.protocol, "metric": board.metric}


def _csv_system(report: Report, row: Standing | SliceMean) -> dict[str, Any]:
    system: System = row.system
    identity = {name: value for name, value in asdict(system).items() if name in _CSV_COLUMNS}
    low, high = row.interval
    return {"system": report.labels[system], **identity, "value": row.value, "low": low, "high": high}


def _csv_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row without NaN, whose texts are no formulas: spreadsheets take for one what begins with certain signs."""
    cells = {name: value for name, value in row.items() if not (isinstance(value, float) and math.isnan(value))}
    return {name: _csv_text(value) if isinstance(value, str) else value for name, value in cells.items()}


def _csv_text(text: str) -> str:
    return f"'{printable(text)}" if text.startswith(_FORMULA) else printable(text)
