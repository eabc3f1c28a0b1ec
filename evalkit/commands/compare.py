"""`evalkit compare`: what it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evalkit.commands.arguments import Alpha, JsonFile, Metric, Seed, Slices, json_target


def compare(
    results: Annotated[list[Path], typer.Argument(help="Result files or folders.")],
    metric: Metric = None,
    alpha: Alpha = 0.05,
    seed: Seed = 42,
    slices: Slices = None,
    top: Annotated[
        int | None,
        typer.Option(min=0, help="Show so many of the queries that moved most; without it 5 for two systems."),
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Compare systems on the same queries: differences with intervals, tests, effect sizes, wins and losses."""
    from evalkit.compare.command import print_comparison
    from evalkit.compare.comparison import CompareChoices
    from evalkit.compare.slices import read_ways

    choices = CompareChoices(metric, alpha, seed, read_ways(slices or []), top)
    print_comparison(results, choices, json_target(json_file, "tasks"))
