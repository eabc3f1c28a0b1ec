"""The suites CMTEB-R and NanoCMTEB from small copies on a Hub of one's own, by the words of the guide."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import Outcome, run_program
from task_files import write_parquet
from tasks.hub_server import FakeHub, Repository

import evalkit
from evalkit.api import load_results
from evalkit.tasks.settings import read_settings, suite_settings

ROOT = Path(__file__).parent.parent
DEMO = Path(evalkit.__file__).parent / "tasks" / "demo"
GUIDE = (ROOT / "docs/how-to/retrieve-then-rerank.md").read_text(encoding="utf-8")
CMTEB_R = suite_settings(read_settings("CMTEB-R"))
NANO = suite_settings(read_settings("NanoCMTEB"))
COMMIT = "c3" * 20
SAFEGUARDED = {"cmedqa": 2, "covid": 1}


def passages() -> list[str]:
    rows = [json.loads(line) for line in (DEMO / "zh.jsonl").read_text(encoding="utf-8").splitlines()]
    return list(dict.fromkeys(text for row in rows for text in (*row["positive"], *row["negative"])))


def questions() -> list[tuple[str, str]]:
    """Each question with a passage that answers it."""
    rows = [json.loads(line) for line in (DEMO / "zh.jsonl").read_text(encoding="utf-8").splitlines()]
    return [(row["query"], row["positive"][0]) for row in rows]


def write_repository(folder: Path, parts: dict[str, dict[str, list[dict[str, Any]]]]) -> Path:
    """Write a repository of configs, each with its splits; the README names the files, as those on the Hub do."""
    configs = []
    for config, splits in parts.items():
        place = "data" if config == "default" else config
        for split, rows in splits.items():
            write_parquet(folder / place / f"{split}-00000-of-00001.parquet", rows)
        files = [{"split": split, "path": f"{place}/{split}-*"} for split in splits]
        configs.append({"config_name": config, "data_files": files})
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': configs})}---\n", encoding="utf-8")
    return folder


def retrieval_repository(folder: Path, number: int) -> Path:
    """A small corpus as mteb's re-uploads hold one; the first query has a document of its own id, which is no answer."""
    asked = questions()[number * 4 : number * 4 + 4]
    texts = dict.fromkeys([answer for _, answer in asked] + random.Random(number).sample(passages(), 24))
    corpus = [{"_id": f"D{i}", "title": "", "text": text} for i, text in enumerate(texts)]
    queries = [{"_id": f"Q{i}", "text": text} for i, (text, _) in enumerate(asked)]
    corpus.append({"_id": "Q0", "title": "", "text": asked[0][0]})
    qrels = [{"query-id": f"Q{i}", "corpus-id": f"D{i}", "score": 1} for i in range(len(asked))]
    # one of the re-uploads names the splits of corpus and queries after these
    splits = ("corpus", "queries") if number == 3 else ("dev", "dev")
    parts = {"corpus": {splits[0]: corpus}, "queries": {splits[1]: queries}, "default": {"dev": qrels}}
    return write_repository(folder, parts)


def nano_repository(folder: Path) -> Path:
    """Small copies of NanoCMTEB's splits: judgements without grades, a hundred candidates, and safeguards at rank 101."""
    parts: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for number, settings in enumerate(NANO):
        draw, asked = random.Random(number), questions()[number * 3 : number * 3 + 3]
        answers = {answer for _, answer in asked}
        others = [f"{text}（{i}）" for i in range(20) for text in draw.sample(passages(), 6) if text not in answers]
        corpus = [{"_id": f"d{i}", "text": text} for i, text in enumerate([answer for _, answer in asked] + others)]
        ranked: list[dict[str, Any]] = []
        for i in range(len(asked)):
            found = [f"d{j}" for j in draw.sample(range(3, len(corpus)), 100)]
            if i < SAFEGUARDED.get(settings.split, 0):
                found.append(f"d{i}")
            else:
                found[draw.randrange(100)] = f"d{i}"
            ranked.append({"query-id": f"q{i}", "corpus-ids": found})
        own = {
            "corpus": corpus,
            "queries": [{"_id": f"q{i}", "text": text} for i, (text, _) in enumerate(asked)],
            "qrels": [{"query-id": f"q{i}", "corpus-id": f"d{i}"} for i in range(len(asked))],
            "bm25": [row | {"corpus-ids": row["corpus-ids"][:50]} for row in ranked],
            "harrier_oss_v1_270m": [row | {"corpus-ids": row["corpus-ids"][50:]} for row in ranked],
            "reranking_hybrid": ranked,
        }
        for config, rows in own.items():
            parts.setdefault(config, {})[settings.split] = rows
    return write_repository(folder, parts)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeHub]:
    folder = tmp_path_factory.mktemp("hub")
    repositories = {}
    for number, settings in enumerate(CMTEB_R):
        assert settings.mteb is not None
        made = retrieval_repository(folder / settings.name, number)
        repositories[settings.mteb.repo] = Repository(made, str(settings.mteb.revision))
    repositories["hakari-bench/NanoCMTEB"] = Repository(nano_repository(folder / "NanoCMTEB"), COMMIT)
    with FakeHub(repositories) as server:
        yield server


def by_the_guide(folder: Path, hub: FakeHub, command: str, *more: str) -> Outcome:
    """Run a command that the guide shows, where only this Hub is reached."""
    assert command in GUIDE
    place = {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "hf")}
    done = run_program(folder, *command.split()[1:], *more, **place)
    assert done.code == 0, done.stderr
    return done


def test_cmteb_r_end_to_end(hub: FakeHub, tmp_path: Path) -> None:
    command = "evalkit task=CMTEB-R task.first_stage=bm25 task.top_k=100 model=multilingual-e5-small-q4"
    done = by_the_guide(tmp_path, hub, command)
    results = {result.task.name: result for result in load_results(tmp_path / "results")}
    assert sorted(results) == sorted(one.name for one in CMTEB_R)
    for settings in CMTEB_R:
        result = results[settings.name]
        assert settings.mteb is not None
        assert (result.protocol, result.main_score) == ("mteb-retrieval", "ndcg_at_10")
        assert (result.task.source, result.task.revision) == (settings.mteb.repo, settings.mteb.revision)
        assert (result.task.split, len(result.queries), result.incomparable) == ("dev", 4, "")
        first = result.task.first_stage
        assert first is not None
        assert (first.name, first.top_k, result.stage) == ("bm25", 100, "bm25@100")
        own_id = result.candidates.query("query_id == doc_id")
        assert own_id.empty == settings.ignore_identical_ids
        assert any("of their own id" in text for _, text in result.remarks) == settings.ignore_identical_ids
        assert 0.3 < result.scores["ndcg_at_10"] <= 1  # the real model finds the real answers
    mean = sum(result.scores["ndcg_at_10"] for result in results.values()) / 8
    (average,) = [row for row in done.rows if "average" in row]
    assert f"{100 * mean:.2f}" in average
    assert "recall@100" in done.stdout

    report = by_the_guide(tmp_path, hub, "evalkit report results/ --published")
    assert "77.45" in report.stdout
    assert "its candidates are those of bm25" in report.stdout


def test_nano_cmteb_end_to_end(hub: FakeHub, tmp_path: Path) -> None:
    command = "evalkit task=NanoCMTEB model=bm25"
    done = by_the_guide(tmp_path, hub, command)
    results = {result.task.split: result for result in load_results(tmp_path / "results")}
    assert sorted(results) == sorted(one.split for one in NANO)
    for split, result in results.items():
        assert (result.task.source, result.task.revision) == ("hakari-bench/NanoCMTEB", COMMIT)
        assert (result.main_score, result.stage) == ("ndcg_at_10", "reranking_hybrid")
        without, appended = result.without_safeguard, SAFEGUARDED.get(split, 0)
        assert without is not None
        assert (without.rank, without.queries) == (101, appended)
        assert result.scores["recall_at_1000"] == 1
        assert without.scores["recall_at_1000"] == pytest.approx(1 - appended / 3, abs=1e-5)
        assert sorted(result.candidates.groupby("query_id").size()) == [100] * (3 - appended) + [101] * appended
    said = [line for line in done.stdout.splitlines() if "the safeguard" in line]
    assert sum("appends" in line for line in said) == len(SAFEGUARDED)
    means = [
        sum(values) / 8
        for values in (
            [result.scores["ndcg_at_10"] for result in results.values()],
            [result.without_safeguard.scores["ndcg_at_10"] for result in results.values() if result.without_safeguard],
        )
    ]
    (both,) = [line for line in done.stdout.splitlines() if "average of 8" in line and "safeguard" in line]
    assert all(f"{100 * mean:.2f}" in both for mean in means)
    assert means[0] > means[1]

    report = run_program(tmp_path, "report", "results/")
    assert both.strip() in report.stdout + report.stderr

    # once fetched, the commit is what later runs take, without the Hub
    again = run_program(tmp_path, *command.split()[1:], "offline=true", HF_HOME=str(tmp_path / "hf"))
    assert again.code == 0, again.stderr
    assert done.rows == again.rows
