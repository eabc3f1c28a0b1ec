"""The commands and what they take, for typer; `run`, `doctor` and `parity` are Hydra's, and stand here for their help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evalkit.errors import EvalkitError
from evalkit.report.formats import folder_names_help, format_names_help
from evalkit.version import __version__

RUN, COMPARE, DOCTOR, PARITY = "run", "compare", "doctor", "parity"
CacheDir = Annotated[Path | None, typer.Option(help="The folder of the store; without it, the user's cache.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
Metric = Annotated[str | None, typer.Option(help="A metric of the results; without it, the protocol's main score.")]
Alpha = Annotated[float, typer.Option(min=1e-6, max=1, help="Systems are told apart where p is below this.")]
Seed = Annotated[int, typer.Option(min=0, help="The seed of resamples and random signs.")]
Slices = Annotated[
    list[str] | None,
    typer.Option("--slice", metavar="NAME", help="Cut queries by query-length, candidates, language or truncation."),
]
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
cache_app = typer.Typer(rich_markup_mode=None, help="Show, check or clear the stored scores.")
app.add_typer(cache_app, name="cache")


@app.callback(
    invoke_without_command=True,
    context_settings={"help_option_names": ["--help", "-h"]},
    epilog="Without a command evalkit runs: evalkit task=T2Reranking model=bge-reranker-base. See evalkit run --help",
)
def main(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    """Re-run, check and extend the C-MTEB reranking benchmark."""
    if version:
        typer.echo(__version__)


@app.command(RUN)
def run() -> None:
    """Evaluate a model on a task (the default): evalkit [run] task=NAME model=NAME [key=value …]."""


@app.command(DOCTOR, add_help_option=True)
def doctor(
    as_json: Json = False,
) -> None:
    """Examine a model on a sample of a task, in under a minute: evalkit doctor model=NAME task=NAME [key=value …].

    Takes the settings of a run (evalkit run --help). Exit code 1 where a check found a fault.
    """


@app.command(PARITY, add_help_option=True)
def parity(
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="[FILE]", help="Write JSON to a file; without one print it, alone.")
    ] = None,
) -> None:
    """Run the same pairs through several backends: evalkit parity model=NAME task=NAME backends=A,B,… [key=value …].

    The first backend is what the others are compared with; without backends=, transformers as the card's page uses it, with all
    that can run the model here. NAME.key=value is said to one backend alone: tei.url=http://127.0.0.1:8080 or torch.dtype=bf16.
    tolerance=1e-4 is how far scores may be apart (low precisions have wider ones). Takes the settings of a run too.
    Where a backend differs, the cause is looked for. Exit code 1 where one does, 2 where one can't run the model.
    """


@app.command("list")
def list_names(
    what: Annotated[str, typer.Argument(help="models, tasks, backends or protocols; without it, all of them")] = "",
    as_json: Json = False,
) -> None:
    """Show the models, tasks, backends and protocols there are."""
    if as_json:
        from evalkit.commands.lists_json import print_lists_json

        print_lists_json(what)
        return
    from evalkit.commands.lists import print_lists

    print_lists(what)


@app.command("check")
def check(
    baseline: Annotated[Path, typer.Option(help="The folder with the results to compare with.")],
    results: Annotated[Path, typer.Option(help="The folder with the results to check.")],
    tolerance: Annotated[float, typer.Option(help="Percentage points that a metric may lose.")] = 0.1,
    alpha: Annotated[float, typer.Option(help="A loss counts where a paired test gives p below this.")] = 0.01,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on any change beyond float noise.")] = False,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML to this file.")] = None,
    summary: Annotated[
        Path | None, typer.Option(help="Append a summary in Markdown to this file, as $GITHUB_STEP_SUMMARY.")
    ] = None,
) -> int:
    """Compare results with a baseline; exit code 1 where one got worse or can't be compared, 2 where one can't be read."""
    from evalkit.check.command import run_check
    from evalkit.check.rows import Rules

    return run_check(baseline, results, Rules(tolerance, alpha, strict), junit, summary)


@app.command(COMPARE)
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
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="[FILE]", help="Write JSON to a file; without one print it, alone.")
    ] = None,
) -> None:
    """Compare systems on the same queries: differences with intervals, tests, effect sizes, wins and losses."""
    from evalkit.compare.command import print_comparison
    from evalkit.compare.comparison import CompareChoices
    from evalkit.compare.slices import read_ways

    print_comparison(results, CompareChoices(metric, alpha, seed, read_ways(slices or []), top), json_file)


@app.command("audit")
def audit_files(
    files: Annotated[
        list[Path],
        typer.Argument(help="model cards, Markdown tables, results (files or folders), or the CSV of figures"),
    ],
    model: Annotated[
        str, typer.Option(help="Whose figures a card or result holds, where it does not say so itself.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> int:
    """Put stated figures to the test; exit code 1 where one is found to be wrong, 2 where a file can't be read."""
    from evalkit.audit.command import audit

    return audit(files, model, as_json)


@app.command("report")
def report(
    results: Annotated[list[Path] | None, typer.Argument(help="Result files or folders.", metavar="[PATH…]")] = None,
    format_name: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help=f"{format_names_help()}; without it, tables.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help=f"Write to this file ({folder_names_help()}: into this folder)."),
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
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    drill_down: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="html: show the worst N queries of each task in detail; without it 200."),
    ] = None,
    no_texts: Annotated[bool, typer.Option("--no-texts", help="html: leave the texts out.")] = False,
) -> None:
    """Rank systems task by task and on average, and say which ranks can't be told apart."""
    from evalkit.compare.slices import read_ways
    from evalkit.report.command import print_published, print_report
    from evalkit.report.content import ReportChoices

    if as_json and format_name not in (None, "json"):
        raise EvalkitError(f"--json is --format json; leave one of --json and --format {format_name} out")
    format_name = "json" if as_json else format_name
    if published:
        print_published(results or [], format_name, output)
    else:
        choices = ReportChoices(metric, alpha, seed, read_ways(slices or []), drill_down, not no_texts)
        print_report(results or [], choices, format_name, output, update)


@cache_app.command("info")
def cache_info(cache_dir: CacheDir = None, as_json: Json = False) -> None:
    """Show what the store holds."""
    from evalkit.commands.cache import print_info

    print_info(cache_dir, as_json)


@cache_app.command("verify")
def cache_verify(cache_dir: CacheDir = None) -> int:
    """Check every stored score; exit code 1 where some are damaged."""
    from evalkit.commands.cache import print_verification

    return print_verification(cache_dir)


@cache_app.command("prune")
def cache_prune(
    model: Annotated[list[str] | None, typer.Option(help="Delete this model's scores (may be repeated).")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Delete all scores.")] = False,
    cache_dir: CacheDir = None,
) -> None:
    """Delete stored scores."""
    from evalkit.commands.cache import prune_store

    prune_store(cache_dir, model or [], everything)
