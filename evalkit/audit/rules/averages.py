"""Averages that are not the mean of their row."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator

from evalkit.audit.figures import AuditedFigures, AuditFinding, Figure, half_unit, is_sound, scale, shown
from evalkit.output.numbers import listed
from evalkit.results.published import AVERAGE_TASK

_FOUR = {"T2Reranking", "MMarcoReranking", "CMedQAv1", "CMedQAv2"}


def wrong_averages(evidence: AuditedFigures) -> Iterator[AuditFinding]:
    """Find averages that lie further from the mean of their row than rounding can take them.

    Each printed figure is within half of its last place of the true one, so the true mean is within the mean of these
    halves, and its printed form within half a place more.
    """
    for average, parts in rows_with_average(evidence):
        mean = math.fsum(part.value for part in parts) / len(parts)
        if abs(mean - average.value) > _allowed(average, parts):
            yield _finding(average, parts, mean)


def rows_with_average(evidence: AuditedFigures) -> Iterator[tuple[Figure, list[Figure]]]:
    """Yield each average that can be tested, with the figures it is over: two at least, all of them numbers."""
    rows: dict[tuple[str, str, str, str], list[Figure]] = defaultdict(list)
    for figure in evidence.figures:
        rows[figure.file, figure.row, figure.metric, figure.protocol].append(figure)
    for row in rows.values():
        averages = [figure for figure in row if figure.task == AVERAGE_TASK]
        parts = [figure for figure in row if figure.task != AVERAGE_TASK]
        once = len({part.task for part in parts}) == len(parts)
        if len(averages) == 1 and len(parts) >= 2 and once and all(map(is_sound, row)):
            yield averages[0], parts


def _allowed(average: Figure, parts: list[Figure]) -> float:
    return float(sum(map(half_unit, parts)) / len(parts) + half_unit(average)) + 1e-12


def _finding(average: Figure, parts: list[Figure], mean: float) -> AuditFinding:
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
