"""The command line: one command runs, and whatever ends it becomes an exit code and at most one line."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Sequence

import typer

from evalkit import interruption
from evalkit.commands.app import COMPARE, DOCTOR, PARITY, RUN, app
from evalkit.errors import EvalkitError
from evalkit.output.text import MessageFormatter, one_line, without_home

INTERRUPTED = 130
GOES_ON = "finished results and stored scores are kept: the same command goes on from there"


def run_command_line(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code: 0 done, 1 a check failed, 2 wrong usage or input.

    Interrupted it is 130 (Ctrl-C) or 143 (SIGTERM).
    """
    _send_messages_to_stderr()
    try:
        code = _run_command(list(arguments))
        interruption.check()  # the command parser takes an interruption for an end like others
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
        raise error
    _say(f"this is a bug in evalkit: {type(error).__name__}: {error}; EVALKIT_DEBUG=1 shows where, please report it")
    return 2


def _run_command(arguments: list[str]) -> int:
    commands = {command.name for command in app.registered_commands} | {group.name for group in app.registered_groups}
    named = bool(arguments) and arguments[0] in commands | {"--help", "-h", "--version"}
    if not named or arguments[0] == RUN:
        from evalkit.commands.hydra_run import run_with_hydra

        interruption.advise(GOES_ON)
        return run_with_hydra(arguments[1:] if named else arguments)
    if arguments[0] == DOCTOR and not {"--help", "-h"} & set(arguments):
        from evalkit.commands.hydra_run import diagnose_with_hydra

        return diagnose_with_hydra(arguments[1:])
    if arguments[0] == PARITY and not {"--help", "-h"} & set(arguments):
        from evalkit.commands.hydra_run import compare_backends_with_hydra

        return compare_backends_with_hydra(arguments[1:])
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
    handler.setFormatter(MessageFormatter("%(message)s"))
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # each retry of an unreachable Hub is told otherwise


def _say(message: str) -> None:
    typer.echo(f"evalkit: {one_line(without_home(message))}", err=True)
