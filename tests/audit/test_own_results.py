"""evalkit's own results, computed again from their tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from evalkit.audit.command import audit_files
from evalkit.audit.figures import AuditFinding
from evalkit.evaluation.evaluate import evaluate, load_model, load_task
from evalkit.results.folders import result_folder
from evalkit.results.writing import write_result

Change = Callable[[pd.DataFrame], pd.DataFrame]


@pytest.fixture(scope="module", params=["random", "bm25", "constant"])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results on a bundled task: without ties, with some, with nothing else."""
    result = evaluate(load_model(request.param), load_task("demo-zh"))
    return write_result(result, result_folder(tmp_path_factory.mktemp("results"), result.model, ""))


def findings(*paths: Path) -> list[AuditFinding]:
    return [finding for report in audit_files(paths) for finding in report.findings]


def copied(written: Path, folder: Path) -> Path:
    for file in written.parent.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder / written.name


def change_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def change_table(path: Path, kind: str, change: Change) -> None:
    table = path.with_name(f"{path.stem}.{kind}.parquet")
    change(pd.read_parquet(table)).to_parquet(table)


def test_a_result_as_written_is_clean_alone_and_by_its_folder(written: Path) -> None:
    assert findings(written) == []
    assert findings(written.parent) == []
    (report,) = audit_files([written])
    assert {figure.kind for figure in report.figures} == {"own result"}
    assert len(report.figures) > 30


@pytest.mark.parametrize(
    ("kind", "change", "what"),
    [
        ("queries", lambda table: table.assign(ap=table["ap"].where(table.index != 3, 0.123)), "map of 1 query is not what"),
        ("queries", lambda table: table.assign(rr=table["rr"] * 0.999), "mrr is not the mean of its queries"),
        ("queries", lambda table: table.iloc[1:], "the tables have another number than task.statistics.queries"),
        ("queries", lambda table: table.iloc[::-1], "the two tables are of different queries"),
        ("queries", lambda table: table.assign(n_positive=table["n_positive"] + 1), "n_positive of "),
        ("queries", lambda table: table.assign(map_at_1000=0.5), "map_at_1000 is not the mean of its queries"),
        ("queries", lambda table: table.drop(columns="ap"), "the result's files are not as evalkit writes them"),
        ("run", lambda table: table.assign(score=-table["score"] + range(len(table))), "map of "),
        ("run", lambda table: table.assign(label=1 - table["label"]), "the tables have another number"),
        ("run", lambda table: table.iloc[:-1], "the tables have another number than task.statistics.pairs"),
        ("run", lambda table: table.assign(score=float("nan")), "the tables' contents cannot be scored"),
        ("run", lambda table: table.assign(score="x"), "the tables' contents cannot be scored"),
        ("run", lambda table: table.assign(query_id=[[1]] * len(table)), "the tables' contents cannot be scored"),
    ],
)  # fmt: skip
def test_tables_that_do_not_fit_are_errors(written: Path, tmp_path: Path, kind: str, change: Change, what: str) -> None:
    path = copied(written, tmp_path)
    change_table(path, kind, change)
    found = [finding for finding in findings(path) if finding.rule == "recomputed"]
    assert any(finding.what.startswith(what) and finding.severity == "error" for finding in found), found


@pytest.mark.parametrize("metric", ["map", "mrr", "map_at_1000", "mrr_at_10", "ndcg_at_10"])
def test_a_changed_mean_is_an_error(written: Path, tmp_path: Path, metric: str) -> None:
    path = copied(written, tmp_path)

    def change(content: dict[str, Any]) -> None:
        (block,) = content["scores"].values()
        block[0][metric] -= 0.0001

    change_json(path, change)
    assert f"{metric} is not the mean of its queries" in [finding.what for finding in findings(path)]


def test_a_leading_metric_without_its_column_is_an_error(written: Path, tmp_path: Path) -> None:
    path = copied(written, tmp_path)
    change_json(path, lambda content: content["evalkit"].update(protocol="mteb-v2"))
    assert findings(path) == []
    change_table(path, "queries", lambda table: table.drop(columns="map_at_1000"))
    assert {(finding.severity, finding.rule) for finding in findings(path)} == {("error", "recomputed")}


@pytest.mark.parametrize("name", ["scored", "dropped"])
def test_another_number_of_queries_is_an_error(written: Path, tmp_path: Path, name: str) -> None:
    path = copied(written, tmp_path)
    change_json(path, lambda content: content["evalkit"]["queries"].update({name: 24}))
    assert [finding.what for finding in findings(path)] == [f"the tables have another number than queries.{name}"]


def test_models_that_rank_a_small_task_alike_are_no_copies(written: Path, tmp_path: Path) -> None:
    path = copied(written, tmp_path)
    change_json(path, lambda content: content["evalkit"]["model"].update(hub_id="local/other"))
    assert findings(written, path) == []


def test_an_index_that_pandas_wrote_is_no_matter(written: Path, tmp_path: Path) -> None:
    path = copied(written, tmp_path)
    for kind in ("queries", "run"):
        change_table(path, kind, lambda table: table.set_index(table.index[::-1]))
    assert findings(path) == []


def test_a_table_that_is_missing_is_a_note_and_a_broken_one_an_error(written: Path, tmp_path: Path) -> None:
    path = copied(written, tmp_path)
    table = path.with_name(f"{path.stem}.run.parquet")
    table.write_bytes(b"PAR1 and no more")
    assert [(finding.severity, finding.rule) for finding in findings(path)] == [("error", "recomputed")]
    table.unlink()
    assert [(finding.severity, finding.rule) for finding in findings(path)] == [("note", "recomputed")]


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["evalkit"].update(schema_version=99),
        lambda content: content["evalkit"].pop("task"),
        lambda content: content["evalkit"]["model"].update(hub_id=5),
        lambda content: content["evalkit"]["task"].update(statistics={}),
    ],
)
def test_a_block_that_is_not_evalkits_is_an_error(
    written: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    path = copied(written, tmp_path)
    change_json(path, change)
    assert ("error", "recomputed") in {(finding.severity, finding.rule) for finding in findings(path)}
