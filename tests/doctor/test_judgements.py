"""Checks that small scorers can't bring about: the published figure, prompts that files declare, golden scores, cost."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_models import GivenModel, Pairs, informed

import evalkit
from evalkit.doctor.checks import judge_evidence, judge_published, judge_signal
from evalkit.doctor.cost import judge_cost
from evalkit.doctor.examination import examine
from evalkit.doctor.figures import average_precisions
from evalkit.doctor.prompts import wanted_prompts
from evalkit.doctor.records import Evidence
from evalkit.doctor.weights import judge_weights
from evalkit.models.interfaces import Runtime
from evalkit.models.settings import model_settings, read_model
from evalkit.output.numbers import duration
from evalkit.results.published import PublishedFigure


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    """Of a good model on the Chinese demo."""
    task = evalkit.load_task("demo-zh")
    model = GivenModel(model_settings({"name": "made"}), "made", Runtime(), scorer=Pairs(informed(task)))
    return examine(model, task, seconds=900)


def with_figure(evidence: Evidence, value: float, **task: Any) -> Evidence:
    figure = PublishedFigure("m", "", "t", "map", value, str(value), "fraction", 4, "cmteb-v1", "table", "a table", "")
    measured = replace(evidence.found, published=figure)
    return replace(evidence, measured=measured, task=replace(evidence.task, **task))


@pytest.mark.parametrize(("moved", "verdict"), [(0.0, "ok"), (0.08, "warning"), (-0.3, "fault"), (0.18, "fault")])
def test_published_figure_and_the_sample_s_interval(moved: float, verdict: str, evidence: Evidence) -> None:
    own = float(average_precisions(evidence.found.sample.task, evidence.found.scores).mean())
    opinion = judge_published(with_figure(evidence, own + moved))
    assert opinion.verdict == verdict, opinion.seen
    assert f"published: {100 * (own + moved):.2f} (table, a table)" in opinion.seen


@pytest.mark.parametrize(
    ("task", "why"),
    [({"limit": 5}, "cut by limit="), ({"differences": ("queries 1 instead of 2",)}, "queries 1 instead")],
)
def test_published_figure_of_other_queries(task: dict[str, Any], why: str, evidence: Evidence) -> None:
    opinion = judge_published(with_figure(evidence, 0.1, **task))
    assert opinion.verdict == "skipped"
    assert why in opinion.seen


def test_published_figure_and_parts_of_lists(evidence: Evidence) -> None:
    shown = with_figure(evidence, 0.1)
    parts = replace(shown.found, sample=replace(shown.found.sample, whole=False))
    assert judge_published(replace(shown, measured=parts)).verdict == "skipped"


def test_worse_than_bm25(evidence: Evidence) -> None:
    """BM25 takes the good model's place; the model gets half of its signal, or hardly any."""
    task = evidence.found.sample.task
    good = evidence.found.scores
    chance = np.random.default_rng(4).normal(size=len(good))
    for weight, verdict, says in ((0.5, "warning", "worse than BM25"), (0.3, "fault", "")):
        measured = replace(evidence.found, scores=weight * good + (1 - weight) * 1.5 * chance, bm25=good)
        opinion = judge_signal(replace(evidence, measured=measured))
        assert opinion.verdict == verdict, (weight, opinion.seen, len(task.requests))
        assert says in opinion.seen


def test_a_new_head_must_show_more(evidence: Evidence) -> None:
    chance = np.random.default_rng(4).normal(size=len(evidence.found.scores))
    weak = replace(evidence, measured=replace(evidence.found, scores=0.4 * evidence.found.scores + chance))
    verdicts = [judge_signal(replace(weak, head_is_new=new)).verdict for new in (None, False, True)]
    assert verdicts[0] == verdicts[1] != "fault"
    assert verdicts[2] == "fault"
    assert judge_weights(replace(weak, head_is_new=True)).verdict == "warning"
    assert judge_signal(replace(evidence, head_is_new=True)).verdict == "ok"


def test_more_memory_than_there_is(evidence: Evidence) -> None:
    cost = replace(evidence.found.cost, memory_bytes=2**34, machine_bytes=2**33, task_seconds=7260.0)
    opinion = judge_cost(replace(evidence, measured=replace(evidence.found, cost=cost)))
    assert opinion.verdict == "warning"
    assert "about 2.0 h of scoring" in opinion.seen
    assert "memory: 16.0 GiB" in opinion.seen
    assert opinion.advice == "this machine has 8.0 GiB"


@pytest.mark.parametrize(("seconds", "words"), [(0.0, "0.1 s"), (59.0, "59.0 s"), (90.0, "1.5 min"), (5400.0, "1.5 h")])
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_every_check_has_an_opinion_and_a_reason(evidence: Evidence) -> None:
    for broken in (
        evidence,
        replace(evidence, measured=None, broken="no head"),
        replace(evidence, measured=None, not_finite="x"),
    ):
        opinions = judge_evidence(broken)
        assert [check.name for check, _ in opinions] == [
            "golden scores", "certificate", "weights", "finite", "spread", "ties", "order", "batches", "truncation", "prompts",
            "signal",
            "published", "cost",
        ]  # fmt: skip
        assert all(check.why and opinion.seen for check, opinion in opinions)


def sources(folder: Path | None = None, **fields: Any) -> list[tuple[str, bool]]:
    settings = model_settings(
        {"kind": "embedder", "path": None if folder is None else str(folder), "name": "local-embedder", **fields}
    )
    return [(prompts.source, prompts.declared) for prompts in wanted_prompts(settings)]


def test_who_says_which_prompts(tmp_path: Path) -> None:
    names = ("model", "my-e5-v2", "my-e5-instruct", "multilingual-e5-large-instruct", "bge-mini-zh")
    plain, e5, instruct, known, bge = (tmp_path / name for name in names)
    for folder in (plain, e5, instruct, known, bge):
        folder.mkdir()
    unknown = [("the e5 family", False), ("the bge-*-zh family", False)]
    assert sources(plain) == sources(instruct) == unknown
    assert sources(known) == [("the recipe of multilingual-e5-large-instruct", True)]
    assert sources(e5) == [("its name is of the e5 family, which", True)]
    assert sources(bge) == [("its name is of the bge-*-zh family, which", False)]
    (plain / "config.json").write_text('{"_name_or_path": "intfloat/multilingual-e5-small"}')
    assert [declared for _, declared in sources(plain)] == [True]  # by the very name of a model here
    (plain / "config.json").write_text("[]")
    (plain / "config_sentence_transformers.json").write_text(
        json.dumps({"prompts": {"query": "Q: ", "passage": "P: "}})
    )
    assert sources(plain) == [("config_sentence_transformers.json", True)]
    (plain / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {"query": "", "document": ""}}))
    assert sources(plain) == unknown


def test_models_with_a_recipe_of_their_own() -> None:
    def names(name: str, **changes: Any) -> list[str]:
        return [prompts.source for prompts in wanted_prompts(read_model(name).model_copy(update=changes))]

    assert (
        names("multilingual-e5-small")
        == names("multilingual-e5-small", query_prompt="")
        == ["the recipe of multilingual-e5-small"]
    )
    assert names("multilingual-e5-small", recipe="no-prompts") == []
    assert names("m3e-base") == names("bge-reranker-base") == names("multilingual-e5-small-q4") == []
