"""One computer at a time uses a store: others are refused while it lives, and its own processes are not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from command import run_here
from fakes import Pairs
from stored_scores import WAY, opened, score

from evalkit.errors import EvalkitError
from evalkit.scoring import lease as module
from evalkit.scoring.lease import LEASE_SECONDS
from evalkit.scoring.store import FILE_NAME, StoredOutput, damaged_rows, item_key, open_store, ways

TESTS = Path(__file__).parents[1]
OTHER = {"host": "other-host", "boot": "another boot", "process": 7}


def leases(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{FILE_NAME}.lease-*"))


def put_lease(folder: Path, content: object = OTHER, age: float = 0.0) -> Path:
    path = folder / f"{FILE_NAME}.lease-other"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    os.utime(path, (time.time() - age,) * 2)
    return path


def write(folder: Path, text: str = "a") -> None:
    with opened(folder) as store:
        store.write({item_key(text): StoredOutput(np.float32([1]), 1, False)})


@pytest.mark.parametrize(
    "content",
    [OTHER, OTHER | {"boot": ""}, OTHER | {"host": module.this_host()[0]}, "", "{", "[]", json.dumps({"host": "x"})],
)
def test_another_computer_is_refused(content: object, tmp_path: Path) -> None:
    write(tmp_path)
    other = put_lease(tmp_path, content, age=LEASE_SECONDS / 2)
    with pytest.raises(EvalkitError, match="is in use by another computer") as raised:
        open_store(tmp_path, WAY)
    said = str(raised.value)
    assert "\n" not in said
    for part in (str(tmp_path / FILE_NAME), "cache_dir=FOLDER", "120 s", f"delete {other}"):
        assert part in said
    assert leases(tmp_path) == [other]  # it leaves none of its own
    other.unlink()
    write(tmp_path, "b")
    assert (damaged_rows(tmp_path), leases(tmp_path)) == ((2, 0), [])


def test_a_lease_that_nobody_keeps_ends(tmp_path: Path) -> None:
    write(tmp_path)
    put_lease(tmp_path, age=LEASE_SECONDS + 1)
    write(tmp_path, "b")
    assert leases(tmp_path) == []


def test_commands_are_refused_too(tmp_path: Path) -> None:
    write(tmp_path)
    put_lease(tmp_path)
    for command in (("info",), ("verify",), ("prune", "--all")):
        done = run_here("cache", *command, "--cache-dir", str(tmp_path))
        assert (done.code, done.stdout) == (2, ""), command
        assert "is in use by another computer, other-host (process 7, seen " in done.stderr
    done = run_here("task=demo-zh2en", "limit=1", f"cache_dir={tmp_path}", f"results_dir={tmp_path / 'results'}")
    assert done.code == 2
    assert "is in use by another computer, other-host" in done.stderr.splitlines()[-1]
    leases(tmp_path)[0].unlink()
    assert len(ways(tmp_path)) == 1


def test_processes_of_one_computer_share_it(tmp_path: Path) -> None:
    with opened(tmp_path) as one, opened(tmp_path) as two:
        assert len(leases(tmp_path)) == 2
        for number, store in enumerate((one, two)):
            store.write({item_key(str(number)): StoredOutput(np.float32([1]), 1, False)})
        assert run_here("cache", "verify", "--cache-dir", str(tmp_path)).code == 0
    assert leases(tmp_path) == []


HOLDING = """
import sys, time
from pathlib import Path
from evalkit.scoring import lease
if sys.argv[2]:
    lease.this_host = lambda: ("other-host", sys.argv[2])
from stored_scores import WAY
from evalkit.scoring.store import open_store
store = open_store(Path(sys.argv[1]), WAY)
print("open", flush=True)
time.sleep(120)
"""


@pytest.mark.parametrize("boot", ["", "another boot"])
def test_a_killed_process(boot: str, tmp_path: Path) -> None:
    """Of this computer it is known to be dead; of another, its lease has to run out."""
    paths = os.pathsep.join(map(str, (TESTS.parent, TESTS, Path(__file__).parent)))
    command = [sys.executable, "-c", HOLDING, str(tmp_path), boot]
    with subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": paths}, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        (held,) = leases(tmp_path)
        if boot:
            with pytest.raises(EvalkitError, match=f"another computer, other-host \\(process {process.pid}, "):
                open_store(tmp_path, WAY)
        else:
            write(tmp_path)
        assert leases(tmp_path) == [held]
        process.send_signal(signal.SIGKILL)
    if boot:
        os.utime(held, (time.time() - LEASE_SECONDS - 1,) * 2)
    write(tmp_path)
    assert leases(tmp_path) == []


def test_a_lease_is_kept_while_nothing_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOUCH_SECONDS", 0.05)
    before = threading.active_count()
    with opened(tmp_path):
        (held,) = leases(tmp_path)
        os.utime(held, (1, 1))
        deadline = time.monotonic() + 10
        while held.stat().st_mtime == 1:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    deadline = time.monotonic() + 10
    while threading.active_count() > before:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_process_that_lost_its_lease_while_it_slept(tmp_path: Path) -> None:
    """A computer that went to sleep may find that another took over; then it stores nothing, and goes on later."""
    outputs = {item_key("a"): StoredOutput(np.float32([1]), 1, False)}
    with opened(tmp_path) as store:
        (held,) = leases(tmp_path)
        held.unlink()  # as another computer does when it has run out
        other = put_lease(tmp_path)
        with pytest.raises(EvalkitError, match="is in use by another computer, other-host"):
            store.write(outputs)
        other.unlink()
        store.write(outputs)
        assert len(leases(tmp_path)) == 1
    assert damaged_rows(tmp_path) == (1, 0)


def test_clocks_that_differ_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ages are told by the file system's own clock."""
    write(tmp_path)
    put_lease(tmp_path)
    monkeypatch.setattr(time, "time", lambda: 1e9)
    with pytest.raises(EvalkitError, match="is in use by another computer"):
        score(tmp_path, Pairs())


def test_computers_are_told_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Containers of one computer have its boot, and other names."""
    if module.BOOT_ID.exists():
        with opened(tmp_path):
            monkeypatch.setattr(module, "this_host", lambda: ("a-container", module.BOOT_ID.read_text().strip()))
            write(tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(module, "BOOT_ID", tmp_path / "none")
    assert module.this_host()[1] == ""
    with opened(tmp_path):
        write(tmp_path)
