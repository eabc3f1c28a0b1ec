"""What a run ends with, for machines: one JSON document in place of the tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from evalkit.output.files import write_text
from evalkit.output.json import json_text
from evalkit.report.reproduction import Cell, claimed_model, verdict_cells
from evalkit.results.result import Result
from evalkit.results.writing import result_json


def print_summary_json(results: Sequence[Result]) -> bool:
    """Print written results as their files hold them, each with its file, and whether figures were reproduced.

    `reproduction` has a list per model that was to reproduce published figures. Tells whether none of them failed.
    """
    reproduced = [result for result in results if result.config.get("reproduce")]
    cells = {
        hub_id: verdict_cells([result for result in reproduced if claimed_model(result) == hub_id])
        for hub_id in dict.fromkeys(map(claimed_model, reproduced))
    }
    content: dict[str, Any] = {"results": [{"file": str(result.path), **result_json(result)} for result in results]}
    if cells:
        content["reproduction"] = {hub_id: [_verdict(cell) for cell in own] for hub_id, own in cells.items()}
    write_text(json_text(content), None)
    return not any(cell.fails for own in cells.values() for cell in own)


def _verdict(cell: Cell) -> dict[str, Any]:
    figure = None if cell.figure is None else asdict(cell.figure)
    return {
        "task": cell.task,
        "metric": cell.metric,
        "value": cell.value,
        "published": figure,
        "points": cell.points,
        "verdict": cell.verdict,
        "why": cell.why,
        "fails": cell.fails,
    }
