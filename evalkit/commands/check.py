"""`evalkit check`: what it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evalkit.commands.arguments import JsonFile, json_target


def check(
    baseline: Annotated[Path, typer.Option(help="The folder with the results to compare with.")],
    results: Annotated[Path, typer.Option(help="The folder with the results to check.")],
    tolerance: Annotated[float, typer.Option(help="Percentage points that a metric may lose.")] = 0.1,
    alpha: Annotated[
        float,
        typer.Option(
            help="A loss counts where a paired test gives p below this; stricter than compare's 0.05, since a gate tests every "
            "change, and each test may raise a false alarm."
        ),
    ] = 0.01,
    revision: Annotated[
        list[str] | None,
        typer.Option(
            help="Of the results only those of this revision, or that begins so; for several models once each."
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on any change beyond float noise.")] = False,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML to this file.")] = None,
    summary: Annotated[
        Path | None,
        typer.Option(
            help="Append a summary in Markdown to this file, which keeps what it holds: the steps of a job share "
            "$GITHUB_STEP_SUMMARY."
        ),
    ] = None,
    json_file: JsonFile = None,
) -> int:
    """Compare results with a baseline; exit code 1 where one got worse or can't be compared, 2 where one can't be read."""
    from evalkit.check.command import run_check
    from evalkit.check.rows import CheckRules

    target = json_target(json_file, "rows")
    return run_check(baseline, results, CheckRules(tolerance, alpha, strict), junit, summary, target, revision or ())
