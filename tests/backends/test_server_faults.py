"""Whole tasks through servers of which three answers in ten are faulty, that die and return, or that die for good."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command import Outcome, run_here
from fake_servers import FakeServer
from mishaps import FAULTS, Faulty, reset

RETRIES = 12  # of a request; at 30 % faults, fewer than one in a million requests needs more
TASK = ("task=demo-zh", "limit=25", "backend.batch_size=5", "backend.timeout=0.4", f"backend.retries={RETRIES}")
MODELS = {
    "vllm": "bge-reranker-base",
    "tei": "bge-reranker-base",
    "infinity-server": "bge-reranker-base",
    "openai": "bge-base-zh-v1.5",
}


def run(server: FakeServer, folder: Path, *more: str) -> Outcome:
    where = (f"backend.url={server.url}", f"results_dir={folder / 'results'}", f"cache_dir={folder / 'cache'}")
    return run_here(*TASK, f"model={MODELS[server.backend]}", f"backend={server.backend}", *where, *more)


def scores(folder: Path) -> Any:
    (path,) = (folder / "results").rglob("*.run.parquet")
    (result,) = (path for path in (folder / "results").rglob("*.json") if path.name != "model_meta.json")
    return pd.read_parquet(path).to_dict("list"), json.loads(result.read_text(encoding="utf-8"))["scores"]


def items(server: FakeServer, since: int = 0) -> list[str]:
    """What was asked for, text by text."""
    fields = ("text_2", "texts", "documents", "input")
    return [
        f"{request.body.get('text_1')} {text}"
        for request in server.posts[since:]
        for name in fields
        for text in request.body.get(name, [])
    ]


@pytest.mark.parametrize("backend", MODELS)
def test_faults_change_nothing(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same figures to the bit; and no more requests than questions and faults, since each fault costs one try."""
    monkeypatch.setattr("evalkit.backends.servers.client.FIRST_WAIT", 0.02)  # a clock, not a behaviour
    with FakeServer(backend) as server:
        assert run(server, tmp_path / "quiet").code == 0
        questions = len(server.posts)
        server.chance = faulty = Faulty(0.3, seed=7)
        done = run(server, tmp_path / "faulty", "backend.concurrency=4")
    assert done.code == 0, done.stderr
    assert scores(tmp_path / "faulty") == scores(tmp_path / "quiet")
    asked, faults = len(server.posts) - questions, sum(faulty.counts.values())
    assert asked == questions + faults <= questions * (RETRIES + 1)
    assert faults >= questions / 10
    assert all(faulty.counts.values()) or questions < 4 * len(FAULTS)


def test_a_server_that_dies_and_returns(tmp_path: Path) -> None:
    """In one run: the requests that fail meanwhile are sent again."""
    with FakeServer("vllm") as server:
        assert run(server, tmp_path / "quiet").code == 0
    port = server.server.server_address[1]
    first = FakeServer("vllm", port=port, delay=0.05)
    returned: list[FakeServer] = []

    def die_and_return() -> None:
        while len(first.posts) < 6:
            time.sleep(0.01)
        first.chance = lambda: reset  # its open connections
        first.__exit__(None)
        time.sleep(0.7)
        returned.append(FakeServer("vllm", port=port).__enter__())

    with first:
        thread = threading.Thread(target=die_and_return)
        thread.start()
        done = run(first, tmp_path / "back", "backend.concurrency=2")
        thread.join()
    returned[0].__exit__(None)
    assert done.code == 0, done.stderr
    assert returned[0].posts
    assert scores(tmp_path / "back") == scores(tmp_path / "quiet")
    assert len(first.posts) + len(returned[0].posts) <= 50 + 2 * (RETRIES + 1)


def test_a_server_that_dies_for_good(tmp_path: Path) -> None:
    """One line that names it and its last problem; what it answered is not asked for again."""
    with FakeServer("vllm", chance=Faulty(0.3, seed=3)) as server:
        server.answer = lambda fake, *request: (
            fake.described(*request) if len(fake.posts) <= 30 else (503, {"error": "out of memory"})
        )
        done = run(server, tmp_path, "backend.concurrency=1", "backend.retries=3")
        assert done.code == 2
        last = done.stderr.splitlines()[-1]
        assert last.startswith(f"evalkit: vllm at {server.url}/score ")
        assert (
            "tried 4 times (backend.retries). Mend it and run the same again: what the store has is not asked for again"
            in last
        )
        assert "Traceback" not in done.stderr
        answered = len(server.posts)
        server.answer, server.chance = FakeServer.answer, lambda: None
        again = run(server, tmp_path, "backend.concurrency=1")
        assert again.code == 0, again.stderr
        kept = 250 - len(items(server, answered))
        assert kept > 0
        (result,) = (path for path in (tmp_path / "results").rglob("*.json") if path.name != "model_meta.json")
        timing = json.loads(result.read_text(encoding="utf-8"))["evalkit"]["timing"]
        assert timing["items_from_store"] == kept
        whole = run(server, tmp_path / "whole")
        assert whole.code == 0
        assert scores(tmp_path) == scores(tmp_path / "whole")
