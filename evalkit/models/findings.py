"""What a reader of a model's scores should know of how it was loaded: logged once, and collected for the result."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

_collected: ContextVar[list[str] | None] = ContextVar("collected", default=None)
logger = logging.getLogger("evalkit")


def report_once(name: str, findings: Iterable[str]) -> None:
    """Log each finding on the model of that name once in this process, and give it to whoever collects them."""
    found = tuple(findings)
    for finding in found:
        _warn(f"{name}: {finding}")
    repeat(found)


def repeat(findings: Iterable[str]) -> None:
    """Give findings that are logged already to whoever collects them."""
    collected = _collected.get()
    if collected is not None:
        collected += [finding for finding in findings if finding not in collected]


@contextmanager
def collecting() -> Iterator[list[str]]:
    """Yield the list that findings are put in while the context lasts, in this thread."""
    found: list[str] = []
    token = _collected.set(found)
    try:
        yield found
    finally:
        _collected.reset(token)


@cache
def _warn(text: str) -> None:
    logger.warning("%s", text)
