"""The page: its data, its charts and its code, put into one file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from evalkit.compare.shared_queries import SharedQueries, metric_title
from evalkit.output.numbers import counted, interval_name, percent, percent_range
from evalkit.output.text import printable
from evalkit.report.content import Report
from evalkit.report.depth import DepthTable, depth_sheet
from evalkit.report.html.charts import chart_config, chart_library, chart_specs, speed_domains
from evalkit.report.html.embedding import content_policy, inline_script, json_data
from evalkit.report.html.rows import PLOT_WIDTH, BoardRow, BoardRows, board_rows
from evalkit.report.html.systems import system_facts
from evalkit.report.html.tasks import DRILL_DOWN, task_data
from evalkit.report.tables import slice_sheets
from evalkit.statistics import level_beside_test
from evalkit.version import __version__

_HERE = Path(__file__).parent
_SCRIPTS = (
    "elements",
    "theme",
    "charts",
    "leaderboard",
    "depth",
    "speed",
    "distributions",
    "comparison",
    "queries",
    "start",
)
SIZES = ((0, 150), (150, 600), (600, 2000), (2000, None))
"""Bounds of the filter by size: millions of parameters, from and below."""


def html_page(report: Report) -> str:
    """Write a report as one page that opens from a file and asks for nothing else.

    Results on the same data have the same candidates (see `make_report`). The libraries that draw
    its charts come from vl-convert-python.
    """
    groups = [shared.of for shared in report.behind]
    facts = system_facts(report, groups)
    numbers = {system: number for number, system in enumerate(facts)}
    boards = board_rows(report, groups, facts)
    data = {
        "systems": [{"label": one.label, "kind": one.kind, "way": one.way} for one in facts.values()],
        "boards": [_board_data(board) for board in boards],
        "tasks": [task_data(report, shared, numbers) for shared in report.tasks],
        "depths": [_depth_data(table) for table in report.depths],
        "charts": {"specs": chart_specs(), "config": chart_config()},
        "alpha": report.choices.alpha,
        "interval": interval_name(level_beside_test(report.choices.alpha)),
        "drillDown": DRILL_DOWN if report.choices.drill_down is None else report.choices.drill_down,
        "textsLeftOut": not report.choices.texts,
    }
    return _render(report, counts(report.tasks), boards, data)


def counts(tasks: Sequence[SharedQueries]) -> str:
    """Say how many systems, tasks and queries there are, each once whatever its limits, data and protocols."""
    systems = {system for shared in tasks for system in shared.of.systems}
    queries = {(shared.of.task, query_id) for shared in tasks for query_id in shared.query_ids}
    return " · ".join(
        (
            counted(len(systems), "system"),
            counted(len({shared.of.task for shared in tasks}), "task"),
            counted(len(queries), "query"),
        )
    )


def _render(report: Report, summary: str, boards: Sequence[BoardRows], data: Mapping[str, Any]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        # data and code are markup, and stay as they are
        finalize=lambda value: printable(value) if type(value) is str else value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    style, own, library = _asset("page.css"), _own_script(), chart_library()
    rows = [row for board in boards for row in board.rows]
    page = environment.get_template("page.html.j2").render(
        policy=content_policy([library, own], [style]),
        style=style,
        own_script=own,
        chart_library=library,
        data=json_data(data),
        boards=boards,
        rows=rows,
        columns=_columns(rows),
        first_board=_first_board(boards),
        kinds=sorted({row.facts.kind for row in rows}),
        protocols=list(dict.fromkeys(board.protocol for board in boards)),
        sizes=[(low, high, _size_name(low, high)) for low, high in SIZES],
        plot_width=PLOT_WIDTH,
        summary=summary,
        slices=slice_sheets(report),
        depths=[depth_sheet(table) for table in report.depths],
        alpha=f"{report.choices.alpha:g}",
        notes=report.notes,
        version=__version__,
    )
    # an undecodable byte of a file name is a lone surrogate, which no file can hold; JSON reads the escape
    return page.encode("utf-8", errors="backslashreplace").decode("utf-8")


def _board_data(board: BoardRows) -> dict[str, Any]:
    points = [
        {
            "label": row.facts.label,
            "way": row.facts.way,
            "value": row.value * 100,
            "rate": row.rate,
            "front": front,
            "valueText": f"{board.metric} {row.shown['value']}",
            "intervalText": row.shown["interval"],
            "rateText": row.shown["rate"],
        }
        for row, front in zip(board.rows, board.front, strict=True)
    ]
    return {
        "name": board.name,
        "protocol": board.protocol,
        "measured": board.measured,
        "metric": board.metric,
        "points": points,
        "domains": speed_domains([(row.value * 100, row.rate) for row in board.rows if row.rate is not None]),
    }


def _depth_data(table: DepthTable) -> dict[str, Any]:
    values = [one for one in table.values if one.metric == table.leading]
    return {
        "name": f"{table.label} on {table.task}",
        "metric": metric_title(table.leading),
        "points": [
            {
                "depth": one.depth,
                "value": one.value * 100,
                "low": None if math.isnan(one.interval[0]) else one.interval[0] * 100,
                "high": None if math.isnan(one.interval[1]) else one.interval[1] * 100,
                "ceiling": one.ceiling * 100,
                "shown": percent(one.value),
                "interval": percent_range(one.interval),
            }
            for one in values
        ],
    }


def _columns(rows: Sequence[BoardRow]) -> set[str]:
    """Name the columns that have something to say."""
    names = ("ties", "noise", "published", "difference", "second", "rate", "size")
    return {name for name in names if any(row.shown[name] for row in rows)}


def _first_board(boards: Sequence[BoardRows]) -> int:
    """Choose the board to open with: the average over most tasks, or else the first task."""
    return max(range(len(boards)), key=lambda number: (len(boards[number].tasks), -number))


def _size_name(low: int, high: int | None) -> str:
    def name(millions: int) -> str:
        return f"{millions / 1000:g} B" if millions >= 1000 else f"{millions} M"

    if not low:
        return f"below {name(high or 0)}"
    return f"{name(low)} and more" if high is None else f"{name(low)} – {name(high)}"


@cache
def _asset(name: str) -> str:
    return (_HERE / "assets" / name).read_text(encoding="utf-8")


def _own_script() -> str:
    parts = "\n".join(_asset(f"{name}.js") for name in _SCRIPTS)
    return inline_script(f'(() => {{\n"use strict";\n{parts}\n}})();')
