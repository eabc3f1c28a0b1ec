"""Results of the first schema, as evalkit's first versions wrote them: they are still read, reported, compared and checked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command import run_here

import evalkit
from evalkit.errors import EvalkitError
from evalkit.results.folders import find_results
from evalkit.results.reading import read_result, read_results
from evalkit.results.writing import mteb_json

FOLDER = Path(__file__).parent / "schema-1"
BASELINE, RESULTS = FOLDER / "baseline", FOLDER / "results"
PATHS = find_results([BASELINE, RESULTS])


@pytest.mark.parametrize("path", PATHS, ids=lambda path: str(path.relative_to(FOLDER)))
def test_all_that_they_say_is_read(path: Path) -> None:
    result, content = read_result(path), json.loads(path.read_text(encoding="utf-8"))
    own = content.pop("evalkit")
    assert own["schema_version"] == 1
    assert mteb_json(result) == content
    assert (result.scored_queries, result.dropped_queries) == (own["queries"]["scored"], own["queries"]["dropped"])
    assert (result.usage.items, result.timing.seconds) == (own["usage"]["items"], own["timing"]["seconds"])
    assert result.timing.pairs_per_second == own["timing"]["pairs_per_second"]
    assert (result.config, result.backend, result.provenance) == (own["config"], own["backend"], own["provenance"])
    assert list(map(list, result.intervals.values())) == list(own["intervals"].values())
    assert result.ties["map"].high == own["ties"]["map"]["high"]
    assert len(result.candidates) == own["task"]["statistics"]["pairs"]


def test_their_folder_says_what_deviates() -> None:
    found = {
        (result.model.name, result.experiment, result.limit, result.incomparable) for result in read_results([RESULTS])
    }
    assert found == {
        ("bm25", "limit-4", 4, "limit"),
        ("constant", "", None, ""),
        ("oracle", "candidates-bm25.parquet_top_k-5", None, "other data"),
    }
    assert {(result.experiment, result.deviations) for result in read_results([BASELINE])} == {("", None)}


def test_they_are_reported_as_ever() -> None:
    done = run_here("report", str(RESULTS), str(BASELINE), "--format", "csv")
    assert (done.code, done.stdout) == (0, (FOLDER / "report.csv").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("compare", str(BASELINE)),
        ("audit", str(BASELINE), str(RESULTS)),
        ("report", "--published", str(RESULTS)),
        ("report", str(RESULTS / "local__constant"), "--format", "model-index"),
        ("report", str(RESULTS / "local__constant"), "--format", "eval-results"),
        ("report", str(BASELINE), "--format", "html"),
    ],
    ids=lambda arguments: " ".join(Path(word).name for word in arguments),
)
def test_other_commands_take_them(arguments: tuple[str, ...]) -> None:
    done = run_here(*arguments)
    assert (done.code, done.stdout != "") == (0, True), done.stderr


def test_they_are_a_baseline_for_results_of_today(tmp_path: Path) -> None:
    for limit in ([], ["limit=4"]):
        assert run_here("task=demo-zh", "model=bm25", *limit, f"results_dir={tmp_path / 'now'}").code == 0
    shutil.copytree(RESULTS / "local__bm25", tmp_path / "before" / "local__bm25")
    shutil.copytree(BASELINE / "local__bm25", tmp_path / "before" / "local__bm25", dirs_exist_ok=True)
    for path in (tmp_path / "before").rglob("EvalkitDemoZh2En*"):
        path.unlink()
    done = run_here("check", "--baseline", str(tmp_path / "before"), "--results", str(tmp_path / "now"))
    assert done.code == 0, done.stdout
    assert done.stdout.count("limit-4") == 2  # both metrics of the experiment are paired
    assert "missing" not in done.stdout


def test_an_experiment_that_is_saved_again_stays_one(tmp_path: Path) -> None:
    own = next(result for result in read_results([BASELINE]) if result.model.name == "bm25")
    saved = evalkit.save_result(own, tmp_path)
    before = saved.read_bytes()
    for result in read_results([RESULTS]):
        (again,) = read_results([evalkit.save_result(result, tmp_path)])
        assert again.experiment == result.experiment
    assert saved.read_bytes() == before


def test_a_later_schema_is_refused(tmp_path: Path) -> None:
    content = json.loads(PATHS[0].read_text(encoding="utf-8"))
    content["evalkit"]["schema_version"] = 3
    path = tmp_path / "later.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(EvalkitError, match="schema_version 3, this evalkit reads 1 and 2; use the version"):
        read_result(path)
