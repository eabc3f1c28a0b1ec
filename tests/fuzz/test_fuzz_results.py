"""Result files as they may be found: what is reported of them are the numbers of their JSON and tables."""

from __future__ import annotations

import contextlib
import io
import json
import math
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import strategies as st
from judging import bounded_memory, command, fuzzed
from made_results import noisy_scores, ranking_task, write_scores
from mutations import DEEP, NASTY, TEXTS, TREES, damaged, deep_json, json_bytes, mutated

import evalkit
from evalkit.errors import EvalkitError

KIND = "result files"
Files = dict[str, bytes]
JSON, META, QUERIES, RUN = "made.json", "model_meta.json", "made.queries.parquet", "made.run.parquet"


@cache
def valid(seed: int = 0) -> Files:
    """The files of a real result."""
    with tempfile.TemporaryDirectory() as place:
        task = ranking_task(6)
        path = write_scores(Path(place) / "results", task, noisy_scores(task, seed), model="scorer", texts=True)
        return {file.name: file.read_bytes() for file in path.parent.iterdir()}


CONTENT = json.loads(valid()[JSON])
# of the JSON, what is read; the rest would take most of the changes
TABLES = {kind: pq.read_table(io.BytesIO(valid()[kind])).to_pylist() for kind in (QUERIES, RUN)}
WAYS: tuple[tuple[str, ...], ...] = (
    ("report", "{one}"),
    ("report", "{one}", "{two}", "--format", "markdown"),
    ("report", "{one}", "{two}", "--format", "csv"),
    ("report", "{one}", "--format", "latex"),
    ("report", "{one}", "{two}", "--format", "html"),
    ("report", "{one}", "--format", "model-index"),
    ("report", "{one}", "--format", "eval-results"),
    ("report", "{one}", "--format", "mteb", "-o", "{out}"),
    ("report", "{one}", "--format", "trec", "-o", "{out}"),
    ("report", "{one}", "{two}", "--slice", "query-length", "--slice", "candidates", "--slice", "language"),
    ("report", "--published", "{one}"),
    ("compare", "{one}", "{two}"),
    ("compare", "{two}", "{one}", "--json"),
    ("check", "--baseline", "{one}", "--results", "{two}"),
    ("check", "--baseline", "{two}", "--results", "{one}", "--junit", "{out}.xml", "--summary", "{out}.md"),
    ("audit", "{one}"),
    ("audit", "{one}", "{two}", "--json"),
)


@contextlib.contextmanager
def results(files: Files) -> Iterator[Path]:
    """A folder `one` with these files, and beside it `two` with a sound result of another system."""
    with tempfile.TemporaryDirectory() as made:
        for name, content in (("one", files), ("two", valid(1))):
            folder = Path(made) / name / "local__scorer" / name
            folder.mkdir(parents=True)
            for file, data in content.items():
                (folder / file).write_bytes(data)
        yield Path(made)


def run(files: Files, way: tuple[str, ...]) -> str:
    with results(files) as place:
        named = {name: place / name for name in ("one", "two", "out")}
        return command(*(word.format(**named) for word in way))


def told_right(files: Files) -> None:
    """What the report says as JSON is what the files say, read by pandas and json alone."""
    boards = json.loads(run(files, ("report", "{one}", "--format", "json")))["boards"]
    content = json.loads(files[JSON])
    (split,) = content["scores"].values()
    queries = pd.read_parquet(io.BytesIO(files[QUERIES]))
    for board in boards:
        (standing,) = board["standings"]
        metric = board["metric"]
        column = {"map": "ap", "mrr": "rr"}.get(metric, metric)
        values = [value for value in queries[column].tolist() if value == value]
        assert board["n_queries"] == len(values)
        assert math.isclose(standing["value"], sum(values) / len(values), abs_tol=1e-12)
        assert math.isclose(standing["value"], split[0][metric], abs_tol=2e-5)
        assert 0 <= standing["value"] <= 1
        assert standing["system"]["hub_id"] == content["evalkit"]["model"]["hub_id"]


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    """What is loaded once, and loads slowly, is no case's time; and sound files are accepted by all."""
    for way in WAYS:
        run(valid(), way)
    told_right(valid())


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    """The JSON, with changes that stay among what is read: provenance and configuration would take most of them."""
    whole = json.loads(valid()[JSON])
    own = whole["evalkit"]
    read = {
        "outer": {key: whole[key] for key in ("task_name", "scores", "dataset_revision")},
        "own": {
            key: own[key]
            for key in ("schema_version", "protocol", "main_score", "model", "intervals", "ties", "backend")
        },
        "task": own["task"],
        "rest": {
            key: own.get(key)
            for key in ("usage", "timing", "queries", "precision", "config", "provenance", "first_stage")
        },
    }
    part = draw(st.sampled_from(sorted(read)))
    changed = draw(mutated(read[part]))
    if not isinstance(changed, dict):
        return json_bytes(changed)
    holder = whole if part == "outer" else own
    if part == "task":
        own["task"] = changed
    else:
        for key in read[part]:
            holder.pop(key, None)
        holder.update(changed)
    return json_bytes(whole)


@fuzzed(KIND, 0.35, content=contents(), way=st.sampled_from(WAYS))
def test_json(content: bytes, way: tuple[str, ...]) -> None:
    run(valid() | {JSON: content}, way)


@fuzzed(KIND, 0.1, content=contents())
def test_numbers_are_those_of_the_files(content: bytes) -> None:
    told_right(valid() | {JSON: content})


NAMES = st.sampled_from([text for text in NASTY if "\ud800" not in text]) | TEXTS


@fuzzed(KIND, 0.1, name=NAMES, way=st.sampled_from(WAYS))
def test_names(name: str, way: tuple[str, ...]) -> None:
    """Any name of a model, task and query: whatever prints it prints it harmlessly."""
    content = json.loads(valid()[JSON])
    content["evalkit"]["model"] |= {"name": name, "hub_id": name}
    content["evalkit"]["task"]["name"] = content["task_name"] = name
    try:
        name.encode()
        tables = {}
        for kind, rows in TABLES.items():
            table = pd.DataFrame(rows)
            table["query_id"] = table["query_id"].replace("q0", name)
            sink = io.BytesIO()
            table.to_parquet(sink)
            tables[kind] = sink.getvalue()
    except UnicodeEncodeError:
        tables = {}
    run(valid() | {JSON: json_bytes(content)} | tables, way)


def table_of(rows: Any) -> bytes | None:
    """Rows as parquet, column by column; None where it can't hold them."""
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return None
    try:
        names = dict.fromkeys(key for row in rows for key in row)
        sink = io.BytesIO()
        pq.write_table(pa.table({name: pa.array([row.get(name) for row in rows]) for name in names}), sink)
    except (pa.ArrowException, TypeError, ValueError, OverflowError, AttributeError):
        return None
    return sink.getvalue()


COLUMNS = {kind: sorted(rows[0]) for kind, rows in TABLES.items()}


@st.composite
def tables(draw: st.DrawFn) -> Files:
    """One of the tables with changed cells, or a whole column of another type."""
    kind = draw(st.sampled_from(sorted(TABLES)))
    rows: Any = [dict(row) for row in TABLES[kind]]
    if draw(st.booleans()):
        column = draw(st.sampled_from(COLUMNS[kind]))
        fill = draw(TREES | st.sampled_from([0, 1, 10**6, -1, 0.5, float("nan"), float("inf"), None, "0.5", True]))
        for row in rows[: draw(st.sampled_from([1, len(rows)]))]:
            row[column] = fill
    else:
        rows = draw(mutated(rows))
    content = table_of(rows)
    return {} if content is None else {kind: content}


@fuzzed(KIND, 0.2, changed=tables(), way=st.sampled_from(WAYS))
def test_tables(changed: Files, way: tuple[str, ...]) -> None:
    run(valid() | changed, way)


@fuzzed(KIND, 0.05, changed=tables())
def test_numbers_of_changed_tables(changed: Files) -> None:
    told_right(valid() | changed)


@st.composite
def spoilt(draw: st.DrawFn) -> Files:
    """A file damaged, missing, or of anything."""
    name = draw(st.sampled_from([JSON, META, QUERIES, RUN]))
    files = dict(valid())
    if draw(st.integers(0, 5)) == 0:
        del files[name]
    else:
        files[name] = draw(damaged(files[name]) | st.binary(max_size=40) | DEEP.map(deep_json) | TREES.map(json_bytes))
    return files


@fuzzed(KIND, 0.15, files=spoilt(), way=st.sampled_from(WAYS))
def test_damaged_files(files: Files, way: tuple[str, ...]) -> None:
    with bounded_memory():
        run(files, way)


@fuzzed(KIND, 0.05, files=spoilt())
def test_damaged_files_from_python(files: Files) -> None:
    with results(files) as place, bounded_memory():
        loaded = evalkit.load_results([place / "one"])
        for result in loaded:
            _ = result.queries, result.candidates, result.intervals, result.model, result.tie_range("map")
        if not loaded:
            raise EvalkitError("no result")
