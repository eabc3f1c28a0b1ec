"""Statistics, fingerprint, and the comparison with the published statistics."""

from __future__ import annotations

import copy
import hashlib
import logging
from dataclasses import asdict

import pytest
from task_files import LIST_ROWS, ROWS, load, local_settings, mteb_parts, write_jsonl, write_parquet, write_parts

from evalkit.published_statistics import published_statistics
from evalkit.records import OTHER_DATA, Candidate, Query, Request, Task, TaskStatistics
from evalkit.tasks.content import compare_with_published, fingerprint, has_both, script_of, task_statistics
from evalkit.tasks.loading import read_task
from evalkit.tasks.settings import read_settings


def test_statistics(tmp_path):
    assert load(write_jsonl(tmp_path / "rows.jsonl", ROWS)).statistics == TaskStatistics(
        queries=4,
        pairs=11,
        positives=5,
        queries_without_positives=0,
        queries_without_negatives=1,
        query_characters=sum(len(row["query"]) for row in ROWS),
        document_characters=sum(len(text) for row in ROWS for text in row["positive"] + row["negative"]),
        unique_queries=4,
        unique_documents=10,
    )


def test_statistics_count_each_text_of_a_query(tmp_path):
    task = load(write_jsonl(tmp_path / "rows.jsonl", LIST_ROWS))
    assert task.statistics.query_characters == sum(len(text) for row in LIST_ROWS for text in row["query"])
    assert task.statistics.queries == 4


def _changes():
    def change(edit):
        rows = copy.deepcopy(ROWS)
        edit(rows)
        return rows

    yield "query text", change(lambda rows: rows[0].update(query="感冒发烧怎么办？"))
    yield "document text", change(lambda rows: rows[0]["negative"].__setitem__(0, "苹果\u2028是水果 "))
    yield "document order", change(lambda rows: rows[2]["negative"].reverse())
    yield "query order", change(lambda rows: rows.reverse())
    yield "label", change(lambda rows: rows[2]["positive"].append(rows[2]["negative"].pop(0)))
    yield "a document more", change(lambda rows: rows[3]["negative"].append("x"))
    yield "a document less", change(lambda rows: rows[3]["negative"].clear())
    yield "a query less", change(lambda rows: rows.pop(1))
    yield "query split in two texts", change(lambda rows: rows[3].update(query=["001", "23"]))
    yield "texts joined", change(lambda rows: rows[2].update(negative=["a peara whale", "NA"]))


@pytest.mark.parametrize(("what", "rows"), _changes(), ids=lambda value: value if isinstance(value, str) else "")
def test_fingerprint_changes_with(what, rows, tmp_path):
    before = load(write_jsonl(tmp_path / "before.jsonl", ROWS))
    after = load(write_jsonl(tmp_path / "after.jsonl", rows))
    assert len(before.fingerprint) == len(hashlib.sha256().hexdigest())
    assert before.fingerprint != after.fingerprint


def test_fingerprint_changes_with_grades_and_missed_documents(tmp_path):
    parts = mteb_parts(ROWS)
    fingerprints = {load(write_parts(tmp_path / "0", parts)).fingerprint}
    parts["qrels"][0]["score"] = 2
    fingerprints.add(load(write_parts(tmp_path / "1", parts)).fingerprint)
    parts["corpus"].append({"id": "missed", "text": "missed"})
    parts["qrels"].append({"query-id": "dev_query0", "corpus-id": "missed", "score": 1})
    fingerprints.add(load(write_parts(tmp_path / "2", parts)).fingerprint)
    assert len(fingerprints) == 3


def test_fingerprint_is_the_same_tomorrow():
    request = Request(Query("q", ("问题",)), (Candidate("a", "文", 1), Candidate("b", "b", 0)), (2,))
    expected = hashlib.sha256("[1, 2, 2]6:问题1;3:文0;1:b".encode()).hexdigest()
    assert fingerprint([request]) == expected


def _published_size(name: str, positives: int = 1931) -> Task:
    """A task with the numbers that mteb publishes for CMedQAv1: 1000 queries, 100 candidates each, 55,717 characters…"""
    requests = []
    for i in range(1000):
        query = "q" * (55 if i else 55 + 717)
        texts = ["d" * (106 if i or j else 106 + 63_992) for j in range(100)]
        gains = [int(j == 0 or (j == 1 and i < positives - 1000)) for j in range(100)]
        candidates = tuple(
            Candidate(f"{i}-{j}", text, gain) for j, (text, gain) in enumerate(zip(texts, gains, strict=True))
        )
        requests.append(Request(Query(str(i), (query,)), candidates))
    statistics = task_statistics(requests)
    return Task("CMedQAv1", name, "test", (), "cmteb", "hub", "unpinned", "", statistics, requests=tuple(requests))


def test_published_figures():
    task = _published_size("CMedQAv1-reranking")
    assert compare_with_published(task.mteb_name, task.requests) == (
        "unique queries 2 instead of 999",
        "unique documents 2 instead of 62,326",
    )
    dropped = Request(Query("more", ("no candidates",)), ())
    assert compare_with_published(task.mteb_name, (*task.requests, dropped)) == compare_with_published(
        task.mteb_name, task.requests
    )
    fewer = compare_with_published("CMedQAv1-reranking", _published_size("CMedQAv1-reranking", positives=1930).requests)
    assert fewer[0] == "positives 1,930 instead of 1,931"
    assert compare_with_published("unheard-of", task.requests) == ()


@pytest.mark.parametrize("limit", [None, 1])
@pytest.mark.parametrize(
    "place", ["path", "file-name", "task-name", "other-case", "repository", "mteb-name", "mteb-alone"]
)
def test_other_data_do_not_get_a_benchmark_s_name(tmp_path, caplog, place, limit):
    """However the name comes about: the rows are not those of T2Reranking, nor of a benchmark that only mteb has."""
    rows = write_jsonl(tmp_path / ("T2Reranking.jsonl" if place == "file-name" else "rows.jsonl"), ROWS)
    own = read_settings("T2Reranking")
    settings = {
        "path": own.model_copy(update={"path": str(rows)}),
        "file-name": local_settings(rows),
        "task-name": local_settings(rows).model_copy(update={"name": "T2Reranking"}),
        "other-case": local_settings(rows).model_copy(update={"name": "t2reranking"}),
        "repository": own.model_copy(update={"name": "mine", "path": str(rows)}),
        "mteb-name": local_settings(rows).model_copy(update={"name": "mine", "mteb_name": "T2Reranking"}),
        "mteb-alone": local_settings(rows).model_copy(update={"name": "AskUbuntuDupQuestions"}),
    }[place]
    with caplog.at_level(logging.WARNING, "evalkit"):
        task = read_task(settings, limit=limit)
    assert task.name.endswith(f" {OTHER_DATA}")
    assert task.mteb_name.endswith(f" {OTHER_DATA}")
    assert task.differences
    (record,) = [record for record in caplog.records if "are not known to be" in record.message]
    if place != "mteb-alone":
        for figure in ("queries 3 instead of 5,908", "pairs 10 instead of 97,422", "positives 4 instead of 44,444"):
            assert figure in record.message
    assert any("are not known to be" in finding.message for finding in task.findings)


def test_data_of_the_published_sizes_are_the_benchmark_s(tmp_path, monkeypatch):
    rows = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    settings = read_settings("T2Reranking").model_copy(update={"path": str(rows)})
    sizes = asdict(task_statistics(one for one in read_task(local_settings(rows)).requests if has_both(one)))
    figures = {name: sizes[name] for name in published_statistics()["T2Reranking"]}
    monkeypatch.setitem(published_statistics(), "T2Reranking", figures)
    for limit in (None, 1):
        task = read_task(settings, limit=limit)
        assert (task.name, task.mteb_name, task.differences) == ("T2Reranking", "T2Reranking", ())
    monkeypatch.setitem(published_statistics(), "T2Reranking", {**figures, "query_characters": 0})
    assert read_task(settings).name == f"T2Reranking {OTHER_DATA}"


def test_a_hundred_thousand_pairs_share_their_texts(tmp_path):
    rows = [
        {
            "query": f"问题{i}",
            "positive": [f"答案{i}" * 60],
            "negative": [f"段落{(i * 7 + j) % 60_000}" * 30 for j in range(99)],
        }
        for i in range(1000)
    ]
    path = write_parquet(tmp_path / "rows.parquet", rows)
    task = load(path)
    assert task.statistics.pairs == 100_000
    texts = [candidate.text for request in task.requests for candidate in request.candidates]
    assert len({id(text) for text in texts}) == len(set(texts))


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("感冒了怎么办？", "Han"),
        ("what is panda?", "Latin"),
        ("iPhone多少钱", "Han+Latin"),
        ("12:30?", "other"),
        ("𠮷", "Han"),
    ],
)
def test_script(text, script):
    assert script_of(text) == script
