"""What an audit works on: a figure as a file states it, and what a rule found."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from typing import Literal

from evalkit.output.text import one_line

FigureKind = Literal["card", "table", "result", "own result", "registry"]
Unit = Literal["percent", "fraction"]
Key = tuple[str, str, str, str]
Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

# bounded on purpose: 1e999999999 is a number too, and its exact value does not fit into any memory
_NUMBER = re.compile(r"[+-]?\d{1,20}(?:\.\d{0,40})?(?:[eE][+-]?\d{1,2})?")
_LONGEST_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure where it stands.

    `value` is a fraction, NaN where `printed` (the file's own digits, in `unit`) is no number; `decimals` counts the
    printed digits after the point. `model` is empty where the file does not say. `row` names the table row, card or
    result that the figure stands in: an average belongs to its row, and `unread` holds the row's cells that were not read as
    a number, each with its column. `queries` is how many queries the mean is over, None where nobody knows.
    """

    model: str
    task: str
    metric: str
    value: float
    printed: str
    decimals: int
    unit: Unit
    protocol: str
    file: str
    place: str
    row: str
    kind: FigureKind
    queries: int | None = None
    unread: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """What a rule found: what is the matter, where (file and place), why it matters, and the numbers that show it."""

    severity: Severity
    rule: str
    what: str
    file: str
    place: str
    why: str
    evidence: str


@dataclass(frozen=True, eq=False)
class Registry:
    """The published figures, to be compared with. It is what it is, not what it holds: rules keep what they derive from it."""

    figures: tuple[Figure, ...] = ()

    @cached_property
    def by_key(self) -> Mapping[Key, tuple[Figure, ...]]:
        """The figures by model, task, metric and protocol."""
        groups: dict[Key, list[Figure]] = defaultdict(list)
        for figure in self.figures:
            groups[figure.model, figure.task, figure.metric, figure.protocol].append(figure)
        return {key: tuple(group) for key, group in groups.items()}


@dataclass(frozen=True, slots=True)
class AuditedFigures:
    """What rules look at: the figures of all audited files, and the published ones."""

    figures: tuple[Figure, ...]
    registry: Registry


Rule = Callable[[AuditedFigures], Iterable[AuditFinding]]


def parse_number(text: str) -> Decimal | None:
    """Read a number of at most 20 digits before the point, 40 behind it and an exponent of two; else None."""
    text = text.strip()
    return Decimal(text) if text.isascii() and _NUMBER.fullmatch(text) else None


def value_of(printed: str, unit: Unit) -> float:
    """Give a printed figure as a fraction, NaN where it is no number."""
    number = parse_number(printed)
    return math.nan if number is None else float(Fraction(number) / scale(unit))


def decimals_of(printed: str) -> int:
    """Count the digits after the point, as if an exponent were written out."""
    number = parse_number(printed)
    exponent = 0 if number is None else number.as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def scale(unit: Unit) -> int:
    """Return how many units make a whole."""
    return 100 if unit == "percent" else 1


def is_sound(figure: Figure) -> bool:
    """Tell whether a figure is a number between 0 and 1: what other rules can work with."""
    return 0.0 <= figure.value <= 1.0


def exact(figure: Figure) -> Fraction:
    """Give precisely what is printed, as a fraction of 1. Only for numbers."""
    return Fraction(parse_number(figure.printed) or 0) / scale(figure.unit)


def half_unit(figure: Figure) -> Fraction:
    """Give half of the last printed place: how far rounding may have moved a figure."""
    return Fraction(1, 2 * scale(figure.unit) * 10**figure.decimals)


def fraction_decimals(figure: Figure) -> int:
    """Count the decimals that a figure has as a fraction."""
    return figure.decimals + (2 if figure.unit == "percent" else 0)


def is_equal(one: Figure, other: Figure) -> bool:
    """Tell whether two printed figures can be one number, the one with fewer digits being rounded."""
    difference = abs(one.value - other.value)
    return difference <= float(max(half_unit(one), half_unit(other))) * (1 + 1e-9) + 1e-15


def shown(text: str) -> str:
    """Make a file's text fit to be printed: without control characters, on one line, and not long."""
    safe = one_line(text[: _LONGEST_SHOWN + 1])
    return safe if len(safe) <= _LONGEST_SHOWN else safe[:_LONGEST_SHOWN] + "…"
