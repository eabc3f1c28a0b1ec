"""Each query of refined runs beside the whole run in fp32: six tasks, each low precision, a real cross-encoder and embedder."""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from made_tasks import make_task
from numpy.typing import NDArray

import evalkit
from benchmarks import refine, texts
from evalkit.metrics import lists_of_task, score_lists
from evalkit.metrics.measures import all_measures
from evalkit.records import Task

Pairs = list[tuple[str, int]]  # texts with their gains
MEASURES = tuple(one for one in all_measures() if one.metric.name in ("map", "mrr", "ndcg"))
SAME = 1e-9
"""A value is the same within it: sums are taken in one order, so that equal orders give equal values."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A refined run beside the whole run in fp32.

    `own` is how far fp32's own batches move a score. Of the queries, `equal` have fp32's value in every measure; `inside` have
    another in some, that lies within what `own` can do to fp32's; the values of `outside` do not. `low` counts the queries
    which low precision alone gives another value.
    """

    task: str
    dtype: str
    share: float
    own: float
    equal: int
    inside: int
    outside: int
    low: int

    def __str__(self) -> str:
        found = (
            f"{self.equal + self.inside + self.outside} queries, {self.share:.1%} scored again: {self.equal} equal, "
        )
        return found + f"{self.inside} inside, {self.outside} outside ({self.dtype} alone: {self.low} others)"


def tasks(queries: int = 30) -> dict[str, Task]:
    """Make the six tasks: four of Debian's texts, the bundled demo, planted near ties."""
    chance = random.Random(3)
    return {
        "passages": make_task(*_passages(queries, 12, 200, 1, chance), name="passages"),
        "short texts": make_task(*_passages(queries, 20, 50, 2, chance), name="short-texts"),
        "grades": make_task(*_passages(queries, 12, 120, 3, chance), name="grades"),
        "neighbours": make_task(*_neighbours(queries, 12, chance), name="neighbours"),
        "demo": evalkit.load_task("demo-zh"),
        "near ties": make_task(*_near_ties(queries, chance), name="near-ties"),
    }


def _passages(
    queries: int, size: int, mean: int, grades: int, chance: random.Random
) -> Iterator[tuple[list[str], Pairs]]:
    """Yield queries that begin the first of some passages, which is relevant with the next ones."""
    documents = texts.passages(queries * size, mean, seed=mean)
    for start in range(0, len(documents), size):
        own = documents[start : start + size]
        relevant = chance.choice((1, 2, 4))
        yield (
            [own[0][:40]],
            [
                (text[10:] or text, chance.randint(1, grades) if place < relevant else 0)
                for place, text in enumerate(own)
            ],
        )


def _neighbours(queries: int, size: int, chance: random.Random, length: int = 100) -> Iterator[tuple[list[str], Pairs]]:
    """Yield queries for which what overlaps them is relevant, among other passages of the same page."""
    text = texts.corpus()
    for _ in range(queries):
        start, relevant = chance.randrange(10_000, len(text) - 10_000), chance.choice((1, 2, 3, 5))
        places = chance.sample(range(5, 60), relevant) + chance.sample(range(200, 8_000), size - relevant)
        yield (
            [text[start : start + 30]],
            [(text[start + place :][:length], int(number < relevant)) for number, place in enumerate(places)],
        )


def _near_ties(queries: int, chance: random.Random) -> Iterator[tuple[list[str], Pairs]]:
    """Yield texts in several forms, relevant and not: twice, with other marks at the end, alike as far as a model reads."""
    documents = texts.passages(3 * queries, 80, seed=11)
    long = "".join(texts.passages(8, 1_500, seed=12))[:4_000]
    for start in range(0, 3 * queries, 3):
        forms: Pairs = []
        for document in documents[start : start + 3]:
            variants = (
                document,
                document,
                document + "。",
                document + " ",
                document + "，",
                document.replace("的", "地"),
            )
            forms += [(text, int(chance.random() < 0.4)) for text in chance.sample(variants, 4)]
        if start % 15 == 0:
            forms += [(long + end, gain) for end, gain in (("甲", 1), ("乙", 1), ("丙", 0))]
        forms += [(documents[(start + 7) % len(documents)], 0), (documents[start][:30], 1)]
        chance.shuffle(forms)
        yield [documents[start][:40]], forms


def compare(task: Task, load: Callable[[str], Any], dtype: str) -> Compared:
    """Run a task in fp32, in a low precision, and in that with refine=fp32; each in batches of its own."""
    whole, low = (evalkit.evaluate(load(one), task) for one in ("fp32", dtype))
    refined = evalkit.evaluate(load(dtype), task, refine="fp32")
    full, alone, found = (one.candidates["score"].to_numpy(np.float32) for one in (whole, low, refined))
    again = refined.candidates["refined"].to_numpy(bool)
    own = float(np.abs(full.astype(np.float64) - found)[again].max(initial=0.0))
    equal, inside, outside = judge(task, full, found, own)
    others = len(task.requests) - judge(task, full, alone, own)[0]
    return Compared(task.name, dtype, float(again.mean()), own, equal, inside, outside, others)


def judge(task: Task, full: NDArray[np.float32], found: NDArray[np.float32], own: float) -> tuple[int, int, int]:
    """Count the queries whose values are fp32's, those whose others noise of `own` in fp32 explains, and the rest.

    A query's band has to leave room (where it is a point, the value must be fp32's), and the other value to lie in it.
    """
    noisy = replace(lists_of_task(task, full), noise=np.full(len(full), own))
    expected, values = score_lists(noisy, MEASURES), score_lists(lists_of_task(task, found), MEASURES).values
    same, within = (np.ones(len(task.requests), np.bool_) for _ in range(2))
    for name, amounts in expected.values.items():
        low, high = expected.band_values[name]
        equal = np.isclose(values[name], amounts, rtol=0, atol=SAME, equal_nan=True)
        same &= equal
        within &= equal | ((values[name] >= low - SAME) & (values[name] <= high + SAME) & (high - low > SAME))
    return int(same.sum()), int((within & ~same).sum()), int((~within).sum())


def measure() -> dict[str, Any]:
    """Compare all cells; a row for each model, precision and task."""
    rows = []
    with tempfile.TemporaryDirectory() as cache:
        for title, model, recipe in refine.models():
            for backend, dtype in refine.precisions():
                for name, task in tasks().items():

                    def load(
                        one: str, model: Path = model, backend: str = backend, recipe: dict[str, Any] = recipe
                    ) -> Any:
                        return evalkit.load_model(str(model), backend=backend, dtype=one, cache_dir=cache, **recipe)

                    found = compare(task, load, dtype)
                    rows.append(
                        {"what": f"{title}, {dtype} ({backend}), {name}", "measured": str(found), "target": "0 outside"}
                    )
    return {"rows": rows}
