"""`evalkit report`: what it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evalkit.commands.arguments import Alpha, JsonFile, Metric, Seed, Slices, json_target
from evalkit.errors import EvalkitError
from evalkit.output.json import STDOUT


def report(
    results: Annotated[list[Path] | None, typer.Argument(help="Result files or folders.", metavar="PATH")] = None,
    format_name: Annotated[
        str | None,
        typer.Option("--format", metavar="NAME", help="{formats}; without it, tables."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file ({folder_formats}: into this folder).")
    ] = None,
    update: Annotated[
        Path | None, typer.Option(metavar="README.md", help="With --format model-index: change this card's figures.")
    ] = None,
    metric: Metric = None,
    alpha: Alpha = 0.05,
    seed: Seed = 42,
    slices: Slices = None,
    published: Annotated[
        bool,
        typer.Option(
            "--published", help="Show the card's and C-MTEB's tables as printed, with the results among them."
        ),
    ] = False,
    json_file: JsonFile = None,
    drill_down: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="html: show the worst N queries of each task in detail; without it 200."),
    ] = None,
    depth: Annotated[
        bool,
        typer.Option("--depth", help="Show each measure by how many of a first stage's candidates are reranked."),
    ] = False,
    no_texts: Annotated[bool, typer.Option("--no-texts", help="html: leave the texts out.")] = False,
) -> None:
    """Rank systems task by task and on average, and say which ranks can't be told apart."""
    from evalkit.compare.slices import read_ways
    from evalkit.report.command import print_published, print_report
    from evalkit.report.content import ReportChoices

    json_file = json_target(json_file, "boards")
    if json_file == STDOUT:
        if format_name not in (None, "json"):
            raise EvalkitError(f"--json is --format json; leave one of --json and --format {format_name} out")
        format_name, json_file = "json", None
    if published:
        if json_file is not None:
            raise EvalkitError("--published is written as markdown alone, not as json; leave --json out")
        if depth:
            raise EvalkitError("--published shows tables as printed, which have no depths; leave --depth out")
        print_published(results or [], format_name, output)
    else:
        choices = ReportChoices(metric, alpha, seed, read_ways(slices or []), drill_down, not no_texts, depth)
        print_report(results or [], choices, format_name, output, update, json_file=json_file)
