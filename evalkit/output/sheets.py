"""Tables as data, with what stands above and below them; written for a terminal or in Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.text import Text

from evalkit.output.console import add_column, plain_table, print_whole
from evalkit.output.text import printable

Kind = Literal["name", "number", "text"]
"""Names may break on a narrow terminal, numbers stand to the right."""


@dataclass(frozen=True)
class Sheet:
    """A table of texts: columns with their titles and kinds, rows of cells, and lines above the table."""

    title: str
    columns: tuple[tuple[str, Kind], ...]
    rows: tuple[tuple[str, ...], ...]
    above: tuple[str, ...] = ()


def print_sheets(sheets: Iterable[Sheet], console: Console) -> None:
    """Print the tables, whole, with an empty line between them."""
    for number, sheet in enumerate(sheets):
        if number:
            console.print()
        _print_lines((sheet.title, *sheet.above), console)
        table = plain_table()
        for place, (title, kind) in enumerate(sheet.columns):
            cells = [row[place] for row in sheet.rows]
            add_column(table, title, cells, justify="right" if kind == "number" else "left", is_name=kind == "name")
        for row in sheet.rows:
            table.add_row(*(Text(cell) for cell in row))
        print_whole(table, console)


def print_notes(notes: Iterable[str], console: Console) -> None:
    """Print lines below the tables, after an empty one."""
    for number, note in enumerate(notes):
        if not number:
            console.print()
        _print_lines((note,), console)


def sheets_as_markdown(sheets: Iterable[Sheet]) -> str:
    """Write the tables in GitHub's Markdown, each below a heading."""
    return "\n".join("\n".join(_markdown_lines(sheet)) + "\n" for sheet in sheets)


def notes_as_markdown(notes: Iterable[str]) -> str:
    """Write lines below the tables, each a paragraph."""
    return "".join(f"\n{_escaped(note)}\n" for note in notes)


def _print_lines(lines: Iterable[str], console: Console) -> None:
    for line in lines:
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def _markdown_lines(sheet: Sheet) -> list[str]:
    lines = [f"### {_escaped(sheet.title)}", ""]
    if sheet.above:
        lines += [*(f"- {_escaped(line)}" for line in sheet.above), ""]
    lines.append(_markdown_row(title for title, _ in sheet.columns))
    lines.append(_markdown_row("---:" if kind == "number" else "---" for _, kind in sheet.columns))
    lines += [_markdown_row(map(_escaped, row)) for row in sheet.rows]
    return lines


def _markdown_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    r"""Take from a text what Markdown would read as its own: `*`, `_`, `|`, `<`, …, and line breaks."""
    for sign in "\\`*_[]<|~":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(printable(text).split())
