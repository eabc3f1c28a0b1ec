"""`python -m soak`: the loop, and the table at its end."""

from __future__ import annotations

import argparse
import multiprocessing.forkserver
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS / "backends"))

from fake_servers import FakeServer

from evalkit.output.console import OutputConsole
from evalkit.output.sheets import Sheet, print_sheets
from soak.cases import make_case, make_tasks
from soak.child import preload, run
from soak.growth import measure
from soak.invariants import children_of, left_behind
from soak.troubles import TROUBLES, WEIGHTS, Soak, may_mount, meet

SHOWN = 20
VERIFY_EVERY = 10


def main() -> int:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=None, help="without one, one is drawn, and printed")
    parser.add_argument("--plant", action="store_true", help="damage one result, to see that it is found")
    chosen = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if chosen.seed is None else chosen.seed
    print(f"soak: {chosen.minutes:g} minutes, SEED={seed}", flush=True)
    preload()
    with (
        tempfile.TemporaryDirectory(prefix="evalkit-soak-") as folder,
        FakeServer("vllm") as server,
    ):
        soak = Soak(Path(folder), random.Random(seed), server, chosen.plant)
        _work(soak, 60 * chosen.minutes)
        return _report(soak, seed)


def _work(soak: Soak, seconds: float) -> None:
    ends = time.monotonic() + seconds
    (soak.folder / "stores").mkdir()
    tasks = make_tasks(soak.folder / "tasks", soak.generator)
    names = [name for name in TROUBLES if may_mount() or name not in ("full disk", "read-only")]
    weights = [weight for name, weight in zip(TROUBLES, WEIGHTS, strict=True) if name in names]
    growing = seconds / 8
    while time.monotonic() < ends - growing and len(soak.problems) < SHOWN:
        case = make_case(tasks, soak.server, soak.generator)
        (name,) = soak.generator.choices(names, weights)
        place = soak.folder / f"cycle-{soak.counts['cycles']}"
        meet(soak, case, name, place)
        soak.counts["cycles"] += 1
        soak.counts[f"cycles: {name}"] += 1
        shutil.rmtree(place, ignore_errors=True)
        if soak.counts["cycles"] % VERIFY_EVERY == 0:
            _verify(soak)
    _verify(soak)
    soak.counts["evaluations in one process"], problems = measure(growing)
    soak.problems += problems


def _verify(soak: Soak) -> None:
    """Between the cycles: the store is whole, no process runs on, no file is left."""
    for store in sorted((soak.folder / "stores").iterdir()):
        ended = run(soak.folder / "verify", ["cache", "verify", "--cache-dir", str(store)])
        soak.counts["stores verified"] += 1
        if ended.code:
            soak.problem(None, f"cache verify ends with {ended.code}: {ended.said[-300:]}")
    server = multiprocessing.forkserver._forkserver._forkserver_pid
    for pid in children_of(server):
        soak.problem(None, f"process {pid} runs on")
    for path in left_behind(soak.folder / "stores"):
        if (
            ".unfinished" in path and Path(path).is_dir()
        ):  # of a conversion that SIGKILL ended; the next one takes it away
            continue
        soak.problem(None, f"{path} is left")


def _report(soak: Soak, seed: int) -> int:
    counts = [(name, f"{count:,}") for name, count in sorted(soak.counts.items()) if count]
    rows = (*counts, ("problems", f"{len(soak.problems):,}"))
    print_sheets([Sheet("", ((f"soak, SEED={seed}", "text"), ("count", "number")), rows)], OutputConsole())
    for problem in soak.problems[:SHOWN]:
        print(f"problem: {problem}")
    return 1 if soak.problems else 0


if __name__ == "__main__":
    sys.exit(main())
