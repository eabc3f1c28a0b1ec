"""`--format model-index`: YAML that huggingface_hub takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from cmedqa import COMMIT, scores_of
from command import run_here
from made_results import noisy_scores, ranking_task, write_scores

from evalkit.report.exports.model_index import model_index_text
from evalkit.results.reading import read_result

GOLDEN = Path(__file__).parent.parent.parent / "golden"


def test_huggingface_hub_reads_the_model_index(cmedqa: Path, tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    done = run_here("report", str(cmedqa), "--format", "model-index")
    assert (done.code, done.stderr) == (0, "")
    data = ModelCard(f"---\n{done.stdout}---\n").data
    assert data.model_name == "scorer"
    assert [one.metric_type for one in data.eval_results] == ["map", "mrr"]
    for one in data.eval_results:
        assert one.metric_value == pytest.approx(100 * scores_of(cmedqa)[one.metric_type], abs=1e-12)
        assert (one.task_type, one.dataset_type) == ("Reranking", "C-MTEB/CMedQAv1-reranking")
        assert (one.dataset_name, one.dataset_config, one.dataset_split) == ("MTEB CMedQAv1", "default", "test")
        assert one.dataset_revision == COMMIT
    assert yaml.safe_load(data.to_yaml()) == yaml.safe_load(done.stdout)


def test_it_is_written_as_ever(demo_results: Path, tmp_path: Path) -> None:
    file = tmp_path / "index.yaml"
    for _ in range(2):  # a file of the same kind is replaced
        assert (
            run_here("report", str(demo_results / "local__random"), "--format", "model-index", "-o", str(file)).code
            == 0
        )
    assert file.read_text(encoding="utf-8") == (GOLDEN / "model-index.yaml").read_text(encoding="utf-8")


def test_percentages_have_the_fractions_digits(cmedqa: Path) -> None:
    """0.8127206722525007 * 100 is 81.27206722525008."""
    result = read_result(cmedqa)
    text = model_index_text([replace(result, scores={**result.scores, "map": 0.8127206722525007})])
    assert "value: 81.27206722525007\n" in text


def test_mteb_v2_has_its_own_metrics(tmp_path: Path) -> None:
    task = ranking_task(12)
    path = write_scores(tmp_path / "results", task, noisy_scores(task), protocol="mteb-v2")
    done = run_here("report", str(path), "--format", "model-index")
    (model,) = yaml.safe_load(done.stdout)["model-index"]
    (result,) = model["results"]
    assert [one["type"] for one in result["metrics"]] == ["map_at_1000", "mrr_at_10"]
    assert result["dataset"]["type"] == "made"  # no path of the user's


def test_a_part_of_the_queries_says_so(tmp_path: Path) -> None:
    assert run_here("task=demo-zh", "model=random", "limit=4", f"results_dir={tmp_path}").code == 0
    done = run_here("report", str(tmp_path), "--format", "model-index")
    (result,) = yaml.safe_load(done.stdout)["model-index"][0]["results"]
    assert result["dataset"]["name"] == "demo-zh (limit 4)"
    (remark,) = result["dataset"]["args"].pop("remarks")
    assert remark.startswith("demo-zh: the first 4 queries that can be scored, which are no random sample")
    assert result["dataset"]["args"] == {"limit": 4}
    assert "not demo-zh as it is (limit 4)" in done.stderr


def test_an_experiment_stands_back_behind_a_whole_run(tmp_path: Path) -> None:
    for more in ([], ["limit=4"]):
        assert run_here("task=demo-zh", "model=random", *more, f"results_dir={tmp_path}").code == 0
    done = run_here("report", str(tmp_path), "--format", "model-index")
    (result,) = yaml.safe_load(done.stdout)["model-index"][0]["results"]
    assert result["dataset"]["name"] == "demo-zh"
    assert "is an experiment and left out" in done.stderr
