"""The scorers without a model."""

from __future__ import annotations

import numpy as np
import pytest
from made_tasks import make_task, scored

from evalkit.backends.baseline import Constant, Random, prepare
from evalkit.errors import EvalkitError
from evalkit.models.interfaces import Runtime, TaskScorer
from evalkit.models.settings import read_model

TASK = make_task((["a"], [("x", 2), ("y", 0)]), (["b"], [("x", 0), ("z", 1), ("y", 0)]))


def scorer(name: str, seed: int = 42) -> TaskScorer:
    found = prepare(read_model(name), Runtime(seed=seed)).scorer
    assert isinstance(found, TaskScorer)
    return found


@pytest.mark.parametrize(
    ("name", "expected"),
    [("constant", [0, 0, 0, 0, 0]), ("oracle", [2, 0, 0, 1, 0]), ("reversed", [-2, 0, 0, -1, 0])],
)
def test_scores(name: str, expected: list[float]) -> None:
    run = scored(scorer(name), TASK, kind="baseline")
    assert run.scores.dtype == np.float32
    assert run.scores.tolist() == expected
    assert (run.usage.items, run.tokens, run.truncated) == (5, None, None)


def test_random_scores_follow_the_seed() -> None:
    first, again, other = (scorer("random", seed).score_task(TASK) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert len(np.unique(first)) == 5
    many = Random(0).score_task(make_task((["q"], [(str(number), 0) for number in range(2_000)])))
    assert 0 <= many.min() < 0.01 < 0.99 < many.max() < 1
    assert abs(many.mean() - 0.5) < 0.03


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(EvalkitError, match="candidate 1 is not finite"):
        scored(Constant(float("nan")), TASK, kind="baseline")
