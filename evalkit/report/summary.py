"""What a run ends with: the table of what was measured beside what was published, or one JSON document in its place."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console

from evalkit.compare.systems import result_labels
from evalkit.metrics.measures import PROTOCOLS, Measure, asked_measures
from evalkit.output.console import print_lines
from evalkit.output.numbers import (
    counted,
    exceeds,
    listed,
    noisy_range,
    percent,
    percent_range,
    points,
    points_beyond,
    tied_range,
)
from evalkit.output.sheets import ColumnKind, Sheet, SheetCell, SheetRow, print_sheets
from evalkit.output.text import without_home
from evalkit.records import PrecisionCheck
from evalkit.report.first_stage import print_first_stages
from evalkit.report.leaderboard import average_noise, average_ties
from evalkit.report.reproduction import ReproducedFigure, claimed_model, verdict_cells
from evalkit.results import published
from evalkit.results.published import PublishedFigure
from evalkit.results.result import Result, safeguard_averages, stage_of
from evalkit.results.training import training_line, training_of
from evalkit.results.writing import result_json

_WITHIN_NOISE = "~"
_SHOWN_DISAGREEMENTS = 3


def summary_sheet(results: Sequence[Result]) -> Sheet:
    """One row per result, in percent, and an average per model that ran two tasks or more.

    A sampled task's row has the estimate of the whole task's figure, with its interval. A tie range stands where the order of tied
    documents can move a printed digit, a noise band where the noise of the scores can move one further, a ceiling (the main score
    of a perfect order of the candidates) where relevant documents are missing among them, and a published MAP, with its origin,
    where there is one. Measures that were asked for have columns of their own. Columns that would be empty throughout are left out.
    """
    groups = _by_model(results)
    names = _names(results)
    protocols = sorted({result.protocol for result in results})
    one_protocol = len(protocols) == 1
    asked = _asked(results)
    titles = (*_titles(protocols), *(measure.title for measure in asked))
    numbers = (*titles, "95 % interval", "whole task (95 %)", "ties", "noise", "ceiling", "published")
    columns: list[tuple[str, ColumnKind]] = [("model", "name"), ("task", "name"), ("protocol", "text")]
    columns += [*((title, "number") for title in numbers), ("difference", "text")]
    rows: list[SheetRow] = []
    averages = []
    for group in groups:
        rows += [_result_row(result, names[id(result)], asked, named=not one_protocol) for result in group]
        if len({result.task.name for result in group}) == len(group) >= 2:
            averages.append(len(rows))
            rows.append(_average_row(group, names[id(group[0])], asked, named=not one_protocol))
    within_noise = any(str(row[-1]).endswith(_WITHIN_NOISE) for row in rows)
    bound = f"at most {published.NOISE_POINTS} points from the published figure"
    below = [f"{_WITHIN_NOISE} within noise: {bound}"] if within_noise else []
    if any(result.estimates for result in results):
        below.append(
            "whole task: what the sample says of the mean over the task's queries; 95 % interval: of the mean over all like them"
        )
    sheet = Sheet(
        title="",
        columns=tuple(columns),
        rows=tuple(rows),
        below=tuple(below),
        tones=dict.fromkeys(averages, "strong"),
        keys=("model", "task"),
    )
    return sheet.without_empty_columns()


def print_summary(results: Sequence[Result], console: Console, told: Collection[str] = ()) -> None:
    """Print the table and, per result, what it rests on, with its file where it is written.

    Remarks that the reader was `told` before, as lines, are counted and not repeated. The table is never cut: where no terminal
    sets the width it takes what it needs.
    """
    print_sheets([summary_sheet(results)], console)
    console.print()
    print_lines((*_result_lines(results, told), *_training_lines(results), *_disagreement_lines(results)), console)
    print_first_stages(results, console)


def summary_content(results: Sequence[Result]) -> dict[str, Any]:
    """Return written results as their files hold them, each with its file, and whether figures were reproduced.

    `reproduction` has a list per model that was to reproduce published figures.
    """
    verdicts = _verdicts(results)
    content: dict[str, Any] = {"results": [{"file": str(result.path), **result_json(result)} for result in results]}
    if verdicts:
        content["reproduction"] = {hub_id: [_verdict(cell) for cell in own] for hub_id, own in verdicts.items()}
    return content


def was_reproduced(results: Sequence[Result]) -> bool:
    """Tell whether no figure that was to be reproduced failed."""
    return not any(cell.fails for own in _verdicts(results).values() for cell in own)


def _verdicts(results: Sequence[Result]) -> dict[str, list[ReproducedFigure]]:
    """List the verdicts on published figures, per model that was to reproduce them."""
    reproduced = [result for result in results if result.config.get("reproduce")]
    return {
        hub_id: verdict_cells([result for result in reproduced if claimed_model(result) == hub_id])
        for hub_id in dict.fromkeys(map(claimed_model, reproduced))
    }


def _asked(results: Iterable[Result]) -> list[Measure]:
    """List the measures that were asked for beside the protocols', in order of appearance."""
    every = [measure for result in results for measure in asked_measures(result.scores)]
    return list({measure.name: measure for measure in every}.values())


def _names(results: Sequence[Result]) -> dict[int, str]:
    """Call each result, by its `id`, by its model and by what tells it from the others: of a sweep the settings that differ."""
    return dict(zip(map(id, results), result_labels(results), strict=True))


def _by_model(results: Iterable[Result]) -> list[list[Result]]:
    """Group the results whose average would be one system's, in order of appearance."""
    groups: dict[tuple[object, ...], list[Result]] = {}
    for result in results:
        backend = str(sorted(result.backend.items()))
        groups.setdefault((result.model, result.protocol, backend, result.experiment, result.limit), []).append(result)
    return list(groups.values())


def _result_row(result: Result, name: str, asked: Sequence[Measure], *, named: bool) -> SheetRow:
    """Write a result's cells, with its protocol where that is to be `named`; empty where there is nothing to say."""
    first, second = PROTOCOLS[result.protocol].leading
    figure = published.preferred(result.model.hub_id, result.task.name, first.name, result.protocol, result.stage)
    return (
        name,
        result.task.name,
        result.protocol if named else "",
        percent(result.scores[first.name]),
        percent(result.scores[second.name]),
        *(percent(result.scores[measure.name]) if measure.name in result.scores else "" for measure in asked),
        percent_range(result.intervals[first.name]) if first.name in result.intervals else "",
        _estimate(result),
        _moved([result], (first, second, *asked), _tie_range),
        _moved([result], (first, second, *asked), _noise_range),
        _ceiling(result),
        _published(figure),
        _difference(result.scores[first.name], figure, result.incomparable),
    )


def _average_row(group: Sequence[Result], name: str, asked: Sequence[Measure], *, named: bool) -> SheetRow:
    one = group[0]
    first, second = PROTOCOLS[one.protocol].leading
    tasks, stage = [result.task.name for result in group], stage_of(group)
    figure = published.find_average(one.model.hub_id, tasks, first.name, one.protocol, stage)
    return (
        name,
        f"average of {len(group)}",
        one.protocol if named else "",
        percent(_mean(group, first)),
        percent(_mean(group, second)),
        *(
            percent(_mean(group, measure)) if all(measure.name in result.scores for result in group) else ""
            for measure in asked
        ),
        "",
        "",
        _moved(group, (first, second, *asked), _tie_range),
        _moved(group, (first, second, *asked), _noise_range),
        "",
        _published(figure),
        _difference(_mean(group, first), figure, next(filter(None, (result.incomparable for result in group)), "")),
    )


def _mean(group: Sequence[Result], measure: Measure) -> float:
    return math.fsum(result.scores[measure.name] for result in group) / len(group)


def _titles(protocols: Sequence[str]) -> tuple[str, str]:
    """Give the titles of the two leading measures: without cutoffs where several protocols lead."""
    leading = [PROTOCOLS[protocol].leading for protocol in protocols]
    if len(leading) == 1:
        return leading[0][0].title, leading[0][1].title
    first, second = ({pair[place].metric.title for pair in leading} for place in (0, 1))
    return first.pop() if len(first) == 1 else "main score", second.pop() if len(second) == 1 else "second score"


def _moved(
    group: Sequence[Result], measures: Sequence[Measure], shown: Callable[[Sequence[Result], str, float], str]
) -> str:
    """Write a line per measure with the range that is `shown` for its mean over the results, where there is one."""
    lines = []
    leading = PROTOCOLS[group[0].protocol].leading
    for measure in measures:
        metric, title = measure.name, measure.metric.title if measure in leading else measure.name
        if all(metric in result.scores for result in group) and (found := shown(group, metric, _mean(group, measure))):
            lines.append(f"{title} {found}")
    return "\n".join(lines)


def _tie_range(group: Sequence[Result], metric: str, value: float) -> str:
    return tied_range(average_ties(group, metric), value)


def _noise_range(group: Sequence[Result], metric: str, value: float) -> str:
    return noisy_range(average_noise(group, metric), value, average_ties(group, metric))


def _estimate(result: Result) -> str:
    """Return what a sample says of the whole task's figure."""
    found = result.estimates.get(PROTOCOLS[result.protocol].main_score)
    return f"{percent(found.value)} ({percent_range((found.low, found.high))})" if found else ""


def _ceiling(result: Result) -> str:
    counted_there = result.ceilings and PROTOCOLS[result.protocol].counts_missed
    return percent(result.ceilings[result.main_score]) if counted_there else ""


def _published(figure: PublishedFigure | None) -> str:
    return f"{percent(figure.value)} {published.origin(figure)}" if figure else ""


def _difference(value: float, figure: PublishedFigure | None, incomparable: str) -> str | SheetCell:
    if figure is None or not math.isfinite(value):
        return ""
    if incomparable:
        return SheetCell(f"n/a ({incomparable})", "dim")
    difference = figure.points(value)
    shown = points_beyond(difference, published.NOISE_POINTS)
    if exceeds(difference, published.NOISE_POINTS):
        return SheetCell(shown, "warning")
    return SheetCell(f"{shown} {_WITHIN_NOISE}", "good")


def _result_lines(results: Sequence[Result], told: Collection[str]) -> list[str]:
    lines = []
    names = _names(results)
    for result in results:
        scored, dropped = result.scored_queries, result.dropped_queries
        facts = [f"{counted(scored, 'query')} scored, {dropped:,} dropped", *_speed(result)]
        truncated = _truncated_share(result)
        if truncated is not None:
            facts.append(f"{truncated * 100:.1f} % truncated")
        if result.path is not None:
            facts.append(without_home(str(result.path)))
        lines.append(f"{names[id(result)]} on {result.task.name}: {'; '.join(facts)}")
        if result.precision is not None:
            lines.append(_precision_line(result.precision))
    remarks = dict.fromkeys((name, f"{name}: {text}") for result in results for name, text in result.remarks)
    above = Counter(name for name, line in remarks if line in told)
    lines += [f"{name}: {counted(number, 'warning')} above" for name, number in above.items()]
    return lines + [line for _, line in remarks if line not in told] + safeguard_averages(results)


def _training_lines(results: Sequence[Result]) -> list[str]:
    """Say per model on which of the tasks' data it was trained, as far as that is known."""
    lines = [
        (group[0].model.name, training_line({result.task.name: training_of(result) for result in group}))
        for group in _by_model(results)
    ]
    return list(dict.fromkeys(f"{name}: {line}" for name, line in lines if line))


def _speed(result: Result) -> list[str]:
    timing = result.timing
    pairs = counted(len(result.candidates), "pair")
    rate = timing.pairs_per_second
    if timing.items_from_store:
        pairs += (
            ", all from the store"
            if rate is None
            else f", {timing.items_from_store / result.usage.items:.0%} from the store"
        )
    if rate is None:
        return [pairs]
    tokens = timing.tokens_per_second
    facts = [f"{pairs} at {rate:,.0f} pairs/s" + (f", {tokens:,.0f} tokens/s" if tokens else "")]
    latency = timing.latency_seconds
    if latency:
        facts.append(f"a query's candidates take {latency.p50:.3g} s (p50), {latency.p95:.3g} s (p95)")
    return facts


def _precision_line(check: PrecisionCheck) -> str:
    share = check.rank_flips / check.compared if check.compared else 0.0
    return (
        f"  {check.dtype} against fp32 on {counted(check.pairs, 'pair')}: scores differ by at most "
        f"{check.largest_difference:.2g}, {counted(check.rank_flips, 'rank flip')} ({share:.2%} of {check.compared:,}), "
        f"MAP {points(check.map_difference)}"
    )


def _truncated_share(result: Result) -> float | None:
    if "truncated" not in result.candidates or not result.candidates["truncated"].notna().any():
        return None
    return float(result.candidates["truncated"].mean())


def _disagreement_lines(results: Sequence[Result]) -> list[str]:
    lines: dict[str, None] = {}
    for result in results:
        metric = PROTOCOLS[result.protocol].main_score
        figures = published.find(result.model.hub_id, result.task.name, metric, result.protocol, result.stage)
        others = published.disagreeing(figures)
        if others:
            named = [f"{percent(figure.value)} ({published.origin(figure)})" for figure in others]
            line = (
                f"{result.model.name} on {result.task.name}: {len(others)} of {len(figures)} published figures disagree with "
                f"{_published(figures[0])}: {listed(named, _SHOWN_DISAGREEMENTS)}"
            )
            lines[line] = None
    return list(lines)


def _verdict(cell: ReproducedFigure) -> dict[str, Any]:
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
