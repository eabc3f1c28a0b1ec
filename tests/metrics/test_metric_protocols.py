from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from evalkit.errors import EvalkitError
from evalkit.metrics import PROTOCOLS, find_protocol, lists_of_task, score_lists
from evalkit.metrics.lists import candidate_lists
from evalkit.records import Candidate, Query, Request, Task, TaskStatistics

CMTEB_V1, MTEB_V2 = PROTOCOLS["cmteb-v1"], PROTOCOLS["mteb-v2"]


def task_of(*requests: Request) -> Task:
    return Task(
        name="small",
        mteb_name="small",
        split="test",
        languages=("cmn",),
        layout="cmteb",
        source="memory",
        revision="",
        requests=requests,
        fingerprint="",
        statistics=TaskStatistics(0, 0, 0, 0, 0, 0, 0, 0, 0),
    )


def request_of(query_id: str, *candidates: tuple[str, int], missed: tuple[int, ...] = ()) -> Request:
    return Request(
        Query(query_id, ("问",)), tuple(Candidate(doc_id, "答", gain) for doc_id, gain in candidates), missed
    )


def test_names_are_those_of_the_references() -> None:
    assert [measure.name for measure in CMTEB_V1.measures] == ["map", "mrr"]
    names = {measure.name for measure in MTEB_V2.measures}
    kinds = ("map", "ndcg", "recall", "precision", "mrr", "hit_rate")
    assert names == {f"{kind}_at_{k}" for kind in kinds for k in (1, 3, 5, 10, 20, 100, 1000)}
    for protocol in PROTOCOLS.values():
        assert protocol.main_score in {measure.name for measure in protocol.measures}


def test_a_wrong_name_is_answered_with_the_nearest() -> None:
    for wrong, right in (("cmteb", "cmteb-v1"), ("mteb_v2", "mteb-v2"), ("MTEB-V2", "mteb-v2")):
        with pytest.raises(EvalkitError, match=f"did you mean {right}"):
            find_protocol(wrong)


def test_a_task_under_both_protocols() -> None:
    task = task_of(
        request_of("q1", ("p1", 1), ("p2", 1), ("n1", 0), ("n2", 0)),
        request_of("only positives", ("p3", 1)),
        request_of("only negatives", ("n3", 0)),
        request_of("nothing"),
    )
    lists = lists_of_task(task, np.array([3, 1, 2, 0, 5, 5], dtype=np.float32))
    first, second = score_lists(lists, CMTEB_V1.measures), score_lists(lists, MTEB_V2.measures)
    ap = (1 + 2 / 3) / 2
    np.testing.assert_allclose(first.values["map"], [ap, np.nan, np.nan, np.nan])
    assert first.means["map"] == pytest.approx(ap)
    np.testing.assert_allclose(second.values["map_at_1000"], [ap, 1, 0, 0])
    assert second.means["map_at_1000"] == round((ap + 1) / 4, 5)
    assert all(np.isnan(part[1:]).all() for part in first.tie_values["map"])


def test_unretrieved_documents_are_missed_under_mteb_v2_and_unknown_to_cmteb_v1() -> None:
    task = task_of(
        request_of("q1", ("p1", 2), ("n1", 0), missed=(1, 0)),
        request_of("q2", ("n2", 0), ("n3", 0), missed=(1,)),
    )
    lists = lists_of_task(task, np.array([2, 1, 1, 0], dtype=np.float32))
    np.testing.assert_array_equal(score_lists(lists, CMTEB_V1.measures).values["map"], [1.0, np.nan])
    second = score_lists(lists, MTEB_V2.measures)
    np.testing.assert_array_equal(second.values["recall_at_10"], [0.5, 0.0])
    ideal = 2 + 1 / np.log2(3)
    np.testing.assert_allclose(second.values["ndcg_at_10"], [2 / ideal, 0.0])


def test_ties_fall_as_each_protocol_says() -> None:
    lists = lists_of_task(task_of(request_of("q", ("n", 0), ("z", 0), ("p", 1))), np.zeros(3, dtype=np.float32))
    assert (
        score_lists(lists, CMTEB_V1.measures).values["mrr"][0] == 1.0
    )  # positives before negatives, whatever the file has
    assert score_lists(lists, MTEB_V2.measures).values["mrr_at_10"][0] == 0.5  # z, p, n
    assert score_lists(lists, MTEB_V2.measures).values["map_at_10"][0] == 0.5


def test_a_repeated_document_counts_once_under_mteb_v2_alone() -> None:
    task = task_of(request_of("q", ("p", 1), ("n", 0), ("n", 0)), request_of("r", ("n", 0), ("p", 1)))
    lists = lists_of_task(task, np.array([1, 2, 2, 1, 2], dtype=np.float32))
    assert score_lists(lists, MTEB_V2.measures).values["map_at_10"].tolist() == [1 / 2, 1.0]
    assert score_lists(lists, CMTEB_V1.measures).values["map"].tolist() == pytest.approx([1 / 3, 1.0])


def test_scores_that_do_not_fit_the_task_are_refused() -> None:
    task = task_of(request_of("q1", ("p1", 1), ("n1", 0)), request_of("q2", ("p2", 1), ("n2", 0)))
    with pytest.raises(EvalkitError, match=r"4 candidates.*\(3,\)"):
        lists_of_task(task, np.zeros(3, dtype=np.float32))
    with pytest.raises(EvalkitError, match=r"'n2' for query 'q2' is nan \(1 such"):
        lists_of_task(task, np.array([1, 2, 3, np.nan], dtype=np.float32))


def test_a_task_that_no_query_of_which_can_be_scored_is_refused() -> None:
    lists = lists_of_task(task_of(request_of("q1", ("p1", 1))), np.ones(1, dtype=np.float32))
    with pytest.raises(EvalkitError, match="can score none of the 1 queries"):
        score_lists(lists, CMTEB_V1.measures)
    with pytest.raises(EvalkitError, match="no query to score"):
        score_lists(lists_of_task(task_of(), np.empty(0, dtype=np.float32)), MTEB_V2.measures)


@pytest.mark.parametrize("levels", [1, 30, 10**9])
def test_t2rerankings_size_takes_less_than_a_second(levels: int) -> None:
    generator = np.random.default_rng(0)
    n_queries, n_pairs = 5908, 97_422
    lengths = generator.multinomial(n_pairs - 2 * n_queries, np.full(n_queries, 1 / n_queries)) + 2
    lists = candidate_lists(
        query_ids=[f"q{i}" for i in range(n_queries)],
        lengths=lengths,
        doc_ids=[f"apositive_dev_query{i}_{j:05d}" for i, n in enumerate(lengths) for j in range(n)],
        scores=generator.integers(0, levels, size=n_pairs),
        gains=(generator.random(n_pairs) < 0.45).astype(int),
        unretrieved_gains=[()] * n_queries,
    )
    seconds = []
    for _ in range(3):  # the least of three, for a busy machine's sake
        start = time.process_time()
        for protocol in PROTOCOLS.values():
            score_lists(replace(lists), protocol.measures)  # a new object, which has nothing computed yet
        seconds.append(time.process_time() - start)
    assert min(seconds) < 1.0


@pytest.mark.parametrize("label", [np.nan, np.inf, 1e300])
def test_a_label_that_64_bits_do_not_hold_is_refused(label: float) -> None:
    with pytest.raises(EvalkitError, match="A label is NaN or beyond 64 bits"):
        candidate_lists(["q"], [2], ["a", "b"], [1.0, 2.0], [1.0, label], [()])
