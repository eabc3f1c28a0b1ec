"""Each fault is named by its check, and a sound model has none: small scorers behind the public interfaces."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from made_models import Centred, FirstOfQuery, GivenModel, LessAndLess, Pairs, PromptedEmbedder, informed, noise
from scoring.fakes import Network, overlap

import evalkit
from evalkit.doctor.checks import judge_evidence
from evalkit.doctor.examination import examine
from evalkit.doctor.records import Opinion
from evalkit.models.interfaces import Runtime, Scorer
from evalkit.models.settings import model_settings
from evalkit.records import Task


@pytest.fixture(scope="module")
def task() -> Task:
    return evalkit.load_task("demo-zh")


def opinions(scorer: Scorer, task: Task, *, dtype: str = "fp32", **fields: Any) -> dict[str, Opinion]:
    settings = model_settings({"name": "made", **fields})
    model = GivenModel(settings, "made", Runtime(dtype=dtype), scorer=scorer)
    return {check.name: opinion for check, opinion in judge_evidence(examine(model, task, seconds=900))}


def faults(found: dict[str, Opinion]) -> set[str]:
    return {name for name, opinion in found.items() if opinion.verdict == "fault"}


def test_a_sound_model_has_no_fault(task: Task) -> None:
    found = opinions(Pairs(informed(task)), task)
    assert {opinion.verdict for opinion in found.values()} <= {"ok", "skipped"}
    assert {name for name, opinion in found.items() if opinion.verdict == "skipped"} == {
        "golden scores", "certificate", "truncation", "prompts", "published"
    }  # fmt: skip


def test_constant(task: Task) -> None:
    found = opinions(Pairs(lambda pair: 7.0), task)
    assert faults(found) == {"spread"}
    assert "constant: from 7 to 7" in found["spread"].seen
    assert found["signal"] == Opinion("skipped", "the scores are constant")


def test_scores_constant_but_for_rounding(task: Task) -> None:
    assert faults(opinions(Pairs(lambda pair: 0.2 + 1e-8 * noise(pair)), task)) == {"spread"}


@pytest.mark.parametrize("seed", range(5))
def test_random(seed: int, task: Task) -> None:
    found = opinions(Pairs(lambda pair: noise((pair[0], f"{seed}{pair[1]}"))), task)
    assert faults(found) == {"signal"}
    assert "carry no signal" in found["signal"].seen
    assert "a random scoring head" in found["signal"].advice


def saturated(score: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.float16(1 / (1 + np.exp(-np.float64(score)))))


def test_saturated_sigmoid_in_fp16(task: Task) -> None:
    score = informed(task, strength=8)
    found = opinions(Pairs(lambda pair: saturated(4 * score(pair) + 6)), task)
    assert "ties" in faults(found)
    assert "saturated, as a sigmoid's in low precision" in found["ties"].seen
    # in float32 the very same scores are told apart
    assert not faults(opinions(Pairs(lambda pair: 4 * score(pair) + 6), task))


def test_repeated_texts_explain_their_ties(task: Task) -> None:
    from dataclasses import replace

    from evalkit.doctor.sampling import with_requests

    doubled = with_requests(task, [replace(request, candidates=request.candidates * 2) for request in task.requests])
    found = opinions(Pairs(informed(task)), doubled)
    assert found["ties"].seen.startswith("0 % of the texts share")


def test_rounded_scores(task: Task) -> None:
    found = opinions(Pairs(lambda pair: round(informed(task)(pair))), task)
    assert faults(found) == {"ties"}


@pytest.mark.parametrize("kind", [FirstOfQuery, LessAndLess])
def test_positives_first(kind: type[Pairs], task: Task) -> None:
    found = opinions(kind(informed(task)), task)
    assert "order" in faults(found)
    assert "positives gain from standing first" in found["order"].seen


def test_neighbours(task: Task) -> None:
    found = opinions(Centred(informed(task)), task)
    assert "batches" in faults(found)
    assert "order" not in faults(opinions(Pairs(informed(task)), task))


@pytest.mark.parametrize(("dtype", "size", "fault"), [("fp32", 1e-4, False), ("fp32", 0.1, True), ("bf16", 0.1, False)])
def test_noise_depends_on_the_precision(dtype: str, size: float, fault: bool, task: Task) -> None:
    generator = np.random.default_rng(0)
    score = informed(task)
    found = opinions(Pairs(lambda pair: score(pair) + size * generator.uniform(-1, 1)), task, dtype=dtype)
    assert ({"order", "batches"} <= faults(found)) == fault
    assert bool(faults(found)) == fault


def test_one_score_is_no_number(task: Task) -> None:
    score = informed(task)
    wrong = task.requests[3].candidates[1].text
    found = opinions(Pairs(lambda pair: np.nan if pair[1] == wrong else score(pair)), task)
    assert faults(found) == {"finite"}
    assert wrong[:20] in found["finite"].seen
    assert found["signal"] == Opinion("skipped", "the scores are not finite")


@pytest.mark.parametrize(("max_length", "verdict"), [(16, "fault"), (None, "ok")])
def test_truncation(max_length: int | None, verdict: str, task: Task) -> None:
    """The network's tokens are characters: of 16 a pair's query takes most."""
    network = Network(max_length=max_length or 10_000, score_pair=lambda query, document="": overlap(query, document))
    found = opinions(network, task, max_length=max_length)
    assert found["truncation"].verdict == verdict
    if max_length:
        assert found["truncation"].seen.startswith("max_length=16: 100 % of the pairs are cut, 100 % of the relevant")


def test_missing_prompt_is_found_by_trying(task: Task) -> None:
    embedder = PromptedEmbedder(task)
    found = opinions(embedder, task, kind="embedder")
    assert faults(found) == {"prompts"}
    assert "'query: ' before queries and 'passage: ' before documents" in found["prompts"].seen
    settings = "model.query_prompt='query: ' model.document_prompt='passage: '"
    said = "the prompts are in English, as the model had them in training, the queries are in Chinese"
    assert found["prompts"].advice in (f"{settings} ({said})", f"{settings} ({said.partition(', the q')[0]})")
    prompted = opinions(
        PromptedEmbedder(task, query="", document=""), task, kind="embedder", query_prompt="a: ", document_prompt="b: "
    )
    assert not faults(prompted)


def test_a_model_that_wants_no_prompt(task: Task) -> None:
    found = opinions(PromptedEmbedder(task, query="", document=""), task, kind="embedder")
    assert found["prompts"].verdict == "ok"
    assert found["prompts"].seen.startswith("the run has none; tried: ")
    assert "the e5 family (-" in found["prompts"].seen
