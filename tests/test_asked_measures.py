"""Measures that are asked for: run, stored, shown, reported, compared, checked and audited, and never mixed with others."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from command import run_here
from made_results import change_json, change_table, ranking_task

import evalkit
from evalkit.errors import EvalkitError
from evalkit.report.first_stage import stage_sheet
from evalkit.report.summary import summary_sheet

ASKED = ["nDCG@20", "AP(rel=2)", "RR@10", "nDCG@10"]
RUN = ("task=demo-zh2en", "limit=6", "cache=off", "offline=true")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of two models with the same measures beside the protocols'."""
    place = tmp_path_factory.mktemp("asked")
    for model in ("bm25", "random"):
        done = run_here(*RUN, f"model={model}", f"measures=[{','.join(ASKED)}]", f"results_dir={place}")
        assert done.code == 0, done.stderr
    return place


def stored(folder: Path, model: str) -> evalkit.Result:
    return next(result for result in evalkit.load_results(folder) if result.model.name == model)


def test_a_run_shows_and_stores_them(folder: Path, tmp_path: Path) -> None:
    done = run_here(*RUN, "model=bm25", f"measures=[{','.join(ASKED)}]", f"results_dir={tmp_path}")
    assert all(name in done.stdout.splitlines()[0] for name in ASKED)
    result = stored(folder, "bm25")
    assert result.config["measures"] == ASKED
    assert result.experiment == "limit-6"
    for name in ASKED:
        assert result.scores[name] == pytest.approx(result.queries[name].mean(), abs=1e-12)
        low, high = result.intervals[name]
        if result.queries[name].nunique() == 1:  # no spread, no interval
            assert np.isnan([low, high]).all()
        else:
            assert low <= result.scores[name] <= high
    assert result.scores["nDCG@10"] == pytest.approx(result.scores["ndcg_at_10"], abs=5e-6)


@pytest.mark.parametrize("written", ["nDCG@20", "[nDCG@20]", "['nDCG@20']", '["nDCG@20",]'[:-2] + "]"])
def test_one_measure_needs_no_brackets_nor_quotes(tmp_path: Path, written: str) -> None:
    done = run_here(*RUN, "model=random", f"measures={written}", f"results_dir={tmp_path}")
    assert done.code == 0, done.stderr
    assert "nDCG@20" in stored(tmp_path, "random").scores


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("[nDCX@10]", "there is no metric 'nDCX@10'"),
        ("[P]", "P needs a cutoff"),
        ("[AP(rel=0)]", "a grade"),
        ("5", "there is no metric '5'"),
    ],
)
def test_what_is_no_measure_ends_before_the_run(tmp_path: Path, written: str, said: str) -> None:
    done = run_here(*RUN, "model=random", f"measures={written}", f"results_dir={tmp_path / 'r'}")
    assert (done.code, done.stdout) == (2, "")
    assert said in done.stderr
    assert not list(tmp_path.rglob("*.json"))


def test_python_and_the_command_line_give_the_same(folder: Path) -> None:
    task = evalkit.load_task("demo-zh2en", limit=6)
    result = evalkit.evaluate(evalkit.load_model("random"), task, measures=ASKED, cache="off")
    other = stored(folder, "random")
    assert dict(result.scores) == dict(other.scores)
    assert dict(result.config) == dict(other.config)
    assert result.experiment == other.experiment


def test_reports_and_comparisons_take_them(folder: Path) -> None:
    for name in ASKED:
        board = evalkit.leaderboard(folder, metric=name).set_index("system")
        assert board.loc[
            "bm25 (bm25s-0.3.16)" if "bm25 (bm25s-0.3.16)" in board.index else "bm25", "value"
        ] == pytest.approx(stored(folder, "bm25").scores[name])
        assert len(evalkit.compare_results(folder, metric=name)) == 1
    for format_name in ("markdown", "csv", "json", "latex", "html"):
        done = run_here("report", str(folder), "--metric", "AP(rel=2)", "--format", format_name)
        assert done.code == 0, done.stderr
        assert "AP(rel=2)" in done.stdout
    assert "nDCG@20 of trec_eval" in run_here("report", str(folder), "--metric", "nDCG@20").stdout


def test_reports_show_what_all_were_asked_for(folder: Path, tmp_path: Path) -> None:
    for format_name in ("markdown", "csv", "json", "latex", "html"):
        done = run_here("report", str(folder), "--format", format_name)
        assert done.code == 0, done.stderr
        assert all(name in done.stdout for name in ("nDCG@20", "AP(rel=2)", "RR@10")), format_name
    assert len(evalkit.leaderboard(folder)) == 2  # the main score alone
    plain = run_here(*RUN, "model=constant", f"results_dir={tmp_path}")
    assert plain.code == 0, plain.stderr
    assert "nDCG@20" not in run_here("report", str(folder), str(tmp_path)).stdout
    led = run_here(
        *RUN, "model=bm25", "protocol=mteb-v2", f"measures=[{','.join(ASKED)}]", f"results_dir={tmp_path / 'led'}"
    )
    assert led.code == 0, led.stderr
    for format_name in ("csv", "html"):  # one system, under either protocol
        assert run_here("report", str(folder), str(tmp_path / "led"), "--format", format_name).code == 0


def test_a_grade_that_no_document_has_is_said(tmp_path: Path) -> None:
    done = run_here(*RUN, "model=random", "measures=[AP(rel=2),AP]", f"results_dir={tmp_path}")
    assert "demo-zh2en: no document has a grade of 2 or more, so AP(rel=2) is 0" in done.stderr


def test_another_name_of_the_same_is_found_and_of_another_is_not(folder: Path, tmp_path: Path) -> None:
    """mteb's ndcg_at_10 is nDCG@10; its mrr_at_10 tells ties in float64, where RR@10 does in float32."""
    done = run_here(*RUN, "model=random", f"results_dir={tmp_path}")
    assert done.code == 0, done.stderr
    assert run_here("report", str(tmp_path), "--metric", "nDCG@10").code == 0
    refused = run_here("report", str(tmp_path), "--metric", "RR@10")
    assert refused.code == 2
    assert "there is no metric 'RR@10'" in refused.stderr


def test_a_check_judges_what_both_have(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    done = run_here("check", "--baseline", str(tmp_path / "copy"), "--results", str(folder))
    assert done.code == 0, done.stderr
    assert sum(line.count("AP(rel=2)") for line in done.stdout.splitlines()) == 2
    plain = run_here(*RUN, "model=random", f"results_dir={tmp_path / 'plain'}")
    assert plain.code == 0, plain.stderr
    less = run_here("check", "--baseline", str(tmp_path / "plain"), "--results", str(folder))
    assert not any("random" in line and "AP(rel=2)" in line for line in less.stdout.splitlines())


@pytest.mark.parametrize("name", ["AP(rel=2)", "ndcg_at_10", "map"])
def test_a_mean_that_was_changed_is_refused_and_audited(folder: Path, tmp_path: Path, name: str) -> None:
    done = run_here(*RUN, "model=random", f"measures=[{','.join(ASKED)}]", f"results_dir={tmp_path}")
    assert done.code == 0, done.stderr
    (path,) = (one for one in tmp_path.rglob("*.json") if one.name != "model_meta.json")
    change_json(path, lambda content: content["scores"]["test"][0].update({name: 0.987}))
    with pytest.raises(EvalkitError, match="but its table of queries has the mean"):
        evalkit.leaderboard(path, metric=name)
    audited = run_here("audit", str(path))
    assert audited.code == 1
    assert f"{name} is not the mean of its queries" in audited.stdout


def test_a_measure_without_its_column_is_refused(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "results"
    done = run_here(*RUN, "model=random", "measures=[RR@10]", f"results_dir={place}")
    assert done.code == 0, done.stderr
    shutil.copytree(place, tmp_path / "whole")
    (path,) = (one for one in place.rglob("*.json") if one.name != "model_meta.json")
    change_table(path, lambda table: table.drop(columns="RR@10"))
    with pytest.raises(EvalkitError, match="column RR@10 is missing"):
        _ = evalkit.load_results(path)[0].queries
    checked = run_here("check", "--baseline", str(tmp_path / "whole"), "--results", str(place))
    assert (checked.code, "bug" in checked.stderr) == (2, False)
    assert "column RR@10 is missing" in checked.stdout


def test_a_value_that_its_scores_do_not_give_is_audited(folder: Path, tmp_path: Path) -> None:
    done = run_here(*RUN, "model=random", "measures=[nDCG@7]", f"results_dir={tmp_path}")
    assert done.code == 0, done.stderr
    (path,) = (one for one in tmp_path.rglob("*.json") if one.name != "model_meta.json")
    change_table(path, lambda table: table.assign(**{"nDCG@7": 0.5}))
    change_json(path, lambda content: content["scores"]["test"][0].update({"nDCG@7": 0.5}))
    audited = run_here("audit", str(path))
    assert audited.code == 1
    assert "nDCG@7 of" in audited.stdout


def test_a_first_stage_is_shown_by_them_too(tmp_path: Path) -> None:
    task = ranking_task(8)
    lines = [
        f"{request.query.query_id} Q0 {candidate.doc_id} {place} {-place} made"
        for request in task.requests
        for place, candidate in enumerate(request.candidates, start=1)
    ]
    rows = [
        json.dumps(
            {
                "query": request.query.texts[0],
                "positive": [one.text for one in request.candidates if one.gain],
                "negative": [one.text for one in request.candidates if not one.gain],
            }
        )
        for request in task.requests
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    plain = evalkit.load_task(path=tmp_path / "rows.jsonl")
    lines = [
        f"{request.query.query_id} Q0 {candidate.doc_id} {place} {-place} made"
        for request in plain.requests
        for place, candidate in enumerate(request.candidates, start=1)
    ]
    (tmp_path / "first.trec").write_text("\n".join(lines), encoding="utf-8")
    staged = evalkit.load_task(path=tmp_path / "rows.jsonl", candidates=tmp_path / "first.trec")
    result = evalkit.evaluate(evalkit.load_model("random"), staged, measures=["nDCG@4"], cache="off")
    shown = {str(row[0]): str(row[1]) for row in stage_sheet(result, "a").rows}
    assert shown["nDCG@4"] == "trec_eval"
    assert "first_stage_nDCG@4" in result.queries
    assert result.first_stage is not None
    assert math.isfinite(result.first_stage.scores["nDCG@4"])


def test_an_asked_measure_and_a_leading_one_of_the_same_title_have_a_column_each(folder: Path) -> None:
    result = stored(folder, "bm25")
    sheet = summary_sheet([result])
    assert [title for title, _ in sheet.columns].count("nDCG@10") == 1
    assert all(len(row) == len(sheet.columns) for row in sheet.rows)


def test_a_list_is_one_list_however_it_is_written(tmp_path: Path) -> None:
    """Quotes, brackets or none, and in a sweep too: measures never make runs of their own, which would share a file."""
    ways = ("nDCG@20,AP(rel=2)", "[AP(rel=2),'nDCG@20']", '["AP(rel=2)", "nDCG@20"]', "[ AP(rel=2) , nDCG@20 ]")
    for number, written in enumerate(ways):
        done = run_here("-m", *RUN, "model=random", f"measures={written}", f"results_dir={tmp_path / str(number)}")
        assert done.code == 0, done.stderr
        (result,) = evalkit.load_results(tmp_path / str(number))
        assert set(result.config["measures"]) == {"nDCG@20", "AP(rel=2)"}
    done = run_here("-m", *RUN, "model=random", "measures=[AP],[RR]", f"results_dir={tmp_path / 'two'}")
    assert (done.code, "give one list" in done.stderr) == (2, True)


def test_a_protocol_s_own_measure_is_that_one() -> None:
    task = evalkit.load_task("demo-zh2en", limit=3)
    result = evalkit.evaluate(evalkit.load_model("random"), task, measures=["map", "ndcg_at_10"], cache="off")
    assert not {"AP", "nDCG@10"} & set(result.scores)


def test_a_run_says_which_measures_it_drops(tmp_path: Path) -> None:
    first = run_here(*RUN, "model=random", "measures=[AP(rel=2),RR@10]", f"results_dir={tmp_path}")
    assert "drops" not in first.stderr
    second = run_here(*RUN, "model=random", "measures=[RR@10]", f"results_dir={tmp_path}")
    assert "had AP(rel=2), which this run drops: measures=[RR@10,AP(rel=2)] keeps all" in second.stderr


def test_a_baseline_s_measure_that_is_gone_fails_the_check(folder: Path, tmp_path: Path) -> None:
    for model in ("bm25", "random"):
        assert run_here(*RUN, f"model={model}", "measures=[RR@10]", f"results_dir={tmp_path / 'less'}").code == 0
    done = run_here("check", "--baseline", str(folder), "--results", str(tmp_path / "less"))
    assert done.code == 1
    gone = [line for line in done.stdout.splitlines() if "missing" in line and "random" in line and "limit-6" in line]
    assert {name for name in ASKED if any(name in line for line in gone)} == {"nDCG@20", "AP(rel=2)", "nDCG@10"}


def test_one_name_serves_results_of_both_kinds(folder: Path, tmp_path: Path) -> None:
    """One result was asked for nDCG@10, the other has mteb's ndcg_at_10 alone: in either order, the same."""
    assert run_here(*RUN, "model=constant", f"results_dir={tmp_path}").code == 0
    random = next(one for one in folder.iterdir() if "random" in one.name)
    shown = [
        run_here("report", *map(str, paths), "--metric", "nDCG@10")
        for paths in ((random, tmp_path), (tmp_path, random))
    ]
    assert [done.code for done in shown] == [0, 0]
    assert shown[0].stdout == shown[1].stdout
    assert "nDCG@10 of mteb-v2" in shown[0].stdout
    lacking = run_here("report", str(random), str(tmp_path), "--metric", "AP(rel=2)")
    assert lacking.code == 0
    (note,) = [line for line in lacking.stdout.splitlines() if line.startswith("left out: ")]
    assert str(tmp_path) in note
    assert "there is no metric 'AP(rel=2)'" in note
    alone = run_here("report", str(tmp_path), "--metric", "AP(rel=2)")
    assert (alone.code, str(tmp_path) in alone.stderr) == (2, True)


def test_python_never_replaces_a_result_on_other_data(tmp_path: Path) -> None:
    for name, answer in (("a", "cat"), ("b", "dog")):
        (tmp_path / name).mkdir()
        row = json.dumps({"query": "which?", "positive": [answer], "negative": ["bird", "fish"]})
        (tmp_path / name / "data.jsonl").write_text(row, encoding="utf-8")
    model = evalkit.load_model("random")
    results = [
        evalkit.evaluate(model, evalkit.load_task(path=tmp_path / name / "data.jsonl"), cache="off") for name in "ab"
    ]
    path = evalkit.save_result(results[0], tmp_path / "results")
    before = path.read_bytes()
    with pytest.raises(EvalkitError, match="is a result on other data"):
        evalkit.save_result(results[1], tmp_path / "results")
    assert path.read_bytes() == before


@pytest.mark.parametrize("option", ["--junit", "--summary"])
def test_a_check_s_reports_never_replace_a_result(folder: Path, tmp_path: Path, option: str) -> None:
    shutil.copytree(folder, tmp_path / "results")
    path = next(one for one in (tmp_path / "results").rglob("EvalkitDemo*.json"))
    before = path.read_bytes()
    done = run_here("check", "--baseline", str(folder), "--results", str(tmp_path / "results"), option, str(path))
    assert (done.code, "would replace a result" in done.stderr) == (2, True)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("format_name", "mine"), [("html", "<!doctype html><title>mine</title>"), ("markdown", "### my notes\nmine")]
)
def test_a_page_and_notes_of_one_s_own_are_not_replaced(
    folder: Path, tmp_path: Path, format_name: str, mine: str
) -> None:
    place = tmp_path / "mine"
    place.write_text(mine, encoding="utf-8")
    done = run_here("report", str(folder), "--format", format_name, "-o", str(place))
    assert (done.code, place.read_text(encoding="utf-8")) == (2, mine)
    place.unlink()
    for _ in range(2):
        assert run_here("report", str(folder), "--format", format_name, "-o", str(place)).code == 0


def test_no_cutoff_is_a_bug_of_evalkit(folder: Path) -> None:
    for metric in (f"AP@{'9' * 5000}", "precision_at_0", "ndcg_at_0010"):
        done = run_here("report", str(folder), "--metric", metric)
        assert (done.code, "bug" in done.stderr) == (2, False)
    for wrong in (None, 5):
        with pytest.raises(EvalkitError, match="there is no metric"):
            evalkit.metrics.find_measure(wrong)  # type: ignore[arg-type]
