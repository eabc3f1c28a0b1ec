"""Standard output, for tables."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

_WIDEST = 10_000
_GAP = 2


class OutputConsole(Console):
    """A console that prints names as they are, and whose reader may leave early, as `head` does.

    The latter is told by BrokenPipeError, not by leaving with 1.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def print_whole(table: Table, console: Console) -> None:
    """Print a table without cutting anything: where no terminal sets the width it takes what it needs.

    A terminal that is too narrow for the columns' `min_width` breaks the lines by itself.
    """
    width = console.width
    if console.is_terminal:
        needed = max(width, sum((column.min_width or 0) + _GAP for column in table.columns) - _GAP)
    else:
        needed = Measurement.get(console, console.options.update(max_width=_WIDEST), table).maximum
    try:
        console.width = needed
        console.print(table)
    finally:
        console.width = width
