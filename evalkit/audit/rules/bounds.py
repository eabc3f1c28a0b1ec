"""Figures that arithmetic rules out: values that no metric can have, averages that are not the mean of their row, MAPs beside MRRs.

What an MRR leaves possible for MAP: let a query's first relevant document have rank r, and let it have P relevant candidates.
The i-th of them (by rank) then has rank r - 1 + i at best, so that

    AP <= f(r, P) = (1/P) sum_{i=1..P} i / (r - 1 + i)

and, where no scores are tied, AP >= g(r, P) = (1/P) (1/r), the first one's share alone. (Tied scores can only lower AP: a
threshold of average_precision_score takes in all of a tie, and cmteb-v1's RR is that of the best order.) Beyond rank 10 RR is
0, AP at most f(11, P), at least 0. For any numbers x and y >= 0, then, by summing over the queries,

    mean AP <= x mean RR + y mean P + max over (r, P) of (f(r, P) - x RR(r) - y P)
    mean AP >= x mean RR - y mean P + min over (r, P) of (g(r, P) - x RR(r) + y P)

(weak duality). The bounds are the best of these for a grid of x and y: sound, and within 0.005 of the tightest that can be
said from the means alone. P has no limit: f <= 1 and g >= 0 stand for all P >= 256, charged as P = 256.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from evalkit.audit.figures import (
    AuditedFigures,
    AuditFinding,
    Figure,
    Registry,
    Severity,
    half_unit,
    is_sound,
    scale,
    shown,
)
from evalkit.audit.names import task_size
from evalkit.audit.rules.published import is_published
from evalkit.metrics.measures import PROTOCOLS
from evalkit.output.numbers import counted, listed
from evalkit.results.published import AVERAGE_TASK

Floats = NDArray[np.float64]

_LEAST_PERCENT = 0.01
# with a thousand candidates a query, a ranking of noise is worth less than one percent
_NOISE_TASK = "MMarcoReranking"
_FOUR = {"T2Reranking", "MMarcoReranking", "CMedQAv1", "CMedQAv2"}

_CUTOFF = 10
_MOST_POSITIVES = 256
_SLOPES = np.concatenate([[10 / 11], np.linspace(0.0, 1.2, 121)])
# where g's step from P to P + 1 is the price, among others
_PRICES = np.concatenate([[0.0], [1 / (p * (p + 1)) for p in range(1, 12)], np.geomspace(1e-4, 0.6, 50)])
_ROUNDING = 1e-9
_PAIRS = tuple(
    protocol.leading_names
    for protocol in PROTOCOLS.values()
    if [measure.metric.title for measure in protocol.leading] == ["MAP", "MRR"]
    and protocol.leading[1].cutoff == _CUTOFF
)

_FEWEST_PAIRS = 30
_FAR_DEVIATIONS = 10.0
_FAR_POINTS = 0.04


def wrong_values(evidence: AuditedFigures) -> Iterator[AuditFinding]:
    """Find what is no number, or not between 0 and 1, or is a fraction among percentages."""
    for figure in evidence.figures:
        if math.isnan(figure.value):
            yield _wrong_value(figure, "no number", "a metric is a number", shown(figure.printed))
        elif not is_sound(figure):
            why = "a metric lies between 0 and 1, in percent between 0 and 100"
            if figure.unit == "fraction" and 1 < figure.value <= 100:
                why += "; among fractions this looks like a percentage"
            yield _wrong_value(figure, "out of range", why, f"{figure.printed} as a {figure.unit}")
        elif figure.unit == "percent" and 0 < figure.value <= _LEAST_PERCENT:
            yield _fraction_among_percentages(figure)


def _fraction_among_percentages(figure: Figure) -> AuditFinding:
    severity = "warning" if figure.task == _NOISE_TASK else "error"
    return AuditFinding(
        "warning" if severity == "warning" else "error",
        "range",
        f"{figure.metric} of {shown(figure.task)} is a fraction among percentages",
        figure.file,
        figure.place,
        "units are mixed up: readers and leaderboards will take it for less than one percent",
        f"{figure.printed} stands beside figures above 1",
    )


def _wrong_value(figure: Figure, what: str, why: str, evidence: str) -> AuditFinding:
    subject = f"{figure.metric} of {shown(figure.task)} is {what}"
    return AuditFinding("error", "range", subject, figure.file, figure.place, why, evidence)


def wrong_averages(evidence: AuditedFigures) -> Iterator[AuditFinding]:
    """Find averages that lie further from the mean of their row than rounding can take them.

    Each printed figure is within half of its last place of the true one, so the true mean is within the mean of these
    halves, and its printed form within half a place more.
    """
    for average, parts in rows_with_average(evidence):
        mean = math.fsum(part.value for part in parts) / len(parts)
        if abs(mean - average.value) > _allowed(average, parts):
            yield _wrong_average(average, parts, mean)


def unread_cells(evidence: AuditedFigures) -> Iterator[AuditFinding]:
    """Note the rows with cells that are neither blank nor read as a number."""
    rows: dict[tuple[str, str], list[Figure]] = defaultdict(list)
    for figure in evidence.figures:
        if figure.unread:
            rows[figure.file, figure.row].append(figure)
    for (file, row), figures in rows.items():
        unread = figures[0].unread
        average = any(figure.task == AVERAGE_TASK for figure in figures)
        yield AuditFinding(
            "note",
            "unread",
            f"{counted(len(unread), 'cell')} of {shown(figures[0].model) or 'the row'} not read",
            file,
            row,
            "what no number can be read from is not tested" + ", and neither is the average of its row" * average,
            listed(map(shown, unread), 7),
        )


def rows_with_average(evidence: AuditedFigures) -> Iterator[tuple[Figure, list[Figure]]]:
    """Yield each average that can be tested, with the figures it is over: two at least, all of them numbers.

    A row with a cell that was not read is left out: what its average is over is not known.
    """
    rows: dict[tuple[str, str, str, str], list[Figure]] = defaultdict(list)
    for figure in evidence.figures:
        rows[figure.file, figure.row, figure.metric, figure.protocol].append(figure)
    for row in rows.values():
        averages = [figure for figure in row if figure.task == AVERAGE_TASK]
        parts = [figure for figure in row if figure.task != AVERAGE_TASK]
        once = len({part.task for part in parts}) == len(parts)
        whole = once and not any(figure.unread for figure in row)
        if len(averages) == 1 and len(parts) >= 2 and whole and all(map(is_sound, row)):
            yield averages[0], parts


def _allowed(average: Figure, parts: list[Figure]) -> float:
    return float(sum(map(half_unit, parts)) / len(parts) + half_unit(average)) + 1e-12


def _wrong_average(average: Figure, parts: list[Figure], mean: float) -> AuditFinding:
    unit = scale(average.unit)
    decimals = average.decimals + 2
    four = [part for part in parts if part.task in _FOUR]
    hint = ""
    if len(four) == len(_FOUR) < len(parts):
        of_four = math.fsum(part.value for part in four) / len(four)
        hint = f"; the mean of the four Chinese tasks is {of_four * unit:.{decimals}f}"
    return AuditFinding(
        "error",
        "average",
        f"the average of {shown(average.model) or 'the row'} is not the mean of its row",
        average.file,
        average.place,
        "a figure of the row or the average is wrong, or it is a mean of other tasks than the row shows",
        f"{average.printed} printed; the mean of {listed((part.printed for part in parts), 7)} is {mean * unit:.{decimals}f}, "
        f"rounding allows {_allowed(average, parts) * unit:.{decimals}f}{hint}",
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Curve:
    """Published MAPs as a polynomial of MRR (fractions), their standard deviation from it, and the MRRs it is made of."""

    coefficients: Floats
    deviation: float
    lowest: float
    highest: float


def maps_against_mrrs(evidence: AuditedFigures) -> Iterator[AuditFinding]:
    """Find MAPs that their row's MRR does not allow, or that no published model with about that MRR has.

    Above the bound is an error; below it, which only tied scores can do, a warning. The published pairs of a task lie
    along a curve: more than ten of their (robust) standard deviations and four points off it is a warning too, and a note where
    the pair is itself published.
    """
    curves = _published_curves(evidence.registry)
    for map_figure, mrr_figure in _rows(evidence.figures):
        size = task_size(map_figure.task)
        # a part of a task, or its other split, has queries of another kind
        if size and map_figure.queries == size.queries:
            impossible = _impossible(map_figure, mrr_figure, size.positives / size.queries)
            improbable = _improbable(map_figure, mrr_figure, curves.get(map_figure.task), evidence)
            yield from filter(None, [impossible or improbable])


def _impossible(map_figure: Figure, mrr_figure: Figure, mean_positives: float) -> AuditFinding | None:
    slack = float(half_unit(map_figure))
    low, high = map_bounds(mean_positives, mrr_figure.value, float(half_unit(mrr_figure)))
    if map_figure.value > high + slack:
        return _finding("error", map_figure, mrr_figure, f"it is at most {high:.4f}", "no ranking has both")
    if map_figure.value < low - slack:
        why = "without tied scores no ranking has both; with many ties MRR flatters and means nothing"
        return _finding("warning", map_figure, mrr_figure, f"it is at least {low:.4f}", why)
    return None


def _improbable(
    map_figure: Figure, mrr_figure: Figure, curve: _Curve | None, evidence: AuditedFigures
) -> AuditFinding | None:
    if curve is None or not curve.lowest <= mrr_figure.value <= curve.highest:
        return None
    expected = float(np.polyval(curve.coefficients, mrr_figure.value))
    if abs(map_figure.value - expected) <= max(_FAR_POINTS, _FAR_DEVIATIONS * curve.deviation):
        return None
    known = is_published(map_figure, evidence) and is_published(mrr_figure, evidence)
    why = "other models with such an MRR have another MAP: tied scores, or figures of different runs"
    usual = f"published models have about {expected:.3f}, ± {curve.deviation:.3f}"
    return _finding("note" if known else "warning", map_figure, mrr_figure, usual, why)


def map_bounds(mean_positives: float, mrr: float, rounding: float = 0.0) -> tuple[float, float]:
    """Bound MAP (fraction) by MRR@10 (fraction, known to within `rounding`) and the mean number of relevant candidates."""
    lower, upper = _intercepts()
    charges = _PRICES * mean_positives
    ends = np.array([max(0.0, mrr - rounding), min(1.0, mrr + rounding)])[:, None, None]
    low = (lower - charges + _SLOPES[:, None] * ends).min(axis=0).max()
    high = (upper + charges + _SLOPES[:, None] * ends).max(axis=0).min()
    return max(0.0, float(low) - _ROUNDING), min(1.0, float(high) + _ROUNDING)


@cache
def _intercepts() -> tuple[Floats, Floats]:
    """Give for each slope x and price y the least of g - x RR + y P and the most of f - x RR - y P: float64[x, y]."""
    positives, reciprocals, highest, lowest = _classes()
    charges = _PRICES[:, None] * positives
    lower = [(lowest - slope * reciprocals + charges).min(axis=1) for slope in _SLOPES]
    upper = [(highest - slope * reciprocals - charges).max(axis=1) for slope in _SLOPES]
    return np.array(lower), np.array(upper)


def _classes() -> tuple[Floats, Floats, Floats, Floats]:
    """List the kinds of query (r, P): P, RR, and the highest and lowest AP of each."""
    counts = np.arange(1, _MOST_POSITIVES + 1)
    positives, reciprocals, highest, lowest = [], [], [], []
    for rank in range(1, _CUTOFF + 2):
        best = np.cumsum(counts / (rank - 1 + counts)) / counts
        found = rank <= _CUTOFF
        worst = 1 / (rank * counts) if found else np.zeros(len(counts))
        best[-1], worst[-1] = 1.0, 0.0
        positives.append(counts)
        reciprocals.append(np.full(len(counts), 1 / rank if found else 0.0))
        highest.append(best)
        lowest.append(worst)
    return (
        np.concatenate(positives).astype(float),
        np.concatenate(reciprocals),
        np.concatenate(highest),
        np.concatenate(lowest),
    )


def _rows(figures: tuple[Figure, ...]) -> Iterator[tuple[Figure, Figure]]:
    """Yield the MAP and MRR that stand together: one model, one task, one protocol, one place."""
    rows: dict[tuple[str, ...], dict[str, Figure]] = defaultdict(dict)
    for figure in figures:
        if is_sound(figure):
            rows[figure.file, figure.row, figure.task, figure.model][figure.metric] = figure
    for row in rows.values():
        for map_name, mrr_name in _PAIRS:
            if map_name in row and mrr_name in row:
                yield row[map_name], row[mrr_name]


@cache
def _published_curves(registry: Registry) -> Mapping[str, _Curve]:
    """Fit each task's published MAPs as a curve of MRR."""
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for map_figure, mrr_figure in _rows(registry.figures):
        points[map_figure.task].append((mrr_figure.value, map_figure.value))
    curves = {}
    for task, pairs in points.items():
        if len(pairs) >= _FEWEST_PAIRS:
            mrrs, maps = np.array(sorted(pairs)).T
            coefficients = np.polyfit(mrrs, maps, 2)
            deviation = 1.4826 * float(np.median(np.abs(maps - np.polyval(coefficients, mrrs))))
            curves[task] = _Curve(coefficients, deviation, float(mrrs[0]), float(mrrs[-1]))
    return curves


def _finding(severity: Severity, map_figure: Figure, mrr_figure: Figure, expected: str, why: str) -> AuditFinding:
    apart = "impossible with" if severity == "error" else "far from what goes with"
    return AuditFinding(
        severity,
        "map and mrr",
        f"{map_figure.metric} of {shown(map_figure.task)} is {apart} its MRR",
        map_figure.file,
        map_figure.place,
        why,
        f"{shown(map_figure.model)}: {map_figure.metric} {map_figure.printed} beside {mrr_figure.metric} {mrr_figure.printed}, "
        f"where {expected}",
    )
