"""`evalkit audit`: what it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evalkit.commands.arguments import JsonFile, json_target


def audit_figures(
    files: Annotated[
        list[Path],
        typer.Argument(help="model cards, Markdown tables, results (files or folders), or the CSV of figures"),
    ],
    model: Annotated[
        str, typer.Option(help="Whose figures a card or result holds, where it does not say so itself.")
    ] = "",
    json_file: JsonFile = None,
) -> int:
    """Put stated figures to the test; exit code 1 where one is found to be wrong, 2 where a file can't be read."""
    from evalkit.audit.command import audit

    return audit(files, model, json_target(json_file, "findings"))
