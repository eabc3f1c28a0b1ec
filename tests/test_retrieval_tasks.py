"""Retrieval tasks: a corpus whose candidates a first stage retrieves, or the dataset fixes; CMTEB-R, NanoCMTEB and one's own."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mteb
import pytest
from command import run_here
from mteb._evaluators.retrieval_evaluator import RetrievalEvaluator
from task_files import write_jsonl

import evalkit
from evalkit.errors import EvalkitError
from evalkit.report.exports.model_index import index_entries
from evalkit.report.exports.mteb_results import mteb_files
from evalkit.results.result import Result
from evalkit.tasks.settings import TaskSettings, read_settings, suite_settings

CMTEB_R = suite_settings(read_settings("CMTEB-R"))
NANO = suite_settings(read_settings("NanoCMTEB"))
WORDS = "感冒发烧多喝水注意休息苹果银行深度学习模型需要大量数据和计算"


def chinese(draw: random.Random, length: int) -> str:
    return "".join(draw.choices(WORDS, k=length))


def beir_folder(folder: Path, *, queries: int = 8, documents: int = 40, seed: int = 1, splits: Any = ("test",)) -> Path:
    """Write a corpus, queries and qrels as BEIR does: queries' ids are documents' ids too, as in Quora."""
    draw = random.Random(seed)
    write_jsonl(
        folder / "corpus.jsonl",
        [
            {"_id": f"d{i}", "title": chinese(draw, 3) if i % 2 else "", "text": chinese(draw, 20)}
            for i in range(documents)
        ],
    )
    write_jsonl(folder / "queries.jsonl", [{"_id": f"d{i}", "text": chinese(draw, 6)} for i in range(queries)])
    for number, split in enumerate(splits):
        rows = ["query-id\tcorpus-id\tscore"]
        for i in range(number, queries, len(splits)):
            relevant = {f"d{j}" for j in draw.sample(range(queries, documents), 3)}
            # of every second query the document of its own id is relevant
            rows += [f"d{i}\t{doc_id}\t1" for doc_id in sorted(relevant | ({f"d{i}"} if i % 2 else set()))]
        (folder / "qrels").mkdir(exist_ok=True)
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def candidates_of(folder: Path, path: Path, *, depth: int = 25, seed: int = 2) -> dict[str, dict[str, float]]:
    """Write a first stage's run; every query finds its own id's document, but the last two do not."""
    draw = random.Random(seed)
    ids = {
        name: [
            str(json.loads(line)["_id"]) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        for name in ("corpus", "queries")
    }
    run: dict[str, dict[str, float]] = {}
    for place, query_id in enumerate(ids["queries"]):
        others = [doc_id for doc_id in ids["corpus"] if doc_id != query_id]
        found = draw.sample(others, depth - 1) + [query_id] * (place < len(ids["queries"]) - 2)
        draw.shuffle(found)
        run[query_id] = {doc_id: draw.random() + 0.5 * (doc_id == query_id) for doc_id in found}
    lines = [f"{q} Q0 {d} 0 {score!r} tag" for q, found in run.items() for d, score in found.items()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return run


def by_length(pairs: list[tuple[str, str]]) -> list[float]:
    """A score of each pair alone."""
    return [sum(map(ord, query + text)) % 997 / 10 for query, text in pairs]


def evaluated(task: Any, **options: Any) -> Result:
    model = evalkit.wrap(by_length, kind="cross-encoder", name="sum", identity="1")
    return evalkit.evaluate(model, task, cache="off", **options)


# --- what the tasks are


@pytest.mark.parametrize("settings", CMTEB_R, ids=lambda one: one.name)
def test_task_is_mtebs(settings: TaskSettings) -> None:
    """Repository, revision, split, main score and the rule for identical ids are those of the installed mteb."""
    task = mteb.get_task(settings.name)
    metadata = task.metadata
    assert settings.mteb is not None
    assert (settings.mteb.repo, settings.mteb.revision) == (metadata.dataset["path"], metadata.dataset["revision"])
    assert [settings.split] == metadata.eval_splits
    assert settings.ignore_identical_ids == task.ignore_identical_ids
    assert (metadata.main_score, settings.type) == ("ndcg_at_10", "retrieval")
    assert [settings.mteb_name, list(settings.languages)] == [metadata.name, metadata.eval_langs]


def test_suites_hold_the_same_eight_tasks() -> None:
    assert [len(CMTEB_R), len(NANO)] == [8, 8]
    retrieval = {
        one.metadata.name for one in mteb.get_benchmark("MTEB(cmn, v1)").tasks if one.metadata.type == "Retrieval"
    }
    assert {one.name for one in CMTEB_R} == retrieval
    assert sorted(one.split for one in NANO) == [
        one.name.removeprefix("NanoCMTEB-") for one in sorted(NANO, key=lambda x: x.name)
    ]
    assert {(one.top_ranked, one.safeguard_rank, one.ignore_identical_ids) for one in NANO} == {
        ("reranking_hybrid", 101, False)
    }


@pytest.mark.parametrize("task", ["T2Retrieval", "CovidRetrieval", "local"])
def test_without_candidates_it_says_what_to_name(task: str, tmp_path: Path) -> None:
    """Before anything is fetched: the tests reach no Hub."""
    folder = beir_folder(tmp_path / "own")
    own = (f"task.path={folder}", "task.type=retrieval") if task == "local" else ()
    done = run_here(f"task={task}", "model=bm25", *own, f"results_dir={tmp_path}")
    assert done.code == 2
    for words in ("is a retrieval task", "task.first_stage=MODEL", "task.candidates=FILE"):
        assert words in done.stderr
    assert "Traceback" not in done.stderr


# --- documents with their query's id


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("top_k", [None, 10])
def test_identical_ids_are_left_out_as_by_mteb(seed: int, top_k: int | None, tmp_path: Path) -> None:
    """mteb's own evaluator drops them from the same scores, after the cut to `top_k`; where they are relevant they are missed."""
    folder = beir_folder(tmp_path / "own", seed=seed)
    run = candidates_of(folder, tmp_path / "first.trec", seed=seed)
    common: dict[str, Any] = {
        "path": folder,
        "candidates": tmp_path / "first.trec",
        "top_k": top_k,
        "type": "retrieval",
    }
    with_them, without = (evalkit.load_task(**common, ignore_identical_ids=ignored) for ignored in (False, True))
    result = evaluated(without)

    kept = evaluated(with_them).candidates
    results: dict[str, dict[str, float]] = {query_id: {} for query_id in run}
    for row in kept.itertuples():
        results[row.query_id][row.doc_id] = row.score
    identical = sum(query_id in found for query_id, found in results.items())
    qrels: dict[str, dict[str, int]] = {}
    for line in (folder / "qrels" / "test.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query_id, doc_id, score = line.split("\t")
        qrels.setdefault(query_id, {})[doc_id] = int(score)
    ks = [1, 3, 5, 10, 20, 100, 1000]
    expected = RetrievalEvaluator.evaluate(object(), qrels, results, ks, ignore_identical_ids=True)  # type: ignore[arg-type]
    for cutoff in (1, 10, 100):
        for name, values in (("ndcg", expected.ndcg), ("map", expected.map), ("recall", expected.recall)):
            assert result.scores[f"{name}_at_{cutoff}"] == pytest.approx(
                values[f"{name.upper().replace('RECALL', 'Recall')}@{cutoff}"], abs=2e-5
            )
    assert identical > 0
    assert len(result.candidates) == len(kept) - identical
    (said,) = [finding for finding in without.findings if "of their own id" in finding.message]
    assert said.severity == "warning"
    assert said.message.startswith(f"{identical} quer")
    assert any("of their own id" in text for _, text in result.remarks)
    assert not [finding for finding in with_them.findings if "of their own id" in finding.message]


def test_identical_ids_mean_nothing_in_rows(tmp_path: Path) -> None:
    done = run_here("task=demo-zh", "model=random", "task.ignore_identical_ids=true", f"results_dir={tmp_path}")
    assert done.code == 2
    assert "task.ignore_identical_ids=true has no effect on rows" in done.stderr


@pytest.mark.parametrize(
    "setting", ["ignore_identical_ids=true", "top_ranked=bm25", "safeguard_rank=101", "type=retrieval"]
)
def test_suites_take_no_setting_of_a_task(setting: str, tmp_path: Path) -> None:
    done = run_here("task=CMTEB-R", "model=bm25", f"task.{setting}", f"results_dir={tmp_path}")
    assert done.code == 2
    assert f"task.{setting.split('=')[0]} says nothing to CMTEB-R" in done.stderr


# --- a folder of one's own, as BEIR's are


def _as_it_is(folder: Path) -> None:
    """Leave the folder as it is."""


def _packed(folder: Path) -> None:
    for file in (folder / "corpus.jsonl", folder / "queries.jsonl"):
        (folder / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()


def _changed(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    for name in ("corpus", "queries"):
        rows = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
        write_jsonl(folder / f"{name}.jsonl", [change(row) for row in rows])


def _without_titles(folder: Path) -> None:
    _changed(folder, lambda row: {name: value for name, value in row.items() if name != "title"})


def _null_titles(folder: Path) -> None:
    _changed(folder, lambda row: row | ({"title": None} if "title" in row else {}))


def _integer_ids(folder: Path) -> None:
    _changed(folder, lambda row: row | {"_id": int(row["_id"][1:])})
    for file in (folder / "qrels").iterdir():
        head, *rows = file.read_text(encoding="utf-8").splitlines()
        plain = ["\t".join(cell.removeprefix("d") for cell in row.split("\t")) for row in rows]
        file.write_text("\n".join([head, *plain]) + "\n", encoding="utf-8")


def _with_metadata(folder: Path) -> None:
    _changed(folder, lambda row: row | {"metadata": {}})


@pytest.mark.parametrize(
    "form",
    [_as_it_is, _packed, _without_titles, _null_titles, _integer_ids, _with_metadata],
    ids=lambda one: one.__name__,
)
@pytest.mark.parametrize("split", ["test", "dev"])
def test_a_beir_folder_of_ones_own(form: Callable[[Path], None], split: str, tmp_path: Path) -> None:
    """The split of the qrels is the task's; candidates and judgements are those of the plain folder."""
    folder = beir_folder(tmp_path / "plain", splits=("test", "dev"))
    candidates_of(folder, tmp_path / "plain.trec")
    common: dict[str, Any] = {"split": split, "type": "retrieval", "top_k": 20}
    plain = evalkit.load_task(path=folder, candidates=tmp_path / "plain.trec", **common)
    other = beir_folder(tmp_path / "other", splits=("test", "dev"))
    form(other)
    if form is _integer_ids:
        lines = (tmp_path / "plain.trec").read_text(encoding="utf-8").splitlines()
        split_up = [line.split() for line in lines]
        written = [" ".join([q[1:], "Q0", d[1:], *rest]) for q, _, d, *rest in split_up]
        (tmp_path / "other.trec").write_text("\n".join(written) + "\n", encoding="utf-8")
    else:
        (tmp_path / "other.trec").write_bytes((tmp_path / "plain.trec").read_bytes())
    task = evalkit.load_task(path=other, candidates=tmp_path / "other.trec", **common)
    assert (task.split, task.statistics.queries) == (split, 4)
    assert [len(one.candidates) for one in task.requests] == [20] * 4
    gains = [[one.gain for one in request.candidates] for request in task.requests]
    assert gains == [[one.gain for one in request.candidates] for request in plain.requests]
    if form not in (_without_titles, _null_titles):
        assert task.fingerprint == plain.fingerprint
    else:
        assert all(" " not in one.text for request in task.requests for one in request.candidates)


def test_retrieval_leads_with_ndcg(tmp_path: Path) -> None:
    folder = beir_folder(tmp_path / "own")
    candidates_of(folder, tmp_path / "first.trec")
    common: dict[str, Any] = {"path": folder, "candidates": tmp_path / "first.trec"}
    retrieval = evaluated(evalkit.load_task(**common, type="retrieval"))
    assert (retrieval.protocol, retrieval.main_score) == ("mteb-retrieval", "ndcg_at_10")
    assert retrieval.ceilings["ndcg_at_10"] < 1
    assert retrieval.incomparable == ""  # a first stage is part of what is measured, no change of the data
    other = evaluated(evalkit.load_task(**common))
    assert (other.protocol, other.incomparable) == ("mteb-v2", "other data")
    assert retrieval.scores == other.scores
    asked = evaluated(evalkit.load_task(**common, type="retrieval"), protocol="cmteb-v1")
    assert asked.main_score == "map"


@pytest.mark.parametrize("protocol", ["auto", "cmteb-v1", "mteb-v2"])
def test_others_read_it_as_retrieval(protocol: str, tmp_path: Path) -> None:
    """Whichever protocol led, mteb's main score of a retrieval task is nDCG@10, and a card calls the task so."""
    folder = beir_folder(tmp_path / "own")
    candidates_of(folder, tmp_path / "first.trec")
    common: dict[str, Any] = {"path": folder, "candidates": tmp_path / "first.trec"}
    for kind, main, task_type in (
        ("retrieval", "ndcg_at_10", "Retrieval"),
        ("reranking", "map_at_1000", "Reranking"),
    ):
        result = evaluated(evalkit.load_task(**common, type=kind), protocol=protocol)
        (content,) = [file for path, file in mteb_files([result]).items() if path.name == "own.json"]
        (row,) = json.loads(content)["scores"]["test"]
        assert row["main_score"] == row[main] == result.scores[main]
        _, (entry,) = index_entries([result])
        assert entry["task"] == {"type": task_type}
        assert entry["dataset"]["args"]["candidates"] == "first"


# --- judgements that are pairs of ids


def test_pairs_of_ids_are_relevant(tmp_path: Path) -> None:
    """NanoCMTEB's qrels have no grade; with any other column they must say which one it is."""
    folder = beir_folder(tmp_path / "own")
    run = tmp_path / "first.trec"
    candidates_of(folder, run)
    graded = evalkit.load_task(path=folder, candidates=run, type="retrieval")
    file = folder / "qrels" / "test.tsv"
    rows = [line.split("\t") for line in file.read_text(encoding="utf-8").splitlines()]
    file.write_text("".join(f"{q}\t{d}\n" for q, d, _ in rows), encoding="utf-8")
    pairs = evalkit.load_task(path=folder, candidates=run, type="retrieval")
    assert pairs.fingerprint == graded.fingerprint
    assert any("every document that is named is relevant" in one.message for one in pairs.findings)
    with pytest.raises(EvalkitError, match="no column score"):  # of a reranking task they may have lost it
        evalkit.load_task(path=folder, candidates=run)
    for name in ("relevance", "grade", "label"):
        file.write_text("".join(f"{q}\t{d}\t{s if s != 'score' else name}\n" for q, d, s in rows), encoding="utf-8")
        with pytest.raises(EvalkitError, match="score"):
            evalkit.load_task(path=folder, candidates=run, type="retrieval")


def test_the_only_split_that_is_there_is_told_where_another_was_asked_for(tmp_path: Path) -> None:
    folder, run = beir_folder(tmp_path / "own"), tmp_path / "first.trec"
    candidates_of(folder, run)
    for split, told in (("dev", True), ("test", False)):
        found = evalkit.load_task(path=folder, candidates=run, split=split).findings
        assert any("task.split=dev: the data have one split, test" in one.message for one in found) == told


# --- candidates that hold a safeguard


def safeguarded(folder: Path, rank: int, appended: set[int]) -> Path:
    """Write `rank` - 1 candidates: for queries in `appended` without anything relevant, and with a relevant one behind them."""
    folder = beir_folder(folder)
    qrels: dict[str, list[str]] = {}
    for line in (folder / "qrels" / "test.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query_id, doc_id, _ = line.split("\t")
        qrels.setdefault(query_id, []).append(doc_id)
    draw = random.Random(7)
    ranked = []
    for place, (query_id, relevant) in enumerate(qrels.items()):
        others = [f"d{i}" for i in range(40) if f"d{i}" not in relevant]
        found = draw.sample(others, rank - 1)
        if place in appended:
            found.append(relevant[0])
        else:
            found[draw.randrange(rank - 1)] = relevant[0]
        ranked.append({"query-id": query_id, "corpus-ids": found})
    write_jsonl(folder / "top_ranked.jsonl", ranked)
    return folder


@pytest.mark.parametrize(("rank", "appended"), [(4, {0, 3}), (11, {1, 2, 5, 7}), (21, set()), (6, set(range(7)))])
def test_figures_are_given_with_and_without_safeguards(rank: int, appended: set[int], tmp_path: Path) -> None:
    """Without them they are those of candidates that were never appended to."""
    folder = safeguarded(tmp_path / "own", rank, appended)
    settings: dict[str, Any] = {"type": "retrieval", "safeguard_rank": rank}
    result = evaluated(evalkit.load_task(path=folder, **settings))
    file = folder / "top_ranked.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    write_jsonl(file, [row | {"corpus-ids": row["corpus-ids"][: rank - 1]} for row in rows])
    never = evaluated(evalkit.load_task(path=folder, type="retrieval"))

    without = result.without_safeguard
    assert without is not None
    assert (without.rank, without.queries) == (rank, len(appended))
    for name in ("ndcg_at_10", "map_at_1000", "mrr_at_10", "recall_at_100"):
        assert without.scores[name] == pytest.approx(never.scores[name], abs=1e-12)
        assert without.intervals[name] == pytest.approx(never.intervals[name], nan_ok=True)
    assert (without.scores["recall_at_100"] < result.scores["recall_at_100"]) == bool(appended)
    assert never.without_safeguard is None
    (said,) = [text for _, text in result.remarks if "safeguard" in text]
    if appended:
        assert f"{100 * without.scores['ndcg_at_10']:.2f}" in said
        assert f"{100 * result.scores['ndcg_at_10']:.2f}" in said
