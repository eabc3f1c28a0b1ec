"""Scores made elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_tasks import make_task, scored

from evalkit.backends.run import prepare
from evalkit.errors import EvalkitError
from evalkit.models.interfaces import Runtime
from evalkit.models.settings import model_settings, read_model
from evalkit.run_files import read_run

TASK = make_task((["感冒"], [("x", 1), ("y", 0)]), (["苹果"], [("x", 0)]))
RUN = {"q0": {"q0-a": 1.5, "q0-b": -0.25}, "q1": {"q1-a": 3e-7}}
ROWS = pd.DataFrame(
    [(query_id, doc_id, score) for query_id, found in RUN.items() for doc_id, score in found.items()],
    columns=["query_id", "doc_id", "score"],
)


def write_trec(path: Path, rows: pd.DataFrame = ROWS, separator: str = " ") -> Path:
    lines = [
        separator.join([str(row.query_id), "Q0", str(row.doc_id), "0", str(row.score), "tag"])
        for row in rows.itertuples()
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_json(path: Path, content: Any = RUN) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def write_parquet(path: Path, rows: pd.DataFrame = ROWS) -> Path:
    rows.to_parquet(path)
    return path


WRITERS = {
    "trec": lambda folder: write_trec(folder / "run.trec"),
    "trec, tabs": lambda folder: write_trec(folder / "run.txt", separator="\t"),
    "json": lambda folder: write_json(folder / "run.json"),
    "parquet": lambda folder: write_parquet(folder / "made.run.parquet"),
    "parquet, more columns, other order": lambda folder: write_parquet(
        folder / "run.parquet", ROWS.assign(label=1, truncated=False).sample(frac=1, random_state=1)
    ),
    "parquet, float32": lambda folder: write_parquet(folder / "run.parquet", ROWS.astype({"score": "float32"})),
    "json, other queries too": lambda folder: write_json(folder / "run.json", RUN | {"q9": {"d": 1}}),
}


@pytest.mark.parametrize("form", WRITERS)
def test_every_form_gives_the_scores(form: str, tmp_path: Path) -> None:
    path = WRITERS[form](tmp_path)
    model = prepare(model_settings(read_model("run").model_dump() | {"path": str(path)}), Runtime())
    expected = [1.5, -0.25, 3e-7]  # not rounded to float32, which could tie what is not tied
    if "float32" in form:
        expected = np.float32(expected).tolist()
    assert scored(model.scorer, TASK, kind="run").scores.tolist() == expected
    assert model.identity.hub_id == f"local/{path.stem}"
    assert len(model.identity.revision) == 12
    assert model.way is None


@pytest.mark.parametrize("doc_id", ["NA", "null", "00123", "1e5", "nan", '"quoted', "文档#1"])
def test_ids_stay_text(doc_id: str, tmp_path: Path) -> None:
    rows = pd.DataFrame([("007", doc_id, 1.0), ("007", "other", 2.0)], columns=list(ROWS))
    expected = {"007": {doc_id: 1.0, "other": 2.0}}
    assert read_run(write_trec(tmp_path / "run.trec", rows)).run == expected
    assert read_run(write_parquet(tmp_path / "run.parquet", rows)).run == expected
    assert read_run(write_json(tmp_path / "run.json", expected)).run == expected


def refusal(path: Path) -> str:
    with pytest.raises(EvalkitError) as caught:
        read_run(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("score", ["nan", "inf", "abc", "-Infinity"])
def test_trec_scores_that_are_no_numbers(score: str, tmp_path: Path) -> None:
    path = tmp_path / "run.trec"
    path.write_text(f"q0 Q0 q0-a 1 1.5 tag\nq0 Q0 q0-b 2 {score} tag\n")
    assert "query 'q0', document 'q0-b' has the score" in refusal(path)


@pytest.mark.parametrize("score", [None, "high", True, float("nan"), float("inf"), [1]])
def test_json_scores_that_are_no_numbers(score: Any, tmp_path: Path) -> None:
    path = write_json(tmp_path / "run.json", {"q0": {"q0-a": 1, "q0-b": score}})
    assert "query 'q0', document 'q0-b' has the score" in refusal(path)


@pytest.mark.parametrize("content", [[["q0", "q0-a", 1.0]], {"q0": ["q0-a"]}, {"q0": 1.0}, "q0"])
def test_json_of_another_shape(content: Any, tmp_path: Path) -> None:
    path = write_json(tmp_path / "run.json", content)
    assert 'is not an object of the form {"query id": {"document id": score}}' in refusal(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", b'{"q0": '),
        ("run.json", b""),
        ("run.parquet", b"PAR1"),
        ("run.trec", b"\xff\xfe\x00\x81"),
    ],
)
def test_files_that_are_none_of_these(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    refusal(path)


@pytest.mark.parametrize("name", ["run.jsonl", "run.csv"])
def test_formats_that_no_run_has(name: str, tmp_path: Path) -> None:
    """They are not read as TREC, whose six columns another file can seem to have."""
    path = tmp_path / name
    path.write_text('{"query_id": "q0", "doc_id": "q0-a", "score": 1.5}')
    assert "a run is .json" in refusal(path)


def test_trec_lines_that_are_too_short(tmp_path: Path) -> None:
    path = tmp_path / "run.trec"
    path.write_text("q0 q0-a 1.5\nq0 q0-b 1.0\n")
    refusal(path)


def test_runs_without_scores(tmp_path: Path) -> None:
    (tmp_path / "run.trec").touch()
    empty = [write_json(tmp_path / "run.json", {}), write_parquet(tmp_path / "run.parquet", ROWS[:0])]
    for path in (tmp_path / "run.trec", *empty):
        assert refusal(path) == f"{path} holds no scores"


def test_columns_that_are_missing(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "run.parquet", ROWS.rename(columns={"score": "value"}))
    assert "lacks the columns score; it has query_id, doc_id, value" in refusal(path)


@pytest.mark.parametrize("write", [write_trec, write_parquet])
def test_documents_scored_twice(write: Any, tmp_path: Path) -> None:
    rows = pd.concat([ROWS, ROWS.iloc[[1]]])
    assert "row 4: document 'q0-b' is scored twice" in refusal(
        write(tmp_path / "run.parquet" if write is write_parquet else tmp_path / "run.trec", rows)
    )


@pytest.mark.parametrize("content", ['{"q0": {"a": 1, "a": 2}}', '{"q0": {"a": 1}, "q0": {"b": 2}}'])
def test_json_with_a_key_twice(content: str, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(content)
    assert "is given twice; each query and each of its documents has one place" in refusal(path)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    assert "there is no such file" in refusal(tmp_path / "run.json")
    with pytest.raises(EvalkitError, match=r"model=run needs model\.path=FILE"):
        prepare(read_model("run"), Runtime())


@pytest.mark.parametrize("run", [{"q0": RUN["q0"]}, {**RUN, "q1": {"q1-b": 1.0}}])
def test_a_candidate_without_a_score(run: dict[str, Any], tmp_path: Path) -> None:
    path = write_json(tmp_path / "run.json", run)
    model = prepare(model_settings(read_model("run").model_dump() | {"path": str(path)}), Runtime())
    with pytest.raises(EvalkitError, match="no score for query 'q1', document 'q1-a' of task made"):
        scored(model.scorer, TASK, kind="run")


def test_trec_lines_that_are_too_long(tmp_path: Path) -> None:
    """A blank in an id would move the score into another column."""
    path = tmp_path / "run.trec"
    path.write_text("q0 Q0 q0 a 1 1.5 me\n")
    assert "7 fields" in refusal(path)


def test_scores_keep_every_digit_and_ids_every_sign(tmp_path: Path) -> None:
    path = tmp_path / "run.trec"
    scores = [1 / 3, 0.1 + 0.2, 1e-300, 123456789.123456789]
    path.write_text("".join(f"q0 Q0 d\u3000{n} 1 {score!r} me\n" for n, score in enumerate(scores)), encoding="utf-8")
    assert list(read_run(path).run["q0"].items()) == [(f"d\u3000{n}", score) for n, score in enumerate(scores)]


def test_json_nested_too_deep(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text("[" * 100_000)
    refusal(path)
