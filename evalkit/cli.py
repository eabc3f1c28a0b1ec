"""The commands; `run` and `doctor` are configured by Hydra."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from evalkit import __version__
from evalkit.errors import EvalkitError

RUN, COMPARE, DOCTOR = "run", "compare", "doctor"
CacheDir = Annotated[Path | None, typer.Option(help="The folder of the store; without it, the user's cache.")]
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


def run_command_line(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code: 0 done, 1 a check failed, 2 wrong usage or input, 130 interrupted."""
    _send_messages_to_stderr()
    try:
        return _run_command(list(arguments))
    except EvalkitError as error:
        _say(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        _say("interrupted; the results that were finished are kept")
        return 130
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno != errno.ENOSPC:
            return _confess(error)
        _say(f"nothing more can be written: {error.strerror}; make room, or write elsewhere")
        return 2
    except Exception as error:
        return _confess(error)


def _confess(error: Exception) -> int:
    """Tell of an error that no one foresaw; with EVALKIT_DEBUG it is raised instead."""
    if os.environ.get("EVALKIT_DEBUG"):
        raise error
    _say(f"this is a bug in evalkit: {type(error).__name__}: {error}; EVALKIT_DEBUG=1 shows where, please report it")
    return 2


def _run_command(arguments: list[str]) -> int:
    commands = {command.name for command in app.registered_commands} | {group.name for group in app.registered_groups}
    named = bool(arguments) and arguments[0] in commands | {"--help", "-h", "--version"}
    if not named or arguments[0] == RUN:
        from evalkit.hydra_run import run_with_hydra

        return run_with_hydra(arguments[1:] if named else arguments)
    if arguments[0] == DOCTOR and not {"--help", "-h"} & set(arguments):
        from evalkit.hydra_run import diagnose_with_hydra

        return diagnose_with_hydra(arguments[1:])
    try:
        code = typer.main.get_command(app).main(
            _with_json_target(arguments), prog_name="evalkit", standalone_mode=False
        )
    except Exception as error:
        # click's usage errors, of which some releases of typer have a class of their own
        if not hasattr(error, "format_message"):
            raise
        raise EvalkitError(f"{error.format_message()} See evalkit {arguments[0]} --help") from error
    return int(code or 0)


def _with_json_target(arguments: list[str]) -> list[str]:
    """Let `compare --json` without a file mean standard output; the parser knows no option whose value may be left out."""
    if arguments[0] != COMPARE:
        return arguments
    followers = [*arguments[1:], "-"]
    alone = [
        argument == "--json" and follower.startswith("-")
        for argument, follower in zip(arguments, followers, strict=True)
    ]
    return ["--json=-" if is_alone else argument for argument, is_alone in zip(arguments, alone, strict=True)]


def _send_messages_to_stderr() -> None:
    logger = logging.getLogger("evalkit")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # each retry of an unreachable Hub is told otherwise


def _say(message: str) -> None:
    typer.echo(f"evalkit: {' '.join(message.split())}", err=True)


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
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Examine a model on a sample of a task, in under a minute: evalkit doctor model=NAME task=NAME [key=value …].

    Takes the settings of a run (evalkit run --help). Exit code 1 where a check found a fault.
    """


@app.command("list")
def list_names(
    what: Annotated[str, typer.Argument(help="models, tasks, backends or protocols; without it, all of them")] = "",
) -> None:
    """Show the models, tasks, backends and protocols there are."""
    from evalkit.listing import print_lists

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
    from evalkit.compare import print_comparison
    from evalkit.report.comparison import Choices
    from evalkit.report.slices import read_ways

    print_comparison(results, Choices(metric, alpha, seed, read_ways(slices or []), top), json_file)


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
        typer.Option("--format", help="markdown, json, csv, …: a wrong name lists all; without it, tables."),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.")] = None,
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
) -> None:
    """Rank systems task by task and on average, and say which ranks can't be told apart."""
    from evalkit.report.command import print_published, print_report
    from evalkit.report.content import Choices
    from evalkit.report.slices import read_ways

    if published:
        print_published(results or [], format_name, output)
    else:
        print_report(results or [], Choices(metric, alpha, seed, read_ways(slices or [])), format_name, output)


@cache_app.command("info")
def cache_info(cache_dir: CacheDir = None) -> None:
    """Show what the store holds."""
    from evalkit.store_command import print_info

    print_info(cache_dir)


@cache_app.command("verify")
def cache_verify(cache_dir: CacheDir = None) -> int:
    """Check every stored score; exit code 1 where some are damaged."""
    from evalkit.store_command import print_verification

    return print_verification(cache_dir)


@cache_app.command("prune")
def cache_prune(
    model: Annotated[list[str] | None, typer.Option(help="Delete this model's scores (may be repeated).")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Delete all scores.")] = False,
    cache_dir: CacheDir = None,
) -> None:
    """Delete stored scores."""
    from evalkit.store_command import prune_store

    prune_store(cache_dir, model or [], everything)
