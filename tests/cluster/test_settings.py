"""What runner=ray is told, and what it refuses before anything starts."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import patch

import pytest
from command import run_here

from evalkit.cluster import settings as module
from evalkit.cluster.settings import ray_settings
from evalkit.errors import EvalkitError
from evalkit.evaluation.evaluate import load_model

BERT = ("model=local-cross-encoder", "model.path=/nowhere", "runner=ray")


def test_addresses() -> None:
    for address in ("local", "auto", "ray://10.0.0.1:10001", "head.example:6379", "[::1]:6379"):
        assert ray_settings({"address": address}).address == address
    for address in ("", "ray", "ray://head", "http://head", ":6379", "head:port"):
        with pytest.raises(EvalkitError, match="auto, local, HOST:PORT or ray://HOST:PORT"):
            ray_settings({"address": address})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("ray.actors=0",), "ray.actors=0: Input should be greater than 0"),
        (("ray.cpus_per_actor=0.5",), "ray.cpus_per_actor=0.5"),
        (("ray.gpus_per_actor=-1",), "ray.gpus_per_actor=-1"),
        (("ray.addres=auto",), "did you mean ray.address"),
        (("ray.address=nowhere",), "an address is auto, local, HOST:PORT or ray://HOST:PORT"),
        (
            ("model=multilingual-e5-small", "backend=tei", "backend.url=http://127.0.0.1:1"),
            "runner=ray says nothing to backend=tei",
        ),
        (("model=text-embedding-3-small", "model.path=null"), "runner=ray says nothing to backend=openai"),
    ],
)
def test_wrong_settings_are_one_line(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = run_here(*BERT, *words, f"results_dir={tmp_path}")
    assert done.code == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_ray_settings_need_runner_ray(tmp_path: Path) -> None:
    done = run_here("ray.address=auto", f"results_dir={tmp_path}")
    assert done.code == 2
    assert done.stderr == "evalkit: ray.address says nothing without runner=ray\n"


@pytest.mark.parametrize("command", ["doctor", "parity"])
def test_commands_that_measure_here(command: str) -> None:
    choice = ["backends=torch,openvino"] * (command == "parity")
    done = run_here(command, "task=demo-zh2en", *BERT, *choice)
    assert done.code == 2
    assert "runner=ray is for evalkit run" in done.stderr


def test_without_ray(tmp_path: Path) -> None:
    with patch.object(module, "find_spec", lambda name: None):
        done = run_here(*BERT, f"results_dir={tmp_path}")
    assert done.code == 2
    assert done.stderr == 'evalkit: runner=ray is not installed: pip install ".[ray]" in a clone of evalkit\n'


def test_no_cluster_here(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    words = (f"model.path={tiny_bert_reranker}", "ray.address=127.0.0.1:1", f"results_dir={tmp_path}")
    done = run_here("model=local-cross-encoder", "runner=ray", *words)
    assert done.code == 2
    assert done.stderr.splitlines()[-1].startswith("evalkit: ray.address=127.0.0.1:1: nothing answers there")


@pytest.mark.parametrize("model", ["bm25", "oracle"])
def test_what_needs_the_whole_task_runs_here(model: str, tmp_path: Path) -> None:
    """No actor scores it, and Ray is not even started."""
    done = run_here("task=demo-zh2en", f"model={model}", "runner=ray", f"results_dir={tmp_path}", "limit=3")
    assert done.code == 0, done.stderr
    (path,) = tmp_path.rglob("EvalkitDemoZh2En.json")
    assert json.loads(path.read_text("utf-8"))["evalkit"]["config"]["ray"]["address"] == "local"


def test_settings_are_a_mapping() -> None:
    with pytest.raises(EvalkitError, match="ray='auto': give its settings, such as"):
        load_model("multilingual-e5-small-q4", ray="auto")
    with pytest.raises(EvalkitError, match="server='http://h': give its settings"):
        load_model("bge-reranker-base", backend="tei", server="http://h")
