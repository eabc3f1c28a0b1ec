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
    collected = _collected.get()
    for finding in findings:
        _warn(f"{name}: {finding}")
        if collected is not None and finding not in collected:
            collected.append(finding)


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
