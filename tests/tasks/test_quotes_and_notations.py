"""Quotes, separators, lists and numbers as people write them: read as meant, reported beside the figure, or refused by name."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest
from task_files import load
from test_what_columns_mean import refused, reported, texts, trec_lines, write_text

from evalkit.errors import EvalkitError
from evalkit.run_files import read_run
from evalkit.tasks.tables import read_table

CSV = "query,positive,negative\n"
TSV = "query\tpositive\tnegative\n"
QRELS = "q1 0 d1 1\nq1 0 d2 0\n"
ROW = '{"query": "q", "positive": ["a"], "negative": ["b"]}\n'


def folder(root: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        write_text(root / name, content)
    return root


def collection(root: Path, lines: str, queries: str = "q1\twhat\n", qrels: str = QRELS) -> Path:
    return folder(root, {"collection.tsv": lines, "queries.tsv": queries, "qrels.txt": qrels})


# quotes


@pytest.mark.parametrize(
    ("lines", "first", "second"),
    [
        ('d1\t"an opening quote\nd2\tplain\n', '"an opening quote', "plain"),
        ('d1\t"word" and more\nd2\t"whole."\n', '"word" and more', '"whole."'),
        ('d1\ta 5" disk\nd2\t"whole."\n', 'a 5" disk', '"whole."'),
        ('d1\t"he said ""no"""\nd2\tplain\n', 'he said "no"', "plain"),
        ('d1\t"two\nlines"\nd2\tplain\n', "two\nlines", "plain"),
        ('"d1"\t"whole."\n"d2"\t"plain"\n', "whole.", "plain"),
        ('d1\t"a\ttab"\nd2\tplain\n', "a\ttab", "plain"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_quotes_of_a_collection(lines: str, first: str, second: str, end: str, tmp_path: Path) -> None:
    task = load(collection(tmp_path, lines.replace("\n", end)))
    assert texts(task) == [[(first.replace("\n", end), 1), (second, 0)]]


def test_quotes_of_rows_in_tsv(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.tsv", f'{TSV}q\ta\t"b\nr\tc\td\n')
    assert texts(load(path)) == [[("a", 1), ('"b', 0)], [("c", 1), ("d", 0)]]
    write_text(path, '"query"\t"positive"\t"negative"\n"q"\t"a"\t"b\nc"\n')
    assert texts(load(path)) == [[("a", 1), ("b\nc", 0)]]


def test_quotes_of_ids_in_qrels(tmp_path: Path) -> None:
    task = load(
        folder(
            tmp_path,
            {
                "corpus.jsonl": '{"_id": "\\"d", "text": "a"}\n{"_id": "e", "text": "b"}\n',
                "queries.jsonl": '{"_id": "q", "text": "x"}\n',
                "qrels/test.tsv": 'query-id\tcorpus-id\tscore\nq\t"d\t1\nq\te\t0\n',
            },
        ),
        split="test",
    )
    assert texts(task) == [[("a", 1), ("b", 0)]]


@pytest.mark.parametrize(
    ("lines", "line"),
    [
        ('d1\t"start\nd2\tmiddle\nd3\tend"\n', 1),  # quotes that would swallow two rows
        ('d1\tplain\nd2\t"Whole sentence."\n', 2),
        ('d1\tplain\nd2\t""\n', 2),
        ('d1\t"a ""b"""\nd2\t"c"\n', 2),
    ],
)
def test_quotes_of_tsv_that_can_be_read_both_ways(lines: str, line: int, tmp_path: Path) -> None:
    refused(collection(tmp_path / "d", lines), f"collection.tsv, line {line}:", "can be read both ways", ".jsonl")
    rows = "".join(f"{one}\n" for one in ["query\tpositive", *lines.strip().split("\n")])
    with pytest.raises(EvalkitError, match=f"a.tsv, line {line + 1}: .*can be read both ways"):
        read_table(write_text(tmp_path / "a.tsv", rows))


def test_cells_that_seem_enclosed_are_reported(tmp_path: Path) -> None:
    lines = 'd1\t"he said ""no"""\nd2\ta 5" disk\n'
    task = load(collection(tmp_path, f'{lines}d3\t"a" and "b"\n'))
    assert texts(task)[0][0] == ('"he said ""no"""', 1)
    reported(task, "1 cell in quotes with doubled quotes inside, first in line 1")
    refused(
        collection(tmp_path, lines),
        "line 2: a quote stands inside",
        "cell in quotes with doubled quotes inside, first in line 1",
    )
    # cut off behind a quote
    refused(collection(tmp_path, 'd1\t"he said ""no"""\nd2\t"'), "line 2", "never closed", "first in line 1")


@pytest.mark.parametrize(
    ("rows", "fragments"),
    [
        ('q,"abc" def,n\n', ["line 2", "stands before further text"]),
        ('q,a,b\nr,"c,d\ns,e,f\n', ["line 3", "never closed"]),
        ('q,a,"b\nr,c,d\ns,"e",f\n', ["line 2", "is closed in line 4", "further text"]),
        ('q,a,"b\nr,c,d\ns,e,f"\nt,g,h\n', ["line 2", "goes on to line 4", "could each be a row"]),
        ('q,5" disk,"x\ny"\n', ["line 2", "rows may be lost"]),
        ('q, "a",b\n', ["line 2", "take the blanks out"]),
    ],
)
def test_quotes_of_csv_that_do_not_match(rows: str, fragments: list[str], tmp_path: Path) -> None:
    refused(write_text(tmp_path / "a.csv", CSV + rows), "a.csv", *fragments)


def test_quotes_of_csv_that_do(tmp_path: Path) -> None:
    task = load(write_text(tmp_path / "a.csv", f'{CSV}q,5" disk,b\nr,"c, d","""e"""\ns,"f",g'))
    assert texts(task) == [[('5" disk', 1), ("b", 0)], [("c, d", 1), ('"e"', 0)], [("f", 1), ("g", 0)]]
    task = load(write_text(tmp_path / "b.csv", f'{CSV}x,"y, z",w\nq,a,"b\nr,c,d"\n'))
    reported(task, "1 of 2 rows hold a cell whose lines could each be a row, first in lines 3 to 4")


@pytest.mark.parametrize("separator", [",", "\t"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
def test_what_csv_writes_is_read_or_refused(separator: str, quoting: int, tmp_path: Path) -> None:
    generator = random.Random(0)
    path, read = tmp_path / ("a.csv" if separator == "," else "a.tsv"), 0
    for _ in range(400):
        rows = [["".join(generator.choices('ab",\t\n', k=4)) for _ in range(2)] for _ in range(3)]
        stream = io.StringIO()
        csv.writer(stream, delimiter=separator, quoting=quoting, lineterminator="\n").writerows([["c1", "c2"], *rows])  # type: ignore[arg-type]
        write_text(path, stream.getvalue())
        try:
            found = read_table(path)
        except EvalkitError as error:
            assert f"{path.name}, line" in str(error)  # noqa: PT017
            continue
        assert [list(row.values()) for row in found.rows] == rows
        read += 1
    assert read > 100


def test_what_is_written_without_quoting_is_read_or_refused(tmp_path: Path) -> None:
    generator = random.Random(0)
    path, read = tmp_path / "a.tsv", 0
    for _ in range(800):
        rows = [
            ["x" + "".join(generator.choices('a" ', k=3)), "".join(generator.choices('ab" ', k=5))] for _ in range(4)
        ]
        if any('""' in text for _, text in rows):
            continue  # as a writer that quotes would have it
        write_text(path, "c1\tc2\n" + "".join("\t".join(row) + "\n" for row in rows))
        try:
            assert [list(row.values()) for row in read_table(path).rows] == rows
            read += 1
        except EvalkitError as error:
            assert "can be read both ways" in str(error)  # noqa: PT017
    assert read > 100


# files that were joined, other encodings and separators


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        (f"{CSV}q,a,b\n{CSV}r,c,d\n", ["row 2 (line 3)", "header again"]),
        (f"{CSV}q,a,b\nNegative,Query, Positive\nr,c,d\n", ["row 2 (line 3)", "header again"]),
        (f"{CSV}q,a,b\n\ufeffr,c,d\n", ["line 3", "byte order mark inside"]),
        (f"{CSV}q,a\0,b\n", ["line 2", "zero byte"]),
        (f"{CSV}q,a,b\n".encode("utf-16-le"), ["line 1", "zero byte", "UTF-8"]),
        (f"{CSV}q,a,b\n".encode("utf-16"), ["not UTF-8"]),
        (CSV.replace(",", ";") + "q;a;b\n", ["separated by semicolons", "commas are due"]),
        (f"{TSV}q\ta\tb\n", ["separated by tabs", "call it .tsv"]),
    ],
)
def test_files_that_are_not_what_they_seem(content: str | bytes, fragments: list[str], tmp_path: Path) -> None:
    refused(write_text(tmp_path / "a.csv", content), "a.csv", *fragments)


def test_a_header_again_in_qrels(tmp_path: Path) -> None:
    header = "query-id\tcorpus-id\tscore\n"
    collection(tmp_path, "d1\ta\nd2\tb\n")
    (tmp_path / "qrels.txt").unlink()
    write_text(tmp_path / "qrels.tsv", f"{header}q1\td1\t1\n{header}q1\td2\t0\n")
    refused(tmp_path, "qrels.tsv, row 2 (line 3)", "header again")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", f"{CSV}q,a,b\nr,c,d\n"),
        ("a.tsv", f"{TSV}q\ta\tb\nr\tc\td\n"),
        ("a.jsonl", ROW + ROW.replace('"q"', '"r"')),
    ],
)
def test_line_ends_of_old_macs(name: str, content: str, tmp_path: Path) -> None:
    task = load(write_text(tmp_path / name, content.replace("\n", "\r")))
    assert task.requests == load(write_text(tmp_path / name, content)).requests
    assert task.statistics.queries == 2


def test_a_column_without_a_name_that_holds_texts(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.csv", "query,positive,negative,\nq,a,b,more\nr,c,d,\n")
    reported(load(path), "a column without a name is not read", "1 of 2 rows")
    index = write_text(tmp_path / "b.csv", ",query,positive,negative\n0,q,a,b\n1,r,c,d\n")
    assert load(index).findings == ()


# lists in other notations


@pytest.mark.parametrize(
    "cell", ["{'a', 'b'}", "{'a'}", "set(['a'])", "deque(['a', 'b'])", "('a','b')", "['a' 'b']", "['a'\n 'b']"]
)
@pytest.mark.parametrize("columns", ["query,positive,negative", "query,documents,labels"])
def test_lists_as_python_prints_them(cell: str, columns: str, tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.csv", f'{columns}\nq,"{cell}",1\n')
    refused(path, "row 1", f"column {columns.split(',')[1]}", "no JSON list")


@pytest.mark.parametrize("cell", ["[a, b]", "(a, b)", "{a; b}", "[a|b]"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_lists_in_brackets(cell: str, name: str, tmp_path: Path) -> None:
    separator = "," if name == "a.csv" else "\t"
    head = CSV if name == "a.csv" else TSV
    written = f'"{cell}"' if name == "a.csv" else cell
    rows = [separator.join((query, written, "n")) + "\n" for query in ("q", "r")]
    refused(
        write_text(tmp_path / name, head + "".join(rows)),
        "column positive",
        "2 of 2 cells stand in brackets",
        "json.dumps",
    )
    others = "".join(separator.join((f"q{i}", f"text {i}", "n")) + "\n" for i in range(3))
    reported(load(write_text(tmp_path / name, head + rows[0] + others)), "1 of 4 cells stand in brackets")


def test_a_list_in_brackets_among_json_lists(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.csv", f'{CSV}q,"[""a""]",n\nr,"[x, y]",m\n')
    refused(path, "row 2, column positive", "'[x, y]' is no JSON list")


@pytest.mark.parametrize(
    ("first", "shown"), [("a1;a2", "';'"), ("a1\na2", r"'\n'"), ("a1,a2", "','"), ("a1|a2", "'|'")]
)
def test_lists_by_separators_that_texts_hold_too(first: str, shown: str, tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.csv", f'{CSV}q,"{first}",n\nr,"{first}",m\n')
    reported(load(path), f"2 of 2 cells hold {shown}", "a query has at most 1 text of this kind")
    # a triple a row, which is no list
    path = write_text(tmp_path / "b.csv", f'{CSV}q,"{first}",n\nq,"{first}",m\n')
    assert [f"cells hold {shown}" in finding.message for finding in load(path).findings].count(True) == (shown == "'|'")


@pytest.mark.parametrize("column", ["positives", "negatives"])
@pytest.mark.parametrize("separator", [";", "|", "[SEP]"])
def test_lists_by_separators_in_columns_of_lists(column: str, separator: str, tmp_path: Path) -> None:
    head = CSV.replace(column[:-1], column)
    cell = f"a{separator}b"
    path = write_text(tmp_path / "a.csv", f"{head}q,{cell},{cell}\nr,{cell},{cell}\n")
    refused(path, f"column {column}", f"all 2 cells hold '{separator}'", f"call the column {column[:-1]}")


# ids, numbers, names and files


def test_queries_of_one_text_with_ids_of_their_own(tmp_path: Path) -> None:
    rows = "1,q,a,1\n1,q,b,0\n2,q,a,0\n2,q,b,1\n"
    task = load(write_text(tmp_path / "a.csv", f"query_id,query,document,label\n{rows}"))
    assert texts(task) == [[("a", 1), ("b", 0)], [("b", 1), ("a", 0)]]
    reported(task, "2 queries have only 1 different text")
    # without ids they contradict each other
    refused(write_text(tmp_path / "b.csv", f"x,query,document,label\n{rows}"), "two different labels")


@pytest.mark.parametrize(
    ("rows", "fragments"),
    [
        ("1,q,a,b\n1,r,c,d\n", ["row 2, column qid", "'1' has another text"]),
        ("1,q,a,b\n2,q,c,d\n3,r,c,d\n", ["column qid", "differ in all 3 rows", "2 different queries"]),
        (",q,a,b\n1,q,c,d\n", ["row 1, column qid", "where an id is due"]),
    ],
)
def test_ids_that_are_no_ids_of_queries(rows: str, fragments: list[str], tmp_path: Path) -> None:
    refused(write_text(tmp_path / "a.csv", f"qid,query,positive,negative\n{rows}"), *fragments)


@pytest.mark.parametrize(
    "number", ["1_0", "\uff11", "\u0663", "nan", "inf", "1e400", "0x1", "1,0", "1,000", "99999999999"]
)
def test_numbers_that_are_none(number: str, tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.csv", f'query,document,label\nq,a,0\nq,b,"{number}"\n')
    refused(path, "row 2, column label", repr(number), "whole number")
    qrels = f"q1 0 d1 1\nq1 0 d2 {number}\n"
    refused(collection(tmp_path / "d", "d1\ta\nd2\tb\n", qrels=qrels), "qrels.txt, row 2, column score", repr(number))
    if number != "99999999999":
        with pytest.raises(EvalkitError, match="not a finite number"):
            read_run(write_text(tmp_path / "a.trec", trec_lines(("q", "a", 1, number))))  # type: ignore[arg-type]
        rows = [("q", "a", 1, 0.9), ("q", "b", number, 0.8)]
        with pytest.raises(EvalkitError, match=r"row 2: the rank .* is no number, though others are"):
            read_run(write_text(tmp_path / "b.trec", trec_lines(*rows)))
        pd.DataFrame(
            [(*row[:2], str(row[2]), row[3]) for row in rows], columns=["query_id", "doc_id", "rank", "score"]
        ).to_parquet(tmp_path / "b.parquet")
        with pytest.raises(EvalkitError, match="row 2: the rank"):
            read_run(tmp_path / "b.parquet")


@pytest.mark.parametrize("number", ["1", "1.0", "+1", " 1 ", "1e0"])
def test_numbers_that_are_some(number: str, tmp_path: Path) -> None:
    task = load(write_text(tmp_path / "a.csv", f"query,document,label\nq,a,0\nq,b,{number}\n"))
    assert texts(task) == [[("b", 1), ("a", 0)]]


@pytest.mark.parametrize("header", ["number\tcontent", "name\tbody", "编号\t内容", "query\ttext"])
@pytest.mark.parametrize("part", ["corpus", "queries"])
def test_a_first_line_of_names_that_is_read_as_a_row(header: str, part: str, tmp_path: Path) -> None:
    lines, queries = "d1\ta\nd2\tb\n", "q1\twhat\nq2\twho\n"
    head = f"{header}\n"
    if part == "corpus":
        lines = head + lines
    else:
        queries = head + queries
    first, second = header.split("\t")
    task = load(collection(tmp_path, lines, queries))
    reported(task, f"'{first}' and '{second}' seem to name columns", f"one of the {part}")


def test_first_rows_that_are_no_names(tmp_path: Path) -> None:
    for at, lines in enumerate(
        ("intro\thello\nd1\ta\nd2\tb\n", "d0\tcontent\nd1\ta\nd2\tb\n", "ab\tx\nd1\ta\ncd\ty\nd2\tb\n")
    ):
        qrels = QRELS + ("q1 0 intro 0\n" if not at else "")
        task = load(collection(tmp_path / str(at), lines, qrels=qrels))
        assert not any("seem to name columns" in finding.message for finding in task.findings)


def test_files_that_are_not_read_are_named(tmp_path: Path) -> None:
    files = {"test.jsonl": ROW, "hard/test.jsonl": ROW, "more/data/b.csv": f"{CSV}q,a,b\n"}
    others = {"train.jsonl": ROW, "meta.json": "{}", "hard/notes.txt": "", ".hidden/test.jsonl": ROW}
    task = load(folder(tmp_path, files | others), split="test")
    reported(task, "read: test.jsonl; not read: hard/test.jsonl, more/data/b.csv")
    reported(task, "read: test.jsonl; not read: meta.json, train.jsonl", severity="note")


def test_parts_that_are_not_read_are_named(tmp_path: Path) -> None:
    collection(tmp_path, "d1\ta\nd2\tb\n")
    collection(tmp_path / "old", "d1\ta\nd2\tb\n")
    task = load(tmp_path)
    reported(task, "not read: old/collection.tsv, old/qrels.txt, old/queries.tsv", "read: ")
    (tmp_path / "queries.tsv").rename(tmp_path / "queries.dev.tsv")
    write_text(tmp_path / "queries.train.tsv", "q9\tother\n")
    reported(load(tmp_path), "not read: queries.train.tsv", severity="note")
