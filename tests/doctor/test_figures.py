"""The figures that checks rest on, against counting, enumeration and scikit-learn."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from made_tasks import make_task
from sklearn.metrics import average_precision_score

from evalkit.doctor.cost import full_cost, item_lengths
from evalkit.doctor.figures import average_precisions, chance_at_random, random_precisions, spread, tie_facts
from evalkit.records import Run, Usage

TASK = make_task(
    (["a"], [("x", 1), ("y", 0), ("z", 0), ("w", 1)]),
    (["b"], [("x", 0), ("y", 1), ("v", 0)]),
)
GAINS = ([1, 0, 0, 1], [0, 1, 0])


def all_means() -> np.ndarray:
    """MAP of every order of the two lists."""
    per_query = [
        [average_precision_score(gains, order) for order in permutations(range(len(gains)))] for gains in GAINS
    ]
    return np.add.outer(*map(np.array, per_query)).ravel() / 2


def test_random_order_against_all_orders() -> None:
    assert random_precisions(TASK).mean() == pytest.approx(all_means().mean())
    for reached in np.unique(all_means().round(9)):
        exact = np.mean(all_means() >= reached - 1e-9)
        assert chance_at_random(TASK, float(reached)) == pytest.approx(exact, abs=0.05)


def test_average_precision_without_ties() -> None:
    scores = np.array([0.1, 0.5, 0.3, 0.4, 0.2, 0.9, 0.3])
    expected = [average_precision_score(GAINS[0], scores[:4]), average_precision_score(GAINS[1], scores[4:])]
    assert average_precisions(TASK, scores).tolist() == pytest.approx(expected)


def test_spread_is_within_queries() -> None:
    scores = np.array([1.0, 3.0, 1.0, 3.0, 100.0, 100.0, 100.0])
    assert spread(TASK, scores) == pytest.approx(np.sqrt(4 / 7))


def test_ties() -> None:
    scores = np.array([1.0, 1.0, 0.5, 0.2, 0.0, 0.0, 0.7])
    facts = tie_facts(TASK, scores)
    assert (facts.tied, facts.at_ends) == (pytest.approx(4 / 7), pytest.approx(4 / 7))
    orders = [np.array([1.0, 1.0 + a, 0.5, 0.2, 0.0, 0.0 + b, 0.7]) for a in (-0.1, 0.1) for b in (-0.1, 0.1)]
    means = [average_precisions(TASK, order).mean() for order in orders]
    assert (facts.map_low, facts.map_high) == (pytest.approx(min(means)), pytest.approx(max(means)))
    middle = tie_facts(TASK, np.array([1.0, 0.5, 0.5, 0.2, 0.0, 0.1, 0.7]))
    assert (middle.tied, middle.at_ends) == (pytest.approx(2 / 7), 0)


def test_work_of_the_whole_task() -> None:
    """Pairs for a cross-encoder, texts for an embedder, each once."""
    task = make_task((["aa"], [("xxx", 1), ("yyyy", 0), ("xxx", 0)]), (["b"], [("xxx", 1), ("z", 0)]))
    assert sorted(item_lengths(task, pairs=True)) == [2, 4, 5, 6]
    assert sorted(item_lengths(task, pairs=False)) == [1, 1, 2, 3, 4]


@pytest.mark.parametrize(("truncated", "seconds"), [(None, 100.0), (False, 100.0), (True, 19.0)])
def test_time_of_the_whole_task(truncated: bool | None, seconds: float) -> None:
    """Ten pairs of ten characters took ten seconds; of the whole task's 19, nine are ten times as long."""
    sample = make_task(*(([str(n)], [("x" * 9, 1)]) for n in range(10)))
    long = [([chr(97 + n)], [("y" * 99, 1)]) for n in range(9)]
    whole = make_task(*(([str(n)], [("x" * 9, 1)]) for n in range(10)), *long)
    tokens = None if truncated is None else np.full(10, 10, np.int32)
    cut = None if truncated is None else np.array([truncated] * 5 + [False] * 5)
    run = Run(np.zeros(10), Usage(10.0, 10), tokens, cut)
    cost = full_cost(whole, sample, run, 1.0, pairs=True)
    assert cost.task_seconds == pytest.approx(seconds)
    assert cost.memory_bytes is None or cost.memory_bytes > 10_000_000
