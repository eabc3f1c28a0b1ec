"""What a leaderboard is called: its tasks, which data of them, what was measured."""

from __future__ import annotations

from evalkit.compare.shared_queries import metric_title
from evalkit.output.numbers import counted
from evalkit.report.content import Report
from evalkit.report.leaderboard import Board


def board_title(report: Report, board: Board) -> str:
    """Name a leaderboard with what it measures, as above a table."""
    return f"{board_name(report, board)}: {measured(board)}"


def board_name(report: Report, board: Board) -> str:
    """Name a leaderboard by its task, or by the tasks that it is the average of."""
    if len(board.tasks) > 1:
        return f"average of {len(board.tasks)} ({', '.join(board.tasks)})"
    return board.tasks[0] + data_note(report, board.tasks[0], board.protocol, board.fingerprints[0], board.limit)


def measured(board: Board) -> str:
    """Say what a leaderboard measures: `MAP of cmteb-v1 on 45 queries`."""
    return f"{metric_title(board.metric)} of {board.protocol} on {counted(board.n_queries, 'query', 'queries')}"


def data_note(report: Report, task: str, protocol: str, fingerprint: str, limit: int | None) -> str:
    """Say which data of a task a table is of, where it is a part of them or the report has several; else nothing."""
    versions = {board.fingerprints for board in report.boards if board.tasks == (task,) and board.protocol == protocol}
    said = [f"limit {limit}"] if limit is not None else []
    if len(versions) > 1:
        said.append(f"data {fingerprint[:12]}")
    return f" ({', '.join(said)})" if said else ""
