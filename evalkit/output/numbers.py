"""How numbers are written (figures in percent with two decimals, signed differences, counts, durations), and read in data."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

_NUMBER = re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)


def number_in(text: str) -> float | None:
    """Return the finite decimal number that a text is; None for all else, as Python's `1_0`, digits of other scripts and `nan`."""
    number = float(text) if _NUMBER.fullmatch(text) else math.nan
    return number if math.isfinite(number) else None


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


def noisy_range(band: tuple[float, float] | None, value: float, ties: tuple[float, float] | None = None) -> str:
    """Write what the noise of scores can do, in percent, where a printed digit of it is not the value's; else nothing.

    Nothing either where it says no more than the range of `ties`, which is part of the band.
    """
    shown = tied_range(band, value)
    return "" if shown == tied_range(ties, value) else shown


def points(difference: float) -> str:
    """Write a difference of fractions in percentage points, with its sign."""
    return signed(difference * 100)


def points_range(interval: tuple[float, float]) -> str:
    """Write an interval of differences in percentage points, with signs."""
    return signed_range((interval[0] * 100, interval[1] * 100))


def signed(number: float, decimals: int = 2) -> str:
    """Write a number with its sign; what rounds to zero has a plus."""
    if math.isinf(number):
        return f"{number:+}".replace("inf", "∞")
    return "n/a" if math.isnan(number) else f"{round(number, decimals) + 0.0:+.{decimals}f}"  # -0.0 + 0.0 is 0.0


def signed_range(interval: tuple[float, float]) -> str:
    """Write an interval of numbers with their signs; `n/a` where there is none."""
    return "n/a" if any(map(math.isnan, interval)) else f"[{', '.join(map(signed, interval))}]"


def interval_name(level: float) -> str:
    """Name an interval by its level: `95 % interval`."""
    return f"{100 * level:g} % interval"


def p_value(p: float) -> str:
    """Write a p-value with four decimals; `n/a` where nothing was tested."""
    if math.isnan(p):
        return "n/a"
    return "<0.0001" if p < 0.0001 else f"{p:.4f}"


def rank_range(ranks: tuple[int, int]) -> str:
    """Write the ranks that are left open: `2`, or `1–3`."""
    best, worst = ranks
    return str(best) if best == worst else f"{best}–{worst}"


def points_beyond(difference: float, bound: float) -> str:
    """Write percentage points with their sign; with three decimals where two would read as the bound that is exceeded."""
    return signed(difference, 3 if exceeds(difference, bound) and round(abs(difference), 2) <= bound else 2)


def exceeds(difference: float, bound: float) -> bool:
    """Whether percentage points are beyond a bound; the rounding of 0.1 + 0.2 puts none there."""
    return abs(difference) > bound + 1e-9


def share(fraction: float) -> str:
    """Write a fraction in percent, as fine as it needs: `42 %`, `0.31 %`."""
    value = 100 * fraction
    return f"{value:.0f} %" if value >= 10 or value == 0 else f"{value:.2g} %"


def counted(number: int, name: str) -> str:
    """Write a number of things: `1 query`, `5,908 queries`."""
    return f"{number:,} {name if number == 1 else plural(name)}"


def plural(name: str) -> str:
    """Name several things: `pairs`, `queries`."""
    return f"{name[:-1]}ies" if name.endswith("y") else f"{name}s"


def listed(names: Iterable[str], most: int = 4) -> str:
    """List names, and how many more there are than `most`: `a, b and 3 more`."""
    every = list(names)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more


def duration(seconds: float) -> str:
    """Write seconds with two digits that matter: `0.1 s`, `1.5 min`, `2.0 h`."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{max(seconds, 0.1):.1f} s"


def letters(place: int) -> str:
    """Name things in order: A to Z, then AA, AB and so on."""
    name = ""
    place += 1
    while place:
        place, rest = divmod(place - 1, 26)
        name = chr(ord("A") + rest) + name
    return name
