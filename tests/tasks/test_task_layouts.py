"""The same small dataset, in every layout and file type, is the same task."""

from __future__ import annotations

from pathlib import Path

import pytest
from task_files import (
    LIST_ROWS,
    PART_WRITERS,
    ROW_WRITERS,
    ROWS,
    load,
    local_settings,
    mteb_parts,
    write_hub_parts,
    write_jsonl,
    write_parquet,
    write_parts,
)

from evalkit.errors import EvalkitError
from evalkit.records import Candidate, Query, Request
from evalkit.tasks.loading import read_task

EXPECTED_FIRST = Request(
    Query("dev_query0", ("感冒发烧怎么办?",)),
    (
        Candidate("apositive_dev_query0_00000", "多喝水,\n注意休息。", 1),
        Candidate("apositive_dev_query0_00001", '医生说:"先测体温"', 1),
        Candidate("negative_dev_query0_00000", "苹果\u2028是水果", 0),
        Candidate("negative_dev_query0_00001", "[重要] 通知", 0),
    ),
)


@pytest.mark.parametrize("rows", [ROWS, LIST_ROWS], ids=["plain", "list-valued"])
@pytest.mark.parametrize("kind", ROW_WRITERS)
def test_rows(kind, rows, tmp_path):
    name, write = ROW_WRITERS[kind]
    task = load(write(tmp_path / name, rows))
    reference = load(write_jsonl(tmp_path / "reference.jsonl", rows))
    assert task.layout == "cmteb"
    assert task.split == "dev"
    assert task.requests == reference.requests
    assert task.fingerprint == reference.fingerprint
    assert [r.query.query_id for r in task.requests] == ["dev_query0", "dev_dropped1", "dev_query1", "dev_query2"]
    if rows is ROWS:
        assert task.requests[0] == EXPECTED_FIRST
    else:
        assert task.requests[3].query.texts == ("00123", "00123 (again)")


@pytest.mark.parametrize("kind", PART_WRITERS)
def test_parts(kind, tmp_path):
    reference = load(write_jsonl(tmp_path / "reference.jsonl", ROWS))
    task = load(PART_WRITERS[kind](tmp_path / "folder", mteb_parts(ROWS)))
    assert task.layout == "mteb"
    assert task.split == "dev"
    assert task.requests == reference.requests
    assert task.fingerprint == reference.fingerprint
    assert task.statistics == reference.statistics


def test_parts_with_list_valued_queries(tmp_path):
    reference = load(write_jsonl(tmp_path / "reference.jsonl", LIST_ROWS))
    task = load(write_hub_parts(tmp_path / "folder", mteb_parts(LIST_ROWS)))
    assert task.requests == reference.requests


def test_a_csv_cell_may_be_one_text(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('query,positive,negative\nq,one [text],"[图片] a, b"\n', encoding="utf-8-sig")
    (request,) = load(path).requests
    assert [(c.text, c.gain) for c in request.candidates] == [("one [text]", 1), ("[图片] a, b", 0)]


def test_a_csv_cell_longer_than_the_readers_own_limit(tmp_path):
    long = "长" * 200_000
    _, write = ROW_WRITERS["csv"]
    task = load(write(tmp_path / "rows.csv", [{"query": "q", "positive": [long], "negative": ["x"]}]))
    assert task.requests[0].candidates[0].text == long


def test_title_is_joined_and_stripped(tmp_path):
    parts = {
        "corpus": [
            {"_id": "1", "title": "题", "text": "文 "},
            {"_id": "2", "title": None, "text": " x"},
            {"_id": "3", "text": "y"},
        ],
        "queries": [{"_id": "q", "text": " q "}],
        "qrels": [{"query-id": "q", "corpus-id": "1", "score": 2}],
        "top_ranked": [{"query-id": "q", "corpus-ids": ["2", "1", "3"]}],
    }
    (request,) = load(write_parts(tmp_path / "d", parts)).requests
    assert request.query.texts == (" q ",)
    assert [(c.doc_id, c.text, c.gain) for c in request.candidates] == [("2", "x", 0), ("1", "题 文", 2), ("3", "y", 0)]


def test_numeric_ids(tmp_path):
    parts = {
        "corpus": [{"id": 1, "text": "a"}, {"id": 2, "text": "b"}],
        "queries": [{"id": 7, "text": "q"}],
        "qrels": [{"query-id": 7, "corpus-id": 1, "score": 1.0}, {"query-id": 7, "corpus-id": 2, "score": 0.0}],
        "top_ranked": [{"query-id": 7, "corpus-ids": [2, 1]}],
    }
    (request,) = load(write_hub_parts(tmp_path / "d", parts)).requests
    assert request.query.query_id == "7"
    assert [(c.doc_id, c.gain) for c in request.candidates] == [("2", 0), ("1", 1)]


def test_relevant_documents_that_are_not_ranked(tmp_path):
    parts = mteb_parts(ROWS)
    parts["top_ranked"][0]["corpus-ids"].pop(0)
    parts["qrels"][0]["score"] = 3
    task = load(write_parts(tmp_path / "d", parts))
    assert task.requests[0].unretrieved_gains == (3,)
    assert len(task.requests[0].candidates) == 3
    assert all(request.unretrieved_gains == () for request in task.requests[1:])


def test_without_top_ranked_the_judged_documents_are_ranked(tmp_path):
    parts = mteb_parts(ROWS)
    reference = load(write_parts(tmp_path / "with", parts))
    del parts["top_ranked"]
    task = load(write_parts(tmp_path / "without", parts))
    assert task.requests == reference.requests
    assert any("no top_ranked" in finding.message for finding in task.findings)


def test_queries_without_judgements_are_left_out_as_mteb_does(tmp_path):
    parts = mteb_parts(ROWS)
    parts["queries"].insert(0, {"id": "stray", "text": "no judgement"})
    task = load(write_parts(tmp_path / "d", parts))
    assert len(task.requests) == len(ROWS)
    (finding,) = [f for f in task.findings if "do not name" in f.message]
    assert (finding.severity, finding.row) == ("note", 1)


def test_a_query_without_candidates_stays(tmp_path):
    parts = mteb_parts(ROWS)
    del parts["top_ranked"][2]
    task = load(write_parts(tmp_path / "d", parts))
    assert task.requests[2].candidates == ()
    assert task.requests[2].unretrieved_gains == (1,)
    assert any(f.severity == "warning" and "without candidates" in f.message for f in task.findings)


def test_a_document_ranked_twice_is_one_candidate(tmp_path):
    parts = mteb_parts(ROWS)
    parts["top_ranked"][0]["corpus-ids"].append(parts["top_ranked"][0]["corpus-ids"][0])
    task = load(write_parts(tmp_path / "d", parts))
    assert task.requests[0] == EXPECTED_FIRST
    assert any("listed twice" in finding.message for finding in task.findings)


def test_the_only_split_is_taken_and_named(tmp_path):
    folder = write_parquet(tmp_path / "d" / "data" / "validation-00000-of-00001.parquet", ROWS).parent.parent
    task = load(folder)
    assert task.split == "validation"
    assert task.requests[0].query.query_id == "validation_query0"


def test_a_task_is_named_after_its_file_or_folder(tmp_path):
    assert load(write_jsonl(tmp_path / "我的 data.v2.jsonl", ROWS)).name == "我的 data.v2"
    task = load(write_parts(tmp_path / "folder.d", mteb_parts(ROWS)))
    assert (task.name, task.mteb_name, task.revision) == ("folder.d", "folder.d", "unpinned")


def test_a_name_of_ones_own_is_kept(tmp_path):
    task = read_task(local_settings(write_jsonl(tmp_path / "rows.jsonl", ROWS)).model_copy(update={"name": "mine"}))
    assert (task.name, task.mteb_name) == ("mine", "mine")


def test_limit_keeps_the_first_queries_that_can_be_scored(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    task = read_task(local_settings(path), limit=2)
    assert [request.query.query_id for request in task.requests] == ["dev_query0", "dev_query1"]
    assert task.statistics.queries == 2
    assert task.fingerprint != load(path).fingerprint
    with pytest.raises(EvalkitError, match="limit=0"):
        read_task(local_settings(path), limit=0)


def test_equal_texts_are_one_object(tmp_path):
    task = load(write_jsonl(tmp_path / "rows.jsonl", ROWS))
    assert task.requests[0].candidates[2].text is task.requests[3].candidates[1].text


def test_bundled_file_of_the_package():
    from evalkit.tasks.settings import read_settings, suite_settings

    for settings in suite_settings(read_settings("demo")):
        task = read_task(settings)
        assert task.source == "bundled"
        assert task.name == settings.name
        assert task.statistics.queries >= 12


def test_relative_and_home_paths(tmp_path, monkeypatch):
    write_jsonl(tmp_path / "rows.jsonl", ROWS)
    monkeypatch.chdir(tmp_path)
    assert load(Path("rows.jsonl")).name == "rows"
    assert load(Path(".")).name == tmp_path.name
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load(Path("~/rows.jsonl")).name == "rows"


def test_any_file_name_will_do_for_rows(tmp_path):
    assert load(write_jsonl(tmp_path / "queries.jsonl", ROWS)).requests[0] == EXPECTED_FIRST
    task = load(write_jsonl(tmp_path / "test.jsonl", ROWS))
    assert (task.split, task.requests[0].query.query_id) == ("test", "test_query0")
