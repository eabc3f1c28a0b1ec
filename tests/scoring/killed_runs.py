"""Runs that are killed: a program that imports once, and then forks a run after the other.

    python killed_runs.py engine FOLDER MOMENTS             the engine with a network that counts what it runs
    python killed_runs.py command FOLDER MOMENTS ARGUMENT…  the command line itself
    python killed_runs.py stopped FOLDER MOMENTS ARGUMENT…  the same, stopped by SIGTERM or SIGINT, some twice, and
                                                            every other as soon as it stores

One undisturbed run in `FOLDER/whole`, then MOMENTS runs, each killed at a moment of its own and begun again in
`FOLDER/killed-N`. Prints JSON: for each moment the items started and stored when the run was killed, and scored after; what was
stopped also tells by which signal, its exit code, the seconds that it took to end, what it said, and the files it left.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fakes import Network
from made_tasks import make_task
from numpy.typing import NDArray

from evalkit.models.interfaces import Encoding, RunnableModel
from evalkit.models.settings import model_settings
from evalkit.records import ModelIdentity
from evalkit.scoring.engine import ScoreMemory, score_task
from evalkit.scoring.store import FILE_NAME, open_store

BATCH_TOKENS = 96
PARALLEL = 2
GROUPS = [
    ([f"问题{query}"], [(f"答案{query}{'很长' * (row % 7)}{row}", row % 2) for row in range(25)]) for query in range(30)
]
TASK = make_task(*GROUPS)
Run = Callable[[Path], None]


@dataclass
class LoggingNetwork(Network):
    """Takes its time, tells how many items it began, and rounds by the batch's shape, as real networks do."""

    log: Path = Path()

    def run(self, batch: Sequence[Encoding]) -> NDArray[np.float32]:
        with self.log.open("a") as file:
            file.write(f"{len(batch)}\n")
        time.sleep(0.004)
        longest = max(len(encoding.token_ids) for encoding in batch)
        return super().run(batch) * np.float32(1 + 1e-6 * len(batch) + 1e-7 * longest)


def run_engine(folder: Path) -> None:
    network = LoggingNetwork(BATCH_TOKENS, PARALLEL, log=folder / "log")
    model = RunnableModel(ModelIdentity("made", "local/made", "made", "cross-encoder"), {}, {}, lambda: network)
    with contextlib.closing(open_store(folder / "cache", {"model": "made"})) as store:
        run = score_task(model, model_settings({"name": "made"}), TASK, ScoreMemory(store))
    assert run.tokens is not None
    assert run.truncated is not None
    (folder / "result").write_bytes(run.scores.tobytes() + run.tokens.tobytes() + run.truncated.tobytes())


def run_command(arguments: Sequence[str]) -> Run:
    import accelerate  # noqa: F401
    import torch  # noqa: F401
    import transformers  # noqa: F401

    from evalkit.commands.main import run_command_line
    from evalkit.interruption import heed_signals

    def run(folder: Path) -> None:
        heed_signals()
        code = run_command_line([*arguments, f"cache_dir={folder / 'cache'}", f"results_dir={folder / 'results'}"])
        if code:
            sys.stderr.flush()
            os._exit(code)

    return run


def start(run: Run, folder: Path) -> int:
    """Fork a process that runs, with its output in a file."""
    folder.mkdir(exist_ok=True)
    pid = os.fork()
    if pid:
        return pid
    output = os.open(folder / "output", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    try:
        run(folder)
        sys.stdout.flush()
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)


def finish(run: Run, folder: Path) -> None:
    _, status = os.waitpid(start(run, folder), 0)
    if status:
        raise SystemExit((folder / "output").read_text())


def stored(folder: Path) -> int:
    path = folder / "cache" / FILE_NAME
    if not path.is_file():
        return 0
    with contextlib.closing(sqlite3.connect(path)) as connection:
        tables = connection.execute("select count(*) from sqlite_schema where name = 'outputs'").fetchone()[0]
        return int(connection.execute("select count(*) from outputs").fetchone()[0]) if tables else 0


def started(folder: Path) -> int:
    log = folder / "log"
    return sum(map(int, log.read_text().split())) if log.is_file() else 0


def kill_and_resume(run: Run, folder: Path, delay: float) -> dict[str, int]:
    pid = start(run, folder)
    time.sleep(delay)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    begun, kept = started(folder), stored(folder)
    finish(run, folder)
    return {"started": begun, "stored": kept, "scored_after": started(folder) - begun, "rows": stored(folder)}


def stop_and_resume(run: Run, folder: Path, delay: float, number: int) -> dict[str, Any]:
    pid = start(run, folder)
    if number % 2:
        while not stored(folder):
            time.sleep(0.002)
    else:
        time.sleep(delay)
    chosen = (signal.SIGTERM, signal.SIGINT)[number // 2 % 2]
    asked = time.monotonic()
    os.kill(pid, chosen)
    if number % 3 == 0:
        time.sleep(0.002)
        os.kill(pid, chosen)
    _, status = os.waitpid(pid, 0)
    seconds, kept = time.monotonic() - asked, stored(folder)
    said = (folder / "output").read_text()
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    finish(run, folder)
    code = os.waitstatus_to_exitcode(status)
    return {"signal": chosen, "code": code, "seconds": seconds, "said": said, "files": files, "stored": kept}


def main() -> None:
    kind, place, moments, *arguments = sys.argv[1:]
    folder = Path(place)
    run = run_engine if kind == "engine" else run_command(arguments)
    if kind == "engine":
        finish(run, folder / "warm-up")
    begun = time.monotonic()
    finish(run, folder / "whole")
    seconds = time.monotonic() - begun
    generator = random.Random(20)
    delays = [seconds * generator.random() for _ in range(int(moments))]
    if kind == "stopped":
        stops = [stop_and_resume(run, folder / f"killed-{n}", delay, n) for n, delay in enumerate(sorted(delays))]
        json.dump(stops, sys.stdout)
        return
    outcomes = [kill_and_resume(run, folder / f"killed-{number}", delay) for number, delay in enumerate(delays)]
    json.dump(outcomes, sys.stdout)


if __name__ == "__main__":
    main()
