"""`doctor` on listwise models: whole lists in the sample, and how much the order in which they are shown moves MAP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from made_tasks import make_task
from scoring.fakes import Lists

import evalkit
from evalkit.doctor.checks import judge_evidence
from evalkit.doctor.examination import MORE_ORDERS, _Examination, examine
from evalkit.doctor.records import Evidence, Opinion
from evalkit.evaluation.evaluate import Model
from evalkit.models.interfaces import RunnableModel, Runtime
from evalkit.models.settings import ModelSettings
from evalkit.records import ModelIdentity

TASK = make_task(
    *(
        ([f"问题{q}"], [(f"{'好' if d % 4 == 0 else '坏'}{q}之{d}", int(d % 4 == 0)) for d in range(24)])
        for q in range(80)
    )
)
Score = Callable[[str, Sequence[str]], list[float]]


def right(query: str, documents: Sequence[str]) -> list[float]:
    return [float("好" in document) + len(document) / 1_000 for document in documents]


def early(query: str, documents: Sequence[str]) -> list[float]:
    """What is shown early gains a lot."""
    return [float("好" in document) * 0.5 - place / len(documents) for place, document in enumerate(documents)]


def listwise(score: Score) -> tuple[Model, Lists]:
    lists = Lists(score)
    runnable = RunnableModel(
        ModelIdentity("made", "local/made", "made", "listwise"), {"name": "torch"}, None, lambda: lists
    )
    settings = ModelSettings(name="made", kind="listwise")
    return Model(settings, "torch", Runtime(), find_object=lambda: runnable), lists


def opinions(model: Model) -> dict[str, Opinion]:
    measured = _Examination(model, TASK, 5.0).measure(0.0)
    evidence = Evidence(model.settings, "fp32", TASK, measured=measured)
    return {check.name: opinion for check, opinion in judge_evidence(evidence)}


def test_a_model_that_heeds_no_order_is_well() -> None:
    model, lists = listwise(right)
    found = opinions(model)
    assert found["orders"].verdict == "ok"
    assert f"in {1 + MORE_ORDERS} shuffled orders of the same lists (standard deviation 0.00)" in found["orders"].seen
    assert found["order"].verdict == "ok"
    assert found["batches"].seen == "the scorer looks at a whole list at once"
    assert found["signal"].verdict == "ok"
    assert {len(documents) for _, documents in lists.calls if len(documents) > 1} == {24}  # never a part of a list


def test_a_model_that_heeds_the_order_is_told_how_much() -> None:
    model, _ = listwise(early)
    measured = _Examination(model, TASK, 5.0).measure(0.0)
    orders = measured.orders
    assert orders is not None
    assert orders.shape[0] == 1 + MORE_ORDERS
    found = opinions(model)
    assert f"standard deviation {100 * orders.mean(axis=1).std(ddof=1):.2f}" in found["orders"].seen
    small = Evidence(model.settings, "fp32", TASK, measured=measured)
    moved = np.ptp(orders.mean(axis=1)) > 0.01
    verdict = {check.name: one for check, one in judge_evidence(small)}["orders"]
    assert verdict.verdict == ("warning" if moved else "ok")
    assert ("model.permutations=K" in verdict.advice) == moved
    assert found["order"].verdict == "ok"  # the file's order has no part in it


def test_other_models_have_no_such_check() -> None:
    names = [check.name for check, _ in judge_evidence(Evidence(ModelSettings(name="x"), "fp32", TASK, unfit="made"))]
    assert "orders" not in names


def test_a_real_network(tiny_lists: Any) -> None:
    task = make_task(*(([f"问题{q}"], [(f"答案{q}之{d}", int(d < 2)) for d in range(6)]) for q in range(8)))
    evidence = examine(evalkit.load_model(str(tiny_lists), backend="torch", threads=1), task, seconds=2.0)
    found = {check.name: opinion for check, opinion in judge_evidence(evidence)}
    assert found["orders"].verdict in ("ok", "warning")
    assert "in 5 shuffled orders" in found["orders"].seen
