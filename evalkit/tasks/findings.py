"""What validation notices: gathered while a dataset is read, reported once per kind."""

from __future__ import annotations

import logging
from typing import Any, Literal, NamedTuple

from evalkit.errors import EvalkitError
from evalkit.output.numbers import counted
from evalkit.records import Finding, finding_text

logger = logging.getLogger("evalkit")

_ROWS_SHOWN = 5
_VALUE_SHOWN = 40


class Cell(NamedTuple):
    """Where something stands: file, row (counted from 1; in JSON Lines the line), column."""

    file: str
    row: int | None = None
    column: str = ""


class FindingLog:
    """Collects findings while a dataset is read.

    Findings of one severity, message and column are one kind, kept with their number and first places, so that a large
    file with the same flaw in every row stays one line. Messages therefore carry no detail of the row, except errors'.
    """

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str, str], list[Cell]] = {}
        self._counts: dict[tuple[str, str, str], int] = {}

    def add(self, severity: Literal["error", "warning", "note"], message: str, cell: Cell) -> None:
        """Note one finding."""
        kind = (severity, message, cell.column)
        self._counts[kind] = self._counts.get(kind, 0) + 1
        places = self._kinds.setdefault(kind, [])
        if len(places) < _ROWS_SHOWN:
            places.append(cell)

    def raise_errors(self) -> None:
        """Raise EvalkitError with the first error in full and the number of the others; return if there is none."""
        errors = [kind for kind in self._kinds if kind[0] == "error"]
        if not errors:
            return
        first = self._kinds[errors[0]][0]
        others = sum(self._counts[kind] for kind in errors) - 1
        more = f" (and {counted(others, 'more such problem')})" if others else ""
        raise EvalkitError(finding_text(Finding("error", errors[0][1], *first)) + more)

    def findings(self) -> tuple[Finding, ...]:
        """Return one Finding per kind: the first place, and in the message how many there are and their first rows."""
        return tuple(self._summary(kind) for kind in self._kinds)

    def _summary(self, kind: tuple[str, str, str]) -> Finding:
        severity, message, _ = kind
        places, count = self._kinds[kind], self._counts[kind]
        if count > 1:
            rows = ", ".join(dict.fromkeys(str(place.row) for place in places if place.row is not None))
            first = f", first in rows {rows}" if rows else ""
            message = f"{message} ({count} of them{first})"
        return Finding(severity, message, *places[0])  # type: ignore[arg-type]


def log_findings(task_name: str, findings: tuple[Finding, ...]) -> None:
    """Send findings to evalkit's logger, one line each: warnings as such, notes as information."""
    for finding in findings:
        level = logging.WARNING if finding.severity == "warning" else logging.INFO
        logger.log(level, "%s: %s", task_name, finding_text(finding))


def described(value: Any) -> str:
    """Return a wrong value in a few words, for a message."""
    if value is None:
        return "null or missing"
    if isinstance(value, (bool, int, float)):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the text {value[:_VALUE_SHOWN]!r}{'…' if len(value) > _VALUE_SHOWN else ''}"
    if isinstance(value, dict):
        return "an object"
    return "a list" if isinstance(value, (list, tuple)) else f"a value of type {type(value).__name__}"
