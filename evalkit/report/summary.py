"""The table that a run ends with: what was measured, beside what was published."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from evalkit.metrics.measures import PROTOCOLS, Measure
from evalkit.output.console import add_column, plain_table, print_whole
from evalkit.output.numbers import counted, tied_range
from evalkit.output.text import without_home
from evalkit.records import PrecisionCheck, Result
from evalkit.report.first_stage import print_first_stages
from evalkit.results import published
from evalkit.results.published import PublishedFigure
from evalkit.results.writing import count_queries, pairs_per_second, tokens_per_second

_WITHIN_NOISE = "~"
_SHOWN_DISAGREEMENTS = 3


@dataclass(frozen=True, slots=True)
class _Row:
    """A row's cells as text; empty where there is nothing to say."""

    model: str
    task: str
    protocol: str
    first: str
    second: str
    interval: str = ""
    ties: str = ""
    published: str = ""
    difference: Text = field(default_factory=Text)
    is_average: bool = False


def summary_table(results: Sequence[Result]) -> Table:
    """One row per result, in percent, and an average per model that ran two tasks or more.

    A tie range stands where the order of tied documents can move a printed digit, and a published MAP, with its origin,
    where there is one. Columns that would be empty throughout are left out.
    """
    rows = [row for group in _by_model(results) for row in _group_rows(group)]
    protocols = sorted({row.protocol for row in rows})
    first_title, second_title = _titles(protocols)
    columns: list[tuple[str, list[str | Text]]] = [
        ("model", [row.model for row in rows]),
        ("task", [row.task for row in rows]),
        ("protocol", [row.protocol if len(protocols) > 1 else "" for row in rows]),
        (first_title, [row.first for row in rows]),
        (second_title, [row.second for row in rows]),
        ("95 % interval", [row.interval for row in rows]),
        ("ties", [row.ties for row in rows]),
        ("published", [row.published for row in rows]),
        ("difference", [row.difference for row in rows]),
    ]
    shown = [(title, cells) for title, cells in columns if any(cells)]
    table = plain_table()
    for title, cells in shown:
        is_name = title in ("model", "task")
        justify: JustifyMethod = "left" if is_name or title in ("protocol", "difference") else "right"
        add_column(table, title, cells, justify=justify, is_name=is_name)
    for row, texts in zip(rows, zip(*(cells for _, cells in shown), strict=True), strict=True):
        # a Text shows brackets in a name; a plain string would be read as markup
        table.add_row(
            *(Text(text) if isinstance(text, str) else text for text in texts), style="bold" if row.is_average else None
        )
    if any(str(row.difference).endswith(_WITHIN_NOISE) for row in rows):
        bound = f"at most {published.NOISE_POINTS} points from the published figure"
        table.caption = f"{_WITHIN_NOISE} within noise: {bound}"
    return table


def print_summary(results: Sequence[Result], console: Console, paths: Sequence[Path] = ()) -> None:
    """Print the table and, per result, what it rests on; `paths` are the results' files, in the same order.

    The table is never cut: where no terminal sets the width it takes what it needs.
    """
    table = summary_table(results)
    print_whole(table, console)
    console.print()
    for line in (*_result_lines(results, paths), *_disagreement_lines(results)):
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    print_first_stages(results, console)


def _by_model(results: Iterable[Result]) -> list[list[Result]]:
    """Group the results whose average would be one system's, in order of appearance."""
    groups: dict[tuple[object, ...], list[Result]] = {}
    for result in results:
        backend = str(sorted(result.backend.items()))
        groups.setdefault((result.model, result.protocol, backend, _limit(result)), []).append(result)
    return list(groups.values())


def _group_rows(group: Sequence[Result]) -> list[_Row]:
    rows = [_result_row(result) for result in group]
    if len({result.task.name for result in group}) == len(group) >= 2:
        rows.append(_average_row(group))
    return rows


def _result_row(result: Result) -> _Row:
    first, second = PROTOCOLS[result.protocol].leading
    figure = published.preferred(result.model.hub_id, result.task.name, first.name, result.protocol)
    return _Row(
        model=result.model.name,
        task=result.task.name,
        protocol=result.protocol,
        first=_percent(result.scores[first.name]),
        second=_percent(result.scores[second.name]),
        interval=_range(*result.intervals[first.name]) if first.name in result.intervals else "",
        ties=_tie_ranges([result], (first, second)),
        published=_published(figure),
        difference=_difference(result.scores[first.name], figure, _other_data(result)),
    )


def _average_row(group: Sequence[Result]) -> _Row:
    one = group[0]
    first, second = PROTOCOLS[one.protocol].leading
    mean_first, mean_second = (
        math.fsum(result.scores[measure.name] for result in group) / len(group) for measure in (first, second)
    )
    tasks = [result.task.name for result in group]
    figure = published.find_average(one.model.hub_id, tasks, first.name, one.protocol)
    return _Row(
        model=one.model.name,
        task=f"average of {len(group)}",
        protocol=one.protocol,
        first=_percent(mean_first),
        second=_percent(mean_second),
        ties=_tie_ranges(group, (first, second)),
        published=_published(figure),
        difference=_difference(mean_first, figure, next(filter(None, map(_other_data, group)), "")),
        is_average=True,
    )


def _limit(result: Result) -> object:
    return result.config.get("limit") if result.task.limit is None else result.task.limit


def _percent(value: float) -> str:
    return f"{value * 100:.2f}" if math.isfinite(value) else "n/a"


def _range(low: float, high: float) -> str:
    return f"{_percent(low)}–{_percent(high)}"


def _titles(protocols: Sequence[str]) -> tuple[str, str]:
    """Give the titles of the two leading measures: without cutoffs where several protocols lead."""
    leading = [PROTOCOLS[protocol].leading for protocol in protocols]
    if len(leading) == 1:
        return leading[0][0].title, leading[0][1].title
    first, second = ({pair[place].metric.title for pair in leading} for place in (0, 1))
    return (
        first.pop() if len(first) == 1 else "main score",
        second.pop() if len(second) == 1 else "second score",
    )


def _tie_ranges(group: Sequence[Result], measures: Sequence[Measure]) -> str:
    """Write a line per measure of whose mean over the results ties can move a printed digit."""
    lines = []
    for measure in measures:
        metric, title = measure.name, measure.metric.title
        known = [ties for result in group if (ties := result.ties.get(metric))]
        if len(known) < len(group):
            continue
        low, high, value = (
            math.fsum(parts) / len(group)
            for parts in (
                [ties.low for ties in known],
                [ties.high for ties in known],
                [result.scores[metric] for result in group],
            )
        )
        if found := tied_range((low, high), value):
            lines.append(f"{title} {found}")
    return "\n".join(lines)


def _published(figure: PublishedFigure | None) -> str:
    return f"{_percent(figure.value)} {published.origin(figure)}" if figure else ""


def _other_data(result: Result) -> str:
    """Why a published figure can't be compared with the result, if it can't."""
    if _limit(result) is not None:
        return "limit"
    return "other data" if result.task.differences else ""


def _difference(value: float, figure: PublishedFigure | None, other_data: str) -> Text:
    if figure is None or not math.isfinite(value):
        return Text()
    if other_data:
        return Text(f"n/a ({other_data})", style="dim")
    points = (value - figure.value) * 100
    # three decimals where two would read as the bound that is exceeded
    within = abs(points) <= published.NOISE_POINTS + 1e-9
    decimals = 2 if within or round(abs(points), 2) > published.NOISE_POINTS else 3
    shown = f"{round(points, decimals) + 0.0:+.{decimals}f}"  # + 0.0 makes -0.0 positive
    return Text(f"{shown} {_WITHIN_NOISE}", style="green") if within else Text(shown, style="yellow")


def _result_lines(results: Sequence[Result], paths: Sequence[Path]) -> list[str]:
    lines = []
    for number, result in enumerate(results):
        scored, dropped = count_queries(result)
        facts = [f"{counted(scored, 'query', 'queries')} scored, {dropped:,} dropped", *_speed(result)]
        truncated = _truncated_share(result)
        if truncated is not None:
            facts.append(f"{truncated * 100:.1f} % truncated")
        if number < len(paths):
            facts.append(without_home(str(paths[number])))
        lines.append(f"{result.model.name} on {result.task.name}: {'; '.join(facts)}")
        if result.precision is not None:
            lines.append(_precision_line(result.precision))
    return lines


def _speed(result: Result) -> list[str]:
    usage = result.usage
    pairs = f"{len(result.candidates):,} pairs"
    rate = pairs_per_second(result)
    if usage.items_from_store:
        pairs += (
            ", all from the store" if rate is None else f", {usage.items_from_store / usage.items:.0%} from the store"
        )
    if rate is None:
        return [pairs]
    tokens = tokens_per_second(result)
    facts = [f"{pairs} at {rate:,.0f} pairs/s" + (f", {tokens:,.0f} tokens/s" if tokens else "")]
    if usage.latencies:
        half, most = np.percentile(usage.latencies, (50, 95))
        facts.append(f"a query's candidates take {half:.3g} s (p50), {most:.3g} s (p95)")
    return facts


def _precision_line(check: PrecisionCheck) -> str:
    share = check.rank_flips / check.compared if check.compared else 0.0
    return (
        f"  {check.dtype} against fp32 on {check.pairs:,} pairs: scores differ by at most {check.largest_difference:.2g}, "
        f"{check.rank_flips:,} rank flips ({share:.2%} of {check.compared:,}), MAP {check.map_difference * 100:+.2f}"
    )


def _truncated_share(result: Result) -> float | None:
    if "truncated" not in result.candidates or not result.candidates["truncated"].notna().any():
        return None
    return float(result.candidates["truncated"].mean())


def _disagreement_lines(results: Sequence[Result]) -> list[str]:
    lines: dict[str, None] = {}
    for result in results:
        metric = PROTOCOLS[result.protocol].main_score
        figures = published.find(result.model.hub_id, result.task.name, metric, result.protocol)
        others = published.disagreeing(figures)
        if others:
            named = [
                f"{_percent(figure.value)} ({published.origin(figure)})" for figure in others[:_SHOWN_DISAGREEMENTS]
            ]
            more = f" and {len(others) - len(named)} more" if len(others) > len(named) else ""
            line = (
                f"{result.model.name} on {result.task.name}: {len(others)} of {len(figures)} published figures disagree with "
                f"{_published(figures[0])}: {', '.join(named)}{more}"
            )
            lines[line] = None
    return list(lines)
