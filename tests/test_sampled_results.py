"""A sampled run from end to end: what is stored, what is shown beside the figure, and that nobody takes it for the whole task's."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import run_here
from made_results import change_json
from task_files import write_jsonl

import evalkit
from evalkit.metrics.measures import find_measure
from evalkit.report.published_tables import left_out
from evalkit.report.reproduction import verdict_cells
from evalkit.statistics import sampled_means

SAMPLED = ("task=demo-zh", "model=random", "sample=35")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole task, and a sample of it by two models."""
    folder = tmp_path_factory.mktemp("sampled") / "results"
    for words in (("task=demo-zh", "model=random"), SAMPLED, (*SAMPLED[:1], "model=reversed", SAMPLED[2])):
        assert run_here(*words, f"results_dir={folder}").code == 0
    return folder


def sampled(folder: Path) -> evalkit.Result:
    (result,) = [one for one in evalkit.load_results(folder) if one.experiment and one.model.name == "random"]
    return result


def test_a_result_says_what_was_drawn_and_what_it_tells(folder: Path) -> None:
    result = sampled(folder)
    assert result.path is not None
    assert result.path.parts[-2] == "sample-35"
    assert result.deviations == {"sample": 35}
    assert (result.config["sample"], result.config["sample_seed"], result.config["limit"]) == (35, 42, None)
    sample = result.task.sample
    assert (sample.size, sample.seed, sample.population, sample.unscorable) == (35, 42, 45, 0)
    assert [stratum.drawn for stratum in sample.strata] == result.queries[
        "stratum"
    ].value_counts().sort_index().tolist()
    whole = evalkit.load_task("demo-zh", sample=35)
    assert result.queries["query_id"].tolist() == [one.query.query_id for one in whole.requests]
    assert result.queries["stratum"].tolist() == list(whole.strata)
    for name in ("map", "mrr", "ndcg_at_10"):
        values = result.queries[[find_measure(name).column]].to_numpy(float)
        ((value, low, high, detectable),) = sampled_means(
            values, whole.strata, [one.population for one in sample.strata]
        )
        found = result.estimates[name]
        assert (found.value, found.low, found.high, found.detectable) == (value, low, high, detectable)
        assert result.scores[name] == pytest.approx(values.mean(), abs=1e-5)
        # of 45 queries 35 are known: what is left open is less than for all queries like them
        assert high - low < np.subtract(*result.intervals[name][::-1])
    assert evalkit.evaluate("random", whole).estimates == result.estimates


def test_whole_results_have_no_trace_of_samples(folder: Path) -> None:
    whole = next(one for one in evalkit.load_results(folder) if not one.experiment)
    content = json.loads(whole.path.read_text("utf-8"))["evalkit"]
    assert "estimates" not in content
    assert "sample" not in content["task"]
    assert "sample" not in content["config"]
    assert "stratum" not in whole.queries


def test_the_summary_shows_both_meanings(tmp_path: Path) -> None:
    done = run_here(*SAMPLED, f"results_dir={tmp_path}")
    (result,) = evalkit.load_results(tmp_path)
    found = result.estimates["map"]
    shown = f"{100 * found.value:.2f} ({100 * found.low:.2f}–{100 * found.high:.2f})"
    assert "whole task (95 %)" in done.stdout
    assert shown in done.stdout
    assert "whole task: what the sample says of the mean over the task's queries" in done.stdout
    assert "a sample of 35 of the 45 queries that can be scored, drawn by sample_seed=42 from 4 strata" in done.stdout
    told = " ".join(text for _, text in result.remarks)
    assert "95 % interval for the whole task's figure: MAP" in told
    assert f"smallest detectable difference {100 * found.detectable:.2f}" in told
    assert "any other interval shown is for the mean over all queries like these" in told


def test_a_head_says_that_it_is_one(tmp_path: Path) -> None:
    done = run_here("task=demo-zh", "model=random", "limit=7", f"results_dir={tmp_path}")
    assert "demo-zh: the first 7 queries that can be scored, which are no random sample" in done.stdout
    assert "whole task" not in done.stdout.split("\n\n")[0]


@pytest.mark.parametrize("size", [45, 46, 1_000])
def test_all_queries_are_the_whole_task(folder: Path, size: int) -> None:
    done = run_here("task=demo-zh", "model=random", f"sample={size}", f"results_dir={folder.parent / str(size)}")
    assert f"sample={size} takes all 45 queries that can be scored: the task is whole" in done.stdout
    (result,) = evalkit.load_results(folder.parent / str(size))
    whole = next(one for one in evalkit.load_results(folder) if not one.experiment)
    assert (result.scores, result.intervals, result.estimates) == (whole.scores, whole.intervals, {})
    assert (result.task.fingerprint, result.incomparable) == (whole.task.fingerprint, "")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("sample=3", "limit=3"), "limit=3 takes the first queries and sample=3 draws any: leave one of them out"),
        (("sample=0",), "sample=0"),
        (("sample=ten",), "sample='ten'"),
        (("sample_seed=3",), "sample_seed=3 has no effect without sample=N"),
        (("sample=3", "sample_seed=-1"), "sample_seed=-1"),
    ],
)
def test_wrong_words_are_refused(words: tuple[str, ...], told: str, tmp_path: Path) -> None:
    done = run_here("task=demo-zh", "model=random", *words, f"results_dir={tmp_path / 'results'}")
    assert done.code == 2
    assert told in done.stderr


def test_few_queries_have_an_estimate_and_no_interval(tmp_path: Path) -> None:
    for size in (1, 2, 29):
        done = run_here("task=demo-zh", "model=random", f"sample={size}", f"results_dir={tmp_path}")
        assert (
            "so few sampled queries give no interval for the whole task's figures; the estimates are MAP "
            in done.stdout
        )
        (path,) = tmp_path.rglob(f"sample-{size}/EvalkitDemoZh.json")
        stored = json.loads(path.read_text("utf-8"))["evalkit"]["estimates"]["map"]
        assert (stored["low"], stored["high"], stored["detectable"]) == (None, None, None)
        (result,) = evalkit.load_results(path)
        assert np.isnan(result.estimates["map"].low)


def test_a_sample_that_rests_on_few_queries_says_so(tmp_path: Path) -> None:
    done = run_here("task=demo-zh", "model=oracle", "sample=35", f"results_dir={tmp_path}")
    assert (
        "MAP, MRR of the whole task: less than 10 whole queries lie between the sample's figure and 0 or 100 %"
        in done.stdout
    )
    (result,) = evalkit.load_results(tmp_path)
    # every value is 1, which is no certainty that all others are
    assert result.estimates["map"].value == result.estimates["map"].high == 1
    assert result.estimates["map"].low < 0.98


def test_boards_and_comparisons_keep_a_sample_apart(folder: Path) -> None:
    done = run_here("report", str(folder))
    assert "demo-zh (sample 35, data " in done.stdout
    boards = json.loads(run_here("report", str(folder), "--format", "json").stdout)["boards"]
    assert sorted((board["part"], len(board["standings"])) for board in boards) == [("", 1), ("sample 35", 2)]
    rows = list(csv.DictReader(io.StringIO(run_here("report", str(folder), "--format", "csv").stdout)))
    assert sorted(row["part"] for row in rows) == ["", "sample 35", "sample 35"]
    assert "95 % interval for the whole task's figure" in next(row["remarks"] for row in rows if row["part"])
    assert sorted(evalkit.leaderboard(folder)["part"].fillna("")) == ["", "sample 35", "sample 35"]
    pairs = json.loads(run_here("compare", str(folder), "--json").stdout)["tasks"]
    assert [(one["part"], one["n_queries"]) for one in pairs] == [("sample 35", 35)]
    whole = next(one for one in evalkit.load_results(folder) if not one.experiment)
    refused = run_here("compare", str(whole.path), str(sampled(folder).path))
    assert refused.code == 2
    assert "; the whole task and sample 35); compare runs on the same data" in refused.stderr


def test_a_check_does_not_hold_a_sample_against_the_whole(folder: Path, tmp_path: Path) -> None:
    for name, more in (("whole", ()), ("sample", ("sample=35",)), ("other", ("sample=35", "sample_seed=7"))):
        run = run_here("task=demo-zh", "model=random", *more, f"results_dir={tmp_path / name}")
        assert run.code == 0
    for results in ("sample", "other"):
        done = run_here("check", "--baseline", str(tmp_path / "whole"), "--results", str(tmp_path / results))
        assert done.code != 0
    assert run_here("check", "--baseline", str(tmp_path / "sample"), "--results", str(folder)).code == 0
    assert run_here("check", "--baseline", str(tmp_path / "sample"), "--results", str(tmp_path / "other")).code != 0


def test_a_published_figure_is_not_compared_with_a_sample(tmp_path: Path) -> None:
    done = run_here(*SAMPLED, f"results_dir={tmp_path}")
    (result,) = evalkit.load_results(tmp_path)

    def as_published(content: dict) -> None:
        content["evalkit"]["model"]["hub_id"] = "BAAI/bge-reranker-base"
        content["evalkit"]["task"]["name"] = "T2Reranking"

    change_json(result.path, as_published)
    (result,) = evalkit.load_results(tmp_path)
    assert {(cell.verdict, cell.why, cell.fails) for cell in verdict_cells([result])} == {
        ("not comparable", "sample 35", False)
    }
    assert left_out([result]) == ["random on T2Reranking is left out: it is of a sample of 35 queries only"]
    table = run_here("report", str(tmp_path), "--format", "html", "-o", str(tmp_path / "page.html"))
    assert table.code == 0, table.stderr
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "n/a (sample)" in page
    assert "sample 35" in page
    assert done.code == 0


@pytest.mark.parametrize("form", ["markdown", "latex", "model-index", "trec", "mteb"])
def test_every_form_of_a_report_takes_a_sample(form: str, folder: Path, tmp_path: Path) -> None:
    out = ["-o", str(tmp_path / "out")] if form in ("trec", "mteb") else []
    done = run_here("report", str(sampled(folder).path), "--format", form, *out)
    assert done.code == 0, done.stderr
    if form in ("markdown", "latex"):
        assert "sample 35" in done.stdout
    if form == "model-index":
        assert "demo-zh (sample 35, sample_seed 42)" in done.stdout
        assert "not demo-zh as it is (sample 35, sample_seed 42)" in done.stderr
    if form == "mteb":
        assert [path.parent.name for path in tmp_path.rglob("EvalkitDemoZh.json")] == ["sample-35"]


def test_a_sample_of_a_suite_and_of_a_sweep(tmp_path: Path) -> None:
    words = ("task.suite=[demo-zh2en,demo-zh]", "task.name=two", "model=random,reversed", "sample=40")
    done = run_here("-m", *words, f"results_dir={tmp_path}")
    assert done.code == 0, done.stderr
    results = evalkit.load_results(tmp_path)
    # the smaller task has no more queries, and is whole
    assert (
        sorted((len(result.queries), result.incomparable) for result in results)
        == [(16, "")] * 2 + [(40, "sample")] * 2
    )
    assert all(result.experiment.startswith("sample-40_") for result in results)
    assert done.stdout.count("average of 2") == 2
    report = run_here("report", str(tmp_path)).stdout
    assert "average of 2 (demo-zh, demo-zh2en) (sample 40): MAP" in report


def test_dropped_queries_are_no_part_of_a_sample_and_said_where_they_count(tmp_path: Path) -> None:
    rows = [{"query": f"q{k}", "positive": [f"p{k}"] * (k % 3 > 0), "negative": [f"n{k}", f"m{k}"]} for k in range(90)]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    words = (f"task.path={path}", "task=local", "model=random", "sample=40", f"results_dir={tmp_path / 'results'}")
    said = "30 further queries of the whole task, without relevant or without other candidates, count in the measures of mteb-v2"
    for more in ([], ["protocol=mteb-v2"]):
        assert said in run_here(*words, *more, "measures=[AP@1000]").stdout
    for result in evalkit.load_results(tmp_path / "results"):  # the others' population is another one
        assert set(result.estimates) == {"map", "mrr"}
    whole, limited = (evalkit.evaluate("random", evalkit.load_task(path=path, limit=limit)) for limit in (None, 60))
    assert limited.scores == whole.scores
    assert not [text for _, text in limited.remarks if "no random sample" in text]


def test_a_sample_reranks_a_first_stage_at_all_depths(folder: Path, tmp_path: Path) -> None:
    run = next(path for path in folder.rglob("*.run.parquet") if "experiments" not in path.parts)
    words = ("task=demo-zh", "model=random", f"task.candidates={run}", "task.top_k=5", "sample=35")
    done = run_here(*words, f"results_dir={tmp_path}")
    assert done.code == 0, done.stderr
    assert "whole task (95 %)" in done.stdout
    (result,) = evalkit.load_results(tmp_path)
    assert result.protocol == "mteb-v2"
    assert f"95 % interval for the whole task's figure: {find_measure(result.main_score).title} " in " ".join(
        text for _, text in result.remarks
    )
    assert run_here("report", str(tmp_path), "--depth", "--slice", "candidates").code == 0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda own: own["estimates"]["map"].update(high=0.99), "the estimate of map is not what the sample gives"),
        (lambda own: own["estimates"]["map"].update(value=0.5), "the estimate of map is not what the sample gives"),
        (lambda own: own["estimates"]["mrr"].update(low=None), "the estimate of mrr is not what the sample gives"),
        (lambda own: own["task"]["sample"].update(population=4_500), "the strata are not those of the tables"),
        (lambda own: own["task"]["sample"]["strata"][0].update(drawn=1), "the strata are not those of the tables"),
        (lambda own: None, ""),
    ],
)
def test_an_audit_estimates_again(change: Callable[[dict[str, Any]], object], told: str, tmp_path: Path) -> None:
    assert run_here(*SAMPLED, f"results_dir={tmp_path}").code == 0
    (result,) = evalkit.load_results(tmp_path)
    change_json(result.path, lambda content: change(content["evalkit"]))
    done = run_here("audit", str(tmp_path))
    if told:
        assert done.code == 1
        assert told in done.stdout
    else:
        assert "the estimate of" not in done.stdout
        assert "strata" not in done.stdout
