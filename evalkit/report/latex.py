r"""A report as a LaTeX table for a paper: a row per system, a column per task and average; needs the package booktabs."""

from __future__ import annotations

import re
from collections.abc import Sequence

from evalkit.compare.shared_queries import metric_title
from evalkit.compare.systems import System
from evalkit.output.numbers import percent, tied_range
from evalkit.output.text import printable
from evalkit.report.board_titles import data_note
from evalkit.report.content import Report
from evalkit.report.leaderboard import Board, Standing

FIRST_LINE = "% evalkit report; needs \\usepackage{booktabs}"

# what LaTeX would read as its own, in any of its engines and font encodings
_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "`": r"\textasciigrave{}",
    "\0": "{}",
    # after \\ these would be its arguments
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    **{sign: f"\\{sign}" for sign in "#$%&_{}"},
}


def report_as_latex(report: Report) -> str:
    """Write a table per protocol and metric.

    Bold is the best of a column and whatever the paired tests do not tell from it; in brackets stands what the order of tied
    documents can give, where that moves a printed digit. Means over parts of the queries are not among it.
    """
    groups: dict[tuple[str, str], list[Board]] = {}
    for board in report.boards:
        groups.setdefault((board.protocol, board.metric), []).append(board)
    tables = [_table(report, boards) for boards in groups.values()]
    return "\n".join([FIRST_LINE, *tables])


def escaped(text: str) -> str:
    """Take from a text what LaTeX would read as its own, and line breaks; Chinese stays, and wants XeLaTeX or LuaLaTeX."""
    plain = " ".join(printable(text, instead=" ").split())
    # two hyphens would become a dash
    return "--".join(
        "".join(_ESCAPES.get(sign, sign) for sign in re.sub("-(?=-)", "-\0", part)) for part in plain.split("–")
    )


def _table(report: Report, boards: Sequence[Board]) -> str:
    systems = list(dict.fromkeys(standing.system for board in boards for standing in board.standings))
    # the best first, by the last column, which is the average over most tasks or the only task
    order = {standing.system: place for place, standing in enumerate(_leading(boards).standings)}
    systems.sort(key=lambda system: order.get(system, len(order)))
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{_caption(report, boards)}}}",
        rf"  \begin{{tabular}}{{l{'r' * len(boards)}}}",
        r"    \toprule",
        _row(["System", *(_title(report, board) for board in boards)]),
        r"    \midrule",
        *(_row([escaped(report.labels[system]), *(_cell(board, system) for board in boards)]) for system in systems),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "".join(f"{line}\n" for line in lines)


def _leading(boards: Sequence[Board]) -> Board:
    return max(boards, key=lambda board: (len(board.tasks), len(board.standings)))


def _row(cells: Sequence[str]) -> str:
    return f"    {' & '.join(cells)} \\\\"


def _title(report: Report, board: Board) -> str:
    if len(board.tasks) > 1:
        all_tasks = {task for one in report.boards for task in one.tasks if one.protocol == board.protocol}
        named = "" if set(board.tasks) == all_tasks else f" ({', '.join(board.tasks)})"
        return escaped(f"average of {len(board.tasks)}{named}")
    return escaped(
        f"{board.tasks[0]}{data_note(report, board.tasks[0], board.protocol, board.fingerprints[0], board.limit)}"
    )


def _cell(board: Board, system: System) -> str:
    standing = next((one for one in board.standings if one.system == system), None)
    return "" if standing is None else _figure(standing)


def _figure(standing: Standing) -> str:
    value = percent(standing.value)
    ties = tied_range(standing.ties, standing.value)
    shown = rf"\textbf{{{value}}}" if standing.among_best else value
    return rf"{shown} {{\footnotesize ({escaped(ties)})}}" if ties else shown


def _caption(report: Report, boards: Sequence[Board]) -> str:
    with_ties = any(tied_range(one.ties, one.value) for board in boards for one in board.standings)
    facts = [
        f"{metric_title(boards[0].metric)} of {boards[0].protocol} in percent",
        "in bold the best of a column and all that paired randomisation tests on the same queries, adjusted by Holm, do not tell "
        f"from it at {report.choices.alpha:g}",
    ]
    if with_ties:
        facts.append("in brackets what the order of tied documents can give")
    return f"{escaped('; '.join(facts))}."
