"""The lines of the page's leaderboard."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evalkit.compare.shared_queries import TaskResults, metric_title
from evalkit.compare.systems import System
from evalkit.metrics.measures import CARD_PROTOCOL, PROTOCOLS
from evalkit.output.numbers import noisy_range, percent, percent_range, rank_range, signed, tied_range
from evalkit.report.content import Report
from evalkit.report.html.systems import SystemFacts, mean_pairs_per_second, pareto_front, results_of_board
from evalkit.report.leaderboard import Board, Standing, average_noise, average_ties
from evalkit.report.tables import board_name, measured
from evalkit.results import published
from evalkit.results.published import PublishedFigure
from evalkit.results.result import Result, stage_of
from evalkit.results.training import training_phrase

PLOT_WIDTH, _PLOT_MARGIN = 150, 7


@dataclass(frozen=True, slots=True)
class Plot:
    """Where a line's small drawing has its marks, in pixels from its left: interval, ties and the published figure."""

    value: float
    interval: tuple[float, float] | None
    ties: tuple[float, float] | None
    published: float | None


@dataclass(frozen=True, slots=True)
class BoardRow:
    """A system on a board. Texts are as shown, empty where there is nothing to say; numbers are what columns sort by."""

    board: int
    system: int
    facts: SystemFacts
    ranks: tuple[int, int]
    value: float
    low: float
    ties_width: float
    noise_width: float
    published: float | None
    second: float | None
    rate: float | None
    difference: float | None
    shown: Mapping[str, str]
    plot: Plot


@dataclass(frozen=True, slots=True)
class BoardRows:
    """A board's name, what it measures, and its rows, the best first; `front` tells which rows are on the Pareto front."""

    name: str
    tasks: tuple[str, ...]
    protocol: str
    measured: str
    metric: str
    second_metric: str
    rows: tuple[BoardRow, ...]
    front: tuple[bool, ...]


def board_rows(report: Report, groups: Sequence[TaskResults], facts: Mapping[System, SystemFacts]) -> list[BoardRows]:
    """Write every board of the report as rows; systems are numbered in the order of `facts`."""
    numbers = {system: number for number, system in enumerate(facts)}
    return [_rows(report, place, board, groups, facts, numbers) for place, board in enumerate(report.boards)]


def _rows(
    report: Report,
    place: int,
    board: Board,
    groups: Sequence[TaskResults],
    facts: Mapping[System, SystemFacts],
    numbers: Mapping[System, int],
) -> BoardRows:
    behind = results_of_board(board, groups)
    figures = [_figure(board, one.system, [of[one.system] for of in behind]) for one in board.standings]
    scale = _scale(board, figures)
    second = second_metric(board)
    rows = []
    for standing, figure in zip(board.standings, figures, strict=True):
        results, own = [of[standing.system] for of in behind], facts[standing.system]
        rows.append(_row(place, numbers[standing.system], own, standing, figure, results, second, scale))
    timed = [(row.value, row.rate) for row in rows if row.rate is not None]
    on_front = iter(pareto_front(timed))
    return BoardRows(
        name=board_name(report, board),
        tasks=board.tasks,
        protocol=board.protocol,
        measured=measured(board),
        metric=metric_title(board.metric),
        second_metric=metric_title(second),
        rows=tuple(rows),
        front=tuple(row.rate is not None and next(on_front) for row in rows),
    )


def _row(
    board: int,
    number: int,
    facts: SystemFacts,
    standing: Standing,
    figure: PublishedFigure | None,
    results: Sequence[Result],
    second: str,
    scale: tuple[float, float],
) -> BoardRow:
    rate, second_value = mean_pairs_per_second(results), _mean_of(results, second)
    difference, why = _from_figure(standing, figure, results)
    return BoardRow(
        board=board,
        system=number,
        facts=facts,
        ranks=standing.ranks,
        value=standing.value,
        low=standing.interval[0],
        ties_width=standing.ties[1] - standing.ties[0] if standing.ties else 0.0,
        noise_width=standing.noise[1] - standing.noise[0] if standing.noise else 0.0,
        published=figure.value if figure else None,
        second=second_value,
        rate=rate,
        difference=difference,
        shown={
            **_shown(standing, second_value, rate, facts.size, figure, difference, why),
            **_second_ranges(results, second, second_value),
        },
        plot=_plot(standing, figure if difference is not None else None, scale),
    )


def _second_ranges(results: Sequence[Result], metric: str, value: float | None) -> dict[str, str]:
    """Write what ties and noise can do to the second metric."""
    if value is None:
        return {"second_ties": "", "second_noise": ""}
    ties, noise = average_ties(results, metric), average_noise(results, metric)
    return {"second_ties": tied_range(ties, value), "second_noise": noisy_range(noise, value, ties)}


def second_metric(board: Board) -> str:
    """Name the metric that stands beside a board's own: the other one of its protocol's two main ones."""
    # a measure that no protocol reports stands beside what every result has
    first, second = PROTOCOLS.get(board.protocol, PROTOCOLS[CARD_PROTOCOL]).leading_names
    return first if board.metric == second else second


def _mean_of(results: Sequence[Result], metric: str) -> float | None:
    values = [result.scores[metric] for result in results if metric in result.scores]
    return math.fsum(values) / len(values) if len(values) == len(results) else None


def _figure(board: Board, system: System, results: Sequence[Result]) -> PublishedFigure | None:
    stage = stage_of(results)
    if len(board.tasks) > 1:
        return published.find_average(system.hub_id, board.tasks, board.metric, board.protocol, stage)
    return published.preferred(system.hub_id, board.tasks[0], board.metric, board.protocol, stage)


def _from_figure(
    standing: Standing, figure: PublishedFigure | None, results: Sequence[Result]
) -> tuple[float | None, str]:
    """Give the percentage points from the published figure, or say why they would mean nothing."""
    if figure is None:
        return None, ""
    incomparable = next(filter(None, (result.incomparable for result in results)), "")
    if incomparable:
        return None, f"n/a ({incomparable})"
    if not math.isfinite(standing.value):
        return None, "n/a"
    return figure.points(standing.value), ""


def _shown(
    standing: Standing,
    second: float | None,
    rate: float | None,
    size: float | None,
    figure: PublishedFigure | None,
    difference: float | None,
    why: str,
) -> dict[str, str]:
    return {
        "ranks": rank_range(standing.ranks),
        "value": percent(standing.value),
        "training": training_phrase(standing.training),
        "interval": percent_range(standing.interval),
        "ties": tied_range(standing.ties, standing.value),
        "noise": noisy_range(standing.noise, standing.value, standing.ties),
        "published": percent(figure.value) if figure else "",
        "origin": published.origin(figure) if figure else "",
        "difference": signed(difference) if difference is not None else why,
        "second": percent(second) if second is not None else "",
        "rate": rate_text(rate),
        "size": size_text(size),
    }


def rate_text(rate: float | None) -> str:
    """Write pairs per second with three digits: `1,230`, `45.6`."""
    if rate is None:
        return ""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def size_text(millions: float | None) -> str:
    """Write a number of parameters: `118 M`, `2.5 B`."""
    if millions is None:
        return ""
    return f"{millions:,.0f} M" if round(millions) < 1000 else f"{millions / 1000:.3g} B"


def _scale(board: Board, figures: Sequence[PublishedFigure | None]) -> tuple[float, float]:
    """Give the lowest and highest value that the drawings of a board have to hold."""
    ends = [end for one in board.standings for end in (one.value, *one.interval, *(one.ties or ()))]
    ends += [figure.value for figure in figures if figure]
    ends = [end for end in ends if math.isfinite(end)]
    return (min(ends), max(ends)) if ends else (0.0, 1.0)


def _plot(standing: Standing, figure: PublishedFigure | None, scale: tuple[float, float]) -> Plot:
    low, high = scale

    def place(value: float) -> float:
        share = (value - low) / (high - low) if high > low else 0.5
        return round(_PLOT_MARGIN + share * (PLOT_WIDTH - 2 * _PLOT_MARGIN), 1)

    def places(ends: tuple[float, float] | None) -> tuple[float, float] | None:
        return (place(ends[0]), place(ends[1])) if ends and all(map(math.isfinite, ends)) else None

    with_ties = tied_range(standing.ties, standing.value) != ""
    return Plot(
        value=place(standing.value) if math.isfinite(standing.value) else 0.0,
        interval=places(standing.interval),
        ties=places(standing.ties) if with_ties else None,
        published=place(figure.value) if figure else None,
    )
