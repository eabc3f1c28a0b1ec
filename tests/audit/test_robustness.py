"""Files that hold anything: a verdict or one line, never a traceback, and nothing in them is interpreted."""

from __future__ import annotations

import json
import string
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import run_here
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evalkit.audit.command import audit_files, reports_content
from evalkit.output.json import json_text

fuzz = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

NAMES = st.sampled_from(
    [
        "map", "mrr", "map_at_1000", "mrr_at_10", "mrr_at_100", "main_score", "scores", "test", "dev", "task_name", "evalkit",
        "model", "task", "mteb_version", "CMedQAv1", "value", "type", "metrics", "results", "dataset", "name", "model-index",
    ]
)  # fmt: skip
NUMBERS = st.floats() | st.integers() | st.integers(-(10**400), 10**400)
LEAVES = (
    st.none() | st.booleans() | NUMBERS | st.text(max_size=8) | st.sampled_from(["CMedQAv1", "Reranking", "map", "2.0"])
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=4), inner, max_size=5),
    max_leaves=12,
)
CELLS = st.sampled_from(
    [
        "T2Reranking",
        "CMedQAv1",
        "Avg",
        "model",
        "task",
        "MAP",
        "65.4",
        "1e99",
        "nan",
        "-1",
        "**1**",
        "[a](http://b)",
        "||",
        "",
    ]
) | st.text(alphabet=string.printable, max_size=6)


def audited(path: Path, data: bytes) -> None:
    """Audit what a file holds, and write down what was found."""
    path.write_bytes(data)
    (report,) = audit_files([path])
    json.loads(json_text(reports_content([report])))
    assert report.unreadable or report.figures
    assert "\n" not in report.unreadable


@fuzz
@given(data=st.binary(max_size=300), suffix=st.sampled_from([".json", ".md", ".csv", ".yaml", ""]))
def test_any_bytes(tmp_path: Path, data: bytes, suffix: str) -> None:
    audited(tmp_path / f"file{suffix}", data)


@fuzz
@given(tree=TREES)
def test_any_json(tmp_path: Path, tree: Any) -> None:
    audited(tmp_path / "file.json", json.dumps(tree).encode())


@fuzz
@given(block=st.dictionaries(NAMES, TREES, max_size=5), own=TREES)
def test_anything_where_metrics_are(tmp_path: Path, block: dict[str, Any], own: Any) -> None:
    content = {"task_name": "CMedQAv1-reranking", "scores": {"test": [block | {"map": 0.5}]}, "evalkit": own}
    audited(tmp_path / "file.json", json.dumps(content).encode())


@settings(fuzz, max_examples=25)
@given(index=TREES, metrics=st.lists(TREES, max_size=3), value=TREES)
def test_any_front_matter(tmp_path: Path, index: Any, metrics: list[Any], value: Any) -> None:
    result = {
        "dataset": {"name": "MTEB CMedQAv1", "split": "test"},
        "metrics": [{"type": "mrr", "value": value}, *metrics],
    }
    for front in (index, {"model-index": index}, {"model-index": [{"name": index, "results": [result, index]}]}):
        audited(tmp_path / "file.md", f"---\n{yaml.safe_dump(front)}\n---\n".encode())


@fuzz
@given(text=st.text(max_size=60))
def test_any_text_as_front_matter(tmp_path: Path, text: str) -> None:
    audited(tmp_path / "file.md", f"---\n{text}\n---\n".encode())


@fuzz
@given(rows=st.lists(st.lists(CELLS, min_size=1, max_size=5), min_size=1, max_size=5))
def test_any_table(tmp_path: Path, rows: list[list[str]]) -> None:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "|-" * len(rows[0]) + "|")
    audited(tmp_path / "file.md", "\n".join(lines).encode())


@fuzz
@given(rows=st.lists(st.lists(CELLS, max_size=10), max_size=4))
def test_any_csv(tmp_path: Path, rows: list[list[str]]) -> None:
    header = "model,model_revision,task,metric,value,unit,protocol,source,reference,note"
    body = "\n".join(",".join(row) for row in rows)
    audited(tmp_path / "file.csv", f"{header}\n{body}\nm,,CMedQAv1,mrr,0.5,fraction,cmteb-v1,s,r,".encode())


@pytest.mark.parametrize(
    "front",
    [
        "a: !!python/object/apply:os.system ['touch pwned']",
        "a: &a [x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nmodel-index: *c",
        "model-index: &a [*a]",
        "date: 2023-99-99",
        "? {a: b}\n: c",
        "[" * 1200,
        "model-index: [{results: [{dataset: {name: MTEB CMedQAv1}, metrics: [{type: mrr, value: 1e999999999}]}]}]",
        "model-index: [{results: [{dataset: {name: MTEB CMedQAv1}, metrics: [{type: mrr, value: !!int '0x" + "f" * 6000 + "'}]}]}]",
    ],
)  # fmt: skip
def test_hostile_front_matter(tmp_path: Path, front: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    audited(tmp_path / "file.md", f"---\n{front}\n---\n".encode())
    assert [path.name for path in tmp_path.iterdir()] == ["file.md"]


def test_names_are_shown_as_they_are_and_without_control_characters(tmp_path: Path) -> None:
    name = "[bold red]x[/] :smile: \\u001b[2J"
    content = f'{{"task_name": "{name}", "scores": {{"test": [{{"map": 7.5}}]}}}}'
    path = tmp_path / "[link=evil]x.json"
    path.write_text(content, encoding="utf-8")
    done = run_here("audit", str(path))
    assert done.code == 1
    assert "[bold red]x[/] :smile: �[2J" in done.stdout
    assert "[link=evil]x.json" in done.stdout
    assert "\x1b" not in done.stdout


ENDLESS = "| task | map |\n|---|---|\n| CMedQAv1 | " + "[" * 5_000 + " |\n| CMedQAv2 | 0.5 |\n"


@pytest.mark.parametrize("text", ["[" * 100_000, ENDLESS], ids=["text", "cell"])
def test_brackets_without_end_take_no_time(tmp_path: Path, text: str) -> None:
    started = time.process_time()
    audited(tmp_path / "file.md", text.encode())
    assert time.process_time() - started < 3
