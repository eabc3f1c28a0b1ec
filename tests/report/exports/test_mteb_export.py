"""A folder for mteb, read by mteb's own loader and put into its own table."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from command import files_below, run_here, run_program

GOLDEN = Path(__file__).parent.parent.parent / "golden"


@pytest.fixture(scope="module")
def exported(demo_results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mteb")
    done = run_here("report", str(demo_results), "--format", "mteb", "-o", str(folder))
    assert (done.code, done.stdout, done.stderr) == (0, "", "")
    return folder


def results_of(folder: Path) -> dict[tuple[str, str], Path]:
    return {(path.parts[-3], path.stem): path for path in folder.rglob("Evalkit*.json")}


def test_mteb_reads_each_result(demo_results: Path, exported: Path) -> None:
    from mteb.results import TaskResult

    ours = results_of(demo_results)
    assert set(results_of(exported)) == set(ours)
    assert len(ours) == 15
    for key, path in results_of(exported).items():
        loaded = TaskResult.from_disk(path)
        scores = json.loads(ours[key].read_text(encoding="utf-8"))["scores"]["test"][0]
        assert loaded.task_name == key[1]
        assert loaded.get_score() == loaded.scores["test"][0]["main_score"] == scores["map_at_1000"]
        assert {
            name: value
            for name, value in loaded.scores["test"][0].items()
            if name not in ("main_score", "mteb_version")
        } == {name: value for name, value in scores.items() if name != "main_score"}


def test_mtebs_own_table_has_the_figures(exported: Path) -> None:
    import mteb

    for options in ({}, {"require_model_meta": True}):
        loaded = mteb.ResultCache(exported).load_results(include_remote=False, **options)
        table = loaded.to_dataframe().set_index("task_name")
        for (model, task), path in results_of(exported).items():
            stated = json.loads(path.read_text(encoding="utf-8"))["scores"]["test"][0]["map_at_1000"]
            assert table.loc[task, model.replace("__", "/")] == stated


def test_mteb_accepts_what_is_said_of_the_models(exported: Path) -> None:
    from mteb.models.model_meta import ModelMeta

    for path in exported.rglob("model_meta.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        assert ModelMeta(**content).name == path.parts[-3].replace("__", "/")


def test_it_is_written_as_ever(exported: Path) -> None:
    content = json.loads(next((exported / "results" / "local__random").rglob("EvalkitDemoZh.json")).read_text("utf-8"))
    content |= {"evaluation_time": 0.0, "mteb_version": "2"}
    text = json.dumps(content, ensure_ascii=False, indent=2, sort_keys=True) + "\n"
    assert text == (GOLDEN / "mteb-result.json").read_text(encoding="utf-8")


def test_no_export_loads_what_scores(demo_results: Path, tmp_path: Path) -> None:
    heavy = ("torch", "transformers", "mteb", "hydra", "datasets", "huggingface_hub")
    code = f"""
import sys
from evalkit.commands.main import run_command_line
for name in ("latex", "model-index", "eval-results", "mteb", "trec"):
    assert run_command_line(["report", {str(demo_results / "local__random")!r}, "--format", name, "-o", f"out.{{name}}"]) == 0
print([name for name in {heavy} if name in sys.modules])
"""
    done = run_program(tmp_path, "-c", code, program=(sys.executable,))
    assert (done.code, done.stdout.strip()) == (0, "[]"), done.stderr


def test_experiments_are_kept_apart(tmp_path: Path) -> None:
    import mteb

    for more in ([], ["limit=4"]):
        assert run_here("task=demo-zh", "model=random", *more, f"results_dir={tmp_path / 'ours'}").code == 0
    out = tmp_path / "results"  # a folder of this name is the one that mteb looks for
    assert run_here("report", str(tmp_path / "ours"), "--format", "mteb", "-o", str(out)).code == 0
    assert files_below(out) == [
        "local__random/builtin/EvalkitDemoZh.json",
        "local__random/builtin/experiments/limit-4/EvalkitDemoZh.json",
        "local__random/builtin/experiments/limit-4/model_meta.json",
        "local__random/builtin/model_meta.json",
        "remarks.txt",  # the first queries are no random sample
    ]
    (model,) = mteb.ResultCache(tmp_path).load_results(include_remote=False).model_results
    assert len(model.task_results) == 1


def test_results_of_evalkits_own_are_not_replaced(demo_results: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(demo_results, tmp_path / "results"))
    done = run_here("report", str(own), "--format", "mteb", "-o", str(own))
    assert (done.code, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "EvalkitDemoEn2Zh.json exists and holds no report as mteb; name another place" in line
    assert all("evalkit" in json.loads(path.read_text(encoding="utf-8")) for path in results_of(own).values())


def test_a_result_twice_is_told_in_one_line(demo_results: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(demo_results / "local__random", tmp_path / "copy" / "local__random")
    done = run_here("report", str(demo_results), str(copy), "--format", "mteb", "-o", str(tmp_path / "out"))
    assert (done.code, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "are both of EvalkitDemoEn2Zh by local/random; give one of them" in line
