"""Standard output, for people."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from evalkit.output.text import printable

Tone = Literal["plain", "strong", "good", "note", "warning", "bad", "dim"]
"""What a text is to its reader; a terminal shows it by colour or weight."""
STYLES: Mapping[Tone, str] = {
    "plain": "",
    "strong": "bold",
    "good": "green",
    "note": "cyan",
    "warning": "yellow",
    "bad": "bold red",
    "dim": "dim",
}


class OutputConsole(Console):
    """A console that prints names as they are, and whose reader may leave early, as `head` does.

    The latter raises BrokenPipeError and does not leave with 1. Control characters in a name, which have no width, are left out.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text, instead=""))

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def print_lines(lines: Iterable[str | Text], console: Console) -> None:
    """Print lines as they are: brackets are no markup, and only a terminal breaks them, between words."""
    for line in lines:
        parts = Text(line) if isinstance(line, str) else line
        for part in _broken(parts, console.width) if console.is_terminal else [parts]:
            console.print(part, soft_wrap=True, markup=False, highlight=False)


def _broken(text: Text, width: int) -> Iterable[Text]:
    """Break lines between words, each indented as it is itself. A word wider than the terminal, such as a path, stays whole."""
    for line in text.split(allow_blank=True):
        yield from _broken_line(line, width)


def _broken_line(text: Text, width: int) -> Iterable[Text]:
    indent = text.plain[: len(text.plain) - len(text.plain.lstrip())]
    breaks, used = [], 0
    for found in re.finditer(r"(\s*)(\S+)", text.plain):
        space, word = map(cell_len, found.groups())
        if found.start() and used + space + word > width:
            breaks.append(found.start(2))
            used = len(indent) + word
        else:
            used += space + word
    for number, part in enumerate(text.divide(breaks)):
        part.rstrip()
        yield Text(indent if number else "").append_text(part)


def toned(text: str, tone: Tone) -> Text:
    """Give a text its tone, for a line that is printed."""
    return Text(text, style=STYLES[tone])
