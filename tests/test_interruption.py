"""Ctrl-C and SIGTERM: a line, an exit code, nothing half done, and a second run that goes on where the first one was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from command import MODULE, files_below, run_here
from task_files import write_jsonl

from evalkit.commands.run import GOES_ON

sys.path.insert(0, str(Path(__file__).with_name("backends")))  # as pytest does for the tests in there
sys.path.insert(0, str(Path(__file__).with_name("scoring")))
from fake_servers import FakeServer
from killed_runs import stored
from test_crash_safety import contents, run_worker

STOPS = 4
SOON = 8.0  # seconds
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
NAMES = {signal.SIGINT: "", signal.SIGTERM: " by SIGTERM"}


def line(number: signal.Signals) -> str:
    return f"evalkit: interrupted{NAMES[number]}; {GOES_ON}"


@pytest.fixture(scope="module")
def task_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """360 pairs, which take a moment."""
    rows = [
        {
            "query": f"问题{number}" * (1 + number % 5),
            "positive": [f"正确的答案{number}" * (1 + number % 9)],
            "negative": [f"错误的答案{number}-{other}" * (1 + (number + other) % 12) for other in range(11)],
        }
        for number in range(30)
    ]
    return write_jsonl(tmp_path_factory.mktemp("tasks") / "made" / "test.jsonl", rows).parent


def is_passing(name: str) -> bool:
    return name.endswith((".tmp", ".unfinished")) or "/tmp" in name or "verdicts.json." in name


def test_a_run_that_is_stopped_at_any_moment(task_folder: Path, tiny_bert_reranker: Path, tmp_path: Path) -> None:
    """Imports, data, weights, scoring, statistics, files: the moments fall on all of them."""
    model = ("model=local-cross-encoder", f"model.path={tiny_bert_reranker}", "runner.threads=1", "backend=torch")
    outcomes: list[Any] = run_worker(
        "stopped", str(tmp_path), str(STOPS), "task=local", f"task.path={task_folder}", *model
    )
    whole = contents(tmp_path / "whole" / "results")
    assert len(outcomes) == STOPS
    early = 0
    for number, outcome in enumerate(outcomes):
        number_of_signal = signal.Signals(outcome["signal"])
        assert outcome["seconds"] < SOON
        assert "Traceback" not in outcome["said"]
        assert not [name for name in outcome["files"] if is_passing(name)]
        if outcome["code"] == 0:  # it was done by then
            continue
        assert outcome["code"] in (CODES[number_of_signal], -number_of_signal), outcome["said"]
        if outcome["code"] < 0 or not outcome["said"]:  # before Python came to our first line, or after our last
            early += 1
            continue
        assert outcome["said"].splitlines().count(line(number_of_signal)) == 1, outcome["said"]
        folder = tmp_path / f"killed-{number}"
        assert contents(folder / "results") == whole
        (path,) = (folder / "results").rglob("made.json")
        timing = json.loads(path.read_text(encoding="utf-8"))["evalkit"]["timing"]
        assert timing["items_from_store"] == outcome["stored"]
    assert early <= STOPS // 2
    assert any(0 < outcome["stored"] < 360 for outcome in outcomes)


@contextmanager
def started(folder: Path, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    paths = os.pathsep.join(path for path in sys.path if path)
    process = subprocess.Popen(
        [*MODULE, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": paths, "XDG_CACHE_HOME": str(folder / "cache")} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # tests that run in the background may have been told to ignore it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(happened: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def stop(process: subprocess.Popen[str], number: signal.Signals = signal.SIGTERM) -> str:
    """What it said, once it has ended as it should."""
    asked = time.monotonic()
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - asked < SOON
    assert process.returncode == CODES[number], said
    assert "Traceback" not in said
    return said


def test_a_download_that_hangs(tmp_path: Path) -> None:
    with FakeServer("vllm", answer=lambda *_: (time.sleep(30), (200, {}))[1]) as hub:
        arguments = ("task=T2Reranking", "model=bm25")
        with started(tmp_path, *arguments, HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path / "hf")) as process:
            wait_for(lambda: hub.requests, process)
            assert stop(process).splitlines()[-1] == line(signal.SIGTERM)
    assert files_below(tmp_path / "results") == []


def test_a_conversion(task_folder: Path, tiny_bert_reranker: Path, tmp_path: Path) -> None:
    """Nothing half converted stays, nor a verdict on the backend."""
    model = ("model=local-cross-encoder", f"model.path={tiny_bert_reranker}", f"cache_dir={tmp_path / 'kept'}")
    with started(tmp_path, "task=local", f"task.path={task_folder}", "limit=2", *model) as process:
        wait_for(lambda: "openvino" in maps(process.pid), process)
        stop(process)
    assert not [name for name in files_below(tmp_path) if "verdicts" in name or is_passing(name)]


def maps(pid: int) -> str:
    """The libraries that a process has loaded, where the system tells."""
    try:
        return Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        pytest.skip("only Linux tells")


def test_a_sweep_stops_and_goes_on(tmp_path: Path) -> None:
    arguments = ("-m", "task=demo-zh", "limit=20", "model=bge-reranker-base", "seed=1,2,3", "backend=vllm")
    speed = ("backend.concurrency=1", "backend.batch_size=10", f"cache_dir={tmp_path / 'scores'}")
    with FakeServer("vllm", delay=0.05) as server:
        with started(tmp_path, *arguments, *speed, f"backend.url={server.url}") as process:
            wait_for(lambda: stored(tmp_path) or len(server.posts) > 5, process)
            assert stop(process).splitlines()[-1] == line(signal.SIGTERM)
        asked = sum(len(request.body["text_2"]) for request in server.posts)
        assert asked < 200
        server.delay = 0.0
        before = len(server.posts)
        where = f"results_dir={tmp_path / 'results'}"
        done = run_here(*arguments, *speed, f"backend.url={server.url}", where)
        assert done.code == 0, done.stderr
        assert len(done.rows) == 3
        again = sum(len(request.body["text_2"]) for request in server.posts[before:])
        assert asked + again <= 200 + 10  # at most the request in flight again


def test_parity_and_report_stop_too(tmp_path: Path) -> None:
    with FakeServer("vllm", delay=0.2) as server:
        words = ("parity", "task=demo-zh", "model=bge-reranker-base", "backends=vllm,infinity-server")
        urls = (f"vllm.url={server.url}", f"infinity-server.url={server.url}", "vllm.batch_size=2")
        with started(tmp_path, *words, *urls, "--json", "parity.json") as process:
            wait_for(lambda: len(server.posts) > 2, process)
            assert stop(process).splitlines()[-1] == "evalkit: interrupted by SIGTERM; run the same again"
    assert not (tmp_path / "parity.json").exists()
    assert run_here("task=demo-zh", "model=bm25", f"results_dir={tmp_path / 'results'}").code == 0
    with started(tmp_path, "report", "results", "--format", "html", "-o", "report.html") as process:
        wait_for(lambda: "pandas" in maps(process.pid), process)
        assert stop(process).splitlines()[-1] == "evalkit: interrupted by SIGTERM; run the same again"
    assert not (tmp_path / "report.html").exists()
    assert [name for name in files_below(tmp_path) if is_passing(name)] == []


STUCK = """
import sys, time
from pathlib import Path
from evalkit import interruption
interruption.heed_signals()
print("ready", flush=True)
with interruption.scratch(Path("made.unfinished")) as made:
    made.mkdir()
    (made / "file").touch()
    {body}
"""
BODIES = {
    "a library that swallows it": """while True:
        try:
            time.sleep(60)
        except BaseException:
            pass""",
    # another thread is told of the signal, so that the call isn't cut short
    "a long call": """import ctypes, signal
    signal.pthread_sigmask(signal.SIG_BLOCK, {15})
    ctypes.CDLL(None).sleep(60)""",
}


@pytest.mark.parametrize(("body", "twice"), [(body, twice) for body in BODIES for twice in (False, True)])
def test_an_end_whatever_the_main_thread_does(body: str, twice: bool, tmp_path: Path) -> None:
    """Within the grace, or at once where the signal comes again; what was half made is taken away."""
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK.format(body=BODIES[body])],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    if twice:
        time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 143
    assert time.monotonic() - asked < (2.0 if twice else 7.0)
    assert said == "evalkit: interrupted by SIGTERM; run the same again\n"
    assert files_below(tmp_path) == []


LOST = """
import os, signal, time
from evalkit import interruption
interruption.heed_signals()
class Dies:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000): pass
try:
    thing, started = Dies(), time.monotonic()
    del thing
    while time.monotonic() < started + 2: pass
    print("went on")
except KeyboardInterrupt:
    print("stopped", interruption.exit_code())
with interruption.postponed():
    pass
"""
POSTPONED = """
import os, signal
from evalkit import interruption
interruption.heed_signals()
try:
    with interruption.postponed():
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000): pass
        print("whole")
    print("went on")
except interruption.Interrupted:
    print("stopped", interruption.exit_code())
try:
    try:
        raise ImportError("numpy failed to import")  # as some libraries make of it
    except Exception:
        interruption.check()
except KeyboardInterrupt:
    print("noticed")
"""


@pytest.mark.parametrize(
    ("program", "expected"), [(LOST, "stopped 143\n"), (POSTPONED, "whole\nstopped 130\nnoticed\n")]
)
def test_no_interruption_is_lost(program: str, expected: str) -> None:
    """Not in a destructor, where Python drops exceptions; and it waits for the end of what belongs together."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )
    assert (done.stdout, done.stderr) == (expected, "")
