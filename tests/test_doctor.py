"""`evalkit doctor` on real weights: each fault by its name and exit code 1; none on the bundled model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from command import Outcome, run_here
from doctor.made_models import informed
from model_folders import Tensors, copied, edit_weights

import evalkit

ENGLISH = "task=demo-zh2en"
FEW = (ENGLISH, "limit=6")
TORCH = ("backend=torch", "device=cpu")
E5 = ("model.query_prompt='query: '", "model.document_prompt='passage: '", "model.pooling=mean")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def verdicts(done: Outcome) -> dict[str, str]:
    """Per check the verdict; of a suite's tasks the worst."""
    found: dict[str, str] = {}
    for line in done.stdout.splitlines():
        if line.startswith("  ") and not line.startswith("   "):
            verdict = line[2:10].strip()
            name = line[10:24].strip()
            found[name] = verdict if found.get(name) != "FAULT" else "FAULT"
    return found


def faults(done: Outcome) -> set[str]:
    named = {name for name, verdict in verdicts(done).items() if verdict == "FAULT"}
    assert done.code == (1 if named else 0), done.stderr
    return named


def line_of(done: Outcome, check: str) -> str:
    return next(line for line in done.stdout.splitlines() if line[10:24].strip() == check)


def test_the_bundled_model_is_sound() -> None:
    done = run_here("doctor", "model=multilingual-e5-small-q4", "task=demo")
    assert faults(done) == set()
    assert done.stdout.count(" on demo-") == 3
    assert done.stdout.splitlines()[-1].startswith("0 faults, ")
    assert "a random order gets" in line_of(done, "signal")
    assert "BM25" in line_of(done, "signal")
    assert "GiB" in line_of(done, "cost")


def test_a_real_embedder_with_its_prompts(e5_small: Path) -> None:
    done = run_here("doctor", *FEW, "model=local-embedder", f"model.path={e5_small}", *E5, *TORCH)
    assert faults(done) == set()
    assert "'query: ' and 'passage: '" in line_of(done, "prompts")


def test_a_real_embedder_without_its_prompts(e5_small: Path) -> None:
    done = run_here("doctor", *FEW, "model=local-embedder", f"model.path={e5_small}", "model.pooling=mean", *TORCH)
    assert faults(done) == {"prompts"}
    assert "query: " in line_of(done, "prompts")


def test_the_recipe_s_prompts_taken_away(e5_small: Path) -> None:
    done = run_here(
        "doctor", *FEW, "model=multilingual-e5-small", f"model.path={e5_small}", "model.query_prompt=''", *TORCH
    )
    assert faults(done) == {"prompts"}
    assert "the recipe of multilingual-e5-small says 'query: '" in line_of(done, "prompts")


@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_an_embedder_as_cross_encoder(backend: str, e5_small: Path) -> None:
    done = run_here("doctor", *FEW, "model=local-cross-encoder", f"model.path={e5_small}", f"backend={backend}")
    assert faults(done) == {"weights"}
    assert "an embedder by its modules.json: it has no scoring head" in line_of(done, "weights")


def test_a_cross_encoder_as_embedder(tiny_reranker: Path) -> None:
    done = run_here("doctor", *FEW, "model=local-embedder", f"model.path={tiny_reranker}", *TORCH)
    assert faults(done) == {"weights"}
    assert "its scoring head would be dropped" in line_of(done, "weights")


def test_a_random_head(tiny_reranker: Path) -> None:
    done = run_here("doctor", *FEW, "model=local-cross-encoder", f"model.path={tiny_reranker}", *TORCH)
    assert "signal" in faults(done)
    assert verdicts(done)["weights"] == "warning"
    assert "all of its biases are exactly zero" in line_of(done, "weights")


def test_max_length_16(e5_small: Path) -> None:
    done = run_here(
        "doctor", *FEW, "model=local-embedder", f"model.path={e5_small}", *E5, "model.max_length=16", *TORCH
    )
    assert "truncation" in faults(done)
    assert "max_length=16: 100 % of the documents are cut" in line_of(done, "truncation")


def test_weights_of_nan(tiny_reranker: Path, tmp_path: Path) -> None:
    def spoil(tensors: Tensors) -> Tensors:
        tensors["roberta.encoder.layer.1.output.dense.weight"][3, 3] = torch.nan
        return tensors

    folder = copied(tiny_reranker, tmp_path)
    edit_weights(folder, spoil)
    done = run_here("doctor", *FEW, "model=local-cross-encoder", f"model.path={folder}", *TORCH)
    assert faults(done) == {"finite"}
    assert "NaN in the weights" in line_of(done, "finite")


def test_a_saturated_sigmoid_made_elsewhere(here: Path) -> None:
    """Scores of another program, put through a sigmoid in fp16."""
    task = evalkit.load_task("demo-zh")
    score = informed(task, strength=8)
    raw, saturated = {}, {}
    for request in task.requests:
        logits = {c.doc_id: 4 * score((request.query.texts[0], c.text)) + 6 for c in request.candidates}
        raw[request.query.query_id] = logits
        saturated[request.query.query_id] = {
            doc_id: float(np.float16(1 / (1 + np.exp(-logit)))) for doc_id, logit in logits.items()
        }
    Path("raw.json").write_text(json.dumps(raw))
    Path("saturated.json").write_text(json.dumps(saturated))
    assert faults(run_here("doctor", "task=demo-zh", "model=run", "model.path=raw.json")) == set()
    done = run_here("doctor", "task=demo-zh", "model=run", "model.path=saturated.json")
    assert "ties" in faults(done)
    assert "saturated, as a sigmoid's in low precision" in line_of(done, "ties")


@pytest.mark.parametrize(
    ("model", "fault"), [("constant", {"spread"}), ("random", {"order", "signal"}), ("oracle", {"ties"})]
)
def test_baselines(model: str, fault: set[str]) -> None:
    assert faults(run_here("doctor", ENGLISH, f"model={model}")) == fault


def test_golden_scores_of_the_card_s_model(tiny_reranker: Path) -> None:
    done = run_here("doctor", *FEW, "model=bge-reranker-base", f"model.path={tiny_reranker}", *TORCH)
    assert "golden scores" in faults(done)
    assert "for 6.1821 (backend torch, fp32; tolerance 0.001)" in line_of(done, "golden scores")


def test_json_for_machines() -> None:
    done = run_here("doctor", "--json", "-m", ENGLISH, "model=constant,bm25")
    reports = json.loads(done.stdout)
    assert [report["model"] for report in reports] == ["constant", "bm25"]
    assert reports[0]["sample"] == {"queries": 16, "pairs": 160}
    spread = next(check for check in reports[0]["checks"] if check["check"] == "spread")
    assert spread["verdict"] == "fault"
    assert set(spread) == {"check", "verdict", "seen", "advice", "why"}
    assert done.code == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("model=nobody",), "there is no model 'nobody'"),
        (("model=local-embedder", "model.path=/nowhere"), "there is no such folder"),
        (("bogus",), "bogus"),
        (("task=local", "task.path=/nowhere"), "/nowhere"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], says: str) -> None:
    done = run_here("doctor", *arguments)
    assert (done.code, done.stdout) == (2, "")
    assert says in done.stderr.splitlines()[-1]


def test_help() -> None:
    done = run_here("doctor", "--help")
    assert (done.code, done.stderr) == (0, "")
    assert "--json" in done.stdout
