"""Standard output, for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

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
    """Print lines as they are: no terminal breaks them, and brackets are no markup."""
    for line in lines:
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def toned(text: str, tone: Tone) -> Text:
    """Give a text its tone, for a line that is printed."""
    return Text(text, style=STYLES[tone])
