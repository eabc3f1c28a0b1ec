"""What Python prints of tasks and their parts: a line, whatever their texts are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_tasks import make_task

from evalkit.metrics import score_run
from evalkit.metrics.lists import lists_of_task
from evalkit.metrics.measures import PROTOCOLS
from evalkit.metrics.query_scores import score_lists
from evalkit.records import Candidate, Query, Request

LONG = "长文本\n" * 20_000
TASK = make_task(
    *[([f"{LONG}{number}"], [(LONG, 1), (LONG, 0), ("short", 0)]) for number in range(50)], name="of long texts"
)
LISTS = lists_of_task(TASK, np.arange(150, dtype=np.float32))
QRELS = {f"q{number}": {f"d{place}": place % 2 for place in range(20)} for number in range(500)}
PRINTED = {
    "task": TASK,
    "request": TASK.requests[0],
    "query": TASK.requests[0].query,
    "candidate": TASK.requests[0].candidates[0],
    "lists": LISTS,
    "scores of a task": score_lists(LISTS, PROTOCOLS["cmteb-v1"].measures),
    "scores of a run": score_run({key: dict.fromkeys(docs, 1.0) for key, docs in QRELS.items()}, QRELS),
}


@pytest.mark.parametrize("value", PRINTED.values(), ids=PRINTED)
def test_it_is_one_short_line(value: object) -> None:
    for text in (repr(value), str(value), f"{value}"):
        assert len(text) < 300
        assert "\n" not in text


def test_it_says_what_it_is() -> None:
    candidates = (Candidate("d1", "a text", 2), Candidate("d2", "x" * 100, 0))
    request = Request(Query("q1", ("which?",)), candidates)
    assert repr(request) == "Request('q1', candidates: 2, relevant: 1)"
    assert repr(request.query) == "Query('q1', 'which?')"
    assert repr(replace(request.query, texts=("which?", "or", "what?"))) == "Query('q1', 'which?' and 2 more)"
    assert repr(candidates[0]) == "Candidate('d1', gain 2, 'a text')"
    assert repr(candidates[1]) == f"Candidate('d2', gain 0, '{'x' * 60}…')"
    assert repr(LISTS) == "CandidateLists(50 queries, 150 candidates)"
    assert repr(PRINTED["scores of a run"]).startswith("RunScores(cmteb-v1: map 0.")
    assert repr(PRINTED["scores of a task"]).startswith("QueryScores(queries: 50, map ")
