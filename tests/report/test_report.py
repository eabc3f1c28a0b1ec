"""`evalkit report`: leaderboards, ranks that can't be told apart, slices, formats."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command import Outcome, run_here

from evalkit.statistics import holm

GOLDEN = Path(__file__).parent.parent / "golden"
TASKS = ["demo-en2zh", "demo-zh", "demo-zh2en"]


def reported(*arguments: object) -> str:
    done = run_here("report", *map(str, arguments))
    assert done.code == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def reported_json(*arguments: object) -> Any:
    return json.loads(reported(*arguments, "--format", "json"))


def stripped(text: str) -> str:
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


@pytest.fixture
def copy(demo_results: Path, tmp_path: Path) -> Path:
    """Results to change."""
    return Path(shutil.copytree(demo_results, tmp_path / "results"))


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ([], "report.txt"),
        (["--slice", "language,truncation", "--metric", "mrr"], "report-slices.txt"),
        (["--format", "markdown", "--slice", "candidates"], "report.md"),
        (["--format", "csv", "--slice", "candidates"], "report.csv"),
    ],
)
def test_reports_are_written_as_ever(demo_results: Path, options: list[str], name: str) -> None:
    assert stripped(reported(demo_results, *options)) == (GOLDEN / name).read_text(encoding="utf-8")


def test_values_and_intervals_of_a_task_are_those_of_its_result(demo_results: Path) -> None:
    boards = reported_json(demo_results)["boards"]
    assert [board["tasks"] for board in boards] == [[task] for task in TASKS] + [TASKS]
    for path in demo_results.rglob("Evalkit*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        own = content["evalkit"]
        board = boards[TASKS.index(own["task"]["name"])]
        (row,) = [row for row in board["standings"] if row["system"]["name"] == own["model"]["name"]]
        assert row["value"] == content["scores"]["test"][0]["map"]
        assert row["interval"] == own["intervals"]["map"]
        assert row["ties"] == [own["ties"]["map"][bound] for bound in ("low", "high")]
        assert board["n_queries"] == own["queries"]["scored"]


def test_ranks_are_open_where_no_test_tells_systems_apart(demo_results: Path) -> None:
    """Against all patterns of signs of the 16 queries, and the definition of a rank range."""
    board = reported_json(demo_results, "--metric", "mrr")["boards"][0]
    names = [row["system"]["name"] for row in board["standings"]]
    files = {name: next((demo_results / f"local__{name}").rglob("EvalkitDemoEn2Zh.queries.parquet")) for name in names}
    values = {name: pd.read_parquet(file)["rr"].to_numpy() for name, file in files.items()}
    pairs = [(a, b) for place, a in enumerate(names) for b in names[place + 1 :]]
    signs = (np.arange(2**16)[:, None] >> np.arange(16) & 1) * 2.0 - 1
    differences = np.column_stack([values[a] - values[b] for a, b in pairs])
    p_values = np.mean(np.abs(signs @ differences) >= np.abs(differences.sum(axis=0)) - 1e-9, axis=0)
    apart = [pair for pair, p in zip(pairs, holm(p_values), strict=True) if p < 0.05]
    for row, name in zip(board["standings"], names, strict=True):
        worse = sum(a == name for a, b in apart)  # the first of a pair is the better one here
        better = sum(b == name for a, b in apart)
        assert row["ranks"] == [1 + better, len(names) - worse]
    assert [tuple(row["ranks"]) for row in board["standings"]] == [(1, 3), (1, 3), (1, 4), (3, 4), (5, 5)]
    everything = reported_json(demo_results, "--alpha", 0.0001)["boards"][0]["standings"]
    assert {tuple(row["ranks"]) for row in everything} == {(1, 5)}


def test_averages_are_over_the_same_tasks(copy: Path) -> None:
    def averages() -> list[tuple[list[str], list[str]]]:
        boards = [board for board in reported_json(copy)["boards"] if len(board["tasks"]) > 1]
        return [
            (sorted(board["tasks"]), sorted(row["system"]["name"] for row in board["standings"])) for board in boards
        ]

    everyone = ["bm25", "constant", "oracle", "random", "reversed"]
    assert averages() == [(TASKS, everyone)]
    for model in ("bm25", "random"):
        next((copy / f"local__{model}").rglob("EvalkitDemoZh.json")).unlink()
    # who has run all tasks stands on the board of two, too
    assert averages() == [(TASKS, everyone[1:3] + everyone[4:]), (["demo-en2zh", "demo-zh2en"], everyone)]
    next((copy / "local__random").rglob("EvalkitDemoZh2En.json")).unlink()
    assert averages()[1:] == [(["demo-en2zh", "demo-zh2en"], [*everyone[:3], "reversed"])]


def test_an_average_weighs_tasks_alike(demo_results: Path) -> None:
    *tasks, average = reported_json(demo_results)["boards"]
    values = {row["system"]["name"]: row for row in average["standings"]}
    for name, row in values.items():
        own = [next(one for one in board["standings"] if one["system"]["name"] == name) for board in tasks]
        assert row["value"] == pytest.approx(np.mean([one["value"] for one in own]))
        low, high = row["interval"]
        assert (low is None) == (name == "oracle")  # whose values are all 100
        assert low is None or low <= row["value"] <= high
    width = float(np.ptp(values["random"]["interval"]))
    assert width < min(
        np.ptp(row["interval"]) for board in tasks for row in board["standings"][1:2] if board["n_queries"] == 16
    )


def test_a_part_of_the_queries_has_a_board_of_its_own(copy: Path) -> None:
    assert run_here("task=demo-zh2en", "model=random", "limit=3", f"results_dir={copy}").code == 0
    boards = reported_json(copy)["boards"]
    assert [(board["tasks"], board["limit"], len(board["standings"])) for board in boards] == [
        (["demo-en2zh"], None, 5),
        (["demo-zh"], None, 5),
        (["demo-zh2en"], None, 5),
        (["demo-zh2en"], 3, 1),
        (TASKS, None, 5),
    ]
    text = reported(copy)
    assert "demo-zh2en (limit 3, data " in text
    assert "1      random (limit=3)" in text


def test_protocols_have_boards_of_their_own(copy: Path, tmp_path: Path) -> None:
    assert run_here("task=demo-zh2en", "model=random", "protocol=mteb-v2", f"results_dir={tmp_path / 'v2'}").code == 0
    boards = reported_json(copy, tmp_path / "v2")["boards"]
    assert [(board["protocol"], board["metric"]) for board in boards if board["tasks"] == ["demo-zh2en"]] == [
        ("cmteb-v1", "map"),
        ("mteb-v2", "map_at_1000"),
    ]


def test_a_metric_is_judged_by_its_own_protocol_whichever_led(copy: Path, tmp_path: Path) -> None:
    """Every result has both protocols' metrics, so that systems are compared on one board."""
    v2 = tmp_path / "v2"
    assert run_here("task=demo-zh2en", "model=oracle", "protocol=mteb-v2", f"results_dir={v2}").code == 0
    for path in copy.rglob("EvalkitDemoZh2En.json"):
        if "oracle" in str(path):
            path.unlink()
    for metric, protocol in (("mrr", "cmteb-v1"), ("ndcg_at_10", "mteb-v2")):
        boards = reported_json(copy, v2, "--metric", metric)["boards"]
        (board,) = [board for board in boards if board["tasks"] == ["demo-zh2en"]]
        assert (board["protocol"], len(board["standings"])) == (protocol, 5)
    # one system's two results are both shown
    assert run_here("task=demo-zh2en", "model=random", "protocol=mteb-v2", f"results_dir={v2}").code == 0
    (board,) = [one for one in reported_json(copy, v2, "--metric", "mrr")["boards"] if one["tasks"] == ["demo-zh2en"]]
    assert len(board["standings"]) == 6
    assert (
        run_here(
            "report", str(copy), str(v2), "--metric", "mrr", "--format", "html", "-o", str(tmp_path / "p.html")
        ).code
        == 0
    )


def test_slices_have_means_intervals_and_numbers_of_queries(demo_results: Path) -> None:
    content = reported_json(demo_results, "--slice", "query-length")
    (cut,) = [board for board in content["slices"] if board["task"] == "demo-zh"]
    assert sum(mean["n_queries"] for mean in cut["means"]) == 5 * 45
    for mean in cut["means"]:
        low, high = map(int, mean["name"].split("–"))
        file = next((demo_results / mean["system"]["hub_id"].replace("/", "__")).rglob("EvalkitDemoZh.queries.parquet"))
        table = pd.read_parquet(file)
        values = table.loc[table["query_characters"].between(low, high), "ap"]
        assert (mean["n_queries"], mean["value"]) == (len(values), pytest.approx(values.mean()))
        low, high = mean["interval"]
        assert (low is None) == (np.ptp(values) == 0)
        assert low is None or low <= mean["value"] <= high


def test_csv_holds_the_figures_of_json(demo_results: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(reported(demo_results, "--format", "csv", "--slice", "language"))))
    content = reported_json(demo_results, "--slice", "language")
    places = [(board, row) for board in content["boards"] for row in board["standings"]]
    places += [(cut, mean) for cut in content["slices"] for mean in cut["means"]]
    assert len(rows) == len(places)
    for row, (board, one) in zip(rows, places, strict=True):
        found = [float(row[name]) if row[name] else None for name in ("value", "low", "high")]
        assert found == [one["value"], *one["interval"]]
        assert row["slice"] == one.get("name", "")
        assert row["protocol"] == board["protocol"]
        if "ranks" in one:
            assert [int(row["best_rank"]), int(row["worst_rank"])] == one["ranks"]


def test_pandas_reads_the_csv(demo_results: Path) -> None:
    table = pd.read_csv(io.StringIO(reported(demo_results, "--format", "csv")))
    boards = reported_json(demo_results)["boards"]
    assert len(table) == sum(len(board["standings"]) for board in boards)
    assert table["value"].tolist() == [row["value"] for board in boards for row in board["standings"]]
    assert table["system"].tolist() == [row["system"]["label"] for board in boards for row in board["standings"]]
    assert table["best_rank"].dtype == np.int64


def test_a_file_gets_markdown_unless_another_format_is_named(demo_results: Path, tmp_path: Path) -> None:
    assert reported(demo_results, "-o", tmp_path / "榜.md") == ""
    assert (tmp_path / "榜.md").read_text(encoding="utf-8") == reported(demo_results, "--format", "markdown")
    assert reported(demo_results, "-o", tmp_path / "a.csv", "--format", "csv") == ""
    assert (tmp_path / "a.csv").read_text(encoding="utf-8").startswith("tasks,limit,protocol,")


@pytest.mark.parametrize("name", ["markdown", "csv", "json", "latex", "html"])
def test_a_file_of_another_kind_is_not_replaced(name: str, demo_results: Path, tmp_path: Path) -> None:
    model, file = str(demo_results / "local__random"), tmp_path / "notes"
    for _ in range(2):  # its own kind is
        assert run_here("report", model, "--format", name, "-o", str(file)).code == 0
    file.write_text("# My notes\n")
    done = run_here("report", model, "--format", name, "-o", str(file))
    assert (done.code, file.read_text()) == (2, "# My notes\n")
    assert f"{file} exists and holds no report as {name}" in done.stderr


def test_a_real_model_stands_among_the_others(tmp_path: Path) -> None:
    """Nine queries are enough to tell it from BM25, which does not know the other language."""
    models = "model=bm25,reversed,multilingual-e5-small-q4"
    assert run_here("-m", "task=demo-zh2en", models, "limit=9", f"results_dir={tmp_path}").code == 0
    (board,) = reported_json(tmp_path)["boards"]
    first, second, third = board["standings"]
    assert (first["system"]["name"], first["ranks"]) == ("multilingual-e5-small-q4", [1, 1])
    assert (second["ranks"], third["ranks"]) == ([2, 3], [2, 3])
    pair = [str(tmp_path / f"local__{model}") for model in ("bm25", "multilingual-e5-small-q4")]
    done = run_here("compare", *pair)
    (row,) = done.rows
    assert (done.code, row[0], row[-1]) == (0, "A−B", "B")
    assert run_here("compare", *pair).stdout == done.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["{results}", "--format", "markdwon"], "there is no format 'markdwon'; did you mean markdown?"),
        (["{results}", "--metric", "map_at_7"], "there is no metric 'map_at_7'; did you mean map_at_"),
        (["{results}", "--slice", "length"], "there is no slice 'length'; did you mean query-length?"),
        (["{results}", "-o", "nowhere/at/all.md"], "cannot write nowhere/at/all.md"),
        (["missing"], "missing does not exist; give result files or folders"),
        ([], "give result files or folders to report, or --published"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(demo_results: Path, arguments: list[str], told: str) -> None:
    done: Outcome = run_here("report", *(argument.format(results=demo_results) for argument in arguments))
    assert (done.code, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert told in line
