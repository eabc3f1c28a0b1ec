"""Results read back from disk: what they hold, and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from pprint import pformat
from typing import Any

import pandas as pd
import pytest
from test_results import IDENTITY, LOCAL, RESULT

from evalkit.errors import EvalkitError
from evalkit.evaluation.evaluate import evaluate, load_model, load_task
from evalkit.records import PrecisionCheck, Usage
from evalkit.results.folders import find_results, result_folder
from evalkit.results.reading import read_result, read_results
from evalkit.results.result import BLOCK_FIELDS, Result, split_usage
from evalkit.results.writing import result_json, write_result


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result of the random baseline on a bundled task."""
    result = evaluate(load_model("random"), load_task("demo-zh"))
    return write_result(result, result_folder(tmp_path_factory.mktemp("results"), result.model, ""))


def reranked(folder: Path) -> Result:
    """A result on a run's candidates, with texts: all that a result can hold but a check of its precision."""
    first = evaluate(load_model("bm25"), load_task("demo-zh", limit=5), cache="off")
    write_result(first, folder)
    task = load_task("demo-zh", limit=5, candidates=folder / "EvalkitDemoZh.run.parquet", top_k=3)
    return evaluate(load_model("oracle"), task, texts=True, cache="off")


def with_precision(folder: Path) -> Result:
    made = evaluate(load_model("bm25"), load_task("demo-zh"), protocol="mteb-v2", cache="off")
    usage, timing = split_usage(Usage(2.0, 6, 3, 42, 6, 1, (0.5, 1.5)), 6)
    check = PrecisionCheck("bf16", 450, 0.01, 3, 900, math.nan)
    return replace(made, usage=usage, timing=timing, precision=check, deviations={"dtype": "bf16", "top_k": None})


@pytest.mark.parametrize("make", [reranked, with_precision])
def test_a_result_comes_back_as_it_was(tmp_path: Path, make: Callable[[Path], Result]) -> None:
    result = make(tmp_path)
    path = write_result(result, tmp_path / "second", with_texts=True)
    (stored,) = read_results([path])
    for name in BLOCK_FIELDS:
        assert pformat(getattr(stored, name)) == pformat(getattr(result, name))  # sorts keys, and NaN is nan
    assert pformat(stored.scores) == pformat(result.scores)
    assert (stored.path, result.path) == (path, None)
    assert (stored.experiment, stored.limit, stored.incomparable) == (
        result.experiment,
        result.limit,
        result.incomparable,
    )
    pd.testing.assert_frame_equal(stored.queries, result.queries, check_dtype=False)
    pd.testing.assert_frame_equal(
        stored.candidates, result.candidates.drop(columns="text", errors="ignore"), check_dtype=False
    )
    assert stored.candidate_texts([2, 0]) == result.candidate_texts([2, 0])
    assert (stored.candidate_texts([0]) is None) == ("text" not in result.candidates)
    assert result_json(stored) == json.loads(path.read_text(encoding="utf-8"))


def test_equal_results_are_equal(written: Path) -> None:
    assert read_result(written) == read_result(written)
    assert replace(read_result(written), protocol="mteb-v2") != read_result(written)


def test_queries_say_what_they_are_like(written: Path) -> None:
    task = load_task("demo-zh")
    queries = read_result(written).queries
    assert queries["query_characters"].tolist() == [len(" ".join(r.query.texts)) for r in task.requests]
    assert set(queries["query_script"]) <= {"Han", "Han+Latin"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table.drop(columns="ap"), "column ap is missing"),
        (lambda table: table.iloc[1:], "its map is .* but its table of queries has the mean"),
        (lambda table: table.assign(rr=table["rr"] * 0.99), "its mrr is"),
    ],
)
def test_a_table_of_another_run_is_refused(
    written: Path, tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], said: str
) -> None:
    path = copied(written, tmp_path)
    table = path.with_name(path.stem + ".queries.parquet")
    change(pd.read_parquet(table)).to_parquet(table)
    with pytest.raises(EvalkitError, match=said):
        _ = read_result(path).queries


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("queries", lambda table: pd.concat([table, table]), "its table of queries has a query twice"),
        ("queries", lambda table: table.astype({"rr": str}), "column rr holds no numbers"),
        ("queries", lambda table: table.drop(columns="n_candidates"), "column n_candidates is missing"),
        ("run", lambda table: table.iloc[1:], "has other queries than its table of queries"),
        ("run", lambda table: table.assign(query_id=table["query_id"] + "x"), "has other queries than"),
        ("run", lambda table: table.assign(score=table["score"].where(table.index != 1)), "the score of .* is nan"),
        ("run", lambda table: table.assign(score=float("inf")), "the score of .* is inf"),
    ],
)
def test_tables_that_do_not_belong_together_are_refused(
    written: Path, tmp_path: Path, kind: str, change: Callable[[pd.DataFrame], pd.DataFrame], said: str
) -> None:
    path = copied(written, tmp_path)
    table = path.with_name(f"{path.stem}.{kind}.parquet")
    change(pd.read_parquet(table)).to_parquet(table)
    with pytest.raises(EvalkitError, match=said):
        _ = read_result(path).candidates


@pytest.mark.parametrize("content", [None, b"", b"PAR1 and no more"])
def test_a_table_that_is_missing_or_broken_is_refused(written: Path, tmp_path: Path, content: bytes | None) -> None:
    path = copied(written, tmp_path)
    table = path.with_name(path.stem + ".run.parquet")
    table.unlink()
    if content is not None:
        table.write_bytes(content)
    with pytest.raises(EvalkitError, match=r"cannot read .*run\.parquet|run\.parquet is missing; it belongs beside"):
        _ = read_result(path).candidates


def copied(written: Path, folder: Path) -> Path:
    for file in written.parent.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder / written.name


def broken(change: Any) -> bytes:
    content = result_json(RESULT)
    change(content)
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not valid JSON"),
        (b'{"scores": ', "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b'{"scores": NaN}', "NaN is no JSON number"),
        (b"[1]", "holds a list, not an object"),
        (broken(lambda content: content.pop("evalkit")), "evalkit is missing"),
        (broken(lambda content: content.update(scores=[1])), "scores is no object"),
        (broken(lambda content: content["evalkit"].pop("protocol")), "evalkit.protocol is missing"),
        (broken(lambda content: content["evalkit"].update(schema_version="1")), "schema_version is no integer"),
        (
            broken(lambda content: content["evalkit"].update(schema_version=99)),
            "schema_version 99, this evalkit reads 1",
        ),
        (broken(lambda content: content["evalkit"]["model"].pop("hub_id")), "evalkit.model.hub_id is missing"),
        (broken(lambda content: content["evalkit"]["task"].pop("fingerprint")), "evalkit.task.fingerprint is missing"),
        (broken(lambda content: content["evalkit"].update(protocol="mteb-v3")), "'mteb-v3' is none of"),
        (broken(lambda content: content["scores"].update(dev=[])), "one split with one subset"),
        (broken(lambda content: content["scores"]["test"][0].update(map=None)), "scores.map is None, no fraction"),
        (broken(lambda content: content["scores"]["test"][0].update(mrr=75.0)), "scores.mrr is 75.0, no fraction"),
    ],
)
def test_what_is_no_result_is_refused_with_the_reason(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "CMedQAv1-reranking.json"
    path.write_bytes(data)
    with pytest.raises(EvalkitError) as raised:
        read_result(path)
    assert said in str(raised.value)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(EvalkitError, match="cannot read"):
            read_result(path)


def test_results_are_found_in_files_and_folders_once_each(tmp_path: Path) -> None:
    real = write_result(RESULT, result_folder(tmp_path, IDENTITY, ""))
    experiment = write_result(RESULT, result_folder(tmp_path, IDENTITY, "limit-5"))
    local = write_result(replace(RESULT, model=LOCAL), result_folder(tmp_path, LOCAL, ""))
    (tmp_path / "notes.json").write_text("{}", encoding="utf-8")
    assert find_results([tmp_path]) == [real, experiment, local]
    assert find_results([local, tmp_path]) == [local, real, experiment]
    assert find_results([experiment.parent]) == [experiment]


def test_models_of_several_names_never_share_a_folder(tmp_path: Path) -> None:
    names = [
        "a/b",
        "a__b",
        "a/b__c",
        "a__b/c",
        "a/b/c",
        "a_/b",
        "a/_b",
        "a___b",
        "local/a/b",
        "local/a__b",
        "local__a/b",
    ]
    folders = [result_folder(tmp_path, replace(IDENTITY, hub_id=name), "") for name in names]
    assert len(set(folders)) == len(names)
    assert [folder.parent.name for folder in folders[:3:2]] == ["a__b", "a__b__c"]  # as mteb names them


def test_nothing_to_find_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EvalkitError, match="no results in"):
        find_results([tmp_path])
    with pytest.raises(EvalkitError, match="does not exist"):
        find_results([tmp_path / "none"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ties", []),
        ("backend", "torch"),
        ("timing", 5),
        ("intervals", {"map": [1]}),
        ("ties", {"map": {"low": "x"}}),
        ("provenance", []),
    ],
)
def test_optional_parts_have_their_shape(written: Path, tmp_path: Path, name: str, value: object) -> None:
    path = copied(written, tmp_path)
    content = json.loads(path.read_text(encoding="utf-8"))
    content["evalkit"][name] = value
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(EvalkitError, match=f"evalkit.{name}.* is no"):
        read_result(path)


@pytest.mark.parametrize("value", [True, 10**400, 1.5, -0.1])
def test_every_score_is_a_fraction(written: Path, tmp_path: Path, value: object) -> None:
    path = copied(written, tmp_path)
    content = json.loads(path.read_text(encoding="utf-8"))
    (rows,) = content["scores"].values()
    rows[0]["map_at_1"] = value
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(EvalkitError, match="map_at_1 is"):
        read_result(path)


def test_ids_that_are_no_texts(written: Path, tmp_path: Path) -> None:
    path = copied(written, tmp_path)
    table = path.with_name(path.stem + ".queries.parquet")
    found = pd.read_parquet(table)
    found.assign(query_id=[[one] for one in found["query_id"]]).to_parquet(table)
    with pytest.raises(EvalkitError, match="query_id holds no texts"):
        _ = read_result(path).queries


def test_json_nested_too_deep(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[" * 100_000)
    with pytest.raises(EvalkitError, match="not valid JSON"):
        read_result(tmp_path / "x.json")
