"""How figures are written in tables: percent with two decimals."""

from __future__ import annotations

import math


def percent(value: float) -> str:
    """Write a fraction in percent."""
    return f"{value * 100:.2f}" if math.isfinite(value) else "n/a"


def percent_range(interval: tuple[float, float]) -> str:
    """Write an interval of fractions in percent."""
    return "–".join(map(percent, interval)) if all(map(math.isfinite, interval)) else "n/a"


def tied_range(ties: tuple[float, float] | None, value: float) -> str:
    """Write what orders of tied documents can give, in percent, where a printed digit of it is not the value's; else nothing.

    cmteb-v1's MAP takes tied documents together, so that it may be a value that no order gives.
    """
    return percent_range(ties) if ties and {percent(end) for end in ties} != {percent(value)} else ""


def points(difference: float) -> str:
    """Write a difference of fractions in percentage points, with its sign."""
    return signed(difference * 100)


def points_range(interval: tuple[float, float]) -> str:
    """Write an interval of differences in percentage points, with signs."""
    return signed_range((interval[0] * 100, interval[1] * 100))


def signed(number: float) -> str:
    """Write a number with its sign; what rounds to zero has a plus."""
    if math.isinf(number):
        return f"{number:+}".replace("inf", "∞")
    return "n/a" if math.isnan(number) else f"{round(number, 2) + 0.0:+.2f}"


def signed_range(interval: tuple[float, float]) -> str:
    """Write an interval of numbers with their signs."""
    return f"[{', '.join(map(signed, interval))}]"


def p_value(p: float) -> str:
    """Write a p-value with four decimals."""
    return "<0.0001" if p < 0.0001 else f"{p:.4f}"


def rank_range(ranks: tuple[int, int]) -> str:
    """Write the ranks that are left open: `2`, or `1–3`."""
    best, worst = ranks
    return str(best) if best == worst else f"{best}–{worst}"


def counted(number: int, one: str, many: str) -> str:
    """Write a number of things: `1 query`, `5,908 queries`."""
    return f"{number:,} {one if number == 1 else many}"


def letters(place: int) -> str:
    """Name things in order: A to Z, then AA, AB and so on."""
    name = ""
    place += 1
    while place:
        place, rest = divmod(place - 1, 26)
        name = chr(ord("A") + rest) + name
    return name
