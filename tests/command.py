"""The command as a user calls it: within this process, which is fast, and as a program of its own."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from evalkit.commands.main import run_command_line

SCRIPT = Path(sys.executable).with_name("evalkit")
MODULE = (sys.executable, "-m", "evalkit")


@dataclass(frozen=True)
class Outcome:
    code: int
    stdout: str
    stderr: str

    @property
    def rows(self) -> list[list[str]]:
        """The table's rows, cell by cell: what stands between its rule and the next empty line.

        A line that begins with a space goes on with the row above it.
        """
        lines = iter(self.stdout.splitlines())
        for line in lines:
            if line.startswith("──"):
                break
        return [line.split() for line in iter(lambda: next(lines, ""), "") if line[0] != " "]


def run_here(*arguments: str) -> Outcome:
    """Run the command in this process, in the current folder, with a cache of its own: nothing is known beforehand."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        patch.object(sys, "argv", ["evalkit"]),
        tempfile.TemporaryDirectory() as cache,
        patch.dict(os.environ, XDG_CACHE_HOME=cache),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        code = run_command_line(arguments)
    return Outcome(code, stdout.getvalue(), stderr.getvalue())


def run_program(folder: Path, *arguments: str, program: tuple[str, ...] = MODULE, **environment: str) -> Outcome:
    """Run the command as a program in a folder; its output goes into pipes."""
    environment.setdefault("XDG_CACHE_HOME", str(folder / "cache"))
    done = subprocess.run(
        [*program, *arguments],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
