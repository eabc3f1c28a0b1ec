"""`evalkit compare`: what it says of results, and which results it refuses."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command import Outcome, run_here, run_program
from scipy import stats

GOLDEN = Path(__file__).parent.parent / "golden"
ZH2EN = "EvalkitDemoZh2En"
Change = Callable[[pd.DataFrame], pd.DataFrame]


def of(folder: Path, model: str, task: str = ZH2EN) -> Path:
    (path,) = (folder / f"local__{model}").rglob(f"{task}.json")
    return path


def table_of(path: Path) -> Path:
    return path.with_name(f"{path.stem}.queries.parquet")


def compared(*arguments: object) -> Outcome:
    done = run_here("compare", *map(str, arguments))
    assert done.code == 0, done.stderr
    assert done.stderr == ""
    return done


def compared_json(*arguments: object) -> Any:
    return json.loads(compared(*arguments, "--json").stdout)


def refused(*arguments: object) -> str:
    done = run_here(*map(str, arguments))
    assert (done.code, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    return line


@pytest.fixture
def copy(demo_results: Path, tmp_path: Path) -> Path:
    """Results to change."""
    return Path(shutil.copytree(demo_results, tmp_path / "results"))


def changed(path: Path, change: Change) -> None:
    change(pd.read_parquet(table_of(path))).to_parquet(table_of(path))


def without_its_first_ndcg(path: Path) -> None:
    """Take the first query's nDCG@10 out of a result, as a run that could not compute it would have written both files."""
    changed(path, lambda table: table.assign(ndcg_at_10=[np.nan, *table["ndcg_at_10"][1:]]))
    written = json.loads(path.read_text(encoding="utf-8"))
    (row,) = written["scores"]["test"]
    row["ndcg_at_10"] = float(pd.read_parquet(table_of(path))["ndcg_at_10"].mean())
    path.write_text(json.dumps(written, ensure_ascii=False), encoding="utf-8")


def golden(done: Outcome, name: str) -> None:
    found = "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())
    assert found == (GOLDEN / name).read_text(encoding="utf-8")


def test_two_systems_are_compared_as_ever(demo_results: Path) -> None:
    golden(compared(of(demo_results, "random"), of(demo_results, "bm25"), "--slice", "language"), "compare-two.txt")


def test_many_systems_are_compared_as_ever(demo_results: Path) -> None:
    models = [demo_results / f"local__{model}" for model in ("bm25", "random", "constant")]
    golden(compared(*models, "--metric", "mrr", "--top", 1), "compare-many.txt")


@pytest.mark.parametrize(("metric", "column"), [(None, "ap"), ("mrr", "rr"), ("ndcg_at_10", "ndcg_at_10")])
def test_figures_are_those_of_independent_code(demo_results: Path, metric: str | None, column: str) -> None:
    paths = [of(demo_results, model) for model in ("random", "bm25")]
    options = ["--metric", metric] if metric else []
    (task,) = compared_json(*paths, *options)["tasks"]
    (pair,) = task["pairs"]
    a, b = (pd.read_parquet(table_of(path))[column].to_numpy() for path in paths)
    assert pair["means"] == pytest.approx([a.mean(), b.mean()])
    assert pair["difference"] == pytest.approx(a.mean() - b.mean())
    assert (pair["wins"], pair["losses"], pair["ties"]) == ((a > b).sum(), (a < b).sum(), (a == b).sum())
    exact = stats.permutation_test(
        (a, b), lambda x, y, axis: (x - y).mean(axis), permutation_type="samples", n_resamples=np.inf
    )
    assert pair["p_value"] == pair["adjusted_p"] == pytest.approx(exact.pvalue, abs=1e-12)
    interval = stats.bootstrap((a - b,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1))
    low, high = interval.confidence_interval
    assert pair["interval"] == pytest.approx([low, high], abs=0.04 * (high - low))
    assert pair["effect_size"] == pytest.approx((a - b).mean() / (a - b).std(ddof=1))
    order = np.argsort(-np.abs(a - b), kind="stable")[:5]
    moved = task["moved"][0]["queries"]
    assert [abs(query["values"][0] - query["values"][1]) for query in moved] == pytest.approx(np.abs(a - b)[order])
    assert (task["metric"], task["n_queries"]) == (metric or "map", 16)


def test_the_queries_that_moved_most_come_with_their_texts(demo_results: Path, tmp_path: Path) -> None:
    paths = [of(demo_results, model) for model in ("random", "bm25")]
    table = pd.read_parquet(table_of(paths[0])).set_index("query_id")
    for query in compared_json(*paths, "--top", 3)["tasks"][0]["moved"][0]["queries"]:
        assert query["text"] == table.loc[query["query_id"], "query"]
        assert query["values"][0] == table.loc[query["query_id"], "ap"]
    assert compared_json(*paths, "--top", 0)["tasks"][0]["moved"] == []


def test_without_texts_queries_have_their_ids_alone(copy: Path) -> None:
    paths = [of(copy, model) for model in ("random", "bm25")]
    for path in paths:
        changed(path, lambda table: table.drop(columns="query"))
    assert {query["text"] for query in compared_json(*paths)["tasks"][0]["moved"][0]["queries"]} == {""}
    header = next(line for line in compared(*paths).stdout.splitlines() if line.startswith("query_id"))
    assert header.split() == ["query_id", "MAP", "A", "MAP", "B", "difference"]


def test_all_pairs_of_many_are_adjusted_for_their_number(demo_results: Path) -> None:
    content = compared_json(demo_results)
    assert [task["task"] for task in content["tasks"]] == ["demo-en2zh", "demo-zh", "demo-zh2en"]
    for task in content["tasks"]:
        assert [system["label"] for system in task["systems"]] == ["bm25", "constant", "oracle", "random", "reversed"]
        assert len(task["pairs"]) == 10
        for pair in task["pairs"]:
            no_smaller = [other["p_value"] for other in task["pairs"] if other["p_value"] >= pair["p_value"]]
            assert pair["adjusted_p"] >= min(1, pair["p_value"] * len(no_smaller)) - 1e-12
        same = next(pair for pair in task["pairs"] if (pair["first"], pair["second"]) == (1, 4))
        assert (same["difference"], same["p_value"], same["wins"], same["losses"]) == (0, 1, 0, 0)


def test_the_rows_say_who_is_better(demo_results: Path) -> None:
    done = compared(*(of(demo_results, model) for model in ("random", "oracle", "bm25")))
    assert [(row[0], row[-1]) for row in done.rows] == [("A−B", "B"), ("A−C", "A"), ("B−C", "B")]
    strict = compared(*(of(demo_results, model) for model in ("random", "bm25")), "--alpha", 0.001)
    assert strict.rows[0][-3:] == ["not", "told", "apart"]


def test_a_strict_level_can_be_met(demo_results: Path) -> None:
    """10,000 patterns of signs give no p below 0.0001, so that more are drawn."""
    paths = [of(demo_results, model, "EvalkitDemoZh") for model in ("oracle", "random")]
    assert compared(*paths, "--alpha", 0.00004).rows[0][-1] == "A"
    standings = json.loads(run_here("report", *map(str, paths), "--alpha", "0.00004", "--format", "json").stdout)[
        "boards"
    ][0]
    assert [row["ranks"] for row in standings["standings"]] == [[1, 1], [2, 2]]


def test_the_order_of_the_queries_in_a_file_does_not_matter(demo_results: Path, copy: Path) -> None:
    paths = [of(copy, model) for model in ("random", "bm25")]
    before = compared_json(*paths, "--slice", "query-length")
    changed(paths[1], lambda table: table.sample(frac=1, random_state=1))
    assert compared_json(*paths, "--slice", "query-length") == before


@pytest.mark.parametrize("by", ["query-length", "candidates", "language"])
def test_slices_are_the_queries_that_they_name(demo_results: Path, by: str) -> None:
    paths = [of(demo_results, model, "EvalkitDemoZh") for model in ("random", "bm25")]
    slices = compared_json(*paths, "--slice", by)["tasks"][0]["slices"]
    tables = [pd.read_parquet(table_of(path)) for path in paths]
    column = {"query-length": "query_characters", "candidates": "n_candidates", "language": "query_script"}[by]
    assert sum(part["pairs"][0]["n_queries"] for part in slices) == 45
    for part in slices:
        low, _, high = part["name"].partition("–")
        chosen = tables[0][column].astype(str) == part["name"]
        if by != "language":
            chosen = tables[0][column].between(int(low), int(high or low))
        (pair,) = part["pairs"]
        assert pair["n_queries"] == chosen.sum() > 0
        assert pair["means"] == pytest.approx([table.loc[chosen, "ap"].mean() for table in tables])
        assert (pair["p_value"] is None) == (pair["adjusted_p"] is None) == (pair["n_queries"] == 1)
        assert pair["p_value"] is None or pair["adjusted_p"] >= pair["p_value"]
    expected = {"query-length": 4, "candidates": 1, "language": 2}
    assert len(slices) == expected[by]


def test_truncation_counts_for_whoever_truncates(copy: Path) -> None:
    paths = [of(copy, model) for model in ("random", "bm25")]
    notes = compared_json(*paths, "--slice", "truncation")["notes"]
    assert notes == ["demo-zh2en is not cut by truncation: no result has the column truncated_pairs"]
    changed(paths[0], lambda table: table.assign(truncated_pairs=[0, 3, 1, *[0] * 13]))
    changed(paths[1], lambda table: table.assign(truncated_pairs=[0, 0, 0, *[0] * 12, 2]))
    content = compared_json(*paths, "--slice", "truncation")
    assert content["notes"] == []
    assert [(part["name"], part["pairs"][0]["n_queries"]) for part in content["tasks"][0]["slices"]] == [
        ("truncated", 3),
        ("whole", 13),
    ]


def test_a_column_that_some_lack_is_taken_from_the_others(copy: Path) -> None:
    paths = [of(copy, model) for model in ("random", "bm25")]
    before = compared_json(*paths, "--slice", "language,query-length")
    changed(paths[0], lambda table: table.drop(columns=["query_script", "query_characters"]))
    assert compared_json(*paths, "--slice", "language", "--slice", "query-length") == before
    changed(paths[1], lambda table: table.drop(columns="query_script"))
    done = compared(*paths, "--slice", "language")
    assert "demo-zh2en is not cut by language: no result has the column query_script" in done.stdout.splitlines()


def test_json_goes_to_a_file_beside_the_tables(demo_results: Path, tmp_path: Path) -> None:
    paths = [of(demo_results, model) for model in ("random", "bm25")]
    done = compared("--json", tmp_path / "结果.json", *paths)
    assert done.stdout == compared(*paths).stdout
    written = (tmp_path / "结果.json").read_text(encoding="utf-8")
    assert written == compared(*paths, "--json").stdout == compared("--json", "--alpha=0.05", *paths).stdout


def test_a_task_of_one_system_is_named_and_left_out(copy: Path) -> None:
    shutil.rmtree(copy / "local__bm25")
    path = of(copy, "random", "EvalkitDemoZh")
    for model in ("constant", "oracle", "reversed"):
        of(copy, model, "EvalkitDemoZh").unlink()
    assert compared_json(copy)["notes"] == [f"demo-zh is not compared: only {path} has it"]


def test_the_same_model_before_and_after_is_told_apart_by_its_folder(demo_results: Path, copy: Path) -> None:
    before, after = of(demo_results, "random"), of(copy, "random")
    changed(after, lambda table: table.iloc[::-1])
    (task,) = compared_json(before, after)["tasks"]
    assert [system["label"] for system in task["systems"]] == [f"random ({path.parent})" for path in (before, after)]
    assert task["pairs"][0]["difference"] == 0


def test_values_on_one_side_only_are_refused(copy: Path) -> None:
    paths = [of(copy, model) for model in ("random", "bm25")]
    without_its_first_ndcg(paths[1])
    told = refused("compare", *paths, "--metric", "ndcg_at_10")
    assert f"{paths[1]}: query test_query0 has no ndcg_at_10" in told
    without_its_first_ndcg(paths[0])
    assert compared_json(*paths, "--metric", "ndcg_at_10")["tasks"][0]["n_queries"] == 15


def test_other_queries_are_refused(copy: Path) -> None:
    paths = [of(copy, model) for model in ("random", "bm25")]
    changed(paths[1], lambda table: table.replace({"query_id": {"test_query3": "other"}}))
    told = refused("compare", *paths)
    assert f"{paths[0]} and {paths[1]} have different queries: test_query3 is only in the first (2 differ)" in told


def test_other_data_are_refused(demo_results: Path, tmp_path: Path) -> None:
    assert run_here("task=demo-zh2en", "model=constant", "limit=3", f"results_dir={tmp_path}").code == 0
    (limited,) = tmp_path.rglob(f"{ZH2EN}.json")
    whole = of(demo_results, "random")
    told = refused("compare", whole, limited)
    assert f"{whole} and {limited} are of different data of demo-zh2en (fingerprints " in told
    assert "; the whole task and limit 3); compare runs on the same data" in told


def test_other_protocols_are_refused(demo_results: Path, tmp_path: Path) -> None:
    assert run_here("task=demo-zh2en", "model=constant", "protocol=mteb-v2", f"results_dir={tmp_path}").code == 0
    told = refused("compare", of(demo_results, "random"), tmp_path)
    assert "follow different protocols of demo-zh2en (cmteb-v1 and mteb-v2)" in told


def test_one_result_is_nothing_to_compare(demo_results: Path) -> None:
    path = of(demo_results, "random")
    for arguments in ([path], [path, path], [path, path.parent / ".." / path.parent.name / path.name]):
        assert f"nothing to compare: no task has two results; found {path} (demo-zh2en)" in refused(
            "compare", *arguments
        )
    other = of(demo_results, "bm25", "EvalkitDemoZh")
    assert f"found {path} (demo-zh2en), {other} (demo-zh); give two" in refused("compare", path, other)
    assert "and 1 more" in refused("compare", path, other, of(demo_results, "constant", "EvalkitDemoEn2Zh"))


def test_what_is_missing_is_named(demo_results: Path, copy: Path, tmp_path: Path) -> None:
    whole, path = of(demo_results, "random"), of(copy, "bm25")
    assert "none.json does not exist" in refused("compare", whole, tmp_path / "none.json")
    (tmp_path / "empty").mkdir()
    assert "no results in" in refused("compare", whole, tmp_path / "empty")
    table_of(path).unlink()
    assert f"{table_of(path)} is missing" in refused("compare", whole, path)
    path.write_text("{", encoding="utf-8")
    assert f"{path} is not valid JSON" in refused("compare", whole, path)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--metric", "mpa"], "there is no metric 'mpa'; did you mean map"),
        (["--slice", "langauge"], "there is no slice 'langauge'; did you mean language?"),
        (["--slice", "language,"], "--slice: there is no slice ''"),
        (["--alpha", "2"], "--alpha"),
        (["--top", "-1"], "--top"),
        (["--seed", "-1"], "--seed"),
        (["--json", "nowhere/at/all.json"], "cannot write nowhere/at/all.json"),
        ([], "See evalkit compare --help"),
    ],
)
def test_wrong_options_are_refused(demo_results: Path, options: list[str], told: str) -> None:
    paths = [of(demo_results, model) for model in ("random", "bm25")] if options else []
    assert told in refused("compare", *paths, *options)


def test_equal_systems_have_no_query_that_moved(demo_results: Path) -> None:
    done = compared(*(of(demo_results, model) for model in ("constant", "reversed")))
    assert "moved" not in done.stdout
    assert done.rows[0][:4] == ["A−B", "17.50", "17.50", "+0.00"]


def test_nothing_heavy_is_loaded(demo_results: Path, tmp_path: Path) -> None:
    """As a program of its own: what stands right of the results answers without a model's libraries."""
    script = (
        "import sys; from evalkit.commands.main import run_command_line; code = run_command_line(sys.argv[1:]); "
        "sys.exit(code or ', '.join({'torch', 'transformers', 'mteb', 'hydra', 'datasets'} & set(sys.modules)) or None)"
    )
    for command in ("compare", "report"):
        done = run_program(tmp_path, command, str(demo_results), program=(sys.executable, "-c", script))
        assert (done.code, done.stderr) == (0, "")


def test_no_result_is_replaced(copy: Path) -> None:
    paths = [of(copy, model) for model in ("random", "bm25")]
    content = paths[0].read_bytes()
    assert f"--json {paths[0]} would replace a result" in refused("compare", "--json", *paths)
    assert f"-o {paths[0]} would replace a result" in refused("report", "-o", *paths)
    assert paths[0].read_bytes() == content


def test_a_winner_by_the_order_of_ties_is_named(demo_results: Path) -> None:
    """cmteb-v1 puts tied positives first, so that constant scores have an MRR of 100; what ranks without ties has no such note."""
    task = "EvalkitDemoZh"
    content = compared_json(
        *(of(demo_results, model, task) for model in ("constant", "random")), "--metric", "mrr", "--alpha", "0.05"
    )
    (pair,) = content["tasks"][0]["pairs"]
    assert pair["adjusted_p"] < 0.05
    (note,) = content["tasks"][0]["decided_by_ties"]
    assert note.startswith(
        "demo-zh: that constant is better than random depends on the order of tied candidates, which can make "
    )
    assert "–100.00 of the one" in note
    honest = compared_json(*(of(demo_results, model, task) for model in ("oracle", "random")), "--metric", "mrr")
    assert honest["tasks"][0]["decided_by_ties"] == []
    words = compared(
        of(demo_results, "random"), of(demo_results, "bm25")
    ).stdout  # across languages most of BM25's candidates are tied
    assert "that random is better than bm25 depends on the order of tied candidates" in words


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.1])
def test_intervals_are_of_the_level_of_the_test(alpha: float, demo_results: Path, tmp_path: Path) -> None:
    document = tmp_path / "compared.json"
    paths = (of(demo_results, "random"), of(demo_results, "bm25"))
    done = compared(*paths, "--alpha", alpha, f"--json={document}")
    level = f"{100 * (1 - alpha):g} % interval"
    assert f"difference, its {level} and detectable" in done.stdout
    assert set(re.findall(r"[\d.]+ % interval", done.stdout)) == {level}
    found = json.loads(document.read_text(encoding="utf-8"))
    assert found["interval_level"] == 1 - alpha
    low, high = found["tasks"][0]["pairs"][0]["interval"]
    a, b = (pd.read_parquet(table_of(path))["ap"].to_numpy() for path in paths)
    expected = stats.bootstrap(
        (a - b,), np.mean, confidence_level=1 - alpha, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    assert [low, high] == pytest.approx([*expected], abs=0.06 * (high - low))


@pytest.fixture
def two_leads(tmp_path: Path) -> list[Path]:
    """Two systems on the same data, each led by another protocol."""
    for model, protocol in (("random", "cmteb-v1"), ("bm25", "mteb-v2")):
        words = ("task=demo-zh2en", f"model={model}", f"protocol={protocol}", f"results_dir={tmp_path / model}")
        assert run_here(*words).code == 0
    return [tmp_path / "random", tmp_path / "bm25"]


def test_two_leading_protocols_come_with_the_way_out(two_leads: list[Path]) -> None:
    words = [str(path) for path in two_leads]
    done = run_here("compare", *words)
    assert done.code == 2
    assert "--metric map or --metric map_at_1000 shows them side by side" in done.stderr
    for metric in ("map", "map_at_1000"):
        assert run_here("compare", *words, "--metric", metric).code == 0
    report = run_here("report", *words)
    assert "cmteb-v1 and mteb-v2 lead results on the same data, which stand in tables of their own" in report.stdout
    assert "--metric map or --metric map_at_1000" in report.stdout
    assert "tables of their own" not in run_here("report", *words, "--metric", "map").stdout
    for format_name in ("markdown", "json", "html", "latex"):
        assert "tables of their own" in run_here("report", *words, "--format", format_name).stdout


def test_a_lone_protocol_beside_others_comes_with_the_way_out(two_leads: list[Path], tmp_path: Path) -> None:
    words = ("task=demo-zh2en", "model=oracle", "protocol=cmteb-v1", f"results_dir={tmp_path / 'oracle'}")
    assert run_here(*words).code == 0
    done = run_here("compare", *map(str, two_leads), str(tmp_path / "oracle"))
    assert done.code == 0
    assert (
        "no other result of demo-zh2en follows mteb-v2; every result has the measures of all protocols" in done.stdout
    )
