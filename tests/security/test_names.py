"""Names of models, tasks, settings and options stay in their folders."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from command import files_below
from made_results import change_json, noisy_scores, ranking_task, write_scores
from task_files import write_jsonl

sys.path.insert(0, str(Path(__file__).parents[1] / "backends"))  # as pytest does for the tests in there
from attempts import ROWS, run_here
from fake_servers import FakeServer

import evalkit
from evalkit.errors import EvalkitError
from evalkit.records import ModelIdentity
from evalkit.results.folders import experiment_slug, file_name, result_folder

OUTSIDE = [
    "../up", "../../etc/passwd", "..", ".", "/abs/olute", "a/../../b", "..\\..\\up", "C:\\Windows\\x", "\\\\host\\share", "nul\0byte",
    "CON", "aux.txt", "com1", "a:b", "x\ny", "~root", "", " ", "dots...", "\x1b[31m", "名字", "%2e%2e%2fup", "名" * 500,
]  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_stay_in_their_folder(name: str, folder: Path) -> None:
    """Of models, revisions, tasks and settings, as results and exports name files after them."""
    for identity in (
        ModelIdentity(name, name, "1", "run"),
        ModelIdentity("m", "o/m", name, "run"),
        ModelIdentity("m", f"{name}/{name}", name, "run"),
    ):
        place = result_folder(folder / "results", identity, experiment_slug({"task.subset": name, name: name}))
        assert ".." not in place.parts
        assert place.resolve().is_relative_to(folder / "results")
        assert len(place.relative_to(folder / "results").parts) == 4
    assert Path(file_name(name)).name == file_name(name)
    assert not re.search(r"[\\/:\0-\x1f\x7f-\x9f]", file_name(name))
    assert file_name(name).split(".")[0].lower() not in ("con", "aux", "nul", "com1")
    task = ranking_task(3)
    path = write_scores(folder / "results", task, noisy_scores(task), model="scorer")
    change_json(path, lambda content: content.update(task_name=name))
    change_json(path, lambda content: content["evalkit"]["task"].update(name=name, mteb_name=name))
    change_json(path, lambda content: content["evalkit"]["model"].update(hub_id=name, name=name, revision=name))
    before = set(files_below(folder))
    for kind in ("trec", "mteb", "eval-results"):
        assert run_here("report", path, "--format", kind, "-o", f"out/{kind}").code in (0, 2)
    assert all(file.startswith("out/") for file in set(files_below(folder)) - before)


@pytest.mark.parametrize(
    "name", [name for name in OUTSIDE if name.strip(". ") and "/" not in name and "\0" not in name and len(name) < 100]
)
def test_a_run_writes_into_its_results_folder_alone(name: str, folder: Path) -> None:
    """With a task's folder and a run's file of any name; so do names that a server says."""
    write_jsonl(folder / "in" / name / "test.jsonl", ROWS)
    done = run_here("task=local", f"task.path=in/{name}", "model=constant", "results_dir=out", "cache=off")
    assert done.code == 0, done.stderr
    assert {Path(file).parts[0] for file in files_below(folder)} == {"in", "out"}
    assert len([file for file in files_below(folder) if file.endswith(".run.parquet")]) == 1


@pytest.mark.parametrize("name", ["../up", "..\\..\\up", "/abs/x", "a/../../b", "x:y"])
def test_a_servers_name_for_a_model_stays_in_the_results_folder(name: str, folder: Path) -> None:
    with FakeServer("vllm") as server:
        settings = (
            "model=local-cross-encoder",
            "backend=vllm",
            f"backend.url={server.url}",
            f"backend.served_model='{name}'",
        )
        assert run_here("task=demo-zh", "limit=2", "cache=off", "results_dir=out", *settings).code == 0
    assert {Path(file).parts[0] for file in files_below(folder)} == {"out"}


@pytest.mark.parametrize(
    "name", ["../task/demo", "../../pyproject", "/etc/hostname", "..\\task\\demo", "task/../demo", "x" * 400, "a\0b"]
)
def test_no_option_is_read_from_outside_its_group(name: str) -> None:
    for group in ("task", "model", "backend"):
        assert run_here(f"{group}='{name}'").code == 2
    with pytest.raises(EvalkitError, match="there is no"):
        evalkit.load_task(name)
    with pytest.raises(EvalkitError, match="there is no"):
        evalkit.load_model(name)
