"""Progress of long work on stderr: a bar with rate and time left on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from evalkit.machine import resident_bytes
from evalkit.output.numbers import duration, plural

LINE_SECONDS = 15.0
GIBIBYTE = 2**30
_BAR_WIDTH = 16
_GAP = " "
logger = logging.getLogger("evalkit")


class Advance(Protocol):
    """Told how many more items are done, and how many tokens they had, where those are counted."""

    def __call__(self, items: int, tokens: int = 0) -> None: ...


@dataclass
class _Tally:
    """What is done of a work of `total` items, of which `already` were done before it `started` (seconds of a clock)."""

    what: str
    unit: str
    total: int
    already: int
    started: float
    count: int
    tokens: int = 0

    def add(self, items: int, tokens: int) -> None:
        self.count += items
        self.tokens += tokens

    def rates(self, now: float) -> tuple[float, float]:
        """Items and tokens per second; 0 before anything is done."""
        seconds = now - self.started
        return ((self.count - self.already) / seconds, self.tokens / seconds) if seconds > 0 else (0.0, 0.0)

    def seconds_left(self, now: float) -> float | None:
        """By the rate so far; None where it is not known."""
        rate, _ = self.rates(now)
        return (self.total - self.count) / rate if rate else None


@contextmanager
def progress(what: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
    """Yield a function that is told how much more is done; `done` items are from the store, before the start."""
    tally = _Tally(what, unit, total, done, time.monotonic(), done)
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        with _bar(tally) as advance:
            yield advance
    else:
        yield _lines(tally)


@contextmanager
def _bar(tally: _Tally) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(_BAR_WIDTH), TextColumn("{task.fields[facts]}"))
    taken = len(tally.what) + _BAR_WIDTH + 2 * len(_GAP)

    def facts() -> str:
        return _fitting(_bar_facts(tally, time.monotonic()), console.width - taken)

    with Progress(*columns, console=console, transient=True) as bars:
        bar = bars.add_task(tally.what, total=tally.total, completed=tally.already, facts=facts())

        def advance(items: int, tokens: int = 0) -> None:
            tally.add(items, tokens)
            bars.update(bar, completed=tally.count, facts=facts())

        yield advance


def _bar_facts(tally: _Tally, now: float) -> list[str]:
    """Return what stands beside the bar, the most telling first."""
    (rate, tokens), left = tally.rates(now), tally.seconds_left(now)
    resident = resident_bytes()
    facts = [
        f"{tally.count:,}/{tally.total:,}",
        f"{duration(left)} left" if left is not None else "",
        f"{rate:,.1f} {plural(tally.unit)}/s" if rate else "",
        f"{tokens:,.0f} tokens/s" if tokens else "",
        f"{tally.already / tally.total:.0%} stored" if tally.already else "",
        f"{resident / GIBIBYTE:.1f} GiB" if resident else "",
    ]
    return [fact for fact in facts if fact]


def _fitting(facts: list[str], width: int) -> str:
    """As many of the facts as a line has room for: whole ones, never a part."""
    while len(facts) > 1 and len(_GAP.join(facts)) + len(facts) - 1 > width:
        facts = facts[:-1]
    return f"{_GAP * 2}".join(facts)


def _lines(tally: _Tally) -> Advance:
    told = tally.started

    def advance(items: int, tokens: int = 0) -> None:
        nonlocal told
        tally.add(items, tokens)
        now = time.monotonic()
        if now - told >= LINE_SECONDS and tally.count < tally.total:
            told = now
            logger.info("%s", _line(tally, now))

    return advance


def _line(tally: _Tally, now: float) -> str:
    (rate, tokens), left = tally.rates(now), tally.seconds_left(now)
    resident = resident_bytes()
    share = 100 * tally.count / tally.total
    facts = [
        f"{tally.what}: {tally.count} of {tally.total} {plural(tally.unit)} ({share:.0f} %)",
        f"{rate:.1f} per second",
        f"{tokens:.0f} tokens per second" if tokens else "",
        f"{left:.0f} s left" if left is not None else "",
        f"{tally.already} from the store" if tally.already else "",
        f"{resident / GIBIBYTE:.1f} GiB of memory" if resident else "",
    ]
    return ", ".join(filter(None, facts))
