"""Tables as data, with what stands above and below them; written for a terminal or in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from evalkit.output.console import STYLES, Tone, print_lines
from evalkit.output.text import one_line

ColumnKind = Literal["name", "number", "text"]
"""Names and texts may break between words on a narrow terminal, numbers never do; they stand to the right."""

_BOLD = ("strong", "bad")  # the tones that Markdown, which has no colours, writes in bold
_GAP = 2
# below its longest word a column of words is no narrower than this, if it has so much to show
_NARROWEST: Mapping[ColumnKind, int] = {"name": 12, "text": 30}

# white space, and the scripts that write without it
_BETWEEN_WORDS = re.compile(r"[\s\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff60]+")
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
    """A table: columns with their titles and kinds, rows of cells, lines above and below it, and the tones of whole rows.

    The columns of the titles in `keys` say what a row is (without them the first one does): a terminal that is too narrow for all
    columns shows them in parts, each with these.
    """

    title: str
    columns: tuple[tuple[str, ColumnKind], ...]
    rows: tuple[SheetRow, ...]
    above: tuple[str, ...] = ()
    below: tuple[str, ...] = ()
    tones: Mapping[int, Tone] = field(default_factory=dict)
    keys: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.title!r} has {len(self.columns)} columns, and a row of {len(row)} cells")

    def without_empty_columns(self) -> Sheet:
        """Leave out the columns that have nothing in any row."""
        return self.only([place for place in range(len(self.columns)) if any(str(row[place]) for row in self.rows)])

    def only(self, places: Sequence[int]) -> Sheet:
        """Keep the columns in these places."""
        return replace(
            self,
            columns=tuple(self.columns[place] for place in places),
            rows=tuple(tuple(row[place] for place in places) for row in self.rows),
        )


def print_sheets(sheets: Iterable[Sheet], console: Console) -> None:
    """Print the tables, whole, with an empty line between them."""
    for number, sheet in enumerate(sheets):
        if number:
            console.print()
        print_lines([line for line in (sheet.title, *sheet.above) if line], console)
        _print_whole(sheet, console)
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


def _print_whole(sheet: Sheet, console: Console) -> None:
    """Print a table whose words and figures are never cut.

    Where no terminal sets the width it takes what it needs. On a terminal words go on in the next line, and what is still too
    wide is printed in parts.
    """
    width = console.width
    parts = _parts(sheet, width) if console.is_terminal else [sheet]
    for number, part in enumerate(parts):
        widths = _widths(part, width) if console.is_terminal else [_widest(part, place) for place in _places(part)]
        if number:
            console.print()
        try:
            console.width = max(width, _total(widths))  # figures that are wider than the terminal are whole, too
            console.print(_table(part, widths))
        finally:
            console.width = width


def _parts(sheet: Sheet, width: int) -> list[Sheet]:
    """Split the columns so that each part fits, with the columns that say what a row is and one other at least."""
    narrowest = [_narrowest(sheet, place) for place in _places(sheet)]
    if _total(narrowest) <= width:
        return [sheet]
    keys = [place for place, (title, _) in enumerate(sheet.columns) if title in sheet.keys] or [0]
    parts: list[list[int]] = [[]]
    for place in (place for place in _places(sheet) if place not in keys):
        if parts[-1] and _total([narrowest[one] for one in (*keys, *parts[-1], place)]) > width:
            parts.append([])
        parts[-1].append(place)
    return [sheet.only([*keys, *own]) for own in parts]


def _widths(sheet: Sheet, width: int) -> list[int]:
    """Give each column a width in cells: its longest word at least, and of what is left what the column can use."""
    widths = [_narrowest(sheet, place) for place in _places(sheet)]
    broken = [place for place in _places(sheet) if sheet.columns[place][1] != "number"]
    # at last a word is cut that is wider than the terminal leaves it, such as a path
    for least in ([_longest_word(sheet, place) for place in _places(sheet)], [_NARROWEST["name"]] * len(widths)):
        for place in sorted(broken, key=lambda one: -widths[one]):
            widths[place] = max(min(widths[place], least[place]), widths[place] - max(0, _total(widths) - width))
    missing = [_widest(sheet, place) - own for place, own in enumerate(widths)]
    for place in sorted(_places(sheet), key=lambda one: missing[one]):
        widths[place] += max(0, min(missing[place], width - _total(widths)))
    return widths


def _places(sheet: Sheet) -> range:
    return range(len(sheet.columns))


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)


def _lines(sheet: Sheet, place: int) -> list[str]:
    """Return the lines of a column's cells, its title the first."""
    cells = [sheet.columns[place][0], *(str(row[place]) for row in sheet.rows)]
    return [line for cell in cells for line in cell.split("\n")]


def _widest(sheet: Sheet, place: int) -> int:
    return max(map(cell_len, _lines(sheet, place)))


def _narrowest(sheet: Sheet, place: int) -> int:
    """How narrow a column can well be: as its longest word, where it holds words."""
    kind, widest = sheet.columns[place][1], _widest(sheet, place)
    return widest if kind == "number" else min(widest, max(_NARROWEST[kind], _longest_word(sheet, place)))


def _longest_word(sheet: Sheet, place: int) -> int:
    return max(cell_len(word) for line in _lines(sheet, place) for word in _BETWEEN_WORDS.split(line))


def _table(sheet: Sheet, widths: Sequence[int]) -> Table:
    """Draw a rule below the titles and nothing else."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for (title, kind), width in zip(sheet.columns, widths, strict=True):
        table.add_column(
            title,
            justify="right" if kind == "number" else "left",
            no_wrap=kind == "number",
            overflow="fold",
            width=width,
        )
    for number, row in enumerate(sheet.rows):
        table.add_row(*map(_console_text, row), style=STYLES[sheet.tones.get(number, "plain")])
    return table


def _console_text(cell: str | SheetCell) -> Text:
    # a Text shows brackets in a name; a plain string would be read as markup
    return Text(str(cell), style=STYLES[cell.tone] if isinstance(cell, SheetCell) else "")


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
