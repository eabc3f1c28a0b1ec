"""Whole runs of models behind servers: the command, its results, what is kept when a server dies, and where no key may be."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command import MODULE, Outcome, files_below, run_here, run_program
from model_folders import edit_weights

sys.path.insert(0, str(Path(__file__).parent / "backends"))  # as pytest does for the tests in there
from fake_servers import ANSWERS, FakeServer, is_probe, score
from mishaps import reset, says

import evalkit
from evalkit.backends import read_backend
from evalkit.errors import EvalkitError
from evalkit.results.folders import experiment_slug

KEY = "sk-very-secret-0123456789"
RERANKER = ("task=demo-zh", "model=bge-reranker-base", "limit=12")
REVISION = "2cfc18c9415c912f9d8155881c133215df768a70"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fake(backend: str, **settings: Any) -> FakeServer:
    return FakeServer(backend, **settings)


def result_files(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "results").rglob("*.json") if path.name != "model_meta.json")


def test_a_whole_run(folder: Path) -> None:
    with fake("tei") as server:
        done = run_here(*RERANKER, "backend=tei", f"backend.url={server.url}")
    assert done.code == 0, done.stderr
    assert done.rows[0][:2] == ["bge-reranker-base", "demo-zh"]
    (path,) = result_files(folder)
    assert path.relative_to(folder / "results").parts[:4] == (
        "BAAI__bge-reranker-base", REVISION, "experiments", "backend-tei_limit-12",
    )  # fmt: skip
    own = json.loads(path.read_text())["evalkit"]
    assert own["backend"] == {
        "name": "tei", "url": server.url, "served_model": "BAAI/bge-reranker-base", "outputs": "raw scores",
        "truncation": "at 512 tokens", "dtype": "float32", "revision": REVISION, "version": "1.9.3",
    }  # fmt: skip
    assert own["config"]["backend"]["url"] == server.url
    texts = {
        (request.query.query_id, candidate.doc_id): score(request.query.texts[0], candidate.text)
        for request in evalkit.load_task("demo-zh", limit=12).requests
        for candidate in request.candidates
    }
    run = pd.read_parquet(path.with_suffix(".run.parquet"))
    expected = np.array([texts[row.query_id, row.doc_id] for row in run.itertuples()], np.float32)
    np.testing.assert_array_equal(run["score"], expected)


def test_every_reranker_gives_the_same_ranking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits or probabilities, sorted or not."""
    rows = []
    apis = ("cohere", "jina", "voyage", "dashscope", "siliconflow", "mixedbread")
    for backend in ("tei", "infinity-server", "vllm", *apis):
        monkeypatch.setenv(str(read_backend(backend).key_variable), KEY)
        with fake(backend, key=KEY) as server:
            done = run_here(
                "task=demo-zh", "model=bge-reranker-base", "limit=4", f"backend={backend}", f"backend.url={server.url}"
            )
        rows.append(done.rows)
    assert rows == [rows[0]] * 9
    assert len(rows[0]) == 1


def test_only_what_decides_a_score_names_the_folder(folder: Path) -> None:
    with fake("vllm") as server:
        speed = ("backend.concurrency=2", "backend.batch_size=9", "backend.timeout=7", "backend.retries=1")
        assert run_here(*RERANKER, "backend=vllm", f"backend.url={server.url}", *speed).code == 0
        assert run_here(*RERANKER, "backend=vllm", f"backend.url={server.url}", "backend.served_model=mine").code == 0
        assert server.posts[-1].body["model"] == "mine"
    said = {"backend": "vllm", "limit": 12, "url": server.url}
    assert {path.parent.name for path in result_files(folder)} == {
        experiment_slug(said),
        experiment_slug({**said, "served_model": "mine"}),
    }


def test_a_server_that_dies_loses_nothing(folder: Path) -> None:
    """What was answered before is in the store: the next run asks for the rest only, and gives what an undisturbed one gives."""
    arguments = (*RERANKER, "backend=vllm", "backend.retries=0", "backend.concurrency=1", "backend.batch_size=5")
    with fake("vllm") as server:
        pause = [server.answer] * 7

        def answer_seven(fake: FakeServer, method: str, path: str, body: Any) -> tuple[int, Any]:
            if is_probe(body):
                return fake.described(method, path, body)
            return pause.pop()(fake, method, path, body) if pause else (503, {"error": "out of memory"})

        server.answer = answer_seven
        done = run_here(*arguments, f"backend.url={server.url}", "cache_dir=cache")
        assert done.code == 2
        assert "/score answered 503" in done.stderr
        assert "run the same again" in done.stderr
        assert len(done.stderr.splitlines()[-1]) > 0
        assert "Traceback" not in done.stderr
        assert not result_files(folder)
        asked = len(server.posts)
        assert asked == 8
        before = {(request.body["text_1"], text) for request in server.posts[:7] for text in request.body["text_2"]}
        server.answer = FakeServer.answer
        again = run_here(*arguments, f"backend.url={server.url}", "cache_dir=cache")
        assert again.code == 0
        after = [(request.body["text_1"], text) for request in server.posts[asked:] for text in request.body["text_2"]]
        assert not before & set(after)
        whole = run_here(*arguments, f"backend.url={server.url}", "cache=off", "results_dir=whole")
        assert again.rows == whole.rows
        requests = len(server.requests)
        assert run_here(*arguments, f"backend.url={server.url}", "cache_dir=cache").code == 0
        assert len(server.requests) == requests


def test_ctrl_c_ends_a_run_and_keeps_what_was_scored(folder: Path) -> None:
    arguments = [*RERANKER, "backend=vllm", "backend.concurrency=2", "backend.batch_size=2", "cache_dir=cache"]
    with fake("vllm", delay=0.1) as server:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        process = subprocess.Popen(
            [*MODULE, *arguments, f"backend.url={server.url}"],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
            # tests that run in the background may have been told to ignore it
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        for _ in range(600):
            if len(server.posts) > 6:
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        said = process.stderr.read()
        assert process.wait(20) == 130, said
        assert "interrupted" in said
        assert "Traceback" not in said
        sent = len(server.posts)
        server.delay = 0
        assert run_here(*arguments, f"backend.url={server.url}").code == 0
        whole = sum(len(request.body["text_2"]) for request in server.posts[sent:])
        assert 0 < whole < 120 - 6


def key_is_nowhere(folder: Path, done: Outcome) -> bool:
    names = files_below(folder)
    assert any(name.endswith(".sqlite3") for name in names)
    written = [content for name in names for content in (name.encode(), (folder / name).read_bytes())]
    return not any(KEY.encode() in content for content in [*written, done.stdout.encode(), done.stderr.encode()])


def test_the_key_is_nowhere(folder: Path) -> None:
    """Not in results, store, output or any other file, however much is told; the server gets it all the same."""
    with fake("cohere", key=KEY) as server:
        own = {"COHERE_API_KEY": KEY, "EVALKIT_DEBUG": "1", "HYDRA_FULL_ERROR": "1"}
        done = run_program(folder, *RERANKER, "backend=cohere", f"backend.url={server.url}", **own)
        assert server.posts[0].headers["authorization"] == f"Bearer {KEY}"
    assert done.code == 0, done.stderr
    assert len(result_files(folder)) == 1
    assert key_is_nowhere(folder, done)


@pytest.mark.parametrize("mishaps", [[says(401, {"message": f"no such key: {KEY}"})], [reset] * 9])
def test_the_key_is_in_no_error(folder: Path, mishaps: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COHERE_API_KEY", KEY)
    with fake("cohere", mishaps=list(mishaps), key=KEY) as server:
        asked = ("backend=cohere", f"backend.url={server.url}", "backend.retries=1", "cache_dir=cache")
        done = run_here(*RERANKER, *asked)
        assert server.posts[0].headers["authorization"] == f"Bearer {KEY}"
    assert done.code == 2
    assert key_is_nowhere(folder, done)


def test_a_wrong_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JINA_API_KEY", "sk-wrong-key-987")
    with fake("jina", key=KEY) as server:
        done = run_here(*RERANKER, "backend=jina", f"backend.url={server.url}")
    assert done.code == 2
    assert "answered 401" in done.stderr
    assert "it refuses the key in the environment variable JINA_API_KEY" in done.stderr
    assert "wrong-key" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["backend=tei"], "backend=tei needs the address of its server: backend.url=http://HOST:PORT"),
        (["backend=tei", "backend.url=http://u:p@h"], "backend.url holds more than an address"),
        (["backend=openai", "backend.url=http://127.0.0.1:1"], "backend=openai can't run bge-reranker-base"),
        (
            ["backend=tei", "backend.url=http://h", "dtype=fp16"],
            "dtype=fp16 says nothing to backend=tei: the server decides",
        ),
        (["backend=vllm", "backend.url=http://h", "device=cpu"], "device=cpu says nothing to backend=vllm"),
        (["backend=vllm", "backend.url=http://h", "runner.threads=2"], "runner.threads=2 says nothing to backend=vllm"),
        (["backend=tei", "backend.url=http://h", "backend.concurrency=0"], "backend.concurrency=0: "),
        (["backend=tei", "backend.url=http://h", "backend.timeout=soon"], "backend.timeout='soon': "),
        (
            ["backend=tei", "backend.url=http://h", "backend.kinds=[lexical]"],
            "there is no setting 'backend.kinds'; did you mean backend.",
        ),
        (["backend=tei", "backend.ulr=http://h"], "there is no setting 'backend.ulr'; did you mean backend.url"),
        (["backend=torch", "backend.url=http://h"], "backend.url says nothing to the chosen backend"),
        (["backend.url=http://h"], "backend.url says nothing to the chosen backend, which has no such"),
    ],
)
def test_wrong_settings_are_one_line(arguments: list[str], message: str) -> None:
    done = run_here("task=demo-zh", "model=bge-reranker-base", *arguments)
    assert done.code == 2
    assert done.stderr.startswith(f"evalkit: {message}"), done.stderr
    assert done.stderr.count("\n") == 1


def test_a_sweep_over_servers(folder: Path) -> None:
    """Each gets its own settings; the model of one is not taken for that of the other."""
    with fake("vllm") as one, fake("vllm") as two:
        done = run_here("-m", *RERANKER, "backend=vllm", f"backend.url={one.url},{two.url}", "cache=off")
        assert done.code == 0, done.stderr
        assert one.posts
        assert two.posts


def test_an_option_of_the_users_own(folder: Path) -> None:
    with fake("vllm") as server:
        own = folder / "own" / "backend" / "gpu-box.yaml"
        own.parent.mkdir(parents=True)
        own.write_text(f"defaults: [vllm, _self_]\nurl: {server.url}\nserved_model: mine\n")
        done = run_here("--config-dir", "own", *RERANKER, "backend=gpu-box", "backend.batch_size=50")
        assert done.code == 0, done.stderr
        assert {request.body["model"] for request in server.posts} == {"mine"}


def test_from_python(folder: Path) -> None:
    task = evalkit.load_task("demo-zh", limit=5)
    with fake("tei", model="BAAI/bge-base-zh-v1.5", kind="embedding") as server:
        model = evalkit.load_model(
            "bge-base-zh-v1.5", backend="tei", server={"url": server.url, "batch_size": 16}, cache_dir=folder / "cache"
        )
        result = evalkit.evaluate(model, task)
        assert result.config["backend"]["url"] == server.url
        assert result.backend["outputs"] == "vectors"
        assert evalkit.evaluate(model, task).timing.items_from_store == result.usage.items > 0
    with pytest.raises(EvalkitError, match=r"backend\.url says nothing to backend=torch, which has nothing to set"):
        evalkit.load_model("bge-base-zh-v1.5", backend="torch", server={"url": "http://127.0.0.1"})
    with pytest.raises(EvalkitError, match=r"backend\.urls says nothing to backend=tei, which reads"):
        evalkit.load_model("bge-base-zh-v1.5", backend="tei", server={"urls": "http://127.0.0.1"})


def test_the_server_changes_its_model_on_the_way(folder: Path) -> None:
    model = {"url": "", "retries": 0, "concurrency": 1, "batch_size": 4}
    with fake("vllm") as server:
        server.mishaps = [says(200, {"data": [{"index": n, "embedding": [1.0, 2.0]} for n in range(4)]})]
        served = evalkit.load_model("bge-base-zh-v1.5", backend="vllm", server={**model, "url": server.url})
        with pytest.raises(
            EvalkitError, match="has 8 numbers, those before it have 2: has the server changed its model"
        ):
            evalkit.evaluate(served, evalkit.load_task("demo-zh", limit=6), cache="off")


def test_lists_name_them() -> None:
    done = run_here("list", "backends")
    for name in ANSWERS:
        (row,) = [line for line in done.stdout.splitlines() if line.startswith(f"{name} ")]
        assert "the server's" in row
    assert "tei" in run_here("list", "models").stdout


def test_the_same_name_at_another_address_is_another_model(folder: Path) -> None:
    """Nothing that one server answered is taken for the other's."""
    with fake("vllm") as one, fake("vllm") as other:
        for server in (one, other):
            assert run_here(*RERANKER, "backend=vllm", f"backend.url={server.url}", "cache_dir=cache").code == 0
        assert len(one.posts) == len(other.posts) > 0
        assert run_here(*RERANKER, "backend=vllm", f"backend.url={other.url}", "cache_dir=cache").code == 0
        assert len(one.posts) == len(other.posts)  # and its own are found again


def test_a_model_that_is_named_after_its_server_is_an_experiment_elsewhere(folder: Path) -> None:
    with fake("openai") as server:
        model = ("task=demo-zh", "model=text-embedding-3-small", "backend=openai", "limit=3")
        done = run_here(*model, f"backend.url={server.url}")
        assert done.code == 0, done.stderr
    (path,) = result_files(folder)
    assert path.parent.parent.name == "experiments"
    assert "url-http-127" in path.parent.name


def test_checkpoints_of_one_folder_name_are_told_apart(folder: Path, tiny_reranker: Path) -> None:
    local = ("task=demo-zh", "limit=3", "model=local-cross-encoder", "backend=vllm", "backend.served_model=mine")
    with fake("vllm") as server:
        for number, place in enumerate(("first", "second")):
            checkpoint = Path(shutil.copytree(tiny_reranker, folder / place / "final"))
            edit_weights(checkpoint, lambda tensors, n=number: {name: t + n for name, t in tensors.items()})
            asked = len(server.posts)
            done = run_here(*local, f"model.path={checkpoint}", f"backend.url={server.url}", "cache_dir=cache")
            assert done.code == 0, done.stderr
            assert len(server.posts) > asked
        assert len({path.parent for path in result_files(folder)}) == 2
        done = run_here(*local, "model.path=nowhere", f"backend.url={server.url}")
        assert (done.code, done.stderr.splitlines()[-1]) == (2, "evalkit: model.path=nowhere: there is no such folder")
