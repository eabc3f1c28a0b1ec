"""A result is not replaced by one of another task or of other ids; another protocol and texts left out are said."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command import run_here
from made_results import table_of

import evalkit
from evalkit.errors import EvalkitError
from evalkit.records import Task
from evalkit.results.folders import find_results

Rename = Callable[[str, str], tuple[str, str]]
RENAMES: dict[str, Rename] = {
    "documents": lambda query_id, doc_id: (query_id, f"x{doc_id}"),
    "queries": lambda query_id, doc_id: (f"x{query_id}", doc_id),
    "one document": lambda query_id, doc_id: (query_id, "other" if doc_id == "d0-1" else doc_id),
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_data(folder: Path, rename: Rename = lambda query_id, doc_id: (query_id, doc_id)) -> None:
    """Three queries with four candidates each, as mteb's parts, whose ids `rename` changes."""
    folder.mkdir(parents=True)
    parts: dict[str, list[dict[str, Any]]] = {"queries": [], "corpus": [], "qrels": [], "top_ranked": []}
    for query in range(3):
        ids = [rename(f"q{query}", f"d{query}-{place}") for place in range(4)]
        query_id = ids[0][0]
        parts["queries"].append({"_id": query_id, "text": f"query {query}"})
        parts["corpus"] += [
            {"_id": doc_id, "title": "", "text": f"text {query} {place}"} for place, (_, doc_id) in enumerate(ids)
        ]
        parts["qrels"] += [
            {"query-id": query_id, "corpus-id": doc_id, "score": int(place == 0)}
            for place, (_, doc_id) in enumerate(ids)
        ]
        parts["top_ranked"].append({"query-id": query_id, "corpus-ids": [doc_id for _, doc_id in ids]})
    for name, rows in parts.items():
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def renamed(task: Task, rename: Rename) -> Task:
    """The same texts under other ids."""
    requests = []
    for request in task.requests:
        candidates = tuple(
            replace(one, doc_id=rename(request.query.query_id, one.doc_id)[1]) for one in request.candidates
        )
        query_id = rename(request.query.query_id, candidates[0].doc_id)[0]
        requests.append(replace(request, query=replace(request.query, query_id=query_id), candidates=candidates))
    return replace(task, requests=tuple(requests))


@pytest.mark.parametrize("what", RENAMES)
def test_the_same_texts_under_other_ids_are_refused_before_they_are_scored(what: str, here: Path) -> None:
    write_data(Path("data"))
    words = ("task=local", "task.path=data", "model=random")
    assert run_here(*words).code == 0
    (path,) = Path("results").rglob("data.json")
    before = [one.read_bytes() for one in (path, table_of(path), table_of(path, "run"))]
    assert run_here(*words).code == 0  # the same ids take their own place
    write_data(Path("other/data"), RENAMES[what])
    words = (*words, "task.path=other/data")  # of the same name
    done = run_here(*words)
    assert done.code == 2
    assert "the same texts under other ids" in done.stderr
    assert "candidate " in done.stderr
    assert "task.name=NAME" in done.stderr
    assert [one.read_bytes() for one in (table_of(path), table_of(path, "run"))] == before[1:]
    assert run_here(*words, "task.name=renamed").code == 0
    assert len(evalkit.load_results("results")) == 2


@pytest.mark.parametrize("what", RENAMES)
def test_in_python_too(what: str, here: Path) -> None:
    write_data(Path("data"))
    task = evalkit.load_task(path="data")
    other = renamed(task, RENAMES[what])
    assert other.fingerprint == task.fingerprint
    path = evalkit.save_result(evalkit.evaluate("constant", task))
    kept = table_of(path, "run").read_bytes()
    with pytest.raises(EvalkitError, match="under other ids, by which mteb-v2 orders ties: candidate "):
        evalkit.save_result(evalkit.evaluate("constant", other))
    assert table_of(path, "run").read_bytes() == kept


@pytest.mark.parametrize(
    ("first", "second"),
    [("a/b", "a_b"), ("a?b", "a*b"), ("a b", "a_b"), ("data", "data."), ("model_meta", "_model_meta")],
)
@pytest.mark.parametrize("other_data", [False, True])
def test_two_names_of_one_file_are_told_apart(first: str, second: str, other_data: bool, here: Path) -> None:
    """Whether the second's texts are the first's or not, and before they are scored."""
    write_data(Path("data"))
    write_data(Path("other/data"), RENAMES["documents"])
    (Path("other/data") / "queries.jsonl").write_text(
        (Path("data") / "queries.jsonl").read_text().replace("query 0", "another")
    )
    words = ("task=local", "model=random")
    done = run_here(*words, "task.path=data", f"task.name={first}")
    assert done.code == 0, done.stderr
    (path,) = find_results([Path("results")])
    before = [one.read_bytes() for one in (path, table_of(path), table_of(path, "run"))]
    done = run_here(*words, f"task.path={'other/data' if other_data else 'data'}", f"task.name={second}")
    assert done.code == 2
    assert f"{path} is the result of another task, {first!r}, whose file has the name that {second!r}" in done.stderr
    assert "task.name=NAME" in done.stderr
    assert [one.read_bytes() for one in (path, table_of(path), table_of(path, "run"))] == before
    assert run_here(*words, "task.path=data", f"task.name={first}").code == 0  # its own place
    (result,) = evalkit.load_results("results")
    assert result.task.mteb_name == first


def test_in_python_two_names_of_one_file_are_told_apart(here: Path) -> None:
    write_data(Path("data"))
    task = evalkit.load_task(path="data")
    one, other = (replace(task, name=name, mteb_name=name) for name in ("mine: 1", "mine__1"))
    path = evalkit.save_result(evalkit.evaluate("constant", one))
    before = path.read_bytes()
    with pytest.raises(EvalkitError, match="is the result of another task, 'mine: 1'"):
        evalkit.save_result(evalkit.evaluate("constant", other))
    assert path.read_bytes() == before


def test_ties_are_ordered_by_id_so_that_figures_differ(here: Path) -> None:
    """Why ids count: the same texts and scores, another figure."""
    write_data(Path("data"))
    task = evalkit.load_task(path="data")
    reverse: Rename = lambda query_id, doc_id: (query_id, f"{9 - int(doc_id[-1])}")  # noqa: E731
    first, second = (evalkit.evaluate("constant", one) for one in (task, renamed(task, reverse)))
    assert first.task.fingerprint == second.task.fingerprint
    assert first.scores["map_at_1000"] != second.scores["map_at_1000"]


@pytest.mark.parametrize("damage", ["missing", "no parquet", "fewer rows", "no such column"])
def test_a_result_whose_table_is_damaged_is_replaced(damage: str, here: Path) -> None:
    """ "Run the evaluation again" is what its reader is told."""
    write_data(Path("data"))
    result = evalkit.evaluate("random", evalkit.load_task(path="data"))
    path = evalkit.save_result(result)
    table = table_of(path, "run")
    whole = table.read_bytes()
    if damage == "missing":
        table.unlink()
    elif damage == "no parquet":
        table.write_bytes(b"PAR1")
    else:
        frame = pd.read_parquet(table)
        (frame[:-1] if damage == "fewer rows" else frame.drop(columns="doc_id")).to_parquet(table)
    evalkit.save_result(result)
    assert table.read_bytes() == whole


# --- the leading protocol


@pytest.mark.parametrize("protocols", [("auto", "mteb-v2"), ("mteb-v2", "auto"), ("mteb-v2", "cmteb-v1")])
def test_another_leading_protocol_is_said(protocols: tuple[str, str], here: Path) -> None:
    words = ("task=demo-zh2en", "limit=3", "model=random")
    first, second = (run_here(*words, f"protocol={name}") for name in protocols)
    assert (first.code, second.code) == (0, 0)
    assert "was led by" not in first.stderr
    (result,) = evalkit.load_results("results")
    asked = {"auto": "cmteb-v1"}.get(protocols[1], protocols[1])
    before = {"auto": "cmteb-v1"}.get(protocols[0], protocols[0])
    assert result.protocol == asked  # the last command's
    (line,) = [line for line in second.stderr.splitlines() if "was led by" in line]
    assert f"of {before}, and is now led by" in line
    leads = {"cmteb-v1": "map", "mteb-v2": "map_at_1000"}
    assert f"now led by {leads[asked]} of {asked}" in line
    assert f"--metric {leads[before]}" in line
    shown = run_here("report", "results", "--metric", leads[before])
    assert f"of {before} on 3 queries" in shown.stdout  # nothing is lost
    assert "was led by" not in run_here(*words, f"protocol={protocols[1]}").stderr


def test_the_lead_of_an_older_file_is_said_in_python(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    task = evalkit.load_task("demo-zh2en", limit=3)
    evalkit.save_result(evalkit.evaluate("random", task, protocol="mteb-v2"))
    with caplog.at_level(logging.WARNING, "evalkit"):
        evalkit.save_result(evalkit.evaluate("random", task))
    assert "led by map_at_1000 of mteb-v2, and is now led by map of cmteb-v1" in caplog.text


# --- texts in the tables


def test_a_run_says_that_it_drops_texts(here: Path) -> None:
    words = ("task=demo-zh2en", "limit=3", "model=random")
    for options, dropped in ((["texts=true"], False), (["texts=true"], False), ([], True), ([], False)):
        done = run_here(*words, *options)
        assert done.code == 0, done.stderr
        assert (
            "had texts of queries or documents, which this run drops: texts=true keeps them" in done.stderr
        ) == dropped
        (path,) = find_results([Path("results")])
        assert ("text" in pd.read_parquet(table_of(path, "run"))) == bool(options)


@pytest.mark.parametrize("without", ["queries", "run"])
@pytest.mark.parametrize("how", ["gone", "no parquet", "without texts"])
def test_texts_in_one_table_are_enough(without: str, how: str, here: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_data(Path("data"))
    result = evalkit.evaluate("random", evalkit.load_task(path="data"), texts=True)
    table = table_of(evalkit.save_result(result, texts=True), without)
    if how == "gone":
        table.unlink()
    elif how == "no parquet":
        table.write_bytes(b"PAR1")
    else:
        pd.read_parquet(table).drop(columns=["query", "text"], errors="ignore").to_parquet(table)
    with caplog.at_level(logging.WARNING, "evalkit"):
        evalkit.save_result(result)
        assert [record.message for record in caplog.records if "which this run drops" in record.message]
        caplog.clear()
        evalkit.save_result(result)
        evalkit.save_result(result, texts=True)
    assert not caplog.records


def test_a_result_read_without_texts_drops_them_however_it_is_saved(
    here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_data(Path("data"))
    result = evalkit.evaluate("random", evalkit.load_task(path="data"), texts=True)
    evalkit.save_result(result, "plain")
    evalkit.save_result(result, "whole", texts=True)
    (plain,) = evalkit.load_results("plain")
    with caplog.at_level(logging.WARNING, "evalkit"):
        evalkit.save_result(plain, "whole", texts=True)
    assert "had texts of queries or documents" in caplog.text
