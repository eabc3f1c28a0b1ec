"""What a report is made of, before anyone decides how it is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evalkit.compare.shared_queries import group_by_task, shared_queries
from evalkit.compare.slices import missing_slices
from evalkit.compare.systems import System, system_labels
from evalkit.report.leaderboard import Board, SliceBoard, average_boards, slice_board, task_board
from evalkit.results.result import Result


@dataclass(frozen=True)
class Choices:
    """What a report is to show; `metric` None is each protocol's main score.

    A page shows so many queries of each task in detail (`drill_down`; None: as many as suits it), and texts where results
    hold them, unless `texts` is False.
    """

    metric: str | None
    alpha: float
    seed: int
    slices: tuple[str, ...]
    drill_down: int | None = None
    texts: bool = True


@dataclass(frozen=True)
class Report:
    """Leaderboards of tasks and of averages, means over parts of the queries, and what each system is called."""

    choices: Choices
    results: tuple[Result, ...]
    boards: tuple[Board, ...]
    slices: tuple[SliceBoard, ...]
    labels: Mapping[System, str]
    notes: tuple[str, ...]


def make_report(results: Sequence[Result], choices: Choices) -> Report:
    """Rank the systems on each task's data and on average over the same tasks.

    Results on other data or under another protocol stand on boards of their own. Raises EvalkitError where results on the
    same data have different queries, or lack the metric.
    """
    tasks = [shared_queries(group, choices.metric) for group in group_by_task(results, choices.metric)]
    boards = [task_board(shared, seed=choices.seed, alpha=choices.alpha) for shared in tasks]
    boards += average_boards(tasks, seed=choices.seed, alpha=choices.alpha)
    slices = [slice_board(shared, by, seed=choices.seed) for shared in tasks for by in choices.slices]
    return Report(
        choices=choices,
        results=tuple(results),
        boards=tuple(boards),
        slices=tuple(board for board in slices if board.means),
        labels=system_labels([system for shared in tasks for system in shared.of.systems]),
        notes=tuple(note for shared in tasks for note in missing_slices(shared, choices.slices)),
    )
