"""Results as tables: what they hold is what the commands print, and a trial never takes the place of a result."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command import run_here
from scipy import stats

import evalkit
from evalkit.errors import EvalkitError

SCHEMA_1 = Path(__file__).parent / "schema-1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    for task in ("demo-zh", "demo-zh2en"):
        for model in ("bm25", "random", "oracle"):
            evalkit.save_result(evalkit.evaluate(evalkit.load_model(model), evalkit.load_task(task)), folder)
    return folder


def test_what_is_saved_is_what_the_command_writes(folder: Path, tmp_path: Path) -> None:
    done = run_here("task=demo-zh", "model=bm25", f"results_dir={tmp_path}")
    assert done.code == 0, done.stderr
    (path,) = tmp_path.rglob("EvalkitDemoZh.json")
    own, other = (json.loads((root / path.relative_to(tmp_path)).read_text("utf-8")) for root in (folder, tmp_path))
    assert own["scores"] == other["scores"]
    queries = [evalkit.load_results(root / path.relative_to(tmp_path))[0].queries for root in (folder, tmp_path)]
    assert queries[0].equals(queries[1])


def test_a_trial_does_not_take_the_place_of_a_result(folder: Path, tiny_reranker: Path, tmp_path: Path) -> None:
    task = evalkit.load_task("demo-zh")
    model = evalkit.load_model("local-cross-encoder", backend="torch", path=tiny_reranker, max_length=32)
    assert "experiments" not in str(next(folder.rglob("*.json")))
    limited = evalkit.evaluate(evalkit.load_model("bm25"), evalkit.load_task("demo-zh", limit=3))
    assert "experiments/limit-3/" in str(evalkit.save_result(limited, tmp_path))
    trial = evalkit.evaluate(model, evalkit.load_task("demo-zh", limit=1), cache="off")
    assert "/experiments/backend-torch_limit-1_max_length-32/" in str(evalkit.save_result(trial, tmp_path))
    named = evalkit.evaluate(evalkit.load_model("bm25", backend="lexical"), task)
    assert "/experiments/backend-lexical/" in str(evalkit.save_result(named, tmp_path))


def test_a_configuration_of_ones_own_is_kept_and_decides_nothing(tmp_path: Path) -> None:
    model, task = evalkit.load_model("bm25"), evalkit.load_task("demo-zh", limit=3)
    own = evalkit.evaluate(model, task, config={"note": "mine"})
    path = evalkit.save_result(own, tmp_path)
    assert "experiments/limit-3/" in str(path)
    (loaded,) = evalkit.load_results(path)
    assert (loaded.config, loaded.deviations, loaded.experiment) == ({"note": "mine"}, {"limit": 3}, "limit-3")
    said = replace(own, deviations={"trial": "a"})
    assert "experiments/trial-a/" in str(evalkit.save_result(said, tmp_path))


def test_the_configuration_has_one_shape(tmp_path: Path) -> None:
    done = run_here("task=demo-zh", "model=bm25", "limit=3", f"results_dir={tmp_path}")
    assert done.code == 0, done.stderr
    (command,) = evalkit.load_results(tmp_path)
    python = evalkit.evaluate(evalkit.load_model("bm25"), evalkit.load_task("demo-zh", limit=3))
    assert command.deviations == python.deviations == {"limit": 3}
    assert command.config["model"] == python.config["model"]
    for name in ("limit", "device", "dtype", "seed", "protocol", "measures", "reproduce"):
        assert command.config[name] == python.config[name], name
    for name in ("task", "backend", "runner"):
        assert command.config[name]["name"] == python.config[name]["name"]


def test_leaderboard_is_the_report(folder: Path, tmp_path: Path) -> None:
    board = evalkit.leaderboard(folder)
    rows = list(csv.DictReader(run_here("report", str(folder), "--format", "csv").stdout.splitlines()))
    assert len(board) == len(rows) == 9  # two tasks and their average
    assert board["system"].tolist() == [row["system"] for row in rows]
    np.testing.assert_array_equal(board["value"], [float(row["value"]) for row in rows])
    assert board["value"][board["system"] == "oracle"].tolist() == [1, 1, 1]
    for results in (folder, SCHEMA_1):  # of the second some have a limit, a dtype or an experiment
        file = tmp_path / "board.csv"
        assert run_here("report", str(results), "--format", "csv", "-o", str(file)).code == 0
        written = pd.read_csv(file).drop(columns=["slice_by", "slice"])
        pd.testing.assert_frame_equal(evalkit.leaderboard(results), written)


def test_comparison_agrees_with_scipy(folder: Path) -> None:
    pairs = evalkit.compare_results(folder)
    assert len(pairs) == 6
    row = pairs[(pairs["task"] == "demo-zh") & (pairs["first"] == "bm25") & (pairs["second"] == "random")].iloc[0]
    one, other = (
        next(r for r in evalkit.load_results(folder) if (r.model.name, r.task.name) == (name, "demo-zh")).queries["ap"]
        for name in ("bm25", "random")
    )
    test = stats.permutation_test(
        (one, other),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        n_resamples=20_000,
        rng=1,
    )
    assert row["difference"] == pytest.approx((one - other).mean(), abs=1e-12)
    assert row["p_value"] == pytest.approx(test.pvalue, abs=0.02)
    assert row["wins"] == int((one > other).sum())
    assert row["low"] < row["difference"] < row["high"]


def test_wrong_arguments_are_said(folder: Path) -> None:
    wrong: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
        ((), {}, "give result files"),
        (([str(folder)],), {}, "one by one; found a list"),
        ((folder,), {"alpha": 5}, "alpha=5"),
        ((folder,), {"seed": -1}, "seed=-1"),
    ]
    for paths, settings, message in wrong:
        for table in (evalkit.leaderboard, evalkit.compare_results):
            with pytest.raises(EvalkitError, match=message):
                table(*paths, **settings)


def test_nothing_to_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(EvalkitError, match="no results"):
        evalkit.load_results(tmp_path)
