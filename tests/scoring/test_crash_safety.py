"""Runs that are killed, that meet on one store, or that run out of room: nothing is lost, and nothing changes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from command import MODULE, run_here, run_program
from killed_runs import BATCH_TOKENS, PARALLEL, TASK
from store_rows import rows_in
from task_files import uneven_rows, write_jsonl

from evalkit.results.writing import without_timings
from evalkit.scoring.store import FILE_NAME, damaged_rows

WORKER = Path(__file__).with_name("killed_runs.py")
TESTS = WORKER.parents[1]
ENGINE_KILLS, COMMAND_KILLS = 16, 3  # and one of a whole process


def run_worker(*arguments: str) -> list[dict[str, int]]:
    paths = os.pathsep.join(map(str, (TESTS.parent, TESTS, WORKER.parent)))
    done = subprocess.run(
        [sys.executable, str(WORKER), *arguments],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    outcomes: list[dict[str, int]] = json.loads(done.stdout)
    return outcomes


def contents(results: Path) -> dict[str, Any]:
    """A folder of results: the JSON without its times, the tables byte by byte."""
    found: dict[str, Any] = {}
    for path in sorted(results.rglob("*.json")):
        found[path.name] = without_timings(json.loads(path.read_text(encoding="utf-8")))
        found[path.name].get("evalkit", {}).get("config", {}).update(cache_dir="", results_dir="")
    for path in sorted(results.rglob("*.parquet")):
        found[path.name] = path.read_bytes()
    return found


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    outcomes = run_worker("engine", str(tmp_path), str(ENGINE_KILLS))
    pairs = TASK.statistics.pairs
    whole = (tmp_path / "whole" / "result").read_bytes()
    # the batches that run, one that waits for its turn in the store
    longest_batch = BATCH_TOKENS // min(len(request.query.texts[0]) + 1 + 4 for request in TASK.requests)
    in_flight = (PARALLEL + 1) * longest_batch
    assert len(outcomes) == ENGINE_KILLS
    for number, outcome in enumerate(outcomes):
        assert (tmp_path / f"killed-{number}" / "result").read_bytes() == whole
        assert outcome["scored_after"] == pairs - outcome["stored"]
        assert outcome["started"] - outcome["stored"] <= in_flight
        assert outcome["rows"] == pairs
    assert len({outcome["stored"] for outcome in outcomes}) > ENGINE_KILLS // 2  # the kills came at all times of a run


@pytest.fixture(scope="module")
def task_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 pairs of very different lengths."""
    rows = uneven_rows(queries=20, candidates=12, longest=120)
    return write_jsonl(tmp_path_factory.mktemp("tasks") / "made" / "test.jsonl", rows).parent


def arguments(task_folder: Path, model: Path) -> tuple[str, ...]:
    return (
        "task=local",
        f"task.path={task_folder}",
        f"model={model}",
        "backend=torch",
        "runner.threads=1",
    )


@pytest.mark.parametrize("model", ["tiny_bert_reranker", "tiny_lists"])
def test_a_killed_command_goes_on_where_it_was(
    task_folder: Path, model: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    chosen = arguments(task_folder, request.getfixturevalue(model))
    outcomes = run_worker("command", str(tmp_path), str(COMMAND_KILLS), *chosen)
    whole = contents(tmp_path / "whole" / "results")
    assert sorted(name.partition(".")[2] for name in whole) == ["json", "json", "queries.parquet", "run.parquet"]
    for number, outcome in enumerate(outcomes):
        assert contents(tmp_path / f"killed-{number}" / "results") == whole
        assert outcome["rows"] == 240


def test_a_killed_process_goes_on_where_it_was(task_folder: Path, tiny_bert_reranker: Path, tmp_path: Path) -> None:
    """From outside: the program itself, killed as soon as it stores."""
    chosen = arguments(task_folder, tiny_bert_reranker)
    store = tmp_path / "killed" / FILE_NAME
    killed = subprocess.Popen(
        [*MODULE, *chosen, f"cache_dir={store.parent}", f"results_dir={tmp_path / 'results'}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while killed.poll() is None and rows_in(store) == 0:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    kept = rows_in(store)
    assert kept
    for cache in ("killed", "whole"):
        done = run_here(*chosen, f"cache_dir={tmp_path / cache}", f"results_dir={tmp_path / 'results' / cache}")
        assert done.code == 0, done.stderr
    assert contents(tmp_path / "results" / "killed") == contents(tmp_path / "results" / "whole")
    (path,) = (tmp_path / "results" / "killed").rglob("made.json")
    assert json.loads(path.read_text(encoding="utf-8"))["evalkit"]["timing"]["items_from_store"] == kept


@pytest.mark.parametrize("state", ["new", "damaged"])
def test_four_processes_on_one_store(state: str, tmp_path: Path) -> None:
    """They open it, and find damage in it, at the same time."""
    if state == "damaged":
        (tmp_path / FILE_NAME).write_bytes(b"no database" * 1000)
    program = f"""
import sys, time
from pathlib import Path
from killed_runs import LoggingNetwork, run_engine
folder = Path(sys.argv[1])
(folder / "cache").symlink_to({str(tmp_path)!r})
time.sleep(max(0, float(sys.argv[2]) - time.time()))
run_engine(folder)
"""
    paths = os.pathsep.join(map(str, (TESTS.parent, TESTS, WORKER.parent)))
    folders = [tmp_path / f"process-{number}" for number in range(4)]
    together = str(time.time() + 3)
    processes = []
    for folder in folders:
        folder.mkdir()
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", program, str(folder), together],
                env=os.environ | {"PYTHONPATH": paths},
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    messages = [process.communicate(timeout=200)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, messages
    assert len({(folder / "result").read_bytes() for folder in folders}) == 1
    assert damaged_rows(tmp_path) == (TASK.statistics.pairs, 0)
    assert len(list(tmp_path.glob("*.damaged-*"))) == (state == "damaged")


@contextmanager
def small_disk(folder: Path, kibibytes: int) -> Iterator[None]:
    """A file system of that size; skips the test where none may be mounted."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root may mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("left", [0, 72])
def test_a_full_disk(left: int, task_folder: Path, tiny_bert_reranker: Path, tmp_path: Path) -> None:
    """No room at all, and room for the first batches alone."""
    disk = tmp_path / "disk"
    disk.mkdir()
    chosen = [*arguments(task_folder, tiny_bert_reranker), f"results_dir={tmp_path / 'results'}"]
    with small_disk(disk, 256):
        done = run_here(*chosen, "limit=4", f"cache_dir={disk / 'cache'}")
        assert done.code == 0, done.stderr
        (disk / "other").write_bytes(bytes(room(disk) - 1024 * left))
        done = run_here(*chosen, f"cache_dir={disk / 'cache'}")
        assert_no_room(done.code, done.stderr, disk / "cache")
        (disk / "other").unlink()
        total, damaged = damaged_rows(disk / "cache")
        assert (total > 48) == (left > 0)
        assert total >= 48
        assert not damaged
        done = run_here(*chosen, f"cache_dir={disk / 'cache'}")
        assert done.code == 0, done.stderr
        assert damaged_rows(disk / "cache") == (48 + 240, 0)


def room(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def test_a_file_that_may_not_grow(task_folder: Path, tiny_bert_reranker: Path, tmp_path: Path) -> None:
    """The same where no file system can be mounted: the limit is the process's own."""
    chosen = [*arguments(task_folder, tiny_bert_reranker), "results_dir=results", f"cache_dir={tmp_path / 'cache'}"]
    done = run_here(*chosen, "limit=4", f"results_dir={tmp_path / 'results'}")
    assert done.code == 0, done.stderr
    program = (sys.executable, "-c", LIMITED)
    outcome = run_program(tmp_path, *chosen, program=program)
    assert_no_room(outcome.code, outcome.stderr, tmp_path / "cache")
    total, damaged = damaged_rows(tmp_path / "cache")
    assert total >= 48
    assert not damaged


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (24_000, 24_000))
from evalkit.commands.main import run_command_line
sys.exit(run_command_line(sys.argv[1:]))
"""


def assert_no_room(code: int, stderr: str, cache: Path) -> None:
    assert code == 2, stderr
    last = stderr.splitlines()[-1]
    assert last.startswith(f"evalkit: {cache / FILE_NAME} can't be used: "), stderr
    assert "cache_dir=FOLDER, or cache=off" in last
    assert "Traceback" not in stderr


@pytest.mark.parametrize("place", ["a file", "below a file", "read-only"])
def test_a_cache_that_cannot_be_written(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = {"a file": tmp_path / "file", "below a file": tmp_path / "file" / "cache", "read-only": tmp_path / "disk"}
    arguments = ("task=demo-zh2en", "limit=1", f"cache_dir={folder[place]}", f"results_dir={tmp_path / 'results'}")
    if place != "read-only":
        done = run_here(*arguments)
    else:
        folder[place].mkdir()
        with small_disk(folder[place], 64):
            subprocess.run(["mount", "-o", "remount,ro", str(folder[place])], check=True)
            done = run_here(*arguments)
    assert done.code == 2
    assert "cache=off" in done.stderr.splitlines()[-1], done.stderr
    assert str(folder[place]) in done.stderr
    assert run_here(*arguments, "cache=off").code == 0


def test_cache_off_and_refresh(task_folder: Path, tiny_bert_reranker: Path, tmp_path: Path) -> None:
    """And a run of the first queries has a window of its own, which the run of the whole task does not read."""

    def stored_items(number: int, *chosen: str) -> int:
        results = tmp_path / f"results-{number}"
        done = run_here(
            *arguments(task_folder, tiny_bert_reranker),
            f"cache_dir={tmp_path / 'cache'}",
            f"results_dir={results}",
            *chosen,
        )
        assert done.code == 0, done.stderr
        (path,) = results.rglob("made.json")
        return int(json.loads(path.read_text(encoding="utf-8"))["evalkit"]["timing"]["items_from_store"])

    assert stored_items(1, "cache=off") == 0
    assert not list((tmp_path / "cache").glob("*.sqlite*"))  # what files were found to be may be kept, scores are not
    assert stored_items(2, "limit=5") == 0
    assert rows_in(tmp_path / "cache" / FILE_NAME) == 60
    assert stored_items(3) == 0
    assert stored_items(4, "cache=off") == 0
    assert stored_items(5, "limit=5") == 60
    assert stored_items(6) == 240
    assert stored_items(7, "model.max_length=64") == 0
    assert stored_items(8, "protocol=mteb-v2", "seed=7", "texts=true") == 240
    assert stored_items(9, "cache=refresh", "limit=5") == 0
    assert stored_items(10, "limit=5") == 60
    assert stored_items(11) == 0  # nothing of before the refresh is read
    assert stored_items(12) == 240
