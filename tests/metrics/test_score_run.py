from __future__ import annotations

import logging
from dataclasses import FrozenInstanceError

import numpy as np
import pandas as pd
import pytest
from oracles.metric_references import cmteb_v1_values, mteb_v2_scores

from evalkit.errors import EvalkitError
from evalkit.metrics import find_protocol, lists_of_run, score_run

RUN = {
    "q1": {"a": 3.0, "b": 2.0, "c": 1.0},
    "q2": {"d": 0.5, "e": 0.5, "f": 0.1},
    "q3": {"g": 1.0, "h": 0.0},
}
QRELS = {"q1": {"b": 1, "c": 2, "a": 0}, "q2": {"e": 1}, "q3": {"g": 1, "h": 1}}


def test_what_comes_back() -> None:
    result = score_run(RUN, QRELS)
    by_query = [cmteb_v1_values(RUN[query_id], QRELS[query_id]) for query_id in ("q1", "q2")]
    assert [result.scores["map"], result.scores["mrr"]] == pytest.approx(np.mean(by_query, axis=0))
    assert set(result.intervals) == set(result.ties) == set(result.scores) == {"map", "mrr"}
    low, high = result.intervals["mrr"]
    assert low <= result.scores["mrr"] <= high
    assert isinstance(low, float)
    assert (result.protocol, result.main_score) == ("cmteb-v1", "map")
    expected = pd.DataFrame(
        {
            "query_id": ["q1", "q2", "q3"],
            "n_positive": [2, 1, 2],
            "n_candidates": [3, 3, 2],
            "map": [by_query[0][0], by_query[1][0], np.nan],
            "mrr": [by_query[0][1], by_query[1][1], np.nan],
        }
    )
    pd.testing.assert_frame_equal(result.queries, expected, check_dtype=False)
    with pytest.raises(FrozenInstanceError):
        result.protocol = "mteb-v2"
    with pytest.raises(TypeError):
        result.scores["map"] = 1.0


def test_mteb_v2_gives_mtebs_own_means() -> None:
    result = score_run(RUN, QRELS, protocol="mteb-v2")
    assert dict(result.scores) == mteb_v2_scores(RUN, QRELS)[0]
    assert result.main_score == "map_at_1000"
    assert list(result.queries.columns[:4]) == ["query_id", "n_positive", "n_candidates", "map_at_1"]
    assert len(result.queries) == 3


def test_the_seed_alone_decides_the_intervals() -> None:
    generator = np.random.default_rng(0)
    run = {f"q{i}": {f"d{j}": float(generator.normal()) for j in range(10)} for i in range(30)}
    qrels = {query_id: {"d0": 1, "d3": 1} for query_id in run}
    assert score_run(run, qrels, seed=1).intervals == score_run(run, qrels, seed=1).intervals
    assert score_run(run, qrels, seed=1).intervals != score_run(run, qrels, seed=2).intervals


def test_mteb_v2_counts_what_the_run_misses() -> None:
    run, qrels = (
        {"q1": {"a": 1.0}, "q2": {}, "q3": {"x": 1.0}},
        {"q1": {"a": 1, "z": 1}, "q2": {"b": 1}, "q3": {"x": 0}},
    )
    result = score_run(run, qrels, protocol="mteb-v2")
    assert result.queries["map_at_1000"].tolist() == [0.5, 0.0, 0.0]
    assert dict(result.scores) == mteb_v2_scores(run, qrels)[0]


def test_mteb_v2_leaves_out_what_only_one_side_has_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    run = {"q1": {"a": 1.0, "b": 2.0}, "unjudged": {"a": 1.0}}
    qrels = {"q1": {"a": 1}, "unscored": {"a": 1}}
    with caplog.at_level(logging.WARNING, logger="evalkit"):
        result = score_run(run, qrels, protocol="mteb-v2")
    assert result.queries["query_id"].tolist() == ["q1"]
    assert dict(result.scores) == mteb_v2_scores({"q1": run["q1"]}, qrels)[0]
    assert [record.getMessage() for record in caplog.records] == [
        "1 queries of the run are left out: the qrels judge none of their documents.",
        "1 queries of the qrels are left out: the run has no scores for them.",
    ]


def test_numpy_numbers_and_whole_floats_will_do() -> None:
    run = {q: {d: np.float32(s) for d, s in docs.items()} for q, docs in RUN.items()}
    qrels = {q: {d: float(g) for d, g in docs.items()} for q, docs in QRELS.items()}
    assert score_run(run, qrels).scores == score_run(RUN, QRELS).scores
    lists = lists_of_run(run, qrels, find_protocol("cmteb-v1"))
    assert (lists.scores.dtype, lists.gains.dtype) == (np.float64, np.int64)


@pytest.mark.parametrize(
    ("run", "qrels", "protocol", "words"),
    [
        ({}, QRELS, "cmteb-v1", ["run is empty"]),
        ({}, QRELS, "mteb-v2", ["run is empty"]),
        (RUN, {}, "cmteb-v1", ["no query in common", "'q1'"]),
        (RUN, {"x": {"a": 0}}, "cmteb-v1", ["no query in common", "'q1'", "'x'"]),
        (RUN, {"x": {"a": 1}}, "mteb-v2", ["no query in common"]),
        (RUN, {"q3": {"g": 1, "h": 1}}, "cmteb-v1", ["can score none", "'q3'", "2 positives among 2"]),
        (RUN, {"q1": {"zz": 1}}, "cmteb-v1", ["'zz'", "'q1'", "no score"]),
        (RUN, QRELS | {"q9": {"k": 1}}, "cmteb-v1", ["'k'", "'q9'", "no score"]),
        ({"q1": {"a": float("nan")}}, QRELS, "mteb-v2", ["nan", "'a'", "'q1'", "finite"]),
        ({"q1": {"a": 1.0, "b": float("-inf")}}, QRELS, "cmteb-v1", ["-inf", "'b'", "'q1'", "finite"]),
        ({"q1": {"a": "0.5"}}, QRELS, "mteb-v2", ["'0.5'", "'a'", "'q1'"]),
        ({"q1": {"a": 10**400}}, QRELS, "mteb-v2", ["'a'", "'q1'", "finite"]),
        ({"q1": {"a": None}}, QRELS, "mteb-v2", ["None", "'a'", "'q1'"]),
        ({"q1": ["a"]}, QRELS, "mteb-v2", ["run", "{query_id: {doc_id: number}}"]),
        ([("q1", {"a": 1})], QRELS, "mteb-v2", ["run", "{query_id: {doc_id: number}}"]),
        ({1: {"a": 1.0}}, QRELS, "mteb-v2", ["run", "strings"]),
        ({"q1": {7: 1.0}}, QRELS, "mteb-v2", ["run", "strings", "'q1'"]),
        (RUN, {"q1": {"a": 0.5}}, "mteb-v2", ["qrels", "0.5", "'a'", "'q1'", "whole number"]),
        (RUN, {"q1": {"a": "1"}}, "mteb-v2", ["qrels", "'1'", "'a'", "'q1'", "whole number"]),
        (RUN, {"q1": {"a": 2**80}}, "mteb-v2", ["qrels", "'a'", "'q1'", "whole number"]),
        (RUN, QRELS, "mteb-v1", ["'mteb-v1'", "cmteb-v1", "mteb-v2"]),
        (RUN, QRELS, "", ["cmteb-v1", "mteb-v2"]),
    ],
)
def test_what_is_wrong_is_said_in_one_line(run, qrels, protocol: str, words: list[str]) -> None:
    with pytest.raises(EvalkitError) as caught:
        score_run(run, qrels, protocol=protocol)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
