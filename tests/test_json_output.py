"""`--json`: one document on standard output, with nothing else beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import run_here, run_program

from evalkit.configuration.files import option_names


def printed(*arguments: object) -> Any:
    done = run_here(*map(str, arguments))
    assert done.code == 0, done.stderr
    return json.loads(done.stdout)


def test_a_run_prints_its_results_as_its_files_hold_them(tmp_path: Path) -> None:
    for flag in (
        ["--json", "task=demo-zh", "model=random"],
        ["-m", "task=demo-zh,demo-zh2en", "model=random", "--json"],
    ):
        content = printed(*flag, f"results_dir={tmp_path}")
        assert list(content) == ["results"]
        for result in content["results"]:
            assert json.loads(Path(result.pop("file")).read_text(encoding="utf-8")) == result
    assert [result["task_name"] for result in content["results"]] == ["EvalkitDemoZh", "EvalkitDemoZh2En"]


def test_a_run_that_fails_prints_no_document(tmp_path: Path) -> None:
    done = run_here("--json", "task=demo-zh", "model=nothing", f"results_dir={tmp_path}")
    assert (done.code, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1


def test_what_a_sweep_finished_is_printed(tmp_path: Path) -> None:
    arguments = ("-m", "task=demo-zh", "model=random,run", "--json", f"results_dir={tmp_path}")
    done = run_here(*arguments)
    assert done.code == 2
    (result,) = json.loads(done.stdout)["results"]
    assert result["evalkit"]["model"]["name"] == "random"


def test_a_verdict_is_part_of_it(tmp_path: Path) -> None:
    done = run_here("task=demo-zh", "model=random", "reproduce=true", "--json", f"results_dir={tmp_path}")
    (cells,) = json.loads(done.stdout)["reproduction"].values()
    assert [(cell["task"], cell["metric"], cell["verdict"]) for cell in cells] == [
        ("demo-zh", "map", "not comparable"),
        ("demo-zh", "mrr", "not comparable"),
    ]
    assert cells[0]["why"] == "nothing published"
    assert cells[0]["points"] is None
    assert done.code == int(any(cell["fails"] for cell in cells))


def test_standard_output_holds_nothing_else(tmp_path: Path) -> None:
    done = run_program(tmp_path, "task=demo-zh", "model=random", "--json")
    assert json.loads(done.stdout)["results"][0]["task_name"] == "EvalkitDemoZh"
    assert done.stderr == "demo-zh: 45 queries, 450 pairs\n"


@pytest.mark.parametrize("what", ["models", "tasks", "backends", "protocols"])
def test_lists(what: str) -> None:
    content = printed("list", what, "--json")
    assert list(content) == [what]
    names = {entry["name"] for entry in content[what]}
    assert names == {name for name in option_names(what.removesuffix("s")) if name not in ("base", "server")}
    assert printed("list", "--json")[what] == content[what]


def test_list_entries_say_what_tables_show() -> None:
    content = printed("list", "--json")
    (model,) = (one for one in content["models"] if one["name"] == "bge-reranker-base")
    assert (model["hub_id"], model["kind"], model["parameters_millions"]) == (
        "BAAI/bge-reranker-base",
        "cross-encoder",
        278,
    )
    assert "torch" in model["backends"]
    (task,) = (one for one in content["tasks"] if one["name"] == "CMedQAv1-reranking")
    assert (task["task"], task["cmteb"]["repo"]) == ("CMedQAv1", "C-MTEB/CMedQAv1-reranking")
    (torch,) = (one for one in content["backends"] if one["name"] == "torch")
    assert torch["installed"] is True
    done = run_here("list", "modles", "--json")
    assert (done.code, done.stdout) == (2, "")


def test_the_store(tiny_reranker: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    empty = printed("cache", "info", "--json", "--cache-dir", folder)
    assert empty == {"folder": str(folder), "store": None, "ways": [], "conversions": []}
    chosen = ("task=demo-zh2en", "limit=2", "model=local-cross-encoder", f"model.path={tiny_reranker}", "backend=torch")
    assert run_here(*chosen, f"cache_dir={folder}", f"results_dir={tmp_path}").code == 0
    content = printed("cache", "info", "--json", "--cache-dir", folder)
    (way,) = content["ways"]
    assert (way["model"], way["backend"], way["dtype"], way["scores"]) == (tiny_reranker.name, "torch", "fp32", 20)
    assert content["store"]["bytes"] == Path(content["store"]["file"]).stat().st_size


def test_a_report(tmp_path: Path) -> None:
    assert run_here("task=demo-zh", "model=random", f"results_dir={tmp_path}").code == 0
    assert printed("report", tmp_path, "--json") == printed("report", tmp_path, "--format", "json")
    done = run_here("report", str(tmp_path), "--json", "--format", "csv")
    assert (done.code, len(done.stderr.splitlines())) == (2, 1)
