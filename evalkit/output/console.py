"""Standard output, for tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderableType
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from evalkit.output.text import printable

_WIDEST = 10_000
_GAP = 2
_NARROWEST_NAME = 12


class OutputConsole(Console):
    """A console that prints names as they are, and whose reader may leave early, as `head` does.

    The latter is told by BrokenPipeError, not by leaving with 1. Control characters in a name, which have no width, are left out.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text, instead=""))

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def plain_table() -> Table:
    """Make a table with a rule below its titles and nothing else drawn."""
    return Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), caption_justify="left")


def add_column(
    table: Table, title: str, cells: Sequence[str | Text], *, justify: JustifyMethod = "left", is_name: bool = False
) -> None:
    """Add a column whose figures never break; names may, where a terminal is narrow. The rows are added by the caller."""
    widest = max(cell_len(line) for cell in (title, *cells) for line in str(cell).split("\n"))
    table.add_column(
        title,
        justify=justify,
        no_wrap=not is_name,
        overflow="fold",
        min_width=min(widest, _NARROWEST_NAME) if is_name else widest,
    )


def print_whole(table: Table, console: Console) -> None:
    """Print a table that is never cut: where no terminal sets the width it takes what it needs."""
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
