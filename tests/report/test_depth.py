"""`report --depth`: each measure by how many candidates are reranked, as runs of those depths by themselves give it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command import run_here
from model_folders import edit_json
from staged_task import HANDED_ON, reranked

import evalkit
from evalkit.errors import EvalkitError
from evalkit.metrics.measures import find_measure
from evalkit.report.depth import depth_table


def test_a_depth_is_a_run_of_that_depth(corpus: tuple[Path, Path]) -> None:
    whole = reranked(corpus)
    table = depth_table(whole, "hash", None, 42)
    depths = sorted({one.depth for one in table.values})
    assert depths == [5, 10, 20, HANDED_ON]
    for depth in depths:
        alone = reranked(corpus, depth)
        found = [one for one in table.values if one.depth == depth]
        assert len(found) >= 6
        for one in found:
            assert one.value == alone.scores[one.metric], (one.metric, depth)
            assert one.interval == pytest.approx(alone.intervals[one.metric], nan_ok=True), (one.metric, depth)
            assert one.ceiling == alone.ceilings.get(one.metric, one.ceiling)
            assert one.n_queries == alone.queries[find_measure(one.metric).column].notna().sum()
    ends = [one for one in table.values if one.metric == whole.main_score]
    assert [one.is_all for one in ends] == [False, False, False, True]
    assert ends[0].ceiling < ends[-1].ceiling < 1  # the first stage misses some at any depth
    assert ends[0].value != ends[-1].value == whole.scores[whole.main_score]


def test_one_metric_alone(corpus: tuple[Path, Path]) -> None:
    table = depth_table(reranked(corpus), "hash", "ndcg_at_10", 42)
    assert {one.metric for one in table.values} == {table.leading} == {"ndcg_at_10"}


def test_the_command_and_its_files(corpus: tuple[Path, Path], tmp_path: Path) -> None:
    saved = evalkit.save_result(reranked(corpus), tmp_path / "results")
    done = run_here("report", str(saved), "--depth")
    assert done.code == 0, done.stderr
    assert "candidates of first are reranked" in " ".join(done.stdout.split())
    assert f"all ({HANDED_ON})" in done.stdout
    content = json.loads(run_here("report", str(saved), "--depth", "--json").stdout)
    (table,) = content["depths"]
    assert table["first_stage"] == "first"
    assert {one["depth"] for one in table["values"]} == {5, 10, 20, HANDED_ON}
    assert "depths" not in json.loads(run_here("report", str(saved), "--json").stdout)


def test_what_has_no_depth_is_named(corpus: tuple[Path, Path], tmp_path: Path) -> None:
    plain = evalkit.evaluate("random", "demo-zh2en", cache="off")
    with pytest.raises(EvalkitError, match="no depths: its candidates are not a first stage's"):
        depth_table(plain, "random", None, 42)
    folder = tmp_path / "results"
    evalkit.save_result(plain, folder)
    done = run_here("report", str(folder), "--depth")
    assert done.code == 2
    assert "task.candidates=RUN" in done.stderr
    evalkit.save_result(reranked(corpus), folder)
    both = run_here("report", str(folder), "--depth")
    assert both.code == 0
    assert "has no depths" in " ".join(both.stdout.split())


def test_depths_of_a_run_are_refused_where_lists_made_it_and_doubted_where_that_is_not_known(
    corpus: tuple[Path, Path], tmp_path: Path
) -> None:
    path = evalkit.save_result(reranked(corpus), tmp_path / "made")
    run = path.with_name(f"{path.stem}.run.parquet")
    task = evalkit.load_task(path=corpus[0], candidates=corpus[1])

    def judged(run: Path) -> evalkit.Result:
        return evalkit.evaluate(evalkit.load_model("run", path=str(run)), task, cache="off")

    alone = shutil.copy(run, tmp_path / "alone.run.parquet")
    for known in (judged(run), judged(Path(alone))):
        assert depth_table(known, "run", None, 42).values
    folder = tmp_path / "doubted"
    evalkit.save_result(judged(Path(alone)), folder)
    assert "what made the run is not known" in " ".join(run_here("report", str(folder), "--depth").stdout.split())
    edit_json(path, lambda content: content["evalkit"]["model"].update(kind="listwise"))
    again = judged(run)
    assert again.backend["scored_by"] == "listwise"
    with pytest.raises(EvalkitError, match="a listwise model scores other lists otherwise"):
        depth_table(again, "run", None, 42)


@pytest.mark.parametrize("name", ["csv", "latex", "model-index", "trec"])
def test_formats_without_depths_say_so(name: str, tmp_path: Path) -> None:
    done = run_here("report", str(tmp_path), "--depth", "--format", name, "-o", str(tmp_path / "out"))
    assert done.code == 2
    assert f"not for {name}" in done.stderr
