"""What a reader of a figure should know stands beside it: at the end of a run, in every report and in every export."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
import yaml
from command import Outcome, run_here
from task_files import mteb_parts, write_jsonl, write_parts

import evalkit
from evalkit.records import OTHER_DATA

ROWS = [
    {"query": "问一", "positive": ["答一", "另一个答案"], "negative": ["错一", "错二"]},
    {"query": "问二", "positive": ["答二"], "negative": ["错三", "错四"]},
]
PARTS = mteb_parts(ROWS, split="test")
TEXT_FORMATS = ("markdown", "json", "csv", "latex", "html", "model-index", "eval-results")
FOLDER_FORMATS = ("mteb", "trec")
MISSED = "2 relevant documents of 3 are no candidates"


@pytest.fixture
def missing(tmp_path: Path) -> Path:
    """A task whose candidates lack one of two positives of the first query, and the second's only one."""
    ranked = []
    for row in PARTS["top_ranked"]:
        lost = [one["corpus-id"] for one in PARTS["qrels"] if one["query-id"] == row["query-id"] and one["score"] > 0][
            -1
        ]
        ranked.append({**row, "corpus-ids": [one for one in row["corpus-ids"] if one != lost]})
    return write_parts(tmp_path / "misses", {**PARTS, "top_ranked": ranked}, "qrels.jsonl")


def run(folder: Path, *words: str) -> Outcome:
    done = run_here(*words, f"results_dir={folder}")
    assert done.code == 0, done.stderr
    return done


def content_of(folder: Path) -> dict:
    (table,) = folder.rglob("*.run.parquet")
    found: dict = json.loads(Path(str(table).replace(".run.parquet", ".json")).read_text(encoding="utf-8"))
    return found


def test_documents_that_are_no_candidates_count_as_missed(missing: Path, tmp_path: Path) -> None:
    done = run(tmp_path / "results", "task=local", f"task.path={missing}", "model=oracle")
    content = content_of(tmp_path / "results")
    own, (scores,) = content["evalkit"], content["scores"]["test"]
    assert (own["protocol"], own["main_score"]) == ("mteb-v2", "map_at_1000")
    # the first query's only candidate that is relevant stands first, one of two; the second query has none
    assert scores["main_score"] == scores["map_at_1000"] == own["ceilings"]["map_at_1000"] == 0.25
    assert scores["map"] == own["ceilings"]["map"] == 1
    head, _, row = done.stdout.splitlines()[:3]
    assert head.split()[-1] == "ceiling"
    assert row.split()[-1] == "25.00"
    assert f"{MISSED} and count as missed: no order can exceed map_at_1000 25.00" in done.stdout


def test_cmteb_v1_leads_where_it_is_asked_for_and_says_what_it_leaves_out(missing: Path, tmp_path: Path) -> None:
    done = run(tmp_path, "task=local", f"task.path={missing}", "model=oracle", "protocol=cmteb-v1")
    assert content_of(tmp_path)["scores"]["test"][0]["main_score"] == 1
    assert "1 query scored, 1 dropped" in done.stdout
    assert f"{MISSED}, which cmteb-v1 does not count" in done.stdout
    report = run_here("report", str(tmp_path), "--format", "markdown")
    assert "cmteb-v1 leaves out 1 query of 2, for lack of relevant candidates" in report.stdout


def test_a_first_stage_that_misses_nothing_is_judged_as_one_that_does(tmp_path: Path) -> None:
    folder = write_parts(tmp_path / "task", PARTS, "qrels.jsonl")
    found = {row["id"]: -float(place) for place, row in enumerate(PARTS["corpus"])}
    (tmp_path / "run.json").write_text(json.dumps({row["id"]: found for row in PARTS["queries"]}))
    for depth, name in (([], "all"), (["task.top_k=3"], "few")):
        words = ("task=local", f"task.path={folder}", f"task.candidates={tmp_path / 'run.json'}", *depth)
        run(tmp_path / name, *words, "model=random")
        assert content_of(tmp_path / name)["evalkit"]["protocol"] == "mteb-v2"
    assert content_of(tmp_path / "all")["evalkit"]["ceilings"] == {}
    assert content_of(tmp_path / "few")["evalkit"]["ceilings"]


def test_the_same_from_python(missing: Path) -> None:
    result = evalkit.evaluate("oracle", evalkit.load_task(path=missing))
    assert (result.protocol, result.scores[result.main_score]) == ("mteb-v2", 0.25)
    assert [text for name, text in result.remarks if MISSED in text]
    asked = evalkit.evaluate("oracle", evalkit.load_task(path=missing), protocol="cmteb-v1")
    assert (asked.protocol, asked.scores[asked.main_score]) == ("cmteb-v1", 1)
    assert evalkit.evaluate("oracle", evalkit.load_task("demo-zh", limit=2)).ceilings == {}


@pytest.mark.parametrize("format_name", [*TEXT_FORMATS, *FOLDER_FORMATS])
def test_every_report_and_export_says_it(format_name: str, missing: Path, tmp_path: Path) -> None:
    """What is missed, other data under a benchmark's name, and a finding of the data: in each format."""
    rows = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    run(tmp_path / "results", "task=T2Reranking", f"task.path={rows}", "model=random")
    run(tmp_path / "results", "task=local", f"task.path={missing}", "model=random")
    where = ["-o", str(tmp_path / "out")] if format_name in FOLDER_FORMATS else []
    for _ in range(2):  # what was written may be replaced
        done = run_here("report", str(tmp_path / "results"), "--format", format_name, *where)
        assert done.code == 0, done.stderr
    text = next((tmp_path / "out").rglob("remarks.txt")).read_text("utf-8") if where else done.stdout
    assert MISSED in text
    assert "not known to be T2Reranking" in text.replace("\\u0027", "'")
    if format_name == "csv":
        told = {row["tasks"]: row["remarks"] for row in csv.DictReader(io.StringIO(text))}
        assert MISSED in told["misses"]
        assert MISSED not in told[f"T2Reranking {OTHER_DATA}"]


@pytest.mark.parametrize("format_name", ["model-index", "eval-results", "mteb", "trec"])
def test_other_data_are_exported_under_no_benchmark_s_name(format_name: str, tmp_path: Path) -> None:
    rows = write_jsonl(tmp_path / "T2Reranking.jsonl", ROWS)
    run(tmp_path / "results", "task=local", f"task.path={rows}", "model=random")
    where = ["-o", str(tmp_path / "out")] if format_name in FOLDER_FORMATS else []
    done = run_here("report", str(tmp_path / "results"), "--format", format_name, *where)
    assert done.code == 0, done.stderr
    if where:
        names = {path.name for path in (tmp_path / "out").rglob("*.*")}
        assert not {"T2Reranking.json", "T2Reranking.qrels.trec"} & names
        return
    found = yaml.safe_load(done.stdout)
    dataset = found[0]["dataset"] if format_name == "eval-results" else found["model-index"][0]["results"][0]["dataset"]
    assert "T2Reranking" not in (dataset.get("id"), dataset.get("type"), dataset.get("name"), dataset.get("task_id"))


def test_published_figures_are_not_set_beside_other_data(tmp_path: Path) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    run(tmp_path / "results", "task=T2Reranking", f"task.path={rows}", "model=random")
    (path,) = (tmp_path / "results").rglob("T2Reranking_*.json")
    content = json.loads(path.read_text("utf-8"))
    content["evalkit"]["model"] |= {"hub_id": "BAAI/bge-reranker-base", "name": "bge-reranker-base"}
    path.write_text(json.dumps(content), encoding="utf-8")
    assert "67.28" in run_here("report", str(path), "--published").stdout  # the card's own row
    done = run_here("report", str(path), "--published")
    assert "no table has this task" in done.stdout + done.stderr


def test_an_experiment_says_so_in_an_export(tmp_path: Path) -> None:
    run(tmp_path, "task=demo-zh", "model=random", "seed=7", "limit=4")
    for format_name in ("model-index", "eval-results"):
        done = run_here("report", str(tmp_path), "--format", format_name)
        assert "seed 7" in done.stdout or "seed: 7" in done.stdout


def test_results_of_earlier_versions_are_renamed_as_they_are_read(tmp_path: Path) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    run(tmp_path, "task=T2Reranking", f"task.path={rows}", "model=random")
    (path,) = tmp_path.rglob("T2Reranking_*.json")
    content = json.loads(path.read_text("utf-8"))
    content["task_name"] = "T2Reranking"
    content["evalkit"]["task"] |= {"name": "T2Reranking", "mteb_name": "T2Reranking"}
    path.write_text(json.dumps(content), encoding="utf-8")
    (result,) = evalkit.load_results(tmp_path)
    assert (result.task.name, result.task.mteb_name) == (f"T2Reranking {OTHER_DATA}",) * 2


def test_queries_without_relevant_documents_lower_the_ceiling(tmp_path: Path) -> None:
    rows = [
        {"query": "甲", "positive": ["一"], "negative": ["二", "三"]},
        {"query": "乙", "positive": [], "negative": ["四", "五"]},
    ]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    words = ("task=local", f"task.path={tmp_path / 'rows.jsonl'}", "model=oracle")
    done = run(tmp_path / "all", *words, "protocol=mteb-v2")
    own = content_of(tmp_path / "all")["evalkit"]
    assert own["ceilings"]["map_at_1000"] == content_of(tmp_path / "all")["scores"]["test"][0]["map_at_1000"] == 0.5
    said = "0 for 1 query of 2 that have no relevant document: no order can exceed map_at_1000 50.00"
    assert said in " ".join(done.stdout.split())
    run(tmp_path / "v1", *words)
    assert content_of(tmp_path / "v1")["evalkit"]["ceilings"] == {}
