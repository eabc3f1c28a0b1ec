"""Bad data: one line that says what, where and how to mend it; odd data: a finding, told once."""

from __future__ import annotations

import copy
import json
import logging
import re
from pathlib import Path

import datasets
import pytest
from task_files import (
    ROWS,
    load,
    local_settings,
    mteb_parts,
    write_csv,
    write_hub_parts,
    write_jsonl,
    write_parquet,
    write_parts,
)

from evalkit.errors import EvalkitError
from evalkit.tasks.loading import read_task

GOOD = {"query": "q", "positive": ["a"], "negative": ["b"]}


def _refused(path: Path, *fragments: str, split: str = "dev") -> None:
    with pytest.raises(EvalkitError) as error:
        load(path, split=split)
    message = str(error.value)
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message, message


@pytest.mark.parametrize(
    ("row", "fragments"),
    [
        ({"query": "q", "positive": ["a"]}, ["row 3", "column negative", "null or missing", "list of texts"]),
        ({"query": None, "positive": ["a"], "negative": ["b"]}, ["row 3", "column query", "null", "a text is due"]),
        ({"query": 5, "positive": ["a"], "negative": ["b"]}, ["row 3", "column query", "the number 5"]),
        ({"query": [], "positive": ["a"], "negative": ["b"]}, ["row 3", "column query", "a list where a text"]),
        ({"query": ["q", 1], "positive": ["a"], "negative": ["b"]}, ["row 3", "column query", "the number 1"]),
        (
            {"query": "q", "positive": "a", "negative": ["b"]},
            ["row 3", "column positive", "the text 'a'", "list of texts"],
        ),
        ({"query": "q", "positive": ["a"], "negative": None}, ["row 3", "column negative", "null"]),
        ({"query": "q", "positive": ["a", None], "negative": ["b"]}, ["row 3", "column positive", "null"]),
        ({"query": "q", "positive": ["a"], "negative": [2.5]}, ["row 3", "column negative", "the number 2.5"]),
        ({"query": "q", "positive": [["a"]], "negative": ["b"]}, ["row 3", "column positive", "a list where a text"]),
        ({"query": "q", "positive": [{"text": "a"}], "negative": ["b"]}, ["row 3", "column positive", "an object"]),
        ({"query": "\ud800", "positive": ["a"], "negative": ["b"]}, ["row 3", "column query", "surrogate"]),
    ],
)
def test_wrong_cells(row, fragments, tmp_path):
    path = tmp_path / "rows.jsonl"
    # the empty line counts: row 3 is what an editor calls line 3
    path.write_text(f"{json.dumps(GOOD)}\n\n{json.dumps(row)}\n")
    _refused(path, "rows.jsonl", *fragments)


def test_other_problems_are_counted(tmp_path):
    bad = {"query": 1, "positive": ["a"], "negative": 5}
    _refused(write_jsonl(tmp_path / "rows.jsonl", [bad, bad]), "row 1", "column query", "and 3 more such problems")


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        (b'{"query": "q", "positive": ["a"], "negative": ["b"]}\n{"query": \n', ["row 2", "not JSON"]),
        (b"[1, 2]\n", ["row 1", "a list where an object"]),
        (b'{"query": "q"}\n{"query": "\xff"}\n', ["row 2", "not UTF-8"]),
        (b'"text"\n', ["row 1", "the text 'text' where an object"]),
        (b"", ["there is nothing in it"]),
        (
            b'{"topic": "q", "good": ["a"], "negative": ["b"]}\n',
            ["no column query", "topic, good, negative", "1 more"],
        ),
        (b"[" * 100_000 + b"\n", ["row 1", "not JSON"]),
    ],
)
def test_broken_json_lines(content, fragments, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    _refused(path, "rows.jsonl", *fragments)


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        ('[\n{"query": "q"},\n{"query": }\n]', ["row 3", "not JSON"]),
        ("5", ["the number 5", "array of objects"]),
        ("[]", ["there is nothing in it"]),
        ("[5]", ["row 1", "the number 5"]),
        ('{"query": "q"}', ["no column positive"]),
        ("{", ["row 1", "not JSON"]),
    ],
)
def test_broken_json(content, fragments, tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(content)
    _refused(path, "rows.json", *fragments)


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        ("", ["is empty"]),
        ("query,positive,negative\n", ["no rows"]),
        ("query,positive\nq,a\n", ["no column negative", "query, positive"]),
        ("query,positive,negative\nq,a,b\nq,a,b,c\n", ["row 2", "4 cells", "3 columns"]),
        ('query,positive,negative\nq,"a,b\n', ["line 2", "the quote that opens a cell is never closed"]),
        ("query,positive,negative\nq,\"['a', 'b']\",c\n", ["row 1", "column positive", "no JSON list", "json.dumps"]),
    ],
)
def test_broken_csv(content, fragments, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text(content)
    _refused(path, "rows.csv", *fragments)


def test_a_csv_that_is_not_utf8(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes("query,positive,negative\n问题,a,b\n".encode("gb18030"))
    _refused(path, "rows.csv, row 2", "not UTF-8")


@pytest.mark.parametrize("content", [b"PAR1 and no more", b"version https://git-lfs.github.com/spec/v1\n", b""])
def test_broken_parquet(content, tmp_path):
    path = tmp_path / "rows.parquet"
    path.write_bytes(content)
    _refused(path, "rows.parquet", "no readable parquet file")


def test_parquet_of_the_wrong_types(tmp_path):
    rows = [{"query": 1, "positive": 2, "negative": [1]}]
    _refused(write_parquet(tmp_path / "rows.parquet", rows), "row 1", "column query", "the number 1", "2 more")
    _refused(write_parquet(tmp_path / "b.parquet", [GOOD | {"query": b"q"}]), "row 1", "type bytes")


def test_an_empty_dataset(tmp_path):
    empty = datasets.Dataset.from_list([GOOD]).select([])
    empty.save_to_disk(str(tmp_path / "saved"))
    _refused(tmp_path / "saved", "without rows")
    empty.to_parquet(tmp_path / "rows.parquet")
    _refused(tmp_path / "rows.parquet", "rows.parquet", "no rows")


def test_places_that_hold_no_dataset(tmp_path):
    _refused(tmp_path / "nowhere", "nowhere", "no such file or folder")
    _refused(tmp_path / ("x" * 5000), "cannot be read")
    (tmp_path / "empty").mkdir()
    _refused(tmp_path / "empty", "is empty")
    (tmp_path / "other" / "inner").mkdir(parents=True)
    (tmp_path / "other" / "notes.md").write_text("")
    _refused(tmp_path / "other", "no data files", "inner, notes.md", ".parquet")
    (tmp_path / "rows.xlsx").write_text("")
    _refused(tmp_path / "rows.xlsx", "unknown file type", ".jsonl")


def test_a_folder_of_several_types(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", ROWS)
    write_csv(tmp_path / "rows.csv", ROWS)
    _refused(tmp_path, "several types", ".csv, .jsonl")


def test_a_folder_without_the_split(tmp_path):
    for split in ("dev", "train"):
        write_jsonl(tmp_path / f"{split}.jsonl", ROWS)
    _refused(tmp_path, "no split 'test'", "dev, train", "task.split=NAME", split="test")
    saved = datasets.DatasetDict({name: datasets.Dataset.from_list(ROWS) for name in ("dev", "train")})
    saved.save_to_disk(str(tmp_path / "saved"))
    _refused(tmp_path / "saved", "no split 'test'", "dev, train", split="test")


def test_a_folder_with_a_missing_shard(tmp_path):
    for index in (0, 2):
        write_parquet(tmp_path / "data" / f"dev-{index:05d}-of-00003.parquet", ROWS)
    _refused(tmp_path, "shard dev-00001-of-00003 is missing")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("dev-00000-of-00001-aaaa", "dev-00000-of-00001-bbbb"),
            "has one shard twice: dev-00000-of-00001-aaaa.parquet",
        ),
        (("dev-00000-of-00001", "dev-00000-of-00002", "dev-00001-of-00002"), "dev is there in 1 and in 2 shards"),
    ],
)
def test_two_versions_in_one_folder(names, message, tmp_path):
    for name in names:
        write_parquet(tmp_path / "data" / f"{name}.parquet", ROWS)
    _refused(tmp_path, message)


def test_a_damaged_saved_dataset(tmp_path):
    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "saved"))
    next((tmp_path / "saved").glob("*.arrow")).unlink()
    _refused(tmp_path / "saved", "save_to_disk", "write it again")


@pytest.mark.parametrize("write", [write_jsonl, write_parquet, write_csv])
def test_both_layouts_in_one_folder(write, tmp_path):
    write_parts(tmp_path, mteb_parts(ROWS))
    suffix = {write_jsonl: "jsonl", write_parquet: "parquet", write_csv: "csv"}[write]
    write(tmp_path / f"rows.{suffix}", ROWS)
    _refused(tmp_path, "both layouts", f"rows.{suffix}")


def test_rows_in_the_data_folder_beside_parts(tmp_path):
    write_hub_parts(tmp_path, mteb_parts(ROWS))
    write_parquet(tmp_path / "data" / "dev-00000-of-00001.parquet", ROWS)
    _refused(tmp_path, "both layouts", "dev-00000-of-00001.parquet")


def test_other_files_beside_parts_do_no_harm(tmp_path):
    write_parts(tmp_path, mteb_parts(ROWS))
    (tmp_path / "descriptive_stats.json").write_text('{"num_samples": 5}')
    assert load(tmp_path).layout == "mteb"


def test_a_part_that_is_missing_or_there_twice(tmp_path):
    parts = mteb_parts(ROWS)
    write_parts(tmp_path / "a", {name: rows for name, rows in parts.items() if name != "queries"})
    _refused(tmp_path / "a", "no queries", "corpus, top_ranked, qrels")
    _refused(tmp_path / "a" / "corpus.jsonl", "one part", "give its folder")
    write_parts(tmp_path / "b", parts)
    write_parquet(tmp_path / "b" / "corpus.parquet", parts["corpus"])
    _refused(tmp_path / "b", "corpus twice", "corpus.jsonl, corpus.parquet")


def _set(part, number, **changes):
    return lambda parts: parts[part][number].update(changes)


@pytest.mark.parametrize(
    ("edit", "fragments"),
    [
        (_set("qrels", 1, **{"query-id": "q?"}), ["qrels", "row 2", "column query-id", "'q?' names no queries"]),
        (_set("qrels", 1, **{"corpus-id": "d?"}), ["qrels", "row 2", "column corpus-id", "'d?' names no corpus"]),
        (_set("qrels", 1, score=-1.5), ["qrels", "row 2", "column score", "-1.5", "whole number"]),
        (_set("qrels", 1, score="high"), ["qrels", "row 2", "column score", "the text 'high'", "whole number"]),
        (_set("qrels", 1, score=0.5), ["qrels", "row 2", "column score", "0.5"]),
        (_set("qrels", 1, score=None), ["qrels", "row 2", "column score", "null"]),
        (_set("qrels", 1, score="inf"), ["qrels", "row 2", "column score", "whole number"]),
        (_set("top_ranked", 1, **{"query-id": "q?"}), ["top_ranked", "row 2", "'q?' names no queries"]),
        (_set("top_ranked", 1, **{"corpus-ids": ["d?"]}), ["top_ranked", "row 2", "column corpus-ids", "'d?'"]),
        (_set("top_ranked", 1, **{"corpus-ids": "x"}), ["top_ranked", "row 2", "the text 'x'", "list of ids"]),
        (_set("top_ranked", 1, **{"query-id": "dev_query0"}), ["top_ranked", "row 2", "given twice"]),
        (_set("corpus", 1, id="apositive_dev_query0_00000"), ["corpus", "row 2", "column id", "given twice"]),
        (_set("corpus", 1, id=None), ["corpus", "row 2", "column id", "null"]),
        (_set("corpus", 1, text=3), ["corpus", "row 2", "column text", "the number 3"]),
        (_set("corpus", 1, title=3), ["corpus", "row 2", "column title", "the number 3"]),
        (_set("corpus", 1, text=None), ["corpus", "row 2", "column text", "null"]),
        (_set("queries", 1, id="dev_query0"), ["queries", "row 2", "column id", "given twice"]),
        (_set("queries", 1, text={"role": "user"}), ["queries", "row 2", "column text", "an object"]),
        (
            lambda parts: [row.pop("score") for row in parts["qrels"]],
            ["qrels", "no column score", "query-id, corpus-id"],
        ),
        (lambda parts: [row.pop("id") for row in parts["corpus"]], ["corpus", "no column id or _id", "title, text"]),
        (lambda parts: [row.pop("text") for row in parts["queries"]], ["queries", "no column text"]),
    ],
)
def test_broken_parts(edit, fragments, tmp_path):
    parts = mteb_parts(copy.deepcopy(ROWS))
    edit(parts)
    _refused(write_parts(tmp_path / "d", parts, "qrels/dev.jsonl"), *fragments)


@pytest.mark.parametrize(
    "rows",
    [
        [{"query": "q", "positive": ["a"], "negative": []}, {"query": "q", "positive": [], "negative": ["b"]}],
        [{"query": "q", "positive": [], "negative": []}],
    ],
)
def test_nothing_that_can_be_scored(rows, tmp_path):
    _refused(write_jsonl(tmp_path / "rows.jsonl", rows), "rows.jsonl", f"none of its {len(rows)} queries")


def test_qrels_without_negatives_and_no_top_ranked(tmp_path):
    parts = mteb_parts(ROWS)
    del parts["top_ranked"]
    parts["qrels"] = [row for row in parts["qrels"] if row["score"]]
    _refused(write_parts(tmp_path / "d", parts), "none of its 4 queries", "top_ranked")


ODD_ROWS = [
    GOOD,
    {"query": "q2", "positive": ["a", "a"], "negative": ["b"]},
    {"query": "q3", "positive": ["a"], "negative": ["b", "a"]},
    {"query": "q4", "positive": ["a"], "negative": [" ", "b"]},
    {"query": "q5", "positive": ["a"], "negative": []},
    {"query": "", "positive": ["a"], "negative": ["b"]},
    *[{"query": f"n{i}", "positive": [], "negative": ["b"]} for i in range(20)],
]
ODD_FINDINGS = {
    ("note", "positive", 2, "query with duplicate candidates: all are kept"),
    ("warning", "", 3, "query with a text that is both positive and negative"),
    ("warning", "negative", 4, "empty text"),
    ("note", "negative", 5, "query without negatives: cmteb-v1 leaves it out"),
    ("warning", "query", 6, "empty text"),
    (
        "note",
        "positive",
        7,
        "query without positives: cmteb-v1 leaves it out (20 of them, first in rows 7, 8, 9, 10, 11)",
    ),
}


def test_odd_rows_are_findings(tmp_path, caplog):
    path = write_jsonl(tmp_path / "rows.jsonl", ODD_ROWS)
    with caplog.at_level(logging.INFO, "evalkit"):
        task = load(path)
    assert {(f.severity, f.column, f.row, f.message) for f in task.findings} == ODD_FINDINGS
    assert {f.file for f in task.findings} == {str(path)}
    assert task.statistics.queries == len(ODD_ROWS)
    assert task.statistics.queries_without_positives == 20
    assert task.statistics.queries_without_negatives == 1
    # one line per kind, warnings as warnings
    assert len(caplog.records) == len(ODD_FINDINGS)
    assert sum(record.levelno == logging.WARNING for record in caplog.records) == 3
    assert any(
        re.search(r"rows: .*rows\.jsonl, row 3: query with a text that is both", record.message)
        for record in caplog.records
    )


def test_duplicates_stay_candidates(tmp_path):
    task = load(write_jsonl(tmp_path / "rows.jsonl", ODD_ROWS))
    assert [candidate.text for candidate in task.requests[1].candidates] == ["a", "a", "b"]


def test_odd_parts_are_findings(tmp_path):
    parts = mteb_parts(ODD_ROWS[:5])
    parts["qrels"].append(parts["qrels"][0])
    for row in parts["queries"]:
        row["instruction"] = "find it"
    parts["corpus"][0]["text"] = " "
    task = load(write_parts(tmp_path / "d", parts))
    found = {(f.severity, Path(f.file).name, f.row, f.message) for f in task.findings}
    assert found == {
        ("warning", "corpus.jsonl", 1, "empty text (2 of them, first in rows 1, 10)"),
        ("warning", "queries.jsonl", None, "instructions are not read: 5 of 5 queries go without them"),
        ("warning", "dev.tsv", 13, "judgement given twice for a query and document: the last one counts"),
        ("note", "queries.jsonl", 2, "query with duplicate candidates: all are kept"),
        ("warning", "queries.jsonl", 3, "query with a text that is both positive and negative"),
        ("note", "queries.jsonl", 5, "query without negatives among its candidates: cmteb-v1 leaves it out"),
    }


def test_a_clean_dataset_has_no_findings(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "evalkit"):
        task = read_task(local_settings(write_jsonl(tmp_path / "rows.jsonl", [GOOD])))
    assert task.findings == ()
    assert not [record for record in caplog.records if record.name == "evalkit"]
