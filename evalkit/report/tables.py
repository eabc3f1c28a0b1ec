"""The tables of a report, what they are called, and what is to be said below them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from evalkit.compare import shared_queries
from evalkit.compare.shared_queries import metric_title
from evalkit.compare.systems import System
from evalkit.output.numbers import counted, noisy_range, percent, percent_range, rank_range, tied_range
from evalkit.output.sheets import ColumnKind, Sheet, SheetCell
from evalkit.report.content import Report
from evalkit.report.depth import depth_sheet
from evalkit.report.leaderboard import Board, SliceBoard
from evalkit.results.result import remark_lines
from evalkit.results.training import training_phrase


def report_sheets(report: Report) -> list[Sheet]:
    """Tables of the leaderboards, of the means over parts of the queries, and of what is reranked how deep."""
    boards = [_board_sheet(report, board) for board in report.boards]
    return [*boards, *slice_sheets(report), *map(depth_sheet, report.depths)]


def slice_sheets(report: Report) -> list[Sheet]:
    """Tables of the means over parts of the queries, one per task and way of cutting it."""
    return [_slice_sheet(report, board) for board in report.slices]


def report_notes(report: Report) -> list[str]:
    """Say what the columns of the tables are, and what could not be shown."""
    ranks = (
        "ranks: those that paired randomisation tests of all pairs, adjusted by Holm, leave open at "
        f"{report.choices.alpha:g}; intervals: 95 %, BCa bootstrap over queries"
    )
    return [ranks, *report.notes]


def paper_sheets(report: Report) -> list[Sheet]:
    """Return a table per protocol and metric, as papers print them: a row per system, a column per task and average.

    Strong is the best of a column and whatever the paired tests do not tell from it; an aside is what the order of tied
    documents can give, where that moves a printed digit. Below it stands what a reader should know of its results, and below the
    last one what is left out. Means over parts of the queries are not among it.
    """
    groups: dict[tuple[str, str], list[Board]] = {}
    for board in report.boards:
        groups.setdefault((board.protocol, board.metric), []).append(board)
    sheets = [_paper_sheet(report, boards) for boards in groups.values()]
    return [*sheets[:-1], *(replace(last, below=(*last.below, *report.aside)) for last in sheets[-1:])]


def board_title(report: Report, board: Board) -> str:
    """Name a leaderboard with what it measures, as above a table."""
    return f"{board_name(report, board)}: {measured(board)}"


def board_name(report: Report, board: Board) -> str:
    """Name a leaderboard by its task, or by the tasks that it is the average of."""
    if len(board.tasks) > 1:
        return f"average of {len(board.tasks)} ({', '.join(board.tasks)}){shared_queries.data_note(board.part, '')}"
    return board.tasks[0] + board_data_note(report, board.tasks[0], board.protocol, board.fingerprints[0], board.part)


def measured(board: Board) -> str:
    """Say what a leaderboard measures: `MAP of cmteb-v1 on 45 queries`."""
    return f"{metric_title(board.metric)} of {board.protocol} on {counted(board.n_queries, 'query')}"


def board_data_note(report: Report, task: str, protocol: str, fingerprint: str, part: str) -> str:
    """Say which data of a task a table is of, where it is a part of them or the report has several; else nothing."""
    versions = {board.fingerprints for board in report.boards if board.tasks == (task,) and board.protocol == protocol}
    return shared_queries.data_note(part, fingerprint if len(versions) > 1 else "")


def _board_sheet(report: Report, board: Board) -> Sheet:
    with_ties = any(tied_range(one.ties, one.value) for one in board.standings)
    columns: list[tuple[str, ColumnKind]] = [("ranks", "text"), ("system", "name")]
    columns += [(metric_title(board.metric), "number"), ("95 % interval", "number")]
    with_noise = any(noisy_range(one.noise, one.value, one.ties) for one in board.standings)
    if with_ties:
        columns.append(("ties", "number"))
    if with_noise:
        columns.append(("noise", "number"))
    rows = [
        (rank_range(one.ranks), report.labels[one.system], percent(one.value), percent_range(one.interval))
        + ((tied_range(one.ties, one.value),) if with_ties else ())
        + ((noisy_range(one.noise, one.value, one.ties),) if with_noise else ())
        for one in board.standings
    ]
    return Sheet(
        title=board_title(report, board),
        columns=tuple(columns),
        rows=tuple(rows),
        below=_training_notes(report, [board]),
        keys=("ranks", "system"),
    )


def _training_notes(report: Report, boards: Sequence[Board]) -> tuple[str, ...]:
    """Say of each system, on the widest of the boards that it is on, what is known of its training on the tasks' data."""
    widest = sorted(boards, key=lambda board: -len(board.tasks))
    found: dict[System, str] = {}
    for standing in (standing for board in widest for standing in board.standings):
        found.setdefault(standing.system, training_phrase(standing.training))
    by_phrase: dict[str, list[str]] = {}
    for system, phrase in found.items():
        if phrase:
            by_phrase.setdefault(phrase, []).append(report.labels[system])
    return tuple(f"{phrase}: {', '.join(labels)}" for phrase, labels in by_phrase.items())


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
    data = board_data_note(report, board.task, board.protocol, board.fingerprint, board.part)
    return Sheet(
        title=f"{board.task}{data}: {title} of {board.protocol}, by {board.by}",
        columns=(
            *((board.by, "text"), ("queries", "number"), ("system", "name")),
            *((title, "number"), ("95 % interval", "number")),
        ),
        rows=tuple(rows),
        keys=(board.by, "queries", "system"),
    )


def _paper_sheet(report: Report, boards: Sequence[Board]) -> Sheet:
    systems = list(dict.fromkeys(standing.system for board in boards for standing in board.standings))
    # the best first, by the last column, which is the average over most tasks or the only task
    order = {standing.system: place for place, standing in enumerate(_leading(boards).standings)}
    systems.sort(key=lambda system: order.get(system, len(order)))
    shown = {id(one) for board in boards for system in systems for one in report.results_of(board, system)}
    return Sheet(
        title=_caption(report, boards),
        columns=(("System", "name"), *((_column_title(report, board), "number") for board in boards)),
        rows=tuple((report.labels[system], *(_paper_cell(board, system) for board in boards)) for system in systems),
        below=tuple(remark_lines(result for result in report.results if id(result) in shown)),
    )


def _leading(boards: Sequence[Board]) -> Board:
    return max(boards, key=lambda board: (len(board.tasks), len(board.standings)))


def _column_title(report: Report, board: Board) -> str:
    if len(board.tasks) > 1:
        all_tasks = {task for one in report.boards for task in one.tasks if one.protocol == board.protocol}
        named = "" if set(board.tasks) == all_tasks else f" ({', '.join(board.tasks)})"
        return f"average of {len(board.tasks)}{named}"
    return board_name(report, board)


def _paper_cell(board: Board, system: System) -> str | SheetCell:
    standing = next((one for one in board.standings if one.system == system), None)
    if standing is None:
        return ""
    ties = tied_range(standing.ties, standing.value)
    return SheetCell(percent(standing.value), "strong" if standing.among_best else "plain", aside=ties)


def _caption(report: Report, boards: Sequence[Board]) -> str:
    with_ties = any(tied_range(one.ties, one.value) for board in boards for one in board.standings)
    facts = [
        f"{metric_title(boards[0].metric)} of {boards[0].protocol} in percent",
        "in bold the best of a column and all that paired randomisation tests on the same queries, adjusted by Holm, do not tell "
        f"from it at {report.choices.alpha:g}",
    ]
    if with_ties:
        facts.append("in brackets what the order of tied documents can give")
    return "; ".join([*facts, *_training_notes(report, boards)])
