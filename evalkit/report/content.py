"""What a report is made of, before anyone decides how it is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from evalkit.compare.shared_queries import (
    SharedQueries,
    asked_of_all,
    comparable,
    group_by_task,
    known_metric,
    protocol_notes,
    shared_queries,
)
from evalkit.compare.slices import missing_slices
from evalkit.compare.systems import System, result_labels, system_labels
from evalkit.errors import EvalkitError
from evalkit.report.depth import DepthTable, depth_table, no_depths, unknown_lists
from evalkit.report.leaderboard import Board, SliceBoard, average_boards, slice_board, task_board
from evalkit.results.reading import read_readable
from evalkit.results.result import Result, remark_lines

Compares = Literal["nothing", "queries", "candidates"]
"""What of results on the same data stands side by side: their queries' values, and their candidates' scores, too."""


@dataclass(frozen=True)
class ReportChoices:
    """What a report is to show; `metric` None is each protocol's main score.

    A page shows so many queries of each task in detail (`drill_down`; None: as many as suits it), and texts where results
    hold them, unless `texts` is False. With `depth` there is a table of each result by how many of a first stage's candidates are
    reranked.
    """

    metric: str | None
    alpha: float
    seed: int
    slices: tuple[str, ...]
    drill_down: int | None = None
    texts: bool = True
    depth: bool = False


@dataclass(frozen=True)
class Report:
    """Results and what is to be shown of them; what a format needs beside is worked out when it asks for it.

    Results on other data or under another protocol stand on boards of their own. `left_out` says what is not among the results, and
    why. All but the results themselves raise EvalkitError where results on the same data have different queries, or lack the
    metric: `make_report` leaves such out.
    """

    results: tuple[Result, ...]
    choices: ReportChoices
    left_out: tuple[str, ...] = ()

    @cached_property
    def tasks(self) -> tuple[SharedQueries, ...]:
        """What the systems got on each task's queries."""
        metric = known_metric(self.choices.metric, self.results)
        return tuple(shared_queries(group, metric) for group in group_by_task(self.results, metric))

    @cached_property
    def main_boards(self) -> tuple[Board, ...]:
        """The leaderboards of tasks, then those of averages over the same tasks."""
        return self._boards(self.tasks)

    @cached_property
    def boards(self) -> tuple[Board, ...]:
        """The main leaderboards, then the same of each measure that all results were asked for."""
        return (*self.main_boards, *(board for shared in self.asked for board in self._boards(shared)))

    def _boards(self, tasks: Sequence[SharedQueries]) -> tuple[Board, ...]:
        seed, alpha = self.choices.seed, self.choices.alpha
        boards = [task_board(shared, seed=seed, alpha=alpha) for shared in tasks]
        return (*boards, *average_boards(tasks, seed=seed, alpha=alpha))

    @cached_property
    def asked(self) -> tuple[tuple[SharedQueries, ...], ...]:
        """What the systems got by each measure that was asked for in all results; nothing where one metric is to be shown."""
        if self.choices.metric is not None or not self.results:
            return ()
        names = asked_of_all(self.results)
        groups = {name: group_by_task(self.results, name) for name in names}
        return tuple(tuple(shared_queries(group, name) for group in groups[name]) for name in names)

    @cached_property
    def behind(self) -> tuple[SharedQueries, ...]:
        """All that the leaderboards are made of."""
        return (*self.tasks, *(shared for tasks in self.asked for shared in tasks))

    def results_of(self, board: Board, system: System) -> list[Result]:
        """List the results that a system's place on a leaderboard rests on."""
        groups = [shared.of for shared in self.behind if shared.of.fingerprint in board.fingerprints]
        found = [
            result
            for group in groups
            if group.task in board.tasks and group.protocol == board.protocol
            for one, result in zip(group.systems, group.results, strict=True)
            if one == system
        ]
        return list({id(result): result for result in found}.values())

    @cached_property
    def slices(self) -> tuple[SliceBoard, ...]:
        """The means over parts of the queries."""
        boards = [
            slice_board(shared, by, seed=self.choices.seed) for shared in self.tasks for by in self.choices.slices
        ]
        return tuple(board for board in boards if board.means)

    @cached_property
    def depths(self) -> tuple[DepthTable, ...]:
        """Each result by how many candidates are reranked, where it has a first stage; nothing where that is not asked for.

        Raises EvalkitError where none has.
        """
        if not self.choices.depth:
            return ()
        fit = [result for result in self.results if not no_depths(result)]
        if not fit:
            raise EvalkitError(f"--depth: {'; '.join(no_depths(result) for result in self.results)}")
        metric = known_metric(self.choices.metric, self.results)
        return tuple(
            depth_table(result, label, metric, self.choices.seed)
            for result, label in zip(fit, result_labels(fit), strict=True)
        )

    @cached_property
    def labels(self) -> Mapping[System, str]:
        """What each system is called."""
        return system_labels([system for shared in self.behind for system in shared.of.systems])

    @property
    def notes(self) -> tuple[str, ...]:
        """Which results are left out or on tables of their own, what a reader should know, and which slices can't be made."""
        missing = [note for shared in self.tasks for note in missing_slices(shared, self.choices.slices)]
        shown = self.results if self.choices.depth else ()
        without = [said(result) for result in shown for said in (no_depths, unknown_lists)]
        return (
            *self.aside,
            *remark_lines(sorted(self.results, key=lambda result: result.model.name)),
            *missing,
            *filter(None, without),
        )

    @property
    def aside(self) -> tuple[str, ...]:
        """Which results are left out, and which stand on tables of their own for the protocol that leads them."""
        return (*self.left_out, *protocol_notes([shared.of for shared in self.tasks]))


def make_report(paths: Iterable[Path], choices: ReportChoices, compares: Compares = "queries") -> Report:
    """Report the results among files and folders; what can't be read, or compared by what is to be compared, is left out by name.

    Raises EvalkitError where nothing is left.
    """
    results, unread = read_readable(paths)
    if compares == "nothing":
        return Report(tuple(results), choices, tuple(unread))
    metric = known_metric(choices.metric, results)
    kept, unfit = comparable(results, metric, candidates=compares == "candidates")
    return Report(tuple(kept), choices, (*unread, *unfit))
