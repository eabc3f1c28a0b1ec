"""Samples: random, whole where they can be, and in any case with positives and negatives."""

from __future__ import annotations

import numpy as np
import pytest
from made_tasks import make_task

from evalkit.doctor.sampling import FEWEST_QUERIES, SHORTEST_LIST, draw_sample, shuffled, single_candidates
from evalkit.records import Task


def task_of(queries: int, size: int, positives: int = 1) -> Task:
    return make_task(
        *(([f"q{n}"], [(f"d{n}-{row}", int(row < positives)) for row in range(size)]) for n in range(queries))
    )


def test_all_of_a_small_task() -> None:
    task = task_of(5, 8)
    sample = draw_sample(task, 40, seed=1)
    assert sample.whole
    assert sorted(r.query.query_id for r in sample.task.requests) == [f"q{n}" for n in range(5)]
    assert [r.query.query_id for r in sample.task.requests] != [f"q{n}" for n in range(5)]
    assert sample.task.statistics.pairs == 40


def test_whole_lists_of_queries_from_anywhere() -> None:
    task = task_of(1000, 10)
    samples = [draw_sample(task, 200, seed=seed) for seed in range(30)]
    assert all(sample.whole and len(sample.task.requests) == 20 for sample in samples)
    places = [int(r.query.query_id[1:]) for sample in samples for r in sample.task.requests]
    assert np.mean(places) == pytest.approx(500, abs=60)
    assert samples[3] == draw_sample(task, 200, seed=3)


@pytest.mark.parametrize("pairs", [1, 60, 600])
@pytest.mark.parametrize("positives", [1, 500, 999])
def test_long_lists_are_cut(pairs: int, positives: int) -> None:
    """As MMarco's thousand candidates a query, on a slow machine."""
    sample = draw_sample(task_of(20, 1000, positives), pairs, seed=0)
    assert not sample.whole
    length = max(pairs // FEWEST_QUERIES, SHORTEST_LIST)
    assert {len(request.candidates) for request in sample.task.requests} == {length}
    assert len(sample.task.requests) == max(1, pairs // length)
    for request in sample.task.requests:
        relevant = sum(candidate.gain for candidate in request.candidates)
        assert relevant == min(max(round(length * positives / 1000), 1), length - 1)
        ids = [int(candidate.text.partition("-")[2]) for candidate in request.candidates]
        assert ids == sorted(ids)


def test_only_queries_that_count() -> None:
    task = make_task((["a"], [("x", 1), ("y", 0)]), (["b"], [("x", 0)]), (["c"], [("x", 1)]))
    assert [r.query.texts for r in draw_sample(task, 100, seed=0).task.requests] == [("a",)]


def test_shuffled_back_in_place() -> None:
    task = task_of(7, 9)
    other, numbers = shuffled(task, seed=5)
    texts = [c.text for request in task.requests for c in request.candidates]
    assert [texts[number] for number in numbers] == [c.text for request in other.requests for c in request.candidates]
    assert sorted(numbers) == list(range(63))
    assert [r.query.query_id for r in other.requests] == [f"q{n}" for n in reversed(range(7))]


def test_single_candidates() -> None:
    task = task_of(3, 4)
    texts = [c.text for request in task.requests for c in request.candidates]
    drawn = single_candidates(task, 5, seed=2)
    assert len({number for number, _ in drawn}) == 5
    for number, single in drawn:
        ((candidate,),) = [request.candidates for request in single.requests]
        assert candidate.text == texts[number]
        assert single.statistics.pairs == 1
