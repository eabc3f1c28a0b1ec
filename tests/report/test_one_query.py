"""One query says nothing of others: no command shows an interval, a p-value or a detectable difference of it."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from command import run_here
from made_results import noisy_scores, ranking_task, write_scores

import evalkit

NO_WIDTH = re.compile(r"(?<![\d.])([+-]?\d+\.\d\d)(?:–|, )\1(?![\d.])")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scorers on a task of one query, and on one of which a part has one query."""
    folder = tmp_path_factory.mktemp("one") / "results"
    for queries, name in ((1, "alone"), (5, "five")):
        task = ranking_task(queries, name)
        for model, seed in (("first", 1), ("second", 2)):
            write_scores(folder, task, noisy_scores(task, seed), model, texts=True)
    return folder


def test_a_result_of_one_query_has_no_interval(results: Path, tmp_path: Path) -> None:
    done = run_here("task=demo-zh", "model=random", "limit=1", f"results_dir={tmp_path}")
    assert done.code == 0, done.stderr
    assert not NO_WIDTH.search(done.stdout)
    path = next(results.rglob("first/**/alone.json"), None) or next(results.rglob("*first/*/alone.json"))
    intervals = json.loads(path.read_text("utf-8"))["evalkit"]["intervals"]
    assert {tuple(ends) for ends in intervals.values()} == {(None, None)}
    (result,) = evalkit.load_results(path)
    assert all(low != low and high != high for low, high in result.intervals.values())


@pytest.mark.parametrize("form", ["table", "markdown", "csv", "latex", "json"])
def test_a_report_of_one_query_has_no_interval(form: str, results: Path) -> None:
    options = [] if form == "table" else ["--format", form]
    done = run_here("report", str(results), "--slice", "query-length", *options)
    assert done.code == 0, done.stderr
    assert not NO_WIDTH.search(done.stdout)
    assert "nan" not in done.stdout.lower().replace("n/a", "")
    if form == "csv":
        rows = [row for row in csv.DictReader(io.StringIO(done.stdout)) if row["n_queries"] == "1"]
        assert {(row["low"], row["high"]) for row in rows} == {("", "")}
    if form == "json":
        boards = [board for board in json.loads(done.stdout)["boards"] if board["n_queries"] == 1]
        assert [row["interval"] for board in boards for row in board["standings"]] == [[None, None]] * 2


def test_a_comparison_on_one_query_tests_nothing(results: Path) -> None:
    done = run_here("compare", str(results), "--slice", "query-length", "--json")
    assert done.code == 0, done.stderr
    tasks = {task["task"]: task for task in json.loads(done.stdout)["tasks"]}
    (pair,) = tasks["alone"]["pairs"]
    assert (pair["interval"], pair["effect_interval"]) == ([None, None], [None, None])
    assert (pair["p_value"], pair["adjusted_p"], pair["detectable"]) == (None, None, None)
    shown = run_here("compare", str(results), "--slice", "query-length")
    assert not NO_WIDTH.search(shown.stdout)
    assert "nan" not in shown.stdout
    assert "not told apart" in shown.stdout


def test_tables_for_python_have_gaps(results: Path) -> None:
    board, pairs = evalkit.leaderboard(results), evalkit.compare_results(results)
    alone = board[board["tasks"] == "alone"]
    assert alone[["low", "high"]].isna().all(axis=None)
    alone = pairs[pairs["task"] == "alone"]
    assert alone[["low", "high", "p_value", "adjusted_p", "detectable"]].isna().all(axis=None)
    assert not pairs[pairs["task"] == "five"]["p_value"].isna().any()


def test_the_page_of_one_query_has_no_interval(results: Path, tmp_path: Path) -> None:
    done = run_here("report", str(results), "--format", "html", "-o", str(tmp_path / "page.html"))
    assert done.code == 0, done.stderr
    page = (tmp_path / "page.html").read_text("utf-8")
    assert not re.search(r">(\d+\.\d\d)–\1<", page)
    assert re.search(r'"interval":\[null,null\],"p":null', page)


def test_a_check_on_one_query_tests_nothing(tmp_path: Path) -> None:
    task = ranking_task(1)
    for folder, sign in (("baseline", 1), ("now", -1)):
        write_scores(tmp_path / folder, task, sign * noisy_scores(task))
    done = run_here("check", "--baseline", str(tmp_path / "baseline"), "--results", str(tmp_path / "now"))
    assert not NO_WIDTH.search(done.stdout)
    assert "1 queries" not in done.stdout
    assert "1 changed query is too few" in done.stdout
