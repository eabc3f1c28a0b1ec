"""Standard output, for tables."""

from __future__ import annotations

from rich.console import Console


class OutputConsole(Console):
    """A console whose reader may leave early, as `head` does: that is told by BrokenPipeError, not by leaving with 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError
