"""Where there is one of a thing, no message counts it in the plural."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from command import run_here
from made_results import change_json, change_table, noisy_scores, ranking_task, write_scores
from made_tasks import make_task

PLURAL = re.compile(
    r"(?<![\d.,–-])1 (?:queries|pairs|tasks|systems|models|results|files|candidates|figures|flips|rank flips|documents|errors|"
    r"warnings|notes|averages|settings|characters|rows|faults|relevant documents)\b(?!/s)"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two systems on a task of one query, and one of them on another task."""
    task = ranking_task(1, name="one")
    for seed, model in enumerate("ab"):
        write_scores(tmp_path / "r", task, noisy_scores(task, seed), model, texts=True)
    alone = ranking_task(1, name="alone")
    write_scores(tmp_path / "r", alone, noisy_scores(alone, 5), "a")
    return tmp_path


def said(*arguments: object) -> str:
    done = run_here(*map(str, arguments))
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    "options",
    [
        ["compare", "--slice", "candidates,query-length"],
        ["compare", "--top", "1"],
        ["report", "--slice", "candidates"],
        ["report", "--format", "markdown"],
        ["report", "--format", "latex"],
        ["report", "--published"],
        ["audit"],
    ],
    ids=" ".join,
)
def test_a_report_of_one(options: list[str], folder: Path) -> None:
    text = said(options[0], folder / "r", *options[1:])
    assert text
    assert PLURAL.findall(text) == []


def test_a_page_of_one(folder: Path) -> None:
    page = said("report", folder / "r", "--format", "html")
    shown = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert "1 query" in page
    assert PLURAL.findall(shown) == []


def test_a_check_of_one(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "r", tmp_path / "base")
    (path,) = (folder / "r" / "local__b").rglob("one.json")
    change_table(path, lambda table: table.iloc[:-1], "run")
    change_table(path, lambda table: table.assign(ap=0.1, n_candidates=9))
    assert PLURAL.findall(said("check", "--results", folder / "r", "--baseline", tmp_path / "base")) == []
    assert PLURAL.findall(said("audit", folder / "r")) == []


def test_other_queries_by_one(tmp_path: Path) -> None:
    task = ranking_task(4)
    paths = [write_scores(tmp_path / "r", task, noisy_scores(task, seed), name) for seed, name in enumerate("abc")]
    change_table(paths[0], lambda table: table.iloc[:-1])
    assert "(1 differs)" in said("compare", tmp_path / "r")


def test_a_run_of_one_query_and_pair(tmp_path: Path) -> None:
    lines = "query,positive,negative\nwhich,this,that\n"
    (tmp_path / "data.csv").write_text(lines, encoding="utf-8")
    words = ("task=local", f"task.path={tmp_path / 'data.csv'}", f"results_dir={tmp_path / 'r'}")
    text = said(*words, "model=bm25")
    assert "1 query scored" in text
    assert PLURAL.findall(text) == []
    assert PLURAL.findall(said("doctor", *words, "model=bm25")) == []


def test_a_trial_of_one_is_left_out_of_the_published_tables(tmp_path: Path) -> None:
    task = ranking_task(3, name="T2Reranking")
    path = write_scores(tmp_path / "r", task, noisy_scores(task), "a")
    change_json(path, lambda content: content["evalkit"]["task"].update(limit=1))
    assert "it is of 1 query only" in said("report", "--published", tmp_path / "r")


def test_one_candidate_more_or_less() -> None:
    task = make_task((["q"], [("a", 1)]))
    assert PLURAL.findall(f"{task!r} {task.requests[0]!r} {np.float32(1)!r}") == []
