"""What a run ends with, for machines: one JSON document in place of the tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evalkit.records import Result
from evalkit.report.reproduction import Cell, claimed_model, verdict_cells
from evalkit.results.writing import result_json


def summary_content(results: Sequence[Result], paths: Sequence[Path]) -> dict[str, Any]:
    """The results as their files hold them, each with its file, and whether figures were reproduced.

    `reproduction` has a list per model that was to reproduce published figures.
    """
    cells = _verdicts(results)
    content: dict[str, Any] = {
        "results": [{"file": str(path), **result_json(result)} for result, path in zip(results, paths, strict=True)]
    }
    if cells:
        content["reproduction"] = {hub_id: [_verdict(cell) for cell in own] for hub_id, own in cells.items()}
    return content


def was_reproduced(results: Sequence[Result]) -> bool:
    """Whether no figure that was to be reproduced failed."""
    return not any(cell.fails for own in _verdicts(results).values() for cell in own)


def _verdicts(results: Sequence[Result]) -> dict[str, list[Cell]]:
    """The verdicts on published figures, per model that was to reproduce them."""
    reproduced = [result for result in results if result.config.get("reproduce")]
    return {
        hub_id: verdict_cells([result for result in reproduced if claimed_model(result) == hub_id])
        for hub_id in dict.fromkeys(map(claimed_model, reproduced))
    }


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
