"""Standard output, for tables."""

from __future__ import annotations

from typing import Any

from rich.console import Console


class OutputConsole(Console):
    """A console that prints names as they are, and whose reader may leave early, as `head` does.

    The latter is told by BrokenPipeError, not by leaving with 1.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError
