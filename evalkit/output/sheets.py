"""Tables as data, with what stands above and below them; written for a terminal or in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from evalkit.output.console import STYLES, Tone, print_lines
from evalkit.output.text import one_line

ColumnKind = Literal["name", "number", "text"]
"""Names may break on a narrow terminal, numbers stand to the right."""

_BOLD = ("strong", "bad")  # the tones that Markdown, which has no colours, writes in bold
_WIDEST = 10_000
_GAP = 2
_NARROWEST_NAME = 12

_MARKS = re.compile(r"([\\`*_\[\]#|~$])")
_BLOCK_START = re.compile(r"^(\d*)([-+=.)])")
_ESCAPED_SECOND = r"\1\\\2"
_MENTION = re.compile(r"(?<!\w)@(?=\w)")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


@dataclass(frozen=True, slots=True)
class SheetCell:
    """A cell that is more than its text: its tone, and an aside that stands behind it in brackets."""

    text: str
    tone: Tone = "plain"
    aside: str = ""

    def __str__(self) -> str:
        return f"{self.text} ({self.aside})" if self.aside else self.text


SheetRow = tuple[str | SheetCell, ...]


@dataclass(frozen=True)
class Sheet:
    """A table: columns with their titles and kinds, rows of cells, lines above and below it, and the tones of whole rows."""

    title: str
    columns: tuple[tuple[str, ColumnKind], ...]
    rows: tuple[SheetRow, ...]
    above: tuple[str, ...] = ()
    below: tuple[str, ...] = ()
    tones: Mapping[int, Tone] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.title!r} has {len(self.columns)} columns, and a row of {len(row)} cells")

    def without_empty_columns(self) -> Sheet:
        """Leave out the columns that have nothing in any row."""
        kept = [place for place in range(len(self.columns)) if any(str(row[place]) for row in self.rows)]
        return replace(
            self,
            columns=tuple(self.columns[place] for place in kept),
            rows=tuple(tuple(row[place] for place in kept) for row in self.rows),
        )


def print_sheets(sheets: Iterable[Sheet], console: Console) -> None:
    """Print the tables, whole, with an empty line between them."""
    for number, sheet in enumerate(sheets):
        if number:
            console.print()
        print_lines([line for line in (sheet.title, *sheet.above) if line], console)
        _print_whole(_table(sheet), console)
        print_lines(sheet.below, console)


def print_notes(notes: Iterable[str], console: Console) -> None:
    """Print lines below the tables, after an empty one."""
    lines = list(notes)
    print_lines([""] * bool(lines) + lines, console)


def sheets_as_markdown(sheets: Iterable[Sheet]) -> str:
    """Write the tables in GitHub's Markdown, each below a heading."""
    return "\n".join("\n".join(_markdown_lines(sheet)) + "\n" for sheet in sheets)


def notes_as_markdown(notes: Iterable[str]) -> str:
    """Write lines below the tables, each a paragraph."""
    return "".join(f"\n{markdown_text(note)}\n" for note in notes)


def list_as_markdown(lines: Iterable[str]) -> list[str]:
    """Write lines as the items of a list."""
    # what begins like a list would begin one inside the item
    return [f"* {_BLOCK_START.sub(_ESCAPED_SECOND, markdown_text(line))}" for line in lines]


def markdown_text(text: str) -> str:
    """Take from a text what Markdown or HTML would read as more than text, what names somebody on GitHub, and line breaks."""
    text = "".join(_ENTITIES.get(sign, sign) for sign in _MARKS.sub(r"\\\1", one_line(text)))
    return _MENTION.sub("&#64;", text)


def _table(sheet: Sheet) -> Table:
    """Draw a rule below the titles and nothing else. Figures never break; names may, where a terminal is narrow."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for place, (title, kind) in enumerate(sheet.columns):
        cells = [title, *(str(row[place]) for row in sheet.rows)]
        widest = max(cell_len(line) for cell in cells for line in cell.split("\n"))
        table.add_column(
            title,
            justify="right" if kind == "number" else "left",
            no_wrap=kind != "name",
            overflow="fold",
            min_width=min(widest, _NARROWEST_NAME) if kind == "name" else widest,
        )
    for number, row in enumerate(sheet.rows):
        table.add_row(*map(_console_text, row), style=STYLES[sheet.tones.get(number, "plain")])
    return table


def _console_text(cell: str | SheetCell) -> Text:
    # a Text shows brackets in a name; a plain string would be read as markup
    return Text(str(cell), style=STYLES[cell.tone] if isinstance(cell, SheetCell) else "")


def _print_whole(table: Table, console: Console) -> None:
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


def _markdown_lines(sheet: Sheet) -> list[str]:
    lines = [f"### {markdown_text(sheet.title)}", ""]
    if sheet.above:
        lines += [*list_as_markdown(sheet.above), ""]
    lines.append(_markdown_row(markdown_text(title) for title, _ in sheet.columns))
    lines.append(_markdown_row("---:" if kind == "number" else "---" for _, kind in sheet.columns))
    for number, row in enumerate(sheet.rows):
        tone = sheet.tones.get(number, "plain")
        lines.append(_markdown_row(_markdown_cell(cell, bold=tone in _BOLD) for cell in row))
    if sheet.below:
        lines += ["", *list_as_markdown(sheet.below)]
    return lines


def _markdown_cell(cell: str | SheetCell, *, bold: bool) -> str:
    text = markdown_text(str(cell))
    own = isinstance(cell, SheetCell) and cell.tone in _BOLD
    return f"**{text}**" if text and (bold or own) else text


def _markdown_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
