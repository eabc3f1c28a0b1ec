"""An order that is surely worse than a random one is said to be, beside the figure; no other order is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from made_tasks import make_task

import evalkit
from evalkit.evaluation.evaluate import _worse_than_chance
from evalkit.metrics import lists_of_task, score_lists
from evalkit.metrics.measures import all_measures, find_measure
from evalkit.metrics.query_scores import values_by_chance
from evalkit.records import Task

Pairs = Sequence[tuple[str, str]]


def made(queries: int, relevant: int = 3, candidates: int = 20) -> Task:
    return make_task(
        *(
            ([f"query {number}"], [(f"{number} doc {row}", int(row < relevant)) for row in range(candidates)])
            for number in range(queries)
        )
    )


def right(pairs: Pairs) -> list[float]:
    """A model that is often right."""
    places = [int(document.rsplit(" ", 1)[1]) for _, document in pairs]
    return [
        float(place < 3) + np.sin(7.1 * sum(map(ord, document)))
        for place, (_, document) in zip(places, pairs, strict=True)
    ]


def said(score: Callable[[Pairs], list[float]], task: Task, **options: Any) -> list[str]:
    result = evalkit.evaluate(evalkit.wrap(score, kind="cross-encoder"), task, **options)
    return [text for _, text in result.remarks if "worse than chance" in text]


@pytest.mark.parametrize("protocol", ["cmteb-v1", "mteb-v2"])
def test_negated_scores_are_told(protocol: str) -> None:
    task = made(40)
    (text,) = said(lambda pairs: [-one for one in right(pairs)], task, protocol=protocol)
    assert text.startswith(find_measure("map" if protocol == "cmteb-v1" else "map_at_1000").title)
    assert "random orders of the candidates have" in text
    assert "scores may be negated" in text
    assert not said(right, task, protocol=protocol)


def test_few_queries_tell_nothing() -> None:
    assert not said(lambda pairs: [-one for one in right(pairs)], made(19))


def test_a_baseline_that_is_meant_to_be_bad_is_not_told_of() -> None:
    assert not evalkit.evaluate("reversed", made(40)).remarks


def test_random_orders_and_the_demo_are_not_told_of() -> None:
    tasks = [made(200, relevant, candidates) for relevant, candidates in ((1, 2), (3, 20), (9, 10))]
    found = 0
    for task in [*tasks, evalkit.load_task("demo-zh")]:
        for seed in range(50):
            scores = np.random.default_rng(seed).random(task.statistics.pairs, np.float32)
            lists = lists_of_task(task, scores)
            found += len(_worse_than_chance(lists, score_lists(lists, all_measures([])), "map", seed))
    assert found <= 1


@pytest.mark.parametrize("name", ["map", "map_at_1000", "ndcg_at_10", "mrr_at_10"])
def test_chance_is_the_mean_of_random_orders(name: str) -> None:
    task = make_task(*(([f"q{n}"], [(f"{n} {row}", int(row <= n)) for row in range(4 + 3 * n)]) for n in range(4)))
    measure = find_measure(name)
    drawn = [
        score_lists(lists_of_task(task, chance.random(task.statistics.pairs, np.float32)), [measure]).values[name]
        for chance in map(np.random.default_rng, range(1000))
    ]
    expected = values_by_chance(lists_of_task(task, np.arange(task.statistics.pairs, dtype=np.float32)), measure)
    np.testing.assert_allclose(np.mean(drawn, axis=0), expected, atol=0.04)
