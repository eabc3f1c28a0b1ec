"""What can't be compared or read is left out by name, and the rest is compared as if it were not there."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Outcome, run_here
from made_results import change_json, change_table, noisy_scores, ranking_task, table_of, write_scores

import evalkit
from evalkit.errors import EvalkitError

Harm = Callable[[Path], object]
# bm25 is the first of its folder, and all others agree
ODD = "bm25"


def broken_json(path: Path) -> None:
    path.write_text('{"task_name": "demo-', encoding="utf-8")


def later_schema(path: Path) -> None:
    change_json(path, lambda content: content["evalkit"].update(schema_version=99))


def foreign(path: Path) -> None:
    path.write_text('{"scores": [1, 2]}', encoding="utf-8")


def edited_mean(path: Path) -> None:
    change_json(path, lambda content: content["scores"]["test"][0].update(map=0.99))


def no_queries(path: Path) -> None:
    table_of(path).unlink()


def torn_queries(path: Path) -> None:
    table_of(path).write_bytes(table_of(path).read_bytes()[:300])


def other_queries(path: Path) -> None:
    change_table(path, lambda table: table.assign(query_id=["other", *table["query_id"][1:]]))


def fewer_queries(path: Path) -> None:
    change_table(path, lambda table: table.iloc[:-3])


def value_missing(path: Path) -> None:
    change_table(path, lambda table: table.assign(ap=[np.nan, *table["ap"][1:]]))


HARMS: dict[Harm, str] = {
    broken_json: "is not valid JSON",
    later_schema: "evalkit.schema_version 99",
    foreign: "is no result of evalkit",
    edited_mean: "its map is 0.99",
    no_queries: "is missing",
    torn_queries: ".queries.parquet",
    other_queries: "different queries",
    fewer_queries: "different queries",
    value_missing: "query test_query0 has no map",
}
HARMED = pytest.mark.parametrize(("harm", "told"), HARMS.items(), ids=[harm.__name__ for harm in HARMS])


@pytest.fixture
def folder(demo_results: Path, tmp_path: Path) -> Path:
    """Results of four systems on one task, to change."""
    place = tmp_path / "results"
    for model in (ODD, "oracle", "random", "reversed"):
        shutil.copytree(demo_results / f"local__{model}", place / f"local__{model}")
    for path in [*place.rglob("*En2Zh*"), *place.rglob("*Zh2En*")]:
        path.unlink()
    return place


def odd_of(folder: Path) -> Path:
    (path,) = (folder / f"local__{ODD}").rglob("EvalkitDemo*.json")
    return path


def without_notes(done: Outcome) -> tuple[Any, list[str]]:
    content = json.loads(done.stdout)
    return content, content.pop("notes")


@HARMED
@pytest.mark.parametrize("command", ["compare", "report"])
def test_a_result_that_is_left_out_changes_nothing_of_the_others(
    command: str, harm: Harm, told: str, folder: Path
) -> None:
    path = odd_of(folder)
    harm(path)
    found, (note,) = without_notes(run_here(command, str(folder), "--json"))
    assert note.startswith("left out: ")
    assert told in note
    assert str(path.with_suffix("")) in note
    tables = run_here(command, str(folder))
    assert tables.code == 0
    assert note in tables.stdout
    shutil.rmtree(folder / f"local__{ODD}")
    expected, notes = without_notes(run_here(command, str(folder), "--json"))
    assert (found, notes) == (expected, [])


@HARMED
def test_formats_without_notes_name_it_as_they_are_written(harm: Harm, told: str, folder: Path, tmp_path: Path) -> None:
    harm(odd_of(folder))
    for format_name in ("csv", "latex", "html", "markdown"):
        file = tmp_path / f"report.{format_name}"
        done = run_here("report", str(folder), "--format", format_name, "-o", str(file))
        assert (done.code, done.stdout) == (0, "")
        (line,) = done.stderr.splitlines()
        assert line.startswith("left out: ")
        assert told in line or (format_name == "html" and "other queries" in line)  # a page reads the candidates, too
        assert f">{ODD}<" not in file.read_text(encoding="utf-8")


@HARMED
def test_python_s_tables_warn(harm: Harm, told: str, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    harm(odd_of(folder))
    with caplog.at_level(logging.WARNING, "evalkit"):
        board, pairs = evalkit.leaderboard(folder), evalkit.compare_results(folder)
    assert set(board["system"]) == {"oracle", "random", "reversed"}
    assert len(pairs) == 3
    assert [told in message for message in caplog.messages] == [True, True]


@HARMED
@pytest.mark.parametrize("command", ["compare", "report"])
def test_nothing_left_is_an_error_that_says_why(command: str, harm: Harm, told: str, folder: Path) -> None:
    path = odd_of(folder)
    harm(path)
    done = run_here(command, str(path))
    if command == "report" and done.code == 0:
        return  # nothing is wrong with it by itself
    assert done.code == 2
    assert done.stdout == ""
    assert (told in done.stderr) or "nothing to compare" in done.stderr


def test_a_trial_among_whole_runs_is_left_out(folder: Path) -> None:
    assert run_here("task=demo-zh", "model=bm25", "limit=5", f"results_dir={folder}").code == 0
    done = run_here("compare", str(folder))
    assert done.code == 0
    (note,) = [line for line in done.stdout.splitlines() if line.startswith("left out")]
    assert note.endswith("limit-5/EvalkitDemoZh.json: no other result of demo-zh is on its data (limit 5)")
    assert [line for line in done.stdout.splitlines() if line.startswith("demo-zh")] == [
        "demo-zh: MAP of cmteb-v1 on 45 queries"
    ]


def test_trials_are_compared_among_themselves_and_named(folder: Path) -> None:
    for model in ("bm25", "oracle"):
        assert run_here("task=demo-zh", f"model={model}", "limit=5", f"results_dir={folder}").code == 0
    titles = [line for line in run_here("compare", str(folder)).stdout.splitlines() if line.startswith("demo-zh")]
    whole, trial = titles[0], next(title for title in titles if "limit" in title)
    assert whole.startswith("demo-zh (data ")
    assert whole.endswith("): MAP of cmteb-v1 on 45 queries")
    assert trial.startswith("demo-zh (limit 5, data ")
    assert "on 5 queries" in trial


def test_another_protocol_is_left_out(folder: Path) -> None:
    assert run_here("task=demo-zh", "model=constant", "protocol=mteb-v2", f"results_dir={folder}").code == 0
    done = run_here("compare", str(folder))
    assert done.code == 0
    assert "EvalkitDemoZh.json: no other result of demo-zh follows mteb-v2" in done.stdout


def test_a_result_without_the_metric_is_left_out(folder: Path) -> None:
    for model in ("oracle", "random"):
        shutil.rmtree(folder / f"local__{model}")
        words = ("task=demo-zh", f"model={model}", "measures=[nDCG@7]", f"results_dir={folder}")
        assert run_here(*words).code == 0
    for command in ("compare", "report"):
        found, notes = without_notes(run_here(command, str(folder), "--metric", "nDCG@7", "--json"))
        assert len(notes) == 2
        assert all("there is no metric 'nDCG@7'" in note for note in notes)
        systems = found["tasks"][0]["systems"] if command == "compare" else found["boards"][0]["standings"]
        assert len(systems) == 2
    assert "there is no metric" in run_here("compare", str(folder), "--metric", "nDCG@8").stderr


@pytest.mark.parametrize("harm", ["missing", "torn", "fewer"])
def test_a_page_leaves_out_whose_candidates_are_no_table(harm: str, tmp_path: Path) -> None:
    task = ranking_task(6)
    paths = [write_scores(tmp_path / "r", task, noisy_scores(task, seed), name) for seed, name in enumerate("abc")]
    table = table_of(paths[0], "run")
    if harm == "fewer":
        change_table(paths[0], lambda frame: frame.iloc[:-1], "run")
    elif harm == "torn":
        table.write_bytes(table.read_bytes()[:200])
    else:
        table.unlink()
    done = run_here("report", str(tmp_path / "r"), "--format", "html", "-o", str(tmp_path / "page.html"))
    assert done.code == 0
    assert done.stderr.startswith("left out: ")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert '"systems":[{"label":"b"' in page
    assert "left out: " in page
    assert run_here("report", str(tmp_path / "r")).stdout.count("left out") == 0  # tables need no candidates


def test_published_tables_go_on_too(folder: Path) -> None:
    broken_json(odd_of(folder))
    done = run_here("report", "--published", str(folder))
    assert done.code == 0
    assert "left out: " in done.stdout
    assert "is not valid JSON" in done.stdout


def test_a_card_is_not_changed_by_half_of_its_results(folder: Path, tmp_path: Path) -> None:
    broken_json(odd_of(folder))
    card = tmp_path / "README.md"
    card.write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    done = run_here("report", str(folder), "--format", "model-index", "--update", str(card))
    assert done.code == 2
    assert card.read_text(encoding="utf-8") == "---\nlicense: mit\n---\n"


def test_a_path_that_is_not_there_is_a_mistake_of_the_words(folder: Path, tmp_path: Path) -> None:
    assert run_here("compare", str(folder), str(tmp_path / "none")).code == 2
    with pytest.raises(EvalkitError, match="does not exist"):
        evalkit.compare_results(folder, tmp_path / "none")


def test_most_results_lead_and_not_the_first(tmp_path: Path) -> None:
    """Whatever the order of the folders."""
    task = ranking_task(6)
    paths = [write_scores(tmp_path / "r", task, noisy_scores(task, seed), name) for seed, name in enumerate("abcd")]
    change_table(paths[0], lambda table: table.iloc[:-1])
    change_table(paths[1], lambda table: table.assign(query_id=["x", *table["query_id"][1:]]))
    found, notes = without_notes(run_here("compare", *map(str, paths), "--json"))
    assert [system["label"] for system in found["tasks"][0]["systems"]] == ["c", "d"]
    assert len(notes) == 2
