"""Results with everything that a page shows, hostile texts among it, and the page of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from made_results import Scores, change_json, change_table, write_scores
from made_tasks import Group, make_task
from numpy.typing import NDArray

from evalkit.records import Task

ATTACK = '</script><script>window.pwned = 1</script><img src=x onerror="window.pwned = 1">'
LONG = "重排序" * 40_000
HOSTILE = (
    ATTACK,
    "<script>window.pwned = 1</script>",
    "<!-- \"double\" 'single' `back` & &lt; {{ 7 * 7 }} ]]>",
    "مرحبا بالعالم \u202e reversed",
    "👩‍👩‍👧‍👦 🏳️‍🌈 e\u0301",
    "line\u2028separator\u2029and\ttab",
    LONG,
)
QUERIES, CANDIDATES = 24, 12


def hostile_task(name: str, queries: int = QUERIES) -> Task:
    """Queries whose texts, and whose candidates' texts, begin with hostile ones; two of twelve candidates are relevant."""
    groups: list[Group] = []
    for number in range(queries):
        texts = [HOSTILE[(number + place) % len(HOSTILE)] for place in range(CANDIDATES)]
        groups.append(
            (
                [f"{HOSTILE[number % len(HOSTILE)][:150]} 第{number}问"],
                [(text, int(place < 2)) for place, text in enumerate(texts)],
            )
        )
    task = make_task(*groups, name=name)
    return replace(task, languages=("cmn-Hans",), fingerprint=f"{len(name)}".rjust(64, "0"))


def scores_of(task: Task, strength: float, seed: int) -> Scores:
    """The label, as strongly as asked for, and noise: float32[n_queries, CANDIDATES]."""
    gains = np.array([[candidate.gain for candidate in request.candidates] for request in task.requests])
    return scores_of_gains(gains, strength, seed)


def scores_of_gains(gains: NDArray[np.int64], strength: float, seed: int) -> Scores:
    """The same of labels in an array of any shape."""
    return (strength * gains + np.random.default_rng(seed).normal(size=gains.shape)).astype(np.float32)


def write_results(folder: Path) -> Path:
    """Three systems on two tasks, a fourth under the other protocol; kinds, sizes, speeds and a cut text."""
    first, second = hostile_task("T2Reranking"), hostile_task("CMedQAv1", queries=10)
    systems = [
        ("bge-reranker-base", "cross-encoder", 278.0, 2.5, 40.0),
        ("e5", "embedder", 118.0, 1.2, 300.0),
        ("slow", "embedder", None, 0.2, 20.0),
    ]
    for seed, (name, kind, size, strength, rate) in enumerate(systems):
        for task in (first, second):
            path = write_scores(folder, task, scores_of(task, strength, seed), name, texts=True)
            describe(path, kind, size, rate)
            change_table(path, lambda table: table.assign(tokens=9, truncated=np.arange(len(table)) % 5 == 0), "run")
            if name == "bge-reranker-base":
                change_json(path, lambda content: content["evalkit"]["model"].update(hub_id="BAAI/bge-reranker-base"))
            if name == "slow":
                change_json(path, lambda content: content["evalkit"]["model"].update(name=ATTACK))
    other = write_scores(folder / "other", first, scores_of(first, 0.7, 9), "e5-v2", protocol="mteb-v2", texts=True)
    describe(other, "embedder", 3000.0, 90.0)
    return folder


def describe(path: Path, kind: str, size: float | None, rate: float | None) -> None:
    """Say what a result's model is and how fast it was; the same model's results on several tasks are one system's."""

    def change(content: Any) -> None:
        own = content["evalkit"]
        own["model"].update(kind=kind, revision="1")
        own["config"]["model"]["parameters"] = size
        own["timing"]["pairs_per_second"] = rate

    change_json(path, change)


def page_data(page: str) -> Any:
    """The data of a page."""
    _, _, rest = page.partition('id="report-data">')
    return json.loads(rest.partition("</script>")[0])
