"""Results on a disk that is full or read-only, and a clock that jumps: said in a line, and nothing is lost."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command import MODULE, Outcome, run_here, run_program

sys.path.insert(0, str(Path(__file__).with_name("scoring")))  # as pytest does for the tests in there
from killed_runs import stored
from test_crash_safety import contents, room, small_disk

RUN = ("task=demo-zh2en", "limit=4")
PACKAGE = Path(__file__).parents[1] / "evalkit"


def run(results: Path, folder: Path, *more: str) -> Outcome:
    return run_here(*RUN, f"results_dir={results}", f"cache_dir={folder / 'cache'}", *more)


def timing(results: Path) -> dict[str, Any]:
    (path,) = results.rglob("EvalkitDemoZh2En.json")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["evalkit"]["timing"]
    return found


@pytest.mark.parametrize("left", [0, 8])
def test_a_full_disk_of_results(left: int, tmp_path: Path) -> None:
    """Without any room nothing is scored; with too little the scores are kept, and the older result too."""
    disk = tmp_path / "disk"
    disk.mkdir()
    with small_disk(disk, 256):
        assert run(disk / "results", tmp_path).code == 0
        before = contents(disk / "results")
        (disk / "other").write_bytes(bytes(room(disk) - 1024 * left))
        done = run(disk / "results", tmp_path / "later")
        assert done.code == 2
        last = done.stderr.splitlines()[-1]
        assert last.startswith("evalkit: ")
        assert "No space left on device" in last
        assert "another folder" in last
        assert "results_dir=" in last
        assert "Traceback" not in done.stderr
        assert contents(disk / "results") == before
        assert not list(disk.rglob("*.tmp"))
        assert (stored(tmp_path / "later") > 0) == (left > 0)
        (disk / "other").unlink()
        done = run(disk / "results", tmp_path / "later")
        assert done.code == 0, done.stderr
        assert (timing(disk / "results")["items_from_store"] > 0) == (left > 0)


def test_a_read_only_folder_of_results(tmp_path: Path) -> None:
    """Said before anything is scored."""
    disk = tmp_path / "disk"
    disk.mkdir()
    with small_disk(disk, 64):
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        done = run(disk, tmp_path)
    assert done.code == 2
    assert done.stderr.splitlines() == [
        f"evalkit: results_dir={disk} can't be written: Read-only file system; choose another folder"
    ]
    assert not (tmp_path / "cache").exists()


BACKWARDS = """
import itertools, sys, time
moments = itertools.count(2_000_000_000.0, -3600.0)
time.time = lambda: next(moments)
time.time_ns = lambda: int(next(moments) * 1e9)
from evalkit.commands.main import run_command_line
sys.exit(run_command_line(sys.argv[1:]))
"""


def test_a_clock_that_goes_back(tmp_path: Path) -> None:
    """An hour at each look at it: the same result, times that are times, and a store that is found again."""
    where = (f"results_dir={tmp_path / 'back'}", f"cache_dir={tmp_path / 'cache'}")
    done = run_program(tmp_path, *RUN, *where, program=(sys.executable, "-c", BACKWARDS))
    assert done.code == 0, done.stderr
    measured = timing(tmp_path / "back")
    assert 0 < measured["seconds"] < 200
    assert measured["latency_seconds"] is None or measured["latency_seconds"]["p50"] >= 0
    assert run(tmp_path / "usual", tmp_path).code == 0
    assert contents(tmp_path / "usual") == contents(tmp_path / "back")
    assert timing(tmp_path / "usual")["items_from_store"] == stored(tmp_path)


def test_durations_are_of_a_clock_that_never_jumps() -> None:
    """The time of day is looked at for the timestamp of a result, and for a server's Retry-After that names a date."""
    looks = re.compile(r"\btime\.time\(|\btime\.time_ns\(|datetime\.now\(|datetime\.utcnow\(|\bdate\.today\(")
    found = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if looks.search(path.read_text(encoding="utf-8"))
    }
    # the last two compare files' times with now
    assert found == {"machine.py", "backends/servers/client.py", "models/identity.py", "commands/store.py"}


def test_runs_of_the_same_second_keep_apart(tmp_path: Path) -> None:
    """Four at once, of two kinds: each kind has its own files, whole."""
    kinds = {"one": "seed=1", "two": "dtype=fp32"}
    paths = os.pathsep.join(path for path in sys.path if path)
    processes = [
        subprocess.Popen(
            [
                *MODULE,
                *RUN,
                f"results_dir={tmp_path / 'results'}",
                f"cache_dir={tmp_path / 'cache'}",
                "model=bm25",
                kind,
            ],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": paths},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        for kind in [*kinds.values()] * 2
    ]
    messages = [process.communicate(timeout=200)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, messages
    for name, kind in kinds.items():
        assert run(tmp_path / name, tmp_path, "model=bm25", kind).code == 0
    expected = {
        path.relative_to(tmp_path / name): contents(path.parent)
        for name in kinds
        for path in (tmp_path / name).rglob("*.json")
    }
    found = {
        path.relative_to(tmp_path / "results"): contents(path.parent) for path in (tmp_path / "results").rglob("*.json")
    }
    assert found == expected
    assert len({path.parent for path in found}) == len(kinds)
