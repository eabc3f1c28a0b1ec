"""The command line: one command runs, and whatever ends it becomes an exit code and at most one line."""

from __future__ import annotations

import errno
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from types import TracebackType
from typing import Annotated, Any

import typer

from evalkit import interruption
from evalkit.commands.arguments import Command, arranged
from evalkit.commands.audit import audit_figures
from evalkit.commands.cache import app as cache
from evalkit.commands.certify import certify
from evalkit.commands.check import check
from evalkit.commands.compare import compare
from evalkit.commands.doctor import doctor
from evalkit.commands.help import show_help
from evalkit.commands.list import list_options
from evalkit.commands.parity import parity
from evalkit.commands.report import report
from evalkit.commands.run import run
from evalkit.commands.settings_arguments import SettingsCommand
from evalkit.errors import EvalkitError
from evalkit.output.text import MessageFormatter, fit_streams, one_line, without_home, without_secrets
from evalkit.version import __version__

INTERRUPTED = 130


def run_command_line(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code: 0 done, 1 a check failed, 2 wrong usage or input.

    Interrupted it is 130 (Ctrl-C) or 143 (SIGTERM).
    """
    fit_streams()
    _send_messages_to_stderr()
    try:
        code = _run_command(arguments)
        interruption.check()  # a library may take an interruption for an end like others
    except KeyboardInterrupt:
        return _stop()
    except Exception as error:  # some libraries make an Exception of their own of an interruption
        return _stop() if interruption.exit_code() else _tell(error)
    return code


def _stop() -> int:
    interruption.tell()
    return interruption.exit_code() or INTERRUPTED


def _tell(error: Exception) -> int:
    """Say what went wrong, for people; gives the exit code."""
    if isinstance(error, EvalkitError):
        _say(str(error))
        return error.exit_code
    if isinstance(error, BrokenPipeError):  # the reader of a pipe, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        _say(f"nothing more can be written: {error.strerror}; make room, or write elsewhere")
        return 2
    return _confess(error)


def _confess(error: Exception) -> int:
    """Tell of an error that no one foresaw; with EVALKIT_DEBUG it is raised instead."""
    if os.environ.get("EVALKIT_DEBUG"):
        sys.excepthook = _show_traceback
        raise error
    _say(f"this is a bug in evalkit: {type(error).__name__}: {error}; EVALKIT_DEBUG=1 shows where, please report it")
    return 2


def _show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(without_secrets(without_home("".join(traceback.format_exception(kind, error, trace)))))


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.callback(
    invoke_without_command=True,
    context_settings={"help_option_names": ["--help", "-h"]},
    epilog="Without a command evalkit runs: evalkit task=T2Reranking model=bge-reranker-base. See evalkit help run",
)
def main(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    """Re-run, check and extend the C-MTEB reranking benchmark."""
    if version:
        typer.echo(__version__)


RUN = "run"
app.command(RUN, cls=SettingsCommand)(run)
app.command("doctor", cls=SettingsCommand)(doctor)
app.command("parity", cls=SettingsCommand)(parity)
app.command("certify", cls=Command)(certify)
app.command("list", cls=Command)(list_options)
app.command("check", cls=Command)(check)
app.command("compare", cls=Command)(compare)
app.command("audit", cls=Command)(audit_figures)
app.command("report", cls=Command)(report)
app.add_typer(cache, name="cache")
app.command("help", cls=Command)(show_help)


def _run_command(arguments: Sequence[str]) -> int:
    """Let the parser call the command; what it says against the words becomes an EvalkitError."""
    root: Any = typer.main.get_command(app)
    words = arranged(arguments, root, RUN)
    try:
        # not its own `main`, which has exit codes of its own for interruptions and broken pipes
        with root.make_context("evalkit", list(words)) as context:
            return int(root.invoke(context) or 0)
    except typer.Exit as end:  # of --help
        return end.exit_code
    except Exception as error:
        # click's usage errors, of which some releases of typer have a class of their own
        if not hasattr(error, "format_message"):
            raise
        raise EvalkitError(f"{error.format_message()} See evalkit {words[0]} --help") from error


def _send_messages_to_stderr() -> None:
    logger = logging.getLogger("evalkit")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(MessageFormatter("%(message)s"))
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # each retry of an unreachable Hub is told otherwise


def _say(message: str) -> None:
    # click would write to a console of ASCII in UTF-8
    sys.stderr.write(f"evalkit: {one_line(without_secrets(without_home(message)))}\n")
