"""The lattice of MRR: what a mean reciprocal rank can be at all.

Reciprocal ranks at cutoff k are 0, 1, 1/2, …, 1/k, all of them multiples of 1/L with L = lcm(1..k). A mean of n of them
is therefore a multiple of 1/(L n). At cutoff 10, L is 2520; at 5 it is 60, at 20 it is 232,792,560.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import groupby
from typing import Literal

import numpy as np

from evalkit.audit.figures import (
    AuditedFigures,
    AuditFinding,
    Figure,
    exact,
    fraction_decimals,
    half_unit,
    is_sound,
    shown,
)
from evalkit.audit.names import mrr_cutoff
from evalkit.audit.rules.published import is_published
from evalkit.output.numbers import counted, listed

LatticeState = Literal[
    "on", "off", "the number of queries of this split is unknown", "rounded too far", "the cutoff is too high"
]

_HIGHEST_CUTOFF = 20
_ROUNDING = Fraction(1, 2**48)
"""What numpy's pairwise mean of reciprocal ranks may be off by: 25 roundings of 2**-53 each, and a few for a percentage."""

_FULL_PRECISION = 9
_RARE = 0.01
_IMPROBABLE = 0.1
_SHARE_PER_RANK = 0.05


def divisor(cutoff: int) -> int:
    """Give the least common multiple of the ranks up to the cutoff."""
    return math.lcm(*range(1, cutoff + 1))


def lattice_state(figure: Figure) -> LatticeState | None:
    """Tell whether a figure is on its lattice, or why that cannot be told; None where it is no MRR.

    A figure can be tested where its rounding interval is narrower than the lattice's step. Beyond the printed rounding
    it may be off by the rounding of a sum of n float64.
    """
    cutoff = mrr_cutoff(figure.metric)
    if cutoff is None or not is_sound(figure):
        return None
    if figure.queries is None:
        return "the number of queries of this split is unknown"
    if cutoff > _HIGHEST_CUTOFF:
        return "the cutoff is too high"
    step = Fraction(1, divisor(cutoff) * figure.queries)
    tolerance = half_unit(figure) + Fraction(figure.queries + 4, 2**53)
    if 2 * tolerance >= step:
        return "rounded too far"
    return "on" if _distance(exact(figure), step) <= tolerance else "off"


def off_the_lattice(evidence: AuditedFigures) -> Iterator[AuditFinding]:
    """Find MRRs that no ranking of the task's queries can have."""
    for figure in evidence.figures:
        if lattice_state(figure) == "off":
            cutoff = mrr_cutoff(figure.metric) or 10
            steps = divisor(cutoff) * (figure.queries or 1)
            place = exact(figure) * steps
            nearest = round(place)
            yield AuditFinding(
                "error",
                "lattice",
                f"{figure.metric} of {shown(figure.task)} cannot be an MRR@{cutoff} of {counted(figure.queries or 0, 'query')}",
                figure.file,
                figure.place,
                "it is no multiple of the least part that a query can add: a digit, the number of queries or the cutoff is wrong",
                f"{figure.printed} is {float(place):,.4f} / {steps:,}, {float(abs(place - nearest)):.2g} of a step off; the "
                f"nearest possible is {float(Fraction(nearest, steps)):.16g}" + _other_number_of_queries(figure),
            )


def _other_number_of_queries(figure: Figure) -> str:
    """Name the number of queries, at most twice the task's, that the figure would fit."""
    if fraction_decimals(figure) < _FULL_PRECISION or figure.queries is None:
        return ""
    counts = np.arange(1, 2 * figure.queries + 1)
    steps = counts * float(divisor(mrr_cutoff(figure.metric) or 10))
    places = float(exact(figure)) * steps
    tolerances = float(half_unit(figure) + _ROUNDING) * steps
    fits = counts[np.abs(places - np.rint(places)) <= tolerances + 1e-9 * np.maximum(1, places * 1e-6)]
    chance = float((2 * tolerances).sum())
    if not len(fits) or chance > _RARE:
        return ""
    nearest = fits[np.argmin(np.abs(fits - figure.queries))]
    return f"; it fits {counted(int(nearest), 'query')} (that any number up to {counts[-1]:,} does by chance: {chance:.1g})"


def other_cutoff(evidence: AuditedFigures) -> Iterator[AuditFinding]:
    """Find MRRs that look as if they were cut at 5 or at 20 instead of 10.

    The lattice of 5 is part of that of 10, so a single figure lies on it by chance now and then, one in 42 where ranks 7
    to 9 are frequent (see `_chance_on_lattice_of_5`): a file's figures are judged together. Published figures were
    judged together too (6 of 346 lie on it, where 8 would by chance), and are left out.
    """
    unknown = [f for f in evidence.figures if f.kind != "own result" and not is_published(f, evidence)]
    tens = [f for f in unknown if mrr_cutoff(f.metric) == 10 and is_sound(f) and f.queries]
    yield from filter(None, map(_cut_at_20, tens))
    for _, group in groupby(sorted(tens, key=_file_and_protocol), key=_file_and_protocol):
        yield from _cut_at_5(list(group))


def _file_and_protocol(figure: Figure) -> tuple[str, str]:
    return figure.file, figure.protocol


def _cut_at_20(figure: Figure) -> AuditFinding | None:
    step = Fraction(1, divisor(20) * (figure.queries or 1))
    tolerance = half_unit(figure) + _ROUNDING
    chance = float(2 * tolerance / step)
    if lattice_state(figure) != "off" or chance > _RARE or _distance(exact(figure), step) > tolerance:
        return None
    return AuditFinding(
        "warning",
        "cutoff",
        f"{figure.metric} of {shown(figure.task)} may be cut at 20, not at 10",
        figure.file,
        figure.place,
        "MRR@20 is at least MRR@10 and not comparable with it",
        f"{figure.printed} is a multiple of 1/({divisor(20):,} × {figure.queries:,}) (by chance: {chance:.1g}), not of "
        f"1/({divisor(10):,} × {figure.queries:,})",
    )


def _cut_at_5(figures: Sequence[Figure]) -> Iterator[AuditFinding]:
    chances = {figure: _chance_on_lattice_of_5(figure) for figure in figures if lattice_state(figure) != "off"}
    testable = [figure for figure, chance in chances.items() if chance < 0.5]
    hits = [figure for figure in testable if _is_on_lattice_of_5(figure)]
    chance = _chance_of_so_many([chances[figure] for figure in testable], len(hits))
    if hits and chance <= _IMPROBABLE:
        first = hits[0]
        yield AuditFinding(
            "warning",
            "cutoff",
            f"{len(hits)} of {len(testable)} MRRs may be cut at 5, not at 10",
            first.file,
            first.place,
            "MRR@5 is at most MRR@10 and not comparable with it",
            f"{listed(f'{shown(figure.task)} {figure.printed}' for figure in hits)}: multiples of 1/({divisor(5)} × queries); "
            f"the chance that so many MRR@10 are is about {chance:.1g}",
        )


def _is_on_lattice_of_5(figure: Figure) -> bool:
    queries = figure.queries or 1
    tolerance = half_unit(figure) + Fraction(queries + 4, 2**53)
    return _distance(exact(figure), Fraction(1, divisor(5) * queries)) <= tolerance


def _chance_on_lattice_of_5(figure: Figure) -> float:
    """Estimate how often an MRR@10 lies on the lattice of MRR@5, for the figure's size and rounding.

    In units of 1/(2520 n), ranks 1 to 6 and 10 count multiples of 42, rank 7 counts 24 mod 42, 8 counts 21, 9 counts 28.
    The sum is a multiple of 42 if and only if 7 divides the number of queries whose first hit has rank 7, 2 that of rank
    8 and 3 that of rank 9. Each is taken for a Poisson variable of mean 0.05 n (1 - MRR): of bge-reranker-base's
    queries about so many. Rounding adds the width of its interval.
    """
    queries = figure.queries or 1
    rate = _SHARE_PER_RANK * queries * (1 - figure.value)
    by_chance = math.prod(_chance_of_multiple(rate, number) for number in (7, 2, 3))
    if lattice_state(figure) == "on":
        return max(1 / 42, by_chance)
    return max(1 / 42, by_chance, float(2 * half_unit(figure)) * divisor(5) * queries)


def _chance_of_multiple(rate: float, number: int) -> float:
    """Give the probability that a Poisson variable is a multiple of a number, by its generating function."""
    roots = np.exp(2j * np.pi * np.arange(number) / number)
    return float(np.exp(rate * (roots - 1)).real.mean())


def _chance_of_so_many(chances: Sequence[float], least: int) -> float:
    """Give the probability that at least so many of independent events happen."""
    distribution = np.ones(1)
    for chance in chances:
        distribution = np.convolve(distribution, [1 - chance, chance])
    return float(distribution[least:].sum())


def _distance(value: Fraction, step: Fraction) -> Fraction:
    return abs(value - round(value / step) * step)
