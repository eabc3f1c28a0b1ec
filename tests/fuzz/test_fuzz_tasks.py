"""Task files of every layout and type, and first stages' runs: what is accepted is what plain code reads in them."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from hypothesis import strategies as st
from judging import bounded_memory, fuzzed
from mutations import DEEP, damaged, deep_json, json_bytes, mutated, parquet_bytes
from task_files import LIST_ROWS, ROWS, Rows, load, mteb_parts

from evalkit.records import Task
from evalkit.run_files import read_run

KIND = "task files"
PARTS = mteb_parts(ROWS)
RUN = {
    query["query-id"]: {doc: 1 / (rank + 3) for rank, doc in enumerate(query["corpus-ids"])}
    for query in PARTS["top_ranked"]
}
ROW_TYPES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def csv_bytes(rows: Rows, separator: str) -> bytes:
    stream = io.StringIO(newline="")
    columns = list(dict.fromkeys(str(key) for row in rows for key in row))
    writer = csv.writer(stream, delimiter=separator)
    writer.writerow(columns)
    for row in rows:
        cells = [row.get(name) for name in columns]
        writer.writerow([json.dumps(cell) if isinstance(cell, list | dict) else cell for cell in cells])
    return stream.getvalue().encode("utf-8", "surrogatepass")


def written(rows: Any, suffix: str) -> bytes:
    """Rows in a type of file; JSON where that type can't hold them."""
    plain = isinstance(rows, list) and all(isinstance(row, dict) for row in rows)
    if suffix == ".jsonl" and isinstance(rows, list):
        return b"\n".join(map(json_bytes, rows))
    if suffix in (".csv", ".tsv") and plain:
        return csv_bytes(rows, "\t" if suffix == ".tsv" else ",")
    if suffix == ".parquet" and plain and rows:
        return parquet_bytes(rows) or json_bytes(rows)
    return json_bytes(rows)


def plain_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file that evalkit accepted, by the plainest code."""
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    text = path.read_bytes().decode("utf-8-sig")
    if path.suffix in (".csv", ".tsv"):
        csv.field_size_limit(10**9)
        rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if path.suffix == ".tsv" else ","))
        return [{name: _cell(name, cell) for name, cell in row.items()} for row in rows]
    if path.suffix == ".json":
        with contextlib.suppress(ValueError):
            content = json.loads(text)
            content = (
                content["data"] if isinstance(content, dict) and isinstance(content.get("data"), list) else content
            )
            return content if isinstance(content, list) else [content]
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def _cell(name: str, cell: str) -> Any:
    if (
        re.fullmatch(NUMBERED.format("(positive|negative|corpus-ids|query)"), name)
        and cell.startswith(('["', "[]"))
        and cell.endswith("]")
    ):
        return json.loads(cell) if name != "query" or cell != "[]" else cell
    return ([cell] if cell else []) if name == "corpus-ids" else cell


def texts(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


def found(task: Task) -> list[tuple[list[str], list[tuple[str, int]]]]:
    return [
        (list(request.query.texts), [(candidate.text, candidate.gain) for candidate in request.candidates])
        for request in task.requests
    ]


NUMBERED = r"{}([._ ]?\d+)?"


def same_as_rows(task: Task, path: Path) -> None:
    rows = plain_rows(path)
    names = {
        gain: [
            name
            for name in dict.fromkeys(name for row in rows for name in row)
            if re.fullmatch(NUMBERED.format(role), name)
        ]
        for role, gain in (("positive", 1), ("negative", 0))
    }
    single = [
        name
        for name in (*names[1], *names[0])
        if any(isinstance(row.get(name), str) for row in rows)
        and not any(isinstance(row.get(name), list) for row in rows)
    ]
    expected = [
        (
            texts(row["query"]),
            [(text, gain) for gain in (1, 0) for name in names[gain] for text in listed(row.get(name))],
        )
        for row in rows
    ]
    if single:  # a query's rows are one query, with each of its texts once
        merged: dict[tuple[str, ...], dict[tuple[str, int], None]] = {}
        for query, candidates in expected:
            merged.setdefault(tuple(query), {}).update(dict.fromkeys(candidates))
        expected = [(list(query), sorted(candidates, key=lambda one: -one[1])) for query, candidates in merged.items()]
    assert found(task) == expected
    assert task.statistics.pairs == sum(len(candidates) for _, candidates in expected)
    assert task.statistics.positives == sum(gain for _, candidates in expected for _, gain in candidates)


def listed(cell: Any) -> list[str]:
    """The texts of a cell; an empty one, or one that is left out beside numbered ones, has none."""
    return cell if isinstance(cell, list) else [cell] if cell else []


@fuzzed(KIND, 0.3, rows=mutated(ROWS) | mutated(LIST_ROWS), suffix=st.sampled_from(ROW_TYPES))
def test_rows(rows: Any, suffix: str) -> None:
    with folder() as place:
        path = place / f"rows{suffix}"
        path.write_bytes(written(rows, suffix))
        same_as_rows(load(path), path)


@st.composite
def damaged_rows(draw: st.DrawFn) -> tuple[str, bytes]:
    suffix = draw(st.sampled_from(ROW_TYPES))
    return suffix, draw(damaged(written(ROWS, suffix)))


@fuzzed(KIND, 0.2, file=damaged_rows())
def test_damaged_files_of_rows(file: tuple[str, bytes]) -> None:
    suffix, content = file
    with folder() as place, bounded_memory():
        path = place / f"rows{suffix}"
        path.write_bytes(content)
        same_as_rows(load(path), path)


@fuzzed(
    KIND,
    0.1,
    content=st.binary(max_size=200)
    | DEEP.map(deep_json)
    | DEEP.map(lambda depth: b'{"query": ' + deep_json(depth) + b"}"),
    name=st.sampled_from([*(f"rows{suffix}" for suffix in ROW_TYPES), "corpus.jsonl", "qrels.tsv", "state.json"]),
    inside=st.booleans(),
)
def test_anything_as_a_task(content: bytes, name: str, inside: bool) -> None:
    with folder() as place:
        (place / name).write_bytes(content)
        task = load(place if inside else place / name)
        same_as_rows(task, place / name)


@fuzzed(KIND, 0.25, parts=mutated(PARTS, 2), suffix=st.sampled_from(ROW_TYPES))
def test_parts(parts: Any, suffix: str) -> None:
    with folder() as place:
        for name, rows in parts.items() if isinstance(parts, dict) else ():
            if name in PARTS:
                (place / f"{name}{suffix}").write_bytes(written(rows, suffix))
        task = load(place)
        read = {name: plain_rows(place / f"{name}{suffix}") for name in ("corpus", "queries", "qrels")}
        ranked = plain_rows(place / f"top_ranked{suffix}") if (place / f"top_ranked{suffix}").exists() else None
        assert found(task) == expected_of_parts(read, ranked)


def name_of(row: dict[str, Any]) -> str:
    return str(row["id"] if "id" in row else row["_id"])


def grade(score: Any) -> int:
    """A judgement's grade: true is 1, and below 0 nothing is relevant."""
    truth = {"true": 1, "false": 0}.get(str(score).strip().lower())
    return max(int(float(score)), 0) if truth is None else truth


def expected_of_parts(parts: dict[str, Rows], ranked: Rows | None) -> list[tuple[list[str], list[tuple[str, int]]]]:
    documents = {name_of(row): f"{row.get('title') or ''} {row['text']}".strip() for row in parts["corpus"]}
    gains: dict[str, dict[str, int]] = {}
    for row in parts["qrels"]:
        gains.setdefault(str(row["query-id"]), {})[str(row["corpus-id"])] = grade(row["score"])
    offered: dict[str, list[Any]] = {query: list(judged) for query, judged in gains.items()}
    if ranked is not None:
        offered = {str(row["query-id"]): row["corpus-ids"] for row in ranked}
    return [
        (
            texts(row["text"]),
            [
                (documents[doc], gains[name_of(row)].get(doc, 0))
                for doc in dict.fromkeys(str(doc) for doc in offered.get(name_of(row), []))
            ],
        )
        for row in parts["queries"]
        if name_of(row) in gains
    ]


def trec_bytes(run: Any) -> bytes:
    lines = [
        f"{query} Q0 {doc} 1 {score} me"
        for query, scores in (run.items() if isinstance(run, dict) else ())
        for doc, score in (scores.items() if isinstance(scores, dict) else ())
    ]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def table_bytes(run: Any) -> bytes:
    rows = [
        {"query_id": query, "doc_id": doc, "score": score}
        for query, scores in (run.items() if isinstance(run, dict) else ())
        for doc, score in (scores.items() if isinstance(scores, dict) else ())
    ]
    return parquet_bytes(rows) or b""


RUN_WRITERS = {".json": json_bytes, ".trec": trec_bytes, ".parquet": table_bytes}


@st.composite
def runs(draw: st.DrawFn) -> tuple[str, bytes]:
    suffix = draw(st.sampled_from(sorted(RUN_WRITERS)))
    content = RUN_WRITERS[suffix](draw(mutated(RUN)))
    if draw(st.integers(0, 3)) == 0:
        content = draw(damaged(content) | DEEP.map(deep_json) | st.binary(max_size=60))
    return suffix, content


def plain_run(path: Path) -> dict[str, dict[str, float]]:
    """The run in a file, as pytrec_eval takes it: a dictionary of dictionaries of floats."""
    if path.suffix == ".json":
        return {
            query: {doc: float(score) for doc, score in scores.items()}
            for query, scores in json.loads(path.read_bytes()).items()
        }
    run: dict[str, dict[str, float]] = {}
    if path.suffix == ".parquet":
        rows = [(row["query_id"], row["doc_id"], row["score"]) for row in pq.read_table(path).to_pylist()]
    else:
        content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
        lines = [[field.decode() for field in line.split()] for line in content.split(b"\n") if line.split()]
        rows = [(line[0], line[2], line[4]) for line in lines]
    for query, doc, score in rows:
        assert str(doc) not in run.get(str(query), {})
        run.setdefault(str(query), {})[str(doc)] = float(score)
    return run


@fuzzed(KIND, 0.15, file=runs(), top_k=st.none() | st.integers(1, 3))
def test_first_stages(file: tuple[str, bytes], top_k: int | None) -> None:
    suffix, content = file
    with folder() as place:
        path = place / f"first{suffix}"
        path.write_bytes(content)
        read, expected = read_run(path).run, plain_run(path)
        assert all(map(math.isfinite, (score for scores in expected.values() for score in scores.values())))
        assert {query: dict(scores) for query, scores in read.items()} == expected
        (place / "data").mkdir()
        for name, rows in PARTS.items():
            (place / "data" / f"{name}.jsonl").write_bytes(written(rows, ".jsonl"))
        task = load(place / "data", candidates=str(path), top_k=top_k)
        for request in task.requests:
            scores = expected.get(request.query.query_id, {})
            best = sorted(scores.values(), reverse=True)[:top_k]
            assert list(request.first_stage_scores) == best
            assert [scores[candidate.doc_id] for candidate in request.candidates] == best
