"""What decides a figure is read, reported with counts, or refused by name: columns, keys, lists, labels, files and runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from task_files import ROWS, Rows, load, mteb_parts, write_csv, write_json, write_jsonl, write_parquet, write_parts
from test_one_content_many_layouts import CONTENT, beir, pack, plain_lines, triples

from evalkit.errors import EvalkitError
from evalkit.records import Task
from evalkit.run_files import read_run

GOOD = {"query": "q", "positive": ["a"], "negative": ["b"]}
PAIRS: Rows = [
    {"query": "q", "document": "a", "label": 1},
    {"query": "q", "document": "b", "label": 0},
    {"query": "r", "document": "c", "label": 0},
    {"query": "r", "document": "d", "label": 1},
]


def write_text(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(path: Path, *fragments: str, **changes: Any) -> None:
    with pytest.raises(EvalkitError) as error:
        load(path, **changes)
    message = str(error.value)
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message, message


def reported(task: Task, *fragments: str, severity: str = "warning") -> None:
    found = [finding for finding in task.findings if all(part in finding.message for part in fragments)]
    assert [finding.severity for finding in found] == [severity], task.findings


def texts(task: Task) -> list[list[tuple[str, int]]]:
    return [[(candidate.text, candidate.gain) for candidate in request.candidates] for request in task.requests]


def repeated_columns(path: Path) -> Path:
    names = ["query", "positive", "negative", "negative"]
    pq.write_table(pa.table([pa.array(["q"]), pa.array(["a"]), pa.array(["b"]), pa.array(["c"])], names=names), path)
    return path


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (lambda d: write_text(d / "a.csv", "query,positive,negative,negative\nq,a,b,c\n"), "negative"),
        (lambda d: write_text(d / "a.tsv", "query\tquery\tpositive\tnegative\nq\tr\ta\tb\n"), "query"),
        (lambda d: pack(write_text(d / "a.csv", "query,document,label,label\nq,a,1,0\n")), "label"),
        (lambda d: repeated_columns(d / "a.parquet"), "negative"),
        (lambda d: pack(repeated_columns(d / "a.parquet")), "negative"),
        (
            lambda d: write_text(
                d / "a.json",
                '{"columns": ["query", "positive", "negative", "negative"], "data": [["q", "a", "b", "c"]]}',
            ),
            "negative",
        ),
    ],
)
def test_columns_of_one_name_are_refused(write: Callable[[Path], Path], name: str, tmp_path: Path) -> None:
    refused(write(tmp_path), f"the column '{name}' more than once", f"{name}_1 and {name}_2")


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        (
            "a.jsonl",
            '{"query": "q", "positive": ["a"], "negative": ["b"], "negative": ["c"]}\n',
            "row 1: the key 'negative'",
        ),
        ("a.json", '[{"query": "q", "query": "r", "positive": ["a"], "negative": ["b"]}]', "the key 'query'"),
        ("a.jsonl.gz", '\n{"query": "q", "pos": ["a"], "pos": ["x"], "neg": ["b"]}\n', "row 2: the key 'pos'"),
        (
            "a.jsonl",
            '{"query": "q", "positive": ["a"], "negative": ["b"], "meta": {"x": 1, "x": 2}}\n',
            "row 1: the key 'x'",
        ),
    ],
)
def test_keys_of_one_name_are_refused(name: str, content: str, place: str, tmp_path: Path) -> None:
    path = write_text(tmp_path / name.removesuffix(".gz"), content)
    refused(pack(path) if name.endswith(".gz") else path, place, "given twice in one object")


def test_a_key_twice_in_a_part_is_refused(tmp_path: Path) -> None:
    folder = write_parts(tmp_path / "d", mteb_parts(ROWS))
    with (folder / "corpus.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('{"id": "x", "text": "one", "text": "two"}\n')
    refused(folder, "corpus.jsonl", "the key 'text' is given twice")


@pytest.mark.parametrize(
    ("first", "second"), [("negative", "negative.1"), ("negative_1", "negative_2"), ("neg", "neg 2")]
)
def test_numbered_columns_are_all_read(first: str, second: str, tmp_path: Path) -> None:
    """pandas renames the second column of a name to NAME.1; sentence-transformers numbers its negatives."""
    rows = [
        {"query": "q", "positive": "a", first: "b", second: "c"},
        {"query": "r", "positive": "a", first: "b", second: "b"},
    ]
    task = load(write_csv(tmp_path / "a.csv", rows))
    assert texts(task) == [[("a", 1), ("b", 0), ("c", 0)], [("a", 1), ("b", 0)]]
    reported(task, "1 repeated text")


@pytest.mark.parametrize(
    "cell", ["['a', 'b']", "['a' 'b']", "('a', 'b')", "array(['a'], dtype=object)", "[\"a\", 'b']", '["a" "b"]']
)
@pytest.mark.parametrize(
    "columns", ["query,positive,negative", "query,pos,neg", "query,negative_1,positive", "query,document,label"]
)
def test_lists_in_csv_that_are_no_json(columns: str, cell: str, tmp_path: Path) -> None:
    quoted = '"' + cell.replace('"', '""') + '"'
    path = write_text(tmp_path / "a.csv", f"{columns}\nq,{quoted},1\nq,x,0\n")
    refused(path, "row 1", columns.split(",")[1], "no JSON list; write lists as json.dumps does")


@pytest.mark.parametrize("cell", ["['a', 'b']", '["a", "b"]', "['a' 'b']"])
@pytest.mark.parametrize("write", [write_jsonl, write_json, write_parquet])
def test_lists_that_typed_files_hold_as_text(write: Any, cell: str, tmp_path: Path) -> None:
    path = tmp_path / {write_jsonl: "a.jsonl", write_json: "a.json", write_parquet: "a.parquet"}[write]
    refused(
        write(path, [{"query": "q", "positive": cell, "negative": "b"}]), "column positive", "a list written as text"
    )
    refused(write(path, [{"query": "q", "document": cell, "label": 1}]), "column document", "a list written as text")
    refused(
        write(path, [{"query": "q", "documents": ["a", "b"], "labels": "[1, 0]"}]), "column labels", "list of 2 labels"
    )


@pytest.mark.parametrize("write", [write_jsonl, write_csv, write_parquet])
@pytest.mark.parametrize("change", [str.title, str.upper, str.capitalize])
def test_capital_letters_in_names_of_columns(change: Callable[[str], str], write: Any, tmp_path: Path) -> None:
    lists = [GOOD | {"positive": ["a", "c"]}, GOOD | {"query": "r"}]
    single = [
        {"anchor": "q", "positive": "a", "negative_1": "b", "negative_2": "c"},
        {"anchor": "q", "positive": "a", "negative_1": "b", "negative_2": "d"},
    ]
    labelled = [{"question": "q", "passages": ["a", "b"], "labels": [1, 0]}]
    for number, rows in enumerate((lists, single, PAIRS, labelled)):
        suffix = write.__name__.removeprefix("write_")
        small = load(write(tmp_path / f"small-{number}.{suffix}", rows))
        large_rows = [{change(name): value for name, value in row.items()} for row in rows]
        large = load(write(tmp_path / f"large-{number}.{suffix}", large_rows))
        assert (large.requests, len(large.findings)) == (small.requests, len(small.findings))


@pytest.mark.parametrize("name", ["Query", "POSITIVE", "Negative", "Pos"])
def test_a_name_in_small_and_capital_letters_is_refused(name: str, tmp_path: Path) -> None:
    meaning = {"Pos": "positive"}.get(name, name.lower())
    both = [GOOD | {name: ["c"]}]
    refused(write_jsonl(tmp_path / "a.jsonl", both), f"the columns {meaning} and {name} could each be the {meaning}")


@pytest.mark.parametrize("name", ["hard_negatives", "hard_negative", "hard_neg", "Hard Negatives", "hard-negative"])
def test_hard_negatives_are_the_negatives_where_there_are_no_others(name: str, tmp_path: Path) -> None:
    rows: Rows = [{"query": "q", "positive": ["a"], name: ["b", "c"]}, {"query": "r", "positive": ["a"], name: ["d"]}]
    for path in (write_jsonl(tmp_path / "a.jsonl", rows), write_csv(tmp_path / "a.csv", rows)):
        task = load(path)
        assert texts(task) == [[("a", 1), ("b", 0), ("c", 0)], [("a", 1), ("d", 0)]]
        assert task.findings == ()
    triple = {"query": "q", "positive": "a", f"{name}_1": "b", f"{name}_2": "c"}
    assert texts(load(write_csv(tmp_path / "t.csv", [triple]))) == [[("a", 1), ("b", 0), ("c", 0)]]


def passages(*documents: tuple[str | None, str]) -> list[dict[str, Any]]:
    return [{"docid": str(i), "title": title, "text": text} for i, (title, text) in enumerate(documents)]


TEVATRON: Rows = [
    {
        "query_id": "1",
        "query": "q",
        "positive_passages": passages(("T", "a "), ("", " b ")),
        "negative_passages": passages(("U", "c"), (None, "d")),
    },
    {"query_id": "2", "query": "r", "positive_passages": passages(("T", "a")), "negative_passages": ["plain"]},
]
DPR: Rows = [
    {
        "dataset": "nq",
        "question": "q",
        "answers": ["b"],
        "positive_ctxs": passages(("T", "a"), ("", "b")),
        "negative_ctxs": passages(("U", "c")),
        "hard_negative_ctxs": passages((None, "d")),
    },
    {
        "question": "r",
        "positive_ctxs": passages(("T", "a")),
        "negative_ctxs": [],
        "hard_negative_ctxs": passages(("", "plain")),
    },
]


@pytest.mark.parametrize("rows", [TEVATRON, DPR])
@pytest.mark.parametrize("write", [write_jsonl, write_json, write_parquet])
def test_rows_of_tevatron_and_dpr(write: Any, rows: Rows, tmp_path: Path) -> None:
    if write is write_parquet and rows is TEVATRON:
        rows = [*rows[:1], {**rows[1], "negative_passages": passages(("", "plain"))}]  # one type a column
    path = write(tmp_path / f"train.{write.__name__.removeprefix('write_')}", rows)
    task = load(tmp_path, split="train")
    assert load(path).requests == task.requests
    assert texts(task) == [[("T a", 1), ("b", 1), ("U c", 0), ("d", 0)], [("T a", 1), ("plain", 0)]]
    told = [finding for finding in task.findings if "title, a space and its text" in finding.message]
    assert [finding.severity for finding in told] == ["note", "note"]
    answers = [finding.message for finding in task.findings if finding.severity == "warning"]
    assert answers == ["the column answers is not read, though it holds something in 1 of 2 rows"] * (rows is DPR)


@pytest.mark.parametrize(
    ("changed", "fragments"),
    [
        ({"positive_passages": "a"}, ["row 1, column positive_passages", "the text 'a' where a list of texts is due"]),
        ({"positive_passages": [{"text": 3}]}, ["row 1, column positive_passages", "an object where a text is due"]),
        ({"negative_passages": [{"title": "T"}]}, ["row 1, column negative_passages", "an object where a text is due"]),
        ({"negative_passages": [*passages(("T", "a")), None]}, ["column negative_passages", "null or missing"]),
        ({"positive_passages": [{"title": 3, "text": "a"}]}, ["column positive_passages", "the number 3"]),
        (
            {"positive_passages": {"text": ["a"]}},
            ["column positive_passages", "an object where a list of texts is due"],
        ),
        ({"negative_ctxs": passages(("T", "a"))}, ["negative_passages and negative_ctxs could each be the negative"]),
    ],
)
def test_passages_without_texts_are_refused(changed: dict[str, Any], fragments: list[str], tmp_path: Path) -> None:
    refused(write_jsonl(tmp_path / "a.jsonl", [TEVATRON[0] | changed, TEVATRON[0]]), *fragments)
    if changed.keys() == {"positive_passages"} and isinstance(changed["positive_passages"], list):
        refused(write_csv(tmp_path / "a.csv", TEVATRON), "column positive_passages", "a list of texts is due")


@pytest.mark.parametrize("column", ["document", "passages"])
@pytest.mark.parametrize("quoted", [0, 1, 3])
def test_a_list_of_one_text_beside_a_single_label_is_that_text(column: str, quoted: int, tmp_path: Path) -> None:
    """It is how CSV says a text in brackets, as the message about cells in brackets advises."""
    rows: Rows = [{"query": row["query"], column: f"[{row['document']}, x]", "label": row["label"]} for row in PAIRS]
    for number, row in enumerate(rows):
        row[column] = [row[column]] if number <= quoted else row[column].strip("[]")
    expected = [[("[a, x]", 1), ("[b, x]" if quoted else "b, x", 0)]]
    task = load(write_csv(tmp_path / "a.csv", rows))
    assert texts(task)[:1] == expected
    assert texts(load(write_jsonl(tmp_path / "a.jsonl", rows))) == texts(task)
    reported(task, "4 rows hold 2 queries", severity="note")


@pytest.mark.parametrize(("cell", "count"), [(["a", "c"], "2 labels"), (["a", "c", "d"], "3 labels"), ([], "0 labels")])
def test_lists_of_texts_beside_a_single_label_are_refused(cell: list[str], count: str, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [{**PAIRS[0], "document": cell}, *PAIRS[1:]])
    refused(path, "row 1, column label", f"a list of {count} is due, one for each text of document")


def test_a_query_that_is_a_list_written_as_text(tmp_path: Path) -> None:
    refused(
        write_text(tmp_path / "a.csv", "query,positive,negative\n\"['q', 'r']\",a,b\n"), "column query", "no JSON list"
    )
    reported(
        load(write_jsonl(tmp_path / "a.jsonl", [GOOD | {"query": "['q', 'r']"}])), "a query that seems to be a list"
    )


@pytest.mark.parametrize("separator", ["|", " || ", ";;", "[SEP]"])
def test_lists_by_separators_are_reported(separator: str, tmp_path: Path) -> None:
    rows = [{"query": f"q{i}", "positive": f"a{separator}b" if i else "a", "negative": f"c{i}"} for i in range(4)]
    task = load(write_csv(tmp_path / "a.csv", rows))
    reported(task, "3 of 4 cells hold", "as JSON lists")
    assert load(write_csv(tmp_path / "b.csv", rows[:1])).findings == ()


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "jsonl.gz", "parquet"])
@pytest.mark.parametrize(
    ("one", "other"), [("law", "medicine"), ("test", "data/test"), ("test", "hard"), ("v1-hard", "v2-easy")]
)
def test_files_of_several_datasets_are_not_pooled(one: str, other: str, suffix: str, tmp_path: Path) -> None:
    write = {"jsonl": write_jsonl, "csv": write_csv, "parquet": write_parquet}[suffix.removesuffix(".gz")]
    for name in (one, other):
        path = tmp_path / f"{name}.{suffix.removesuffix('.gz')}"
        path.parent.mkdir(exist_ok=True)
        write(path, ROWS)
        if suffix.endswith(".gz"):
            pack(path)
    refused(tmp_path, "may be several datasets", f"{one}.{suffix}", f"{other}.{suffix}", "task.path=FILE", split="test")


def test_numbered_files_are_one_dataset_if_their_columns_are(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a" / "part-1.jsonl", ROWS[:2])
    write_jsonl(tmp_path / "a" / "part-2.jsonl", ROWS[2:])
    task = load(tmp_path / "a")
    assert task.fingerprint == load(write_jsonl(tmp_path / "whole.jsonl", ROWS)).fingerprint
    reported(task, "2 files are read as one dataset", "part-1.jsonl, part-2.jsonl")
    write_jsonl(tmp_path / "a" / "part-2.jsonl", [{"query": "q", "pos": ["a"], "neg": ["b"]}])
    refused(tmp_path / "a", "part-2.jsonl", "not those of", "part-1.jsonl")


JOB, OTHER_JOB = "3f2504e0-4f89-41d3-9a0c-0305e82c3301", "9b2d5c1e-1111-4222-8333-0305e82c3399"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (f"part-00000-{JOB}-c000.snappy.parquet", f"part-00001-{JOB}-c000.snappy.parquet"),
        (f"part-00000-{JOB}-c000.json", f"part-00003-{JOB}-c000.json"),  # empty parts are not written
        (f"part-00000-{JOB}-c000.csv", f"part-00000-{JOB}-c001.csv"),
        (f"part-00000-{JOB}-c000.json.gz", f"part-00001-{JOB}-c000.json.gz"),
        (f"part-00000-{JOB}_00000.c000.zstd.parquet", f"part-00001-{JOB}_00001.c000.zstd.parquet"),
        (f"part-r-00000-{JOB}.gz.parquet", f"part-r-00001-{JOB}.gz.parquet"),
        (f"part-00000-tid-8572-{JOB}-7-1-c000.snappy.parquet", f"part-00001-tid-8572-{JOB}-8-1-c000.snappy.parquet"),
    ],
)
def test_a_folder_of_spark_is_one_dataset(first: str, second: str, tmp_path: Path) -> None:
    whole = load(write_jsonl(tmp_path / "whole.jsonl", ROWS))
    folder = tmp_path / "spark"
    folder.mkdir()
    for name, rows in ((first, ROWS[:2]), (second, ROWS[2:])):
        suffix = Path(name.removesuffix(".gz") if name.endswith(".json.gz") else name).suffix
        write = {".parquet": write_parquet, ".json": write_jsonl, ".csv": write_csv}[suffix]
        path = write(folder / name.removesuffix(".gz"), rows)
        if name.endswith(".gz"):
            pack(path)
        write_text(folder / f".{name}.crc", b"crc\0")
    for name in ("_SUCCESS", "._SUCCESS.crc", "_committed_8572", "_started_8572"):
        write_text(folder / name, "")
    task = load(folder)
    assert task.requests == whole.requests
    reported(task, "2 files are read as one dataset", first, second)
    appended = folder / second.replace(JOB, OTHER_JOB)
    (folder / second).rename(appended)
    refused(folder, "may be several datasets", first, appended.name)


def test_an_empty_first_file_of_spark_is_no_part(tmp_path: Path) -> None:
    empty = write_text(tmp_path / f"part-00000-{JOB}-c000.json", "")
    refused(tmp_path, "all its files are empty")
    other = write_jsonl(tmp_path / f"part-00002-{JOB}-c000.json", ROWS)
    task = load(tmp_path)
    assert len(task.requests) == len(ROWS)
    reported(task, f"read: {other.name}; not read: {empty.name}", severity="note")
    damaged = empty.rename(tmp_path / f"part-00001-{JOB}-c000.json")
    refused(tmp_path, damaged.name, "not JSON")
    damaged.unlink()
    write_parquet(other.rename(other.with_suffix(".parquet")), ROWS)
    damaged = write_text(tmp_path / f"part-00000-{JOB}-c000.parquet", "")
    refused(tmp_path, damaged.name, "no readable parquet")


@pytest.mark.parametrize("stem", ["part-00001-law", f"law-00001-{JOB}", f"part-1-{JOB}", f"part-00001-{JOB}-hard"])
def test_what_is_not_called_as_spark_calls_it_is_not_pooled(stem: str, tmp_path: Path) -> None:
    first, second = f"part-00000-{JOB}-c000.jsonl", f"{stem}.jsonl"
    write_jsonl(tmp_path / first, ROWS)
    write_jsonl(tmp_path / second, ROWS)
    refused(tmp_path, "may be several datasets", first, second)


def test_parts_of_mtebs_layout_that_spark_wrote(tmp_path: Path) -> None:
    parts = mteb_parts(ROWS)
    reference = load(write_parts(tmp_path / "one", parts))
    for part, rows in parts.items():
        for number in range(2):
            write_jsonl(tmp_path / "two" / part / f"part-0000{number}-{JOB}-c000.json", rows[number::2])
        write_text(tmp_path / "two" / part / "_SUCCESS", "")
    task = load(tmp_path / "two")
    assert {one.query.query_id: set(one.candidates) for one in task.requests} == {
        one.query.query_id: set(one.candidates) for one in reference.requests
    }


@pytest.mark.parametrize(
    ("label", "fragments"),
    [
        ("relevant", ["the text 'relevant'", "whole number", "0 for irrelevant"]),
        ("yes", ["the text 'yes'", "whole number"]),
        ("T", ["the text 'T'", "whole number"]),
        (-1, ["negative relevance -1", "write 0"]),
        (-2.0, ["negative relevance -2", "write 0"]),
        (0.73, ["0.73", "whole number"]),
        ("0.5", ["'0.5'", "whole number"]),
        (None, ["null or missing", "whole number"]),
        ("", ["''", "whole number"]),
        ([1], ["a list", "whole number"]),
    ],
)
def test_labels_that_are_no_grades(label: Any, fragments: list[str], tmp_path: Path) -> None:
    refused(write_jsonl(tmp_path / "a.jsonl", [*PAIRS, PAIRS[0] | {"label": label}]), "row 5, column label", *fragments)
    lists = [{"query": "q", "documents": ["a", "b"], "labels": [1, label]}]
    refused(write_jsonl(tmp_path / "b.jsonl", lists), "row 1, column labels", *fragments)


@pytest.mark.parametrize(
    "write",
    [
        lambda folder, rows: write_jsonl(folder / "a.jsonl", rows),
        lambda folder, rows: write_json(folder / "a.json", rows),
        lambda folder, rows: write_parquet(folder / "a.parquet", rows),
        lambda folder, rows: write_csv(folder / "a.csv", rows),
        lambda folder, rows: write_jsonl(folder / "a.jsonl", [row | {"label": f"{row['label']}"} for row in rows]),
        lambda folder, rows: write_csv(folder / "a.tsv", [row | {"label": f"{row['label']}".upper()} for row in rows]),
    ],
)
def test_labels_that_are_true_or_false(write: Callable[[Path, Rows], Path], tmp_path: Path) -> None:
    reference = load(write_jsonl(tmp_path / "numbers.jsonl", PAIRS))
    task = load(write(tmp_path, [row | {"label": bool(row["label"])} for row in PAIRS]))
    assert (task.requests, task.fingerprint) == (reference.requests, reference.fingerprint)


def test_lists_of_labels_and_qrels_that_are_true_or_false(tmp_path: Path) -> None:
    lists = [{"query": "q", "documents": ["a", "b", "c"], "labels": [False, True, False]}]
    for name, write in (("a.jsonl", write_jsonl), ("a.parquet", write_parquet), ("a.csv", write_csv)):
        (request,) = load(write(tmp_path / name, lists)).requests
        assert {(one.text, one.gain) for one in request.candidates} == {("a", 0), ("b", 1), ("c", 0)}
    parts = mteb_parts(ROWS)
    reference = load(write_parts(tmp_path / "numbers", parts))
    parts["qrels"] = [row | {"score": bool(row["score"])} for row in parts["qrels"]]
    assert load(write_parts(tmp_path / "truths", parts)).requests == reference.requests


@pytest.mark.parametrize("lowest", [-1, -2, -100])
def test_negative_grades_in_qrels(lowest: int, tmp_path: Path) -> None:
    """trec_eval counts them as not relevant."""
    parts = mteb_parts([ROWS[2]], split="test")
    for folder, irrelevant in ((tmp_path / "zeros", 0), (tmp_path / "negative", lowest)):
        folder.mkdir()
        for name, part in (("topics", "queries"), ("corpus", "corpus")):
            plain_lines(folder / f"{name}.tsv", [(one["id"], one["text"]) for one in parts[part]])
        judged = [(one["query-id"], 0, one["corpus-id"], one["score"] or irrelevant) for one in parts["qrels"]]
        plain_lines(folder / "qrels.txt", judged, " ")
    task = load(tmp_path / "negative", split="test")
    assert task.requests == load(tmp_path / "zeros", split="test").requests
    negatives = sum(not one["score"] for one in parts["qrels"])
    assert negatives > 1
    reported(task, "negative grade: read as 0", f"({negatives} of them")
    with_names = mteb_parts(ROWS)
    zeros = load(write_parts(tmp_path / "named zeros", with_names))
    with_names["qrels"] = [row | {"score": row["score"] or lowest} for row in with_names["qrels"]]
    assert load(write_parts(tmp_path / "named", with_names)).requests == zeros.requests


def test_labels_by_two_columns_or_of_two_minds(tmp_path: Path) -> None:
    for column, value in (("score", 1), ("score", 2.0), ("relevance", 0.5)):
        both = [row | {column: value} for row in PAIRS]
        refused(write_jsonl(tmp_path / "a.jsonl", both), f"the columns label and {column} could each be the label")
    three = [row | {"score": 0.5, "scores": 1} for row in PAIRS]
    refused(write_jsonl(tmp_path / "a.jsonl", three), "the columns label and score and scores could each be the label")
    three = [row | {"relevance": 1, "score": 0.5} for row in PAIRS]
    refused(write_jsonl(tmp_path / "a.jsonl", three), "the columns label and relevance could each be the label")
    both = [row | {"question": "?"} for row in PAIRS]
    refused(write_jsonl(tmp_path / "b.jsonl", both), "the columns query and question could each be the query")
    for name in ("pos", "positives"):
        both = [GOOD | {name: ["c"]}]
        refused(write_jsonl(tmp_path / "p.jsonl", both), f"the columns positive and {name} could each be the positive")
    torn = [*PAIRS, PAIRS[0] | {"label": 0}]
    refused(write_jsonl(tmp_path / "c.jsonl", torn), "row 1, column label", "two different labels")
    short = [{"query": "q", "documents": ["a", "b", "c"], "labels": [1, 0]}]
    refused(write_jsonl(tmp_path / "d.jsonl", short), "row 1, column labels", "2 labels where a list of 3 labels")


@pytest.mark.parametrize("write", [write_jsonl, write_csv, write_parquet])
@pytest.mark.parametrize(("label", "score"), [("label", "score"), ("relevance", "scores"), ("Gain", "Score")])
def test_a_models_scores_beside_labels_are_not_read(label: str, score: str, write: Any, tmp_path: Path) -> None:
    suffix = write.__name__.removeprefix("write_")
    single = [{"query": row["query"], "document": row["document"], label: row["label"]} for row in PAIRS]
    lists = [{"query": "q", "documents": ["a", "b"], label: [1, 0]}]
    for number, (rows, scores) in enumerate(((single, [1.0, 0.25, 0.0, -3.5]), (lists, [[1.0, 1e-3]]))):
        reference = load(write(tmp_path / f"plain-{number}.{suffix}", rows))
        scored = [{score: one, **row} for row, one in zip(rows, scores, strict=True)]
        task = load(write(tmp_path / f"scored-{number}.{suffix}", scored))
        assert task.requests == reference.requests
        reported(task, f"the column {score} is not read", severity="note")


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        (pd.DataFrame([GOOD]).to_json(orient="values"), ["row 1", "a list where an object"]),
        (json.dumps(pd.DataFrame([GOOD, GOOD]).to_dict("list")), ["columns instead of rows", "orient='records'"]),
        (
            '{"query": ["q", "q"], "document": ["a", "b"], "label": [1, 0]}',
            ["columns instead of rows", "orient='records'"],
        ),
        ('{"query": ["q", "r"], "positive": ["a", "b"], "negative": ["c", "d"]}', ["columns instead of rows"]),
        ('{"query": {"0": "q"}, "positive": {"0": ["a"], "1": ["b"]}}', ["different keys", "orient='records'"]),
        ('{"columns": ["query"], "data": [["q", "a"]]}', ["do not have the 1 cells"]),
    ],
)
def test_json_of_pandas_that_is_no_rows(content: str, fragments: list[str], tmp_path: Path) -> None:
    refused(write_text(tmp_path / "a.json", content), *fragments)


@pytest.mark.parametrize(
    ("row", "fragments"),
    [
        (
            {"query": "q", "positive": [{"text": "a"}], "negative": [{"text": "b"}]},
            ["column positive", "the text that is in it"],
        ),
        (
            {"query": {"text": "q"}, "positive": ["a"], "negative": ["b"]},
            ["column query", "an object", "the text that is in it"],
        ),
        (
            {"query": "q", "positive": {"texts": ["a"]}, "negative": ["b"]},
            ["column positive", "an object where a list of texts"],
        ),
        ({"query": "q", "passages": {"passage_text": ["a"], "is_selected": [1]}}, ["no column label"]),
        ({"query": "q", "document": {"text": "a"}, "label": 1}, ["column document", "an object"]),
    ],
)
@pytest.mark.parametrize("write", [write_parquet, write_jsonl])
def test_structs_are_refused(write: Any, row: dict[str, Any], fragments: list[str], tmp_path: Path) -> None:
    refused(write(tmp_path / ("a.parquet" if write is write_parquet else "a.jsonl"), [row]), *fragments)


def test_files_without_a_first_line_of_names(tmp_path: Path) -> None:
    long = "一段很长的文字" * 20
    path = write_text(tmp_path / "triples.tsv", f"q\t{long}\tb\nq\tc\td\n")
    refused(path, "there is no column query", "say so in their first line")
    with pytest.raises(EvalkitError) as error:
        load(path)
    assert long not in str(error.value)


@pytest.mark.parametrize(
    ("name", "line", "fragments"),
    [
        ("qrels.txt", "q d 1", ["qrels.txt, row 9", "3 fields", "TREC's four columns"]),
        ("qrels.txt", "test_query0 0 nowhere 1", ["row 9, column corpus-id", "'nowhere' names no corpus"]),
        ("qrels.txt", "test_query0 0 negative_test_query1_00001 yes", ["column score", "the text 'yes'"]),
        ("topics.tsv", "q\ttext\tmore", ["topics.tsv, row", "3 fields", "a tab and its text"]),
        ("corpus.tsv", "d", ["corpus.tsv, row", "1 fields", "a tab and its text"]),
    ],
)
def test_lines_of_trecs_files_with_other_fields(name: str, line: str, fragments: list[str], tmp_path: Path) -> None:
    parts = mteb_parts([ROWS[2], ROWS[2]], split="test")
    plain_lines(tmp_path / "topics.tsv", [(one["id"], one["text"]) for one in parts["queries"]])
    plain_lines(tmp_path / "corpus.tsv", [(one["id"], one["text"]) for one in parts["corpus"]])
    plain_lines(
        tmp_path / "qrels.txt", [(one["query-id"], 0, one["corpus-id"], one["score"]) for one in parts["qrels"]], " "
    )
    assert len(load(tmp_path).requests) == 2
    with (tmp_path / name).open("a", encoding="utf-8") as stream:
        stream.write(f"{line}\n")
    refused(tmp_path, *fragments)


@pytest.mark.parametrize(
    ("name", "header"),
    [("qrels.txt", "query_id iter doc_id rel"), ("topics.tsv", "qid\ttitle"), ("corpus.tsv", "pid\tpassage")],
)
def test_first_lines_with_other_names(name: str, header: str, tmp_path: Path) -> None:
    parts = mteb_parts([ROWS[2]], split="test")
    plain_lines(tmp_path / "topics.tsv", [(one["id"], one["text"]) for one in parts["queries"]])
    plain_lines(tmp_path / "corpus.tsv", [(one["id"], one["text"]) for one in parts["corpus"]])
    plain_lines(
        tmp_path / "qrels.txt", [(one["query-id"], 0, one["corpus-id"], one["score"]) for one in parts["qrels"]], " "
    )
    path = tmp_path / name
    path.write_text(f"{header}\n{path.read_text(encoding='utf-8')}", encoding="utf-8")
    refused(tmp_path, f"{name}, row 1 seems to name columns")


def test_candidates_of_one_id_and_two_texts(tmp_path: Path) -> None:
    plain_lines(tmp_path / "qrels.dev.tsv", [("1", 0, "7", 1)])
    plain_lines(tmp_path / "top1000.dev", [("1", "7", "q", "a"), ("1", "8", "q", "b"), ("1", "7", "q", "other")])
    refused(tmp_path, "top1000.dev, row 3", "'7' has another text")
    run = "\n".join(f"1 Q0 {doc} {rank} {-rank} tag" for rank, doc in enumerate("78"))
    write_text(tmp_path / "top1000.dev", run)
    refused(tmp_path, "top1000.dev, row 1", "task.candidates=FILE")


def test_a_choice_of_splits_by_file_name(tmp_path: Path) -> None:
    parts = mteb_parts(ROWS[2:3], split="dev")
    for split in ("dev", "dev.small"):
        plain_lines(tmp_path / f"queries.{split}.tsv", [(one["id"], one["text"]) for one in parts["queries"]])
        plain_lines(
            tmp_path / f"qrels.{split}.tsv",
            [(one["query-id"], 0, one["corpus-id"], one["score"]) for one in parts["qrels"]],
        )
    plain_lines(tmp_path / "collection.tsv", [(one["id"], one["text"]) for one in parts["corpus"]])
    assert load(tmp_path, split="dev.small").split == "dev"
    refused(tmp_path, "no split 'test' but dev, dev.small", split="test")


# findings


def test_rows_of_one_query_are_one_query(tmp_path: Path) -> None:
    rows = triples(CONTENT)
    task = load(write_csv(tmp_path / "a.csv", rows))
    assert task.statistics.queries == len(CONTENT)
    reported(task, f"{len(rows)} rows hold {len(CONTENT)} queries", "read as one")
    reported(task, "repeated texts of a query", str(2 * len(rows) - task.statistics.pairs))


def test_list_valued_rows_of_one_query_stay_apart(tmp_path: Path) -> None:
    """C-MTEB's CMedQAv1 has such a query, which mteb scores twice."""
    task = load(write_jsonl(tmp_path / "a.jsonl", [GOOD, GOOD | {"positive": ["c"]}, GOOD | {"query": "r"}, GOOD]))
    assert task.statistics.queries == 4
    reported(task, "3 queries have only 1 different text", "as mteb does")


def test_parts_with_queries_of_one_text(tmp_path: Path) -> None:
    parts = mteb_parts([GOOD, GOOD, GOOD | {"query": "r"}])
    reported(load(write_parts(tmp_path / "d", parts)), "2 queries have only 1 different text")


@pytest.mark.parametrize(
    "write", [lambda d, rows: write_jsonl(d / "a.jsonl", rows), lambda d, rows: write_parts(d / "d", mteb_parts(rows))]
)
def test_queries_among_their_own_candidates(write: Any, tmp_path: Path) -> None:
    rows = [
        GOOD,
        {"query": "r", "positive": ["r"], "negative": ["b"]},
        {"query": ["s", "t"], "positive": ["a"], "negative": ["t"]},
    ]
    reported(load(write(tmp_path, rows)), "2 of 3 queries stand among their own candidates")


def test_grades_are_reported(tmp_path: Path) -> None:
    graded = [row | {"label": 3 * row["label"]} for row in PAIRS] + [{"query": "q", "document": "e", "label": 1}]
    task = load(write_jsonl(tmp_path / "a.jsonl", graded))
    reported(task, "grades, 1 (1), 3 (2)", "AP(rel=2)")
    assert texts(task)[0] == [("a", 3), ("e", 1), ("b", 0)]
    parts = mteb_parts(ROWS)
    parts["qrels"][0]["score"] = 2
    parts["top_ranked"][0]["corpus-ids"].pop(0)
    reported(load(write_parts(tmp_path / "d", parts)), "grades, 1 (4), 2 (1)")
    lists = [{"query": "q", "docs": ["a", "b"], "relevances": [2, 0]}]
    reported(load(write_jsonl(tmp_path / "b.jsonl", lists)), "grades, 2 (1)")


@pytest.mark.parametrize(
    "column", ["prompt", "instruction", "query_instruction", "title", "hard_negatives", "positive_passages"]
)
def test_columns_that_would_change_a_figure_are_reported(column: str, tmp_path: Path) -> None:
    rows = [GOOD | {column: "find it"}, GOOD | {"query": "r", column: ""}]
    reported(load(write_jsonl(tmp_path / "a.jsonl", rows)), f"the column {column} is not read", "1 of 2 rows")


def test_other_columns_are_noted(tmp_path: Path) -> None:
    rows = [GOOD | {"id": 1, "type": "normal", "pos_scores": [1.5], "neg_scores": [0.1]}]
    task = load(write_jsonl(tmp_path / "a.jsonl", rows))
    assert {finding.severity for finding in task.findings} == {"note"}
    assert {finding.column for finding in task.findings} == {"id", "type", "pos_scores", "neg_scores"}


def test_a_part_with_instructions_is_reported(tmp_path: Path) -> None:
    parts = mteb_parts(ROWS)
    parts["instruction"] = [{"query-id": one["id"], "instruction": "find it"} for one in parts["queries"]]
    reported(load(write_parts(tmp_path / "d", parts)), "instructions are not read: 4 of 4 queries")


def test_judged_candidates_are_reported(tmp_path: Path) -> None:
    task = load(beir(tmp_path / "d", CONTENT), split="test")
    reported(
        task,
        "there is no top_ranked",
        f"{len(CONTENT)} queries",
        f"{task.statistics.pairs} documents",
        "task.candidates=FILE",
    )


def test_documents_listed_twice_are_reported(tmp_path: Path) -> None:
    parts = mteb_parts(ROWS)
    for row in parts["top_ranked"][:2]:
        row["corpus-ids"].append(row["corpus-ids"][0])
    reported(load(write_parts(tmp_path / "d", parts)), "document listed twice for a query: taken once (2 of them")


# runs


def trec_lines(*rows: tuple[str, str, Any, float]) -> str:
    return "".join(f"{query} Q0 {doc} {rank} {score} tag\n" for query, doc, rank, score in rows)


@pytest.mark.parametrize(
    "rows",
    [
        [("q", "a", 1, 0.1), ("q", "b", 2, 0.2)],  # distances
        [("q", "a", 1, 0.9), ("q", "b", 2, 0.8), ("q", "c", 3, 0.85)],
        [("q", "a", 2, 0.9), ("q", "b", 1, 0.8)],  # whatever the order of the lines
        [("p", "a", 1, 0.9), ("q", "a", 0, 0.5), ("q", "b", 1, 0.5), ("q", "c", 2, 0.6)],
    ],
)
def test_ranks_that_contradict_the_scores(rows: Any, tmp_path: Path) -> None:
    path = write_text(tmp_path / "run.trec", trec_lines(*rows))
    table = pd.DataFrame(rows, columns=["query_id", "doc_id", "rank", "score"])
    table.to_parquet(tmp_path / "run.parquet")
    for file in (path, pack(write_text(tmp_path / "packed.trec", trec_lines(*rows))), tmp_path / "run.parquet"):
        with pytest.raises(EvalkitError, match=r"query 'q' has at rank .* contradict each other") as error:
            read_run(file)
        assert str(file) in str(error.value)
        assert "1 of" in str(error.value)


@pytest.mark.parametrize(
    "rows",
    [
        [("q", "a", 1, 0.2), ("q", "b", 1, 0.9)],
        [("q", "a", 0, 0.5), ("q", "b", 1, 0.5), ("q", "c", 7, -0.6)],
        [("q", "a", 2, 0.1), ("p", "a", 1, 0.01), ("q", "b", 1, 0.9)],
        [("q", "a", "x", 0.1), ("q", "b", "y", 0.9)],
    ],
)
def test_ranks_that_do_not(rows: Any, tmp_path: Path) -> None:
    assert len(read_run(write_text(tmp_path / "run.trec", trec_lines(*rows))).run["q"]) > 1


def test_predictions_of_mteb_are_a_run(tmp_path: Path) -> None:
    run = {"q": {"a": 1.5, "b": 0.5}}
    meta = {"mteb_model_meta": {"model_name": "x", "revision": "y"}}
    path = write_text(tmp_path / "T_predictions.json", json.dumps({**meta, "default": {"test": run}}))
    assert read_run(path).run == run
    assert read_run(pack(path)).run == run
    for content in (
        {**meta, "default": {"test": run, "dev": run}},
        {**meta, "en": {"test": run}, "zh": {"test": run}},
        meta,
    ):
        with pytest.raises(EvalkitError, match="one subset and split are due"):
            read_run(write_text(tmp_path / "b.json", json.dumps(content)))


def test_predictions_are_candidates(tmp_path: Path) -> None:
    parts = mteb_parts(ROWS)
    del parts["top_ranked"]
    run = {one["id"]: {two["id"]: 1.0 / (i + 1) for i, two in enumerate(parts["corpus"])} for one in parts["queries"]}
    path = write_text(tmp_path / "p.json", json.dumps({"mteb_model_meta": {}, "default": {"dev": run}}))
    task = load(write_parts(tmp_path / "d", parts), candidates=str(path), top_k=3)
    assert [len(request.candidates) for request in task.requests] == [3] * 4


@pytest.mark.parametrize("damage", [lambda c: c[:-9], lambda c: b"plain", lambda c: c + b"more"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_packed_files_that_are_damaged(name: str, damage: Any, tmp_path: Path) -> None:
    write = {"a.jsonl": write_jsonl, "a.csv": write_csv, "a.parquet": write_parquet}[name]
    path = pack(write(tmp_path / name, CONTENT))
    path.write_bytes(damage(path.read_bytes()))
    refused(path, str(path))
    refused(tmp_path, str(path))


def test_packed_names_and_types(tmp_path: Path) -> None:
    assert load(pack(write_jsonl(tmp_path / "law.v2.jsonl", ROWS))).name == "law.v2"
    task = load(pack(write_jsonl(tmp_path / "TEST.JSONL", ROWS)))
    assert len(task.requests) == 4
    refused(write_text(tmp_path / "a.txt.gz", b""), "unknown file type", ".gz")
