"""`.eval_results/*.yaml`, read back by huggingface_hub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from command import files_below, run_here

GOLDEN = Path(__file__).parent.parent.parent / "golden"
NAMES = ["EvalkitDemoEn2Zh", "EvalkitDemoZh", "EvalkitDemoZh2En"]


def test_huggingface_hub_reads_the_files(demo_results: Path, tmp_path: Path) -> None:
    from huggingface_hub import parse_eval_result_entries

    model = demo_results / "local__random"
    for folder in (tmp_path, tmp_path / ".eval_results"):  # named or not, it is the same folder
        assert run_here("report", str(model), "--format", "eval-results", "-o", str(folder)).code == 0
    assert files_below(tmp_path) == [f".eval_results/{name}.yaml" for name in NAMES]
    for name in NAMES:
        content = json.loads(next(model.rglob(f"{name}.json")).read_text(encoding="utf-8"))
        (one,) = parse_eval_result_entries(yaml.safe_load((tmp_path / ".eval_results" / f"{name}.yaml").read_bytes()))
        assert one.value == pytest.approx(100 * content["scores"]["test"][0]["map"], abs=1e-12)
        assert (one.dataset_id, one.task_id, one.dataset_revision) == (name, name, None)
        assert one.date == content["evalkit"]["provenance"]["timestamp"]
        assert one.notes.startswith("map of cmteb-v1 in percent, mrr ")


def test_one_list_where_one_file_is_named(demo_results: Path, tmp_path: Path) -> None:
    from huggingface_hub import eval_result_entries_to_yaml, parse_eval_result_entries

    model, file = str(demo_results / "local__random"), tmp_path / "all.yaml"
    assert run_here("report", model, "--format", "eval-results", "-o", str(file)).code == 0
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert eval_result_entries_to_yaml(parse_eval_result_entries(content)) == content
    printed = run_here("report", model, "--format", "eval-results")
    assert printed.stdout == file.read_text(encoding="utf-8")
    undated = "".join(line for line in printed.stdout.splitlines(keepends=True) if not line.startswith("  date: "))
    assert undated == (GOLDEN / "eval-results.yaml").read_text(encoding="utf-8")


def test_what_is_wrong_is_told_in_one_line(demo_results: Path, tmp_path: Path) -> None:
    place = tmp_path / ".eval_results" / "EvalkitDemoZh.yaml"
    place.parent.mkdir()
    place.write_text("license: mit\n")
    for results, told in (
        (demo_results, "eval-results is of one model"),
        (demo_results / "local__random", f"{place} exists and holds no report as eval-results"),
    ):
        done = run_here("report", str(results), "--format", "eval-results", "-o", str(tmp_path))
        assert (done.code, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert told in line
    assert files_below(tmp_path) == [".eval_results/EvalkitDemoZh.yaml"]
