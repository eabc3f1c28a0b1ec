"""What a function captured is part of what its scores are stored under; what can't be read is stored under nothing."""

from __future__ import annotations

import functools
import itertools
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_tasks import make_task

import evalkit
from evalkit.backends.object_content import UnreadableError, content_hash
from evalkit.errors import EvalkitError

TASK = make_task((["a b"], [("a b c", 1), ("a", 0), ("d", 0)]), (["d"], [("d", 1), ("e", 0)]))
Pairs = Sequence[tuple[str, str]]
WEIGHT = 1.0
EXP = np.exp


def scores(pairs: Pairs, weight: float) -> list[float]:
    return [weight * len(set(query.split()) & set(document.split())) for query, document in pairs]


def with_closure(weight: float) -> Callable[[Pairs], list[float]]:
    return lambda pairs: scores(pairs, weight)


def with_default(weight: float) -> Callable[[Pairs], list[float]]:
    return lambda pairs, by=weight: scores(pairs, by)


def with_keyword_default(weight: float) -> Callable[[Pairs], list[float]]:
    def call(pairs: Pairs, *, by: float = weight) -> list[float]:
        return scores(pairs, by)

    return call


def with_partial(weight: float) -> Callable[[Pairs], list[float]]:
    return functools.partial(scores, weight=weight)


class Scorer:
    def __init__(self, weight: float) -> None:
        self.weight = weight

    def __call__(self, pairs: Pairs) -> list[float]:
        return scores(pairs, self.weight)

    def score(self, pairs: Pairs) -> list[float]:
        return scores(pairs, self.weight)


def with_bound_object(weight: float) -> Callable[[Pairs], list[float]]:
    return Scorer(weight).score


@dataclass(frozen=True)
class Nested:
    weights: dict[str, list[float]]

    def __call__(self, pairs: Pairs) -> list[float]:
        return scores(pairs, self.weights["only"][0])


def with_nested_values(weight: float) -> Callable[[Pairs], list[float]]:
    return Nested({"only": [weight]})


def with_array(weight: float) -> Callable[[Pairs], list[float]]:
    held = np.array([weight])
    return lambda pairs: scores(pairs, float(held[0]))


def with_network(weight: float) -> Callable[[Pairs], list[float]]:
    layer = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(weight)
    return lambda pairs: [float(layer(torch.tensor([one]))) for one in scores(pairs, 1.0)]


def with_function_inside(weight: float) -> Callable[[Pairs], list[float]]:
    inner = with_closure(weight)
    return lambda pairs: inner(pairs)


def with_global(weight: float) -> Callable[[Pairs], list[float]]:
    names: dict[str, Any] = {"scores": scores, "WEIGHT": weight, "__name__": "users"}
    exec("def call(pairs): return scores(pairs, WEIGHT)", names)
    made: Callable[[Pairs], list[float]] = names["call"]
    return made


def with_other_code(weight: float) -> Callable[[Pairs], list[float]]:
    names: dict[str, Any] = {"scores": scores, "__name__": "users"}
    exec(f"def call(pairs): return scores(pairs, {weight})", names)
    made: Callable[[Pairs], list[float]] = names["call"]
    return made


FACTORIES = [
    *(with_closure, with_default, with_keyword_default, with_partial, Scorer, with_bound_object, with_nested_values),
    *(with_array, with_network, with_function_inside, with_global, with_other_code),
]


@pytest.mark.parametrize("factory", FACTORIES)
def test_two_of_one_factory_share_no_scores(factory: Callable[[float], Any], tmp_path: Path) -> None:
    def evaluated(weight: float) -> evalkit.Result:
        model = evalkit.wrap(factory(weight), kind="cross-encoder", name="mine", identity="v1", cache_dir=tmp_path)
        return evalkit.evaluate(model, TASK)

    first, other, again = evaluated(1.0), evaluated(-1.0), evaluated(1.0)
    assert (first.timing.items_from_store, other.timing.items_from_store) == (0, 0)
    assert again.timing.items_from_store == 5  # what is made anew with the same values is the same
    assert other.candidates["score"].tolist() == [-score for score in first.candidates["score"]]
    evalkit.save_result(first, tmp_path / "results")
    with pytest.raises(EvalkitError, match="a result of another object of the name mine"):
        evalkit.save_result(other, tmp_path / "results")


def test_an_object_that_is_changed_is_another(tmp_path: Path) -> None:
    scorer = Scorer(1.0)
    model = evalkit.wrap(scorer, kind="cross-encoder", identity="v1", cache_dir=tmp_path)
    assert evalkit.evaluate(model, TASK).timing.items_from_store == 0
    assert evalkit.evaluate(model, TASK).timing.items_from_store == 5
    scorer.weight = -1.0
    assert evalkit.evaluate(model, TASK).timing.items_from_store == 0


class WithLock(Scorer):
    def __init__(self, weight: float) -> None:
        super().__init__(weight)
        self.lock = threading.Lock()


def with_iterator(weight: float) -> Callable[[Pairs], list[float]]:
    weights = itertools.repeat(weight)
    return lambda pairs: scores(pairs, next(weights))


def with_objects(weight: float) -> Callable[[Pairs], list[float]]:
    held = np.array([weight, "text"], object)
    return lambda pairs: scores(pairs, held[0])


@pytest.mark.parametrize(
    ("factory", "what"),
    [
        (WithLock, "a _thread.lock"),
        (with_iterator, "weights, a itertools.repeat"),
        (with_objects, "held, an array of objects"),
    ],
)
def test_what_can_not_be_read_is_not_stored_and_the_result_says_so(
    factory: Callable[[float], Any], what: str, tmp_path: Path
) -> None:
    def evaluated(weight: float) -> evalkit.Result:
        model = evalkit.wrap(factory(weight), kind="cross-encoder", name="mine", identity="v1", cache_dir=tmp_path)
        return evalkit.evaluate(model, TASK)

    first, again, other = evaluated(1.0), evaluated(1.0), evaluated(-1.0)
    assert [one.timing.items_from_store for one in (first, again, other)] == [0, 0, 0]
    assert not list(tmp_path.rglob("*.sqlite3"))
    for one in (first, again, other):
        (said,) = [text for _, text in one.remarks if "are not stored" in text]
        assert re.search(re.escape(what), said)
    path = evalkit.save_result(first, tmp_path / "results")
    assert evalkit.save_result(again, tmp_path / "results") == path
    with pytest.raises(EvalkitError, match="a result of another object of the name mine"):
        evalkit.save_result(other, tmp_path / "results")


def test_the_hash_is_the_same_in_another_process() -> None:
    """Sets of texts come in another order there; addresses are others."""
    code = (
        "from evalkit.backends.object_content import content_hash\n"
        "import numpy as np\n"
        "def outer(words, weight):\n"
        "    def call(pairs): return [weight * np.exp(len(words & set(d.split()))) for _, d in pairs]\n"
        "    return call\n"
        "print(content_hash(outer({'a', 'b', 'c', 'd'}, 0.5)))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in "123"
    }
    assert len(found) == 1


def test_circles_end() -> None:
    scorer: Any = Scorer(1.0)
    scorer.itself = [scorer]
    assert content_hash(scorer) != content_hash(Scorer(1.0))
    with pytest.raises(UnreadableError):
        content_hash(WithLock(1.0))


def test_functions_of_packages_count_by_name_and_version() -> None:
    assert content_hash(lambda pairs: EXP(len(pairs))) == content_hash(lambda pairs: EXP(len(pairs)))
    assert content_hash(np.exp) != content_hash(np.log)
    assert content_hash(subprocess.run) != content_hash(subprocess.call)
