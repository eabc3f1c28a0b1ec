"""Models of every recipe through the command, from a folder to the result's files, and again out of the store."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from command import run_here


@pytest.mark.parametrize(
    ("model", "fixture", "extra"),
    [
        ("bge-reranker-v2-gemma", "tiny_gemma", ["model.max_length=64"]),
        ("Qwen3-Reranker-0.6B", "tiny_qwen", ["model.max_length=400"]),
        ("bge-m3", "tiny_m3", ["model.max_length=100", "model.recipe=fused-readme"]),
        ("bge-m3", "tiny_m3", ["model.max_length=100", "model.weights=[1,0,2]", "model.score=fused"]),
    ],
)
def test_a_folder_runs(
    model: str,
    fixture: str,
    extra: list[str],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    place = f"model.path={request.getfixturevalue(fixture)}"
    arguments = [
        "task=demo-zh",
        "limit=2",
        f"model={model}",
        place,
        "device=cpu",
        f"cache_dir={tmp_path / 'cache'}",
        *extra,
    ]
    first = run_here(*arguments)
    assert first.code == 0, first.stderr
    (path,) = Path("results").rglob("EvalkitDemoZh.json")
    before = json.loads(path.read_text())
    assert before["evalkit"]["backend"]["name"] == "torch"
    assert before["evalkit"]["timing"]["items_from_store"] == 0
    again = run_here(*arguments)
    assert again.code == 0, again.stderr
    after = json.loads(path.read_text())
    assert after["evalkit"]["timing"]["items_from_store"] == after["evalkit"]["usage"]["items"] > 0
    assert after["scores"] == before["scores"]


@pytest.mark.parametrize("backend", ["openvino", "onnx"])
@pytest.mark.parametrize("model", ["bge-reranker-v2-gemma", "bge-reranker-v2-minicpm-layerwise", "bge-m3"])
def test_other_systems_say_that_they_cannot(
    model: str, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = run_here("task=demo-zh", f"model={model}", f"backend={backend}", "offline=true")
    assert refused.code == 2
    assert f"backend={backend} can't run {model}" in refused.stderr
    assert re.search(r"these can: auto, .*\btorch\b", refused.stderr)
