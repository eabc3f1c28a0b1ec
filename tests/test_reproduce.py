"""`experiment=reproduce-model-card`, with a stand-in for the weights that no test can have."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from command import Outcome, files_below, run_here, run_program
from task_files import write_jsonl
from tasks.hub_server import FakeHub, Repository

from evalkit.models.settings import read_model
from evalkit.tasks.settings import read_settings

EXPERIMENT = "experiment=reproduce-model-card"
QUICK = ("task=demo-zh2en", "limit=2", "backend=torch", "device=cpu")
TASKS = ("T2Reranking", "MMarcoReranking", "CMedQAv1", "CMedQAv2")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["reproduce-model-card", "reproduce-model-card-6"])
def test_what_it_pins(name: str) -> None:
    done = run_here(f"experiment={name}", "--cfg", "job", "--resolve", "device=cpu")
    assert done.code == 0, done.stderr
    config = yaml.safe_load(done.stdout)
    tasks = config["task"]["suite"]
    assert set(TASKS) <= set(tasks)
    assert len(tasks) == (6 if name.endswith("-6") else 4)
    assert (config["task"]["source"], config["protocol"]["name"], config["reproduce"]) == ("cmteb", "cmteb-v1", True)
    model = config["model"]
    assert (model["hub_id"], model["truncation"], model["max_length"]) == (
        "BAAI/bge-reranker-base",
        "longest_first",
        512,
    )
    assert config["dtype"] == "fp32"


def test_precision_follows_the_device() -> None:
    """fp16 on CUDA alone; what is asked for on the command line counts."""
    for asked, dtype in (("device=cuda", "fp16"), ("device=cpu", "fp32"), ("dtype=bf16", "bf16")):
        done = run_here(EXPERIMENT, "--cfg", "job", "--resolve", asked)
        if asked == "device=cuda" and not torch.cuda.is_available():
            assert done.code == 2
            assert "device=cuda is not there" in done.stderr
            assert "Traceback" not in done.stderr
        else:
            assert yaml.safe_load(done.stdout)["dtype"] == dtype


def test_other_runs_reproduce_nothing() -> None:
    done = run_here("model=bm25", "task=demo-zh2en", "limit=2")
    assert done.code == 0
    assert "published and reproduced" not in done.stdout
    config = yaml.safe_load(run_here("--cfg", "job").stdout)
    assert (config["reproduce"], config["dtype"]) == (False, "fp32")


def test_a_stand_in_for_the_weights(tiny_reranker: Path, here: Path) -> None:
    """It misses the golden scores, which a folder may: the run goes on, and matches nothing."""
    done = run_here(EXPERIMENT, *QUICK, f"model.path={tiny_reranker}")
    assert done.code == 0, done.stderr
    assert "golden scores" in done.stderr
    assert "verdict: 0 match, 0 mismatch, 2 not comparable" in done.stdout
    assert "not comparable (limit=2)" in done.stdout
    (path,) = here.rglob("EvalkitDemoZh2En.json")
    own = json.loads(path.read_text(encoding="utf-8"))["evalkit"]
    assert own["config"]["dtype"] == "fp32"
    (golden,) = own["provenance"]["golden_scores"]
    assert (golden["matches"], golden["dtype"], golden["tolerance"]) == (False, "fp32", 1e-3)
    assert golden["expected"][2] == 6.1821117401


def test_bf16_is_checked_in_both(tiny_reranker: Path, here: Path) -> None:
    done = run_here(EXPERIMENT, *QUICK, f"model.path={tiny_reranker}", "dtype=bf16")
    assert done.code == 0, done.stderr
    assert "bf16 against fp32" in done.stdout
    (path,) = here.rglob("EvalkitDemoZh2En.json")
    assert "dtype-bf16" in str(path)
    checks = json.loads(path.read_text(encoding="utf-8"))["evalkit"]["provenance"]["golden_scores"]
    assert [check["dtype"] for check in checks] == ["fp32", "bf16"]


def test_another_model_has_no_golden_scores(tiny_reranker: Path) -> None:
    done = run_here(EXPERIMENT, *QUICK, "model=local-cross-encoder", f"model.path={tiny_reranker}")
    assert done.code == 0, done.stderr
    assert "golden scores" not in done.stderr
    assert "local/tiny-reranker: published and reproduced" in done.stdout


def cached_model(home: Path, folder: Path) -> None:
    """The folder where the Hub cache would have the card's model."""
    own = read_model("bge-reranker-base")
    place = home / "hub" / f"models--{str(own.hub_id).replace('/', '--')}"
    shutil.copytree(folder, place / "snapshots" / str(own.revision))
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(str(own.revision))


def test_weights_from_the_hub_that_are_others_stop_the_run(tiny_reranker: Path, here: Path) -> None:
    cached_model(here / "home", tiny_reranker)
    done = run_program(here, EXPERIMENT, *QUICK, "offline=true", HF_HOME=str(here / "home"))
    assert done.code == 1, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("evalkit: bge-reranker-base misses its golden scores, so nothing was run: ")
    assert " for -8.1544" in last
    assert "Look first at model.revision" in last
    assert not [name for name in files_below(here) if name.endswith("EvalkitDemoZh2En.json")]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    """The four tasks at their pinned revisions, a few rows each."""
    rows = [
        {"query": f"问题{number}", "positive": [f"答案{number}"], "negative": [f"不对{number}", "苹果是水果"]}
        for number in range(3)
    ]
    repositories = {}
    for name in TASKS:
        settings = read_settings(name)
        assert settings.cmteb
        folder = write_jsonl(tmp_path / name / f"{settings.split}.jsonl", rows).parent
        repositories[settings.cmteb.repo] = Repository(folder, str(settings.cmteb.revision))
    with FakeHub(repositories) as server:
        yield server


def reproduce(hub: FakeHub, here: Path, *arguments: str) -> Outcome:
    environment: dict[str, Any] = {
        "HF_HOME": str(here / "home"),
        "HF_ENDPOINT": hub.url,
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    kept = {name for name in os.environ if name.startswith(("HF_", "HUGGING"))} - set(environment)
    assert not kept, kept
    return run_program(here, EXPERIMENT, "backend=torch", "device=cpu", *arguments, **environment)


def test_the_whole_table_from_the_hub_s_layout(hub: FakeHub, here: Path, tiny_reranker: Path) -> None:
    """Other weights and other data: nothing matches, the run says so and what to look at, and leaves with 1."""
    done = reproduce(hub, here, f"model.path={tiny_reranker}")
    assert done.code == 1, done.stderr
    table = done.stdout[done.stdout.index("published and reproduced") :]
    for name, printed in (("T2Reranking", "67.27728847727172"), ("CMedQAv2", "84.10369934291236")):
        (line,) = [line for line in table.splitlines() if line.startswith(name) and " MAP " in line]
        assert printed in line
        assert line.endswith("not comparable (other weights)")
    assert "verdict: 0 match, 0 mismatch, 8 not comparable" in table
    assert "  1. the weights: local/tiny-reranker at " in table
    assert "  2. the data: T2Reranking has queries 3 instead of 5,908" in table
