"""`python -m benchmarks.ray`: what runner=ray loses when nodes or the driver die, how well it scales, what its driver can take.

deaths      one node of three killed at random moments, then the driver killed and started again: results equal to a
            quiet local run's, and the items that were scored twice
efficiency  two actors of one thread on two processors, and two local processes that score half each: their ratio
driver      batches, rows and bytes per second that one driver's store takes, and messages from actors
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).parent.parent
PLACES = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "scoring")]
sys.path[:0] = PLACES
os.environ["PYTHONPATH"] = os.pathsep.join(PLACES)  # for the actors

from cluster.clusters import driver_raylet, other_node, ray_cluster
from cluster.clusters import kill_node as end_node
from killed_runs import BATCH_TOKENS, PARALLEL, LoggingNetwork
from made_tasks import make_task
from store_rows import rows_in

from benchmarks import folders, texts
from evalkit.cluster.crew import RayScorer, crew_of, dismiss
from evalkit.cluster.settings import RaySettings
from evalkit.cluster.work import Job
from evalkit.models.interfaces import DoneBatch, Encoding, RunnableModel
from evalkit.models.settings import model_settings
from evalkit.records import ModelIdentity
from evalkit.scoring.engine import ScoreMemory, score_task
from evalkit.scoring.outputs import OutputTable
from evalkit.scoring.store import FILE_NAME, item_key, open_store

WORK = texts.WORK / "ray"
NODES = 3
IDENTITY = ModelIdentity("made", "local/made", "made", "cross-encoder")
GROUPS = [
    ([f"问题{query}"], [(f"答案{query}{'很长' * (row % 7)}{row}", row % 2) for row in range(25)])
    for query in range(120)
]
TASK = make_task(*GROUPS)


def main() -> None:
    """Measure what is asked for (all, without a choice) and print it as JSON."""
    if sys.argv[1:2] == ["program"]:
        run_program(Path(sys.argv[2]), sys.argv[3])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--moments", type=int, default=10, help="how often a node, and the driver, is killed")
    parser.add_argument("--pairs", type=int, default=240, help="pairs per round of the efficiency")
    parser.add_argument("--rounds", type=int, default=2)
    chosen = parser.parse_args()
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    for part in chosen.parts or PARTS:
        print(json.dumps({part: PARTS[part](chosen)}, indent=1), flush=True)


def task_of(name: str, pairs: int, characters: int) -> Path:
    """Return a task of that many pairs in the benchmarks' own texts, 20 candidates to a query."""
    documents = texts.passages(pairs, characters, seed=11, spread=0.5)
    folder = WORK / name
    folder.mkdir(exist_ok=True)
    with (folder / "test.jsonl").open("w", encoding="utf-8") as stream:
        for start in range(0, pairs, 20):
            chosen = documents[start : start + 20]
            line = {"query": chosen[0][:12], "positive": chosen[:1], "negative": chosen[1:]}
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")
    return folder


def command(data: Path, model: Path, place: Path, *more: str) -> list[str]:
    """One run of a local cross-encoder."""
    words = ["task=local", f"task.path={data}", "model=local-cross-encoder", f"model.path={model}", "backend=openvino"]
    return [
        sys.executable,
        "-m",
        "evalkit",
        *words,
        f"cache_dir={place / 'cache'}",
        f"results_dir={place / 'results'}",
        *more,
    ]


def start(words: list[str]) -> subprocess.Popen[bytes]:
    """Start a run, its output thrown away."""
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def finish(process: subprocess.Popen[bytes]) -> None:
    """Wait for a run. Raises RuntimeError where it failed."""
    if process.wait() != 0:
        raise RuntimeError(f"{' '.join(map(str, process.args))} ended with {process.returncode}")


def deaths(chosen: argparse.Namespace) -> dict[str, Any]:
    """Kill nodes and drivers at random moments of the scoring."""
    quiet = WORK / "quiet"
    finish(program(quiet, "here"))
    expected, batches = (quiet / "result").read_bytes(), batches_begun(quiet)
    found: dict[str, Any] = {"pairs": TASK.statistics.pairs, "batches": batches}
    generator = random.Random(20)
    with ray_cluster(NODES) as cluster:
        for kind, kill in (("node", kill_node), ("driver", kill_driver)):
            outcomes = []
            for number in range(chosen.moments):
                folder = WORK / f"{kind}-{number}"
                at = int(TASK.statistics.pairs * generator.uniform(0.02, 0.9))
                kept = kill(cluster, folder, at)
                again = batches_begun(folder) - batches
                same = (folder / "result").read_bytes() == expected
                outcomes.append({"rows_stored_before": kept, "batches_run_again": again, "identical": same})
                print(kind, outcomes[-1], file=sys.stderr)
            found[f"{kind}s killed"] = outcomes
    return found


def program(folder: Path, address: str) -> subprocess.Popen[bytes]:
    """Start a run of the engine, on the cluster or here."""
    folder.mkdir(exist_ok=True)
    return start([sys.executable, "-m", "benchmarks.ray", "program", str(folder), address])


def run_program(folder: Path, address: str) -> None:
    """Run what `program` starts: a network that takes its time, tells what it runs, and rounds by a batch's shape."""

    def prepare() -> RunnableModel:
        network = SlowNetwork(BATCH_TOKENS, PARALLEL, log=folder / "log")
        return RunnableModel(IDENTITY, {"name": "made"}, {}, lambda: network)

    settings = RaySettings() if address == "here" else RaySettings(address=address)
    if address != "here":
        crew_of(settings)
        (folder / "raylet").write_text(driver_raylet())
    scorer = RayScorer(settings, Job("made", "made", prepare))
    model = prepare() if address == "here" else RunnableModel(IDENTITY, {}, {}, lambda: scorer)
    with closing(open_store(folder / "cache", {"model": "made"})) as store:
        run = score_task(model, model_settings({"name": "made"}), TASK, ScoreMemory(store))
    (folder / "result").write_bytes(run.scores.tobytes() + run.tokens.tobytes() + run.truncated.tobytes())
    dismiss()


@dataclass
class SlowNetwork(LoggingNetwork):
    """Takes long enough to be killed at a chosen moment."""

    def run(self, batch: Sequence[Encoding]) -> NDArray[np.float32]:
        outputs = super().run(batch)  # which says at once that it began
        time.sleep(0.02)
        return outputs


def kill_node(cluster: Any, folder: Path, at: int) -> int:
    """Kill one node, not the head, when so many rows are stored; a new one takes its place afterwards."""
    process = program(folder, cluster.address)
    kept = wait_for_rows(folder, at, process)
    end_node(cluster, other_node(cluster, (folder / "raylet").read_text()))
    finish(process)
    cluster.add_node(num_cpus=1)
    return kept


def kill_driver(cluster: Any, folder: Path, at: int) -> int:
    """Kill the driver, and start it again."""
    process = program(folder, cluster.address)
    wait_for_rows(folder, at, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = rows_in(folder / "cache" / FILE_NAME)
    finish(program(folder, cluster.address))
    return kept


def batches_begun(folder: Path) -> int:
    """How many batches any actor began."""
    return len((folder / "log").read_text().split())


def wait_for_rows(folder: Path, at: int, process: subprocess.Popen[bytes]) -> int:
    """Wait until so many rows are stored; how many there are then."""
    while (rows := rows_in(folder / "cache" / FILE_NAME)) < at and process.poll() is None:
        time.sleep(0.005)
    return rows


def efficiency(chosen: argparse.Namespace) -> dict[str, Any]:
    """Rates of two actors and of two processes, in turn; each time is the scoring's own, without loading."""
    model = folders.full_reranker()
    whole = task_of("whole", chosen.pairs, 350)
    lines = (whole / "test.jsonl").read_text("utf-8").splitlines(keepends=True)
    halves = []
    for half in range(2):
        folder = WORK / f"half-{half}"
        folder.mkdir()
        (folder / "test.jsonl").write_text("".join(lines[half::2]), "utf-8")
        halves.append(folder)
    finish(start(command(task_of("first", 20, 100), model, WORK / "e")))  # converts the network once
    rounds = []
    for number in range(chosen.rounds):
        processes = [start(command(half, model, WORK / "e", "runner.threads=1", "cache=off")) for half in halves]
        for process in processes:
            finish(process)
        apart = max(scoring_seconds(WORK / "e" / "results", half.name) for half in halves)
        finish(start(command(whole, model, WORK / "e", "runner=ray", "ray.actors=2", "cache=off")))
        together = scoring_seconds(WORK / "e" / "results", "whole")
        rounds.append({"processes_s": apart, "ray_s": together, "ratio": apart / together})
        print(f"round {number}: {rounds[-1]}", file=sys.stderr)
    return {"pairs": chosen.pairs, "rounds": rounds, "ratio": float(np.median([one["ratio"] for one in rounds]))}


def scoring_seconds(results: Path, name: str) -> float:
    """Return the time that a run took to score."""
    path = max(results.rglob(f"{name.replace('-', '*')}.json"), key=lambda file: file.stat().st_mtime)
    return float(json.loads(path.read_text("utf-8"))["evalkit"]["timing"]["seconds"])


def driver(_: argparse.Namespace) -> dict[str, Any]:
    """Measure what one driver takes: the store alone, with scores and with vectors, and answers of actors without work."""
    found = {}
    for name, shape, size in (
        ("scores, 8 a batch", (), 8),
        ("scores, 128 a batch", (), 128),
        ("vectors of 1024, 32 a batch", (1024,), 32),
    ):
        found[name] = store_rate(name, shape, size)
    found["messages of one actor per second"] = message_rate()
    return found


def store_rate(name: str, shape: tuple[int, ...], size: int) -> dict[str, float]:
    """Batches, rows and bytes per second into a store on this disk."""
    count = 300 * size
    folder = WORK / "store" / name.replace(" ", "-")
    store = open_store(folder, {"model": name})
    table = OutputTable([item_key(name, str(number)) for number in range(count)], store)
    outputs = np.random.default_rng(0).random((size, *shape), np.float32)
    started = time.perf_counter()
    for first in range(0, count, size):
        table.add(np.arange(first, first + size), outputs, 0.01, [100] * size, [False] * size)
    seconds = time.perf_counter() - started
    store.close()
    bytes_written = sum(path.stat().st_size for path in folder.iterdir())
    return {
        "batches_per_s": 300 / seconds,
        "rows_per_s": count / seconds,
        "MB_per_s": bytes_written / seconds / 1e6,
        "bytes_per_row": bytes_written / count,
    }


class Echo:
    """An actor that answers at once, with a batch of scores."""

    def take(self) -> list[DoneBatch]:
        """One batch."""
        return [DoneBatch(np.arange(8), np.zeros(8, np.float32), 0.1, [100] * 8, [False] * 8)]


def message_rate() -> float:
    """Answers per second that the driver takes of one actor, one at a time."""
    import ray

    from evalkit.cluster import connection
    from evalkit.cluster.settings import RaySettings

    connection.connect(RaySettings())
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    actor = ray.remote(Echo).remote()
    ray.get(actor.take.remote())
    started = time.perf_counter()
    for _ in range(1_000):
        ray.get(actor.take.remote())
    rate = 1_000 / (time.perf_counter() - started)
    connection.disconnect()
    return rate


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "deaths": deaths,
    "efficiency": efficiency,
    "driver": driver,
}

if __name__ == "__main__":
    main()
