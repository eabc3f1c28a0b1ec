"""What a page says of each system, and what each was measured at beside its quality."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evalkit.compare.shared_queries import TaskResults
from evalkit.compare.systems import System
from evalkit.report.content import Report
from evalkit.report.leaderboard import Board
from evalkit.results.result import WITHOUT_MODEL, Result

ResultsOf = Mapping[System, Result]


@dataclass(frozen=True, slots=True)
class SystemFacts:
    """A system's label, its model's kind, its size in millions of parameters (None: not known), and what ran it."""

    label: str
    kind: str
    size: float | None
    way: str


def system_facts(report: Report, groups: Sequence[TaskResults]) -> dict[System, SystemFacts]:
    """Tell of each system, in order of appearance, what its first result says."""
    found: dict[System, SystemFacts] = {}
    for group in groups:
        for system, result in zip(group.systems, group.results, strict=True):
            found.setdefault(system, _facts(report.labels[system], system, result))
    return found


def results_of_board(board: Board, groups: Sequence[TaskResults]) -> list[ResultsOf]:
    """Give the results behind a board: a mapping per task, in the order of the board's tasks."""
    by_data = {(group.task, group.protocol, group.fingerprint): group for group in groups}
    behind = [
        by_data[task, board.protocol, print_] for task, print_ in zip(board.tasks, board.fingerprints, strict=True)
    ]
    return [dict(zip(group.systems, group.results, strict=True)) for group in behind]


def mean_pairs_per_second(results: Sequence[Result]) -> float | None:
    """Give the pairs scored per second over all these results; None where one of them measured nothing or ran no model."""
    pairs, seconds = 0, 0.0
    for result in results:
        rate, count = result.timing.pairs_per_second, result.task.statistics.pairs
        if result.model.kind in WITHOUT_MODEL or rate is None or not rate > 0:
            return None
        pairs, seconds = pairs + count, seconds + count / rate
    return pairs / seconds if seconds else None


def pareto_front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Tell which points (quality, rate; of both more is better) no other one beats in one without losing in the other."""
    return [not any(other[0] >= own[0] and other[1] >= own[1] and other != own for other in points) for own in points]


def _facts(label: str, system: System, result: Result) -> SystemFacts:
    kind = result.model.kind
    parts = (system.backend, system.dtype, str(result.backend.get("device") or ""))
    return SystemFacts(label, kind, _size(result), " ".join(part for part in parts if part and part != kind))


def _size(result: Result) -> float | None:
    settings = result.config.get("model")
    size = settings.get("parameters") if isinstance(settings, Mapping) else None
    return float(size) if isinstance(size, int | float) and math.isfinite(size) and size > 0 else None
