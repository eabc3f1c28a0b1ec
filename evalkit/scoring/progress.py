"""Progress of long work on stderr: a bar with rate and time left on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LINE_SECONDS = 15.0
Advance = Callable[[int], None]
logger = logging.getLogger("evalkit")


@contextmanager
def progress(what: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
    """Yields a function that is told how many more items are done; `done` of them are from the start."""
    if sys.stderr.isatty():
        with _bar(what, total, unit, done) as advance:
            yield advance
    else:
        yield _lines(what, total, unit, done)


@contextmanager
def _bar(what: str, total: int, unit: str, already: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task(what, total=total, completed=already, rate="")

        def advance(done: int) -> None:
            bars.advance(bar, done)
            speed = bars.tasks[0].speed
            bars.update(bar, rate=f"{speed:.1f} {unit}s/s" if speed else "")

        yield advance


def _lines(what: str, total: int, unit: str, already: int) -> Advance:
    started = told = time.monotonic()
    count = already

    def advance(done: int) -> None:
        nonlocal count, told
        count += done
        now = time.monotonic()
        if now - told >= LINE_SECONDS and count < total:
            told = now
            rate = (count - already) / (now - started)
            logger.info(
                "%s: %d of %d %ss (%.0f %%), %.1f per second, %.0f s left",
                what, count, total, unit, 100 * count / total, rate, (total - count) / rate,
            )  # fmt: skip

    return advance
