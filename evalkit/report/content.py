"""What a report is made of, before anyone decides how it is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from evalkit.compare.shared_queries import SharedQueries, group_by_task, shared_queries
from evalkit.compare.slices import missing_slices
from evalkit.compare.systems import System, system_labels
from evalkit.report.leaderboard import Board, SliceBoard, average_boards, slice_board, task_board
from evalkit.results.result import Result


@dataclass(frozen=True)
class ReportChoices:
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
    """Results and what is to be shown of them; what a format needs beside is worked out when it asks for it.

    Results on other data or under another protocol stand on boards of their own. All but the results themselves raise EvalkitError
    where results on the same data have different queries, or lack the metric.
    """

    results: tuple[Result, ...]
    choices: ReportChoices

    @cached_property
    def tasks(self) -> tuple[SharedQueries, ...]:
        """What the systems got on each task's queries."""
        metric = self.choices.metric
        return tuple(shared_queries(group, metric) for group in group_by_task(self.results, metric))

    @cached_property
    def boards(self) -> tuple[Board, ...]:
        """The leaderboards of tasks, then those of averages over the same tasks."""
        seed, alpha = self.choices.seed, self.choices.alpha
        boards = [task_board(shared, seed=seed, alpha=alpha) for shared in self.tasks]
        return (*boards, *average_boards(self.tasks, seed=seed, alpha=alpha))

    @cached_property
    def slices(self) -> tuple[SliceBoard, ...]:
        """The means over parts of the queries."""
        boards = [
            slice_board(shared, by, seed=self.choices.seed) for shared in self.tasks for by in self.choices.slices
        ]
        return tuple(board for board in boards if board.means)

    @cached_property
    def labels(self) -> Mapping[System, str]:
        """What each system is called."""
        return system_labels([system for shared in self.tasks for system in shared.of.systems])

    @property
    def notes(self) -> tuple[str, ...]:
        """Which slices can't be made, and why."""
        return tuple(note for shared in self.tasks for note in missing_slices(shared, self.choices.slices))
