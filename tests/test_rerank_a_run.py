"""Retrieve, then rerank: a first stage's run takes the place of a task's candidates; against mteb's own two stages."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import pytrec_eval
from command import Outcome, run_here
from oracles.mteb_reference import evaluate_folder
from task_files import Rows, mteb_parts, write_hub_parts, write_jsonl, write_parts

import evalkit
from evalkit.errors import EvalkitError

Run = dict[str, dict[str, float]]
DEMO = Path(evalkit.__file__).parent / "tasks" / "demo"
COMPARED = ("map_at_1000", "mrr_at_10", "ndcg_at_10", "recall_at_5", "precision_at_3")


def corpus_parts(queries: int = 8) -> dict[str, Rows]:
    """A corpus that all queries share, and no top_ranked: what a first stage searches."""
    rows = [json.loads(line) for line in (DEMO / "zh2en.jsonl").read_text(encoding="utf-8").splitlines()][:queries]
    parts = mteb_parts([row | {"negative": row["negative"][:4]} for row in rows], split="test")
    del parts["top_ranked"]
    return parts


def doc_ids(parts: dict[str, Rows]) -> list[str]:
    return [row["id"] for row in parts["corpus"]]


def made_run(parts: dict[str, Rows], seed: int = 3, depth: int = 20) -> Run:
    draw = np.random.default_rng(seed)
    return {
        row["id"]: {
            doc_id: float(score)
            for doc_id, score in zip(
                draw.choice(doc_ids(parts), depth, replace=False).tolist(), draw.normal(size=depth), strict=True
            )
        }
        for row in parts["queries"]
    }


def write_json(path: Path, run: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(run), encoding="utf-8")
    return path


def write_trec(path: Path, run: Run) -> Path:
    lines = [f"{q} Q0 {d} 0 {score!r} tag" for q, found in run.items() for d, score in found.items()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_parquet(path: Path, run: Run) -> Path:
    rows = [(q, d, score) for q, found in run.items() for d, score in found.items()]
    pd.DataFrame(rows, columns=["query_id", "doc_id", "score"]).to_parquet(path)
    return path


def rerank(task: Path, run: Path, results: Path, *more: str, model: str = "random") -> Outcome:
    return run_here(
        "task=local", f"task.path={task}", f"task.candidates={run}", f"model={model}", *more, f"results_dir={results}"
    )


def read_one(results: Path) -> tuple[dict[str, Any], pd.DataFrame, pd.DataFrame]:
    """The JSON, the candidates and the queries of the only result in a folder."""
    (table,) = results.rglob("*.run.parquet")
    stem = str(table).removesuffix(".run.parquet")
    content = json.loads(Path(f"{stem}.json").read_text(encoding="utf-8"))
    return content, pd.read_parquet(table), pd.read_parquet(f"{stem}.queries.parquet")


def best(scores: dict[str, float], top_k: int) -> list[str]:
    return sorted(scores, key=lambda doc_id: (np.float32(scores[doc_id]), doc_id), reverse=True)[:top_k]


def test_both_stages_are_mtebs(e5_small: Path, tiny_reranker: Path, tmp_path: Path) -> None:
    """mteb retrieves with a real embedder and reranks its best with a cross-encoder; evalkit reranks the same run."""
    from sentence_transformers import CrossEncoder, SentenceTransformer

    parts = corpus_parts()
    for row in [row for row in parts["qrels"] if row["score"] == 0][:3]:
        row["score"] = 1  # more than the first stage hands on
    folder = write_hub_parts(tmp_path / "corpus", parts, split="test")
    embedder = SentenceTransformer(str(e5_small), prompts={"query": "query: ", "document": "passage: "}, device="cpu")
    first, found = evaluate_folder(embedder, folder, "test", tmp_path / "first")
    reranker = CrossEncoder(str(tiny_reranker), device="cpu")
    second, _ = evaluate_folder(reranker, folder, "test", tmp_path / "second", first_stage=tmp_path / "first", top_k=3)

    run = write_json(tmp_path / "runs" / "e5.json", found)
    chosen = ("backend=torch", f"model.path={tiny_reranker}", "task.top_k=3")
    done = rerank(folder, run, tmp_path / "best", *chosen, model="local-cross-encoder")
    assert done.code == 0, done.stderr
    content, candidates, queries = read_one(tmp_path / "best")
    scores = content["scores"]["test"][0]
    for metric in COMPARED:
        assert scores[metric] == pytest.approx(second[metric], abs=1e-4), metric
    assert len(candidates) == 3 * len(queries) == 24
    assert queries["unretrieved_ids"].str.len().sum() > 0

    assert rerank(folder, run, tmp_path / "all").code == 0
    stage = read_one(tmp_path / "all")[0]["evalkit"]["first_stage"]["scores"]
    for metric in COMPARED:
        assert stage[metric] == pytest.approx(first[metric], abs=1e-4), metric
    assert 0.3 < first["map_at_1000"] < 1  # a comparison that random scores would not pass


@pytest.mark.parametrize("write", [write_json, write_trec, write_parquet])
def test_every_form_of_a_run_gives_both_stages(write: Callable[[Path, Run], Path], tmp_path: Path) -> None:
    """pytrec_eval judges both stages on the same candidates, and misses what the first one missed."""
    parts = corpus_parts()
    run = made_run(parts)
    suffix = {write_json: ".json", write_trec: ".trec", write_parquet: ".parquet"}[write]
    (tmp_path / "一 run").mkdir()
    file = write(tmp_path / "一 run" / f"候选 [bm25] #1={suffix}", run)  # a path may hold anything
    task = write_parts(tmp_path / "task", parts, "qrels.jsonl")
    done = rerank(task, file, tmp_path / "results", "task.top_k=7")
    assert done.code == 0, done.stderr
    content, candidates, queries = read_one(tmp_path / "results")
    stated = content["evalkit"]["task"]["first_stage"]
    assert (stated["name"], stated["source"], stated["top_k"]) == (file.stem, str(file), 7)

    for query_id, rows in candidates.groupby("query_id", sort=False):
        assert rows["doc_id"].tolist() == best(run[query_id], 7)
        assert rows["first_stage_score"].tolist() == [run[query_id][doc_id] for doc_id in rows["doc_id"]]
    qrels: dict[str, dict[str, int]] = {}
    for row in parts["qrels"]:
        qrels.setdefault(row["query-id"], {})[row["corpus-id"]] = row["score"]
    evaluator = pytrec_eval.RelevanceEvaluator(qrels, {"map_cut.1000", "ndcg_cut.10", "recall.10"})
    names = {"map_cut_1000": "map_at_1000", "ndcg_cut_10": "ndcg_at_10", "recall_10": "recall_at_10"}
    block = content["evalkit"]["first_stage"]
    for column, ours in (("first_stage_score", block["scores"]), ("score", content["scores"]["test"][0])):
        judged = evaluator.evaluate(
            {
                query_id: dict(zip(rows["doc_id"], rows[column].astype(float), strict=True))
                for query_id, rows in candidates.groupby("query_id")
            }
        )
        for theirs, metric in names.items():
            mean = np.mean([values[theirs] for values in judged.values()])
            assert ours[metric] == pytest.approx(mean, abs=1e-5)
    assert queries["first_stage_map_at_1000"].mean() == pytest.approx(block["scores"]["map_at_1000"], abs=1e-5)
    gained = (queries["map_at_1000"] - queries["first_stage_map_at_1000"]).mean()
    difference, low, high = block["differences"]["map_at_1000"]
    assert difference == pytest.approx(gained)
    assert low < difference < high


def test_the_summary_shows_both_stages(tmp_path: Path) -> None:
    parts = corpus_parts()
    run = write_json(tmp_path / "bm25.json", made_run(parts))
    task = write_parts(tmp_path / "task", parts, "qrels.jsonl")
    done = rerank(task, run, tmp_path / "results", "task.top_k=7")
    content, _, queries = read_one(tmp_path / "results")
    block = content["evalkit"]["first_stage"]
    lines = done.stdout.splitlines()
    assert "random on task: reranks the top 7 of bm25" in lines
    (map_line,) = [line.split() for line in lines if line.startswith("MAP@1000 ")]
    assert map_line[:4] == [
        "MAP@1000",
        "mteb-v2",
        f"{100 * block['scores']['map_at_1000']:.2f}",
        f"{100 * content['scores']['test'][0]['map_at_1000']:.2f}",
    ]
    total = sum(row["score"] > 0 for row in parts["qrels"])
    found = int(queries["n_positive"].sum())
    assert 0 < found < total
    assert f"{found} of {total} relevant documents are among the candidates (mean recall of a query " in done.stdout
    # cmteb-v1 knows candidates only: what has nothing relevant among them is left out
    assert queries["ap"].isna().sum() == (queries["n_positive"] == 0).sum() > 0
    assert "mteb-v2 counts relevant documents that are not among them as missed" in done.stdout


def test_a_run_of_evalkits_own_reranks_rows(tmp_path: Path) -> None:
    """A bundled task in C-MTEB's layout: BM25's run, as evalkit writes it, is the first stage."""
    assert run_here("task=demo-zh", "model=bm25", f"results_dir={tmp_path / 'first'}").code == 0
    content, _, _ = read_one(tmp_path / "first")
    (run,) = (tmp_path / "first").rglob("*.run.parquet")
    chosen = ("task=demo-zh", f"task.candidates={run}", "model=oracle", f"results_dir={tmp_path / 'second'}")
    assert run_here(*chosen).code == 0
    both, _, _ = read_one(tmp_path / "second")
    assert both["evalkit"]["first_stage"]["scores"] == {
        metric: value
        for metric, value in content["scores"]["test"][0].items()
        if metric in both["evalkit"]["first_stage"]["scores"]
    }
    assert both["scores"]["test"][0]["map"] == 1.0
    assert both["evalkit"]["task"]["differences"] == ["the candidates of EvalkitDemoZh.run"]
    done = run_here("audit", str(tmp_path / "second"))
    assert done.code == 0, done.stdout


def test_a_result_that_misses_documents_stands_the_audit(tmp_path: Path) -> None:
    """Its values of mteb-v2 are computed again with what was missed; a query without candidates is none too many."""
    parts = corpus_parts()
    run = made_run(parts)
    del run[parts["queries"][2]["id"]]
    task = write_parts(tmp_path / "task", parts, "qrels.jsonl")
    done = rerank(
        task, write_json(tmp_path / "run.json", run), tmp_path / "results", "protocol=mteb-v2", "task.top_k=9"
    )
    assert done.code == 0, done.stderr
    assert "query without candidates: it scores 0 in mteb-v2, cmteb-v1 leaves it out" in done.stderr
    _, candidates, queries = read_one(tmp_path / "results")
    assert queries.loc[2, ["n_candidates", "map_at_1000"]].tolist() == [0, 0]
    assert len(candidates) == 9 * 7
    audited = run_here("audit", str(tmp_path / "results"))
    assert audited.code == 0, audited.stdout
    (table,) = (tmp_path / "results").rglob("*.queries.parquet")
    pd.read_parquet(table).assign(recall_at_10=0.5).to_parquet(table)
    assert run_here("audit", str(tmp_path / "results")).code == 1


def test_tied_documents_at_the_end_are_those_that_trec_eval_puts_first(tmp_path: Path) -> None:
    parts = corpus_parts()
    run = {query["id"]: dict.fromkeys(reversed(doc_ids(parts)), 1.0) for query in parts["queries"]}
    task = evalkit.load_task(
        path=write_parts(tmp_path / "task", parts, "qrels.jsonl"),
        candidates=write_json(tmp_path / "run.json", run),
        top_k=35,
    )
    expected = sorted(doc_ids(parts), reverse=True)[:35]
    assert {doc_id[:3] for doc_id in expected} == {"neg", "apo"}
    for request in task.requests:
        assert [candidate.doc_id for candidate in request.candidates] == expected


@pytest.mark.parametrize(
    ("scores", "cut"),
    [
        ((5.0, 4.0, 4.0, 3.0), 2),
        ((5.0, 4.0, 4.0 - 1e-12, 3.0), 2),  # float32 tells no difference
        ((4.0, 4.0, 3.0, 2.0), 0),
        ((5.0, 4.0, 3.0, 3.0), 0),
    ],
)
def test_queries_that_are_cut_in_a_tie_are_counted(scores: tuple[float, ...], cut: int, tmp_path: Path) -> None:
    parts = corpus_parts()
    run = {
        query["id"]: dict(zip(doc_ids(parts), range(len(doc_ids(parts)), 0, -1), strict=True))
        for query in parts["queries"]
    }
    run = {query_id: {doc_id: float(score) for doc_id, score in found.items()} for query_id, found in run.items()}
    for query_id in list(run)[:2]:
        places = list(run[query_id])[33:37]
        run[query_id] |= dict(zip(places, (score - 4 + run[query_id][places[-1]] for score in scores), strict=True))
    folder, file = write_parts(tmp_path / "task", parts, "qrels.jsonl"), write_json(tmp_path / "run.json", run)
    told = [
        finding
        for finding in evalkit.load_task(path=folder, candidates=file, top_k=35).findings
        if "tied" in finding.message
    ]
    assert [(finding.severity, finding.message.partition(":")[0]) for finding in told] == [
        ("warning", f"{cut} of 8 queries have tied scores on both sides of task.top_k=35")
    ] * bool(cut)
    whole = evalkit.load_task(path=folder, candidates=file)
    assert not any("tied scores" in finding.message for finding in whole.findings)


def test_a_limit_keeps_scores_with_their_candidates(tmp_path: Path) -> None:
    parts = corpus_parts()
    run = made_run(parts)
    folder = write_parts(tmp_path / "task", parts, "qrels.jsonl")
    task = evalkit.load_task(path=folder, candidates=write_json(tmp_path / "run.json", run), top_k=20, limit=2)
    assert len(task.requests) == 2
    for request in task.requests:
        assert request.first_stage_scores == tuple(
            run[request.query.query_id][candidate.doc_id] for candidate in request.candidates
        )


def test_what_python_saves_does_not_stand_for_the_task_s_own(tmp_path: Path) -> None:
    parts = corpus_parts()
    folder = write_parts(tmp_path / "task", parts, "qrels.jsonl")
    task = evalkit.load_task(path=folder, candidates=write_json(tmp_path / "run.json", made_run(parts)), top_k=7)
    path = evalkit.save_result(evalkit.evaluate(evalkit.load_model("random"), task), tmp_path / "results")
    assert path.parts[-3] == "experiments"
    assert "candidates-run-" in path.parts[-2]


def test_an_experiment_is_named_after_what_lies_in_the_run_s_file(tmp_path: Path) -> None:
    """On the command line as in Python, wherever the file lies."""
    parts = corpus_parts()
    folder = write_parts(tmp_path / "task", parts, "qrels.jsonl")
    first = made_run(parts)
    second = {query_id: dict(zip(found, reversed(found.values()), strict=True)) for query_id, found in first.items()}
    named = []
    for number, scores in enumerate((first, second, first)):
        place = tmp_path / f"place-{number}"
        place.mkdir()
        run = write_json(place / "run.json", scores)
        done = rerank(folder, run, place / "cli", "task.top_k=7", model="bm25")
        assert done.code == 0, done.stderr
        task = evalkit.load_task(path=folder, candidates=run, top_k=7)
        path = evalkit.save_result(evalkit.evaluate(evalkit.load_model("bm25"), task), place / "python")
        named.append(path.parent.name)
        assert (place / "cli" / path.relative_to(place / "python")).is_file()
    assert named[0] == named[2] != named[1]
    assert named[0].startswith("candidates-run-")


def test_a_run_with_less_than_top_k_is_taken_whole(tmp_path: Path) -> None:
    parts = corpus_parts()
    task = write_parts(tmp_path / "task", parts, "qrels.jsonl")
    done = rerank(task, write_json(tmp_path / "run.json", made_run(parts)), tmp_path / "results", "task.top_k=1000")
    assert done.code == 0
    assert "query with fewer than task.top_k=1000 documents: all are taken (8 of them)" in done.stderr
    assert len(read_one(tmp_path / "results")[1]) == 20 * 8


def test_what_a_task_has_of_its_own_candidates_is_not_used(tmp_path: Path) -> None:
    parts = corpus_parts()
    run = made_run(parts)
    first = parts["queries"][0]["id"]
    parts["top_ranked"] = [{"query-id": first, "corpus-ids": [doc_ids(parts)[0]]}]
    folder = write_parts(tmp_path / "task", parts, "qrels.jsonl")
    task = evalkit.load_task(path=folder, candidates=write_json(tmp_path / "run.json", run))
    assert [candidate.doc_id for candidate in task.requests[0].candidates] == best(run[first], 20)


@pytest.mark.parametrize("layout", ["parts", "rows"])
@pytest.mark.parametrize("write", [write_json, write_trec, write_parquet])
@pytest.mark.parametrize(("kept", "others"), [(8, 1), (8, 30), (4, 5)])
def test_further_queries_of_a_run_are_left_out(
    kept: int, others: int, write: Callable[[Path, Run], Path], layout: str, tmp_path: Path
) -> None:
    """A run over more topics than the task has; their documents may be none of the task's, and their ties are not counted."""
    parts, folder = corpus_parts(), tmp_path / "task"
    if layout == "rows":
        lines = (DEMO / "zh2en.jsonl").read_text(encoding="utf-8").splitlines()[:8]
        rows = [row | {"negative": row["negative"][:4]} for row in map(json.loads, lines)]
        write_jsonl(folder / "test.jsonl", rows)
    else:
        write_parts(folder, parts, "qrels.jsonl")
    run = dict(list(made_run(parts).items())[:kept])
    strange = {
        f"other{i}": dict.fromkeys(["nowhere", *map(str, range(10)), doc_ids(parts)[0]], 1.0) for i in range(others)
    }
    suffix = {write_json: ".json", write_trec: ".trec", write_parquet: ".parquet"}[write]
    alone = evalkit.load_task(path=folder, candidates=write(tmp_path / f"alone{suffix}", run), top_k=10)
    task = evalkit.load_task(path=folder, candidates=write(tmp_path / f"more{suffix}", strange | run), top_k=10)
    assert task.requests == alone.requests
    assert task.fingerprint == alone.fingerprint
    (told,) = [finding for finding in task.findings if "left out, first" in finding.message]
    assert told.severity == "warning"
    share = f"{others} of the run's {kept + others} queries are not the task's, and it has {kept} of the 8 queries"
    assert told.message.startswith(share)
    assert "'other0'" in told.message
    assert not any("tied scores" in finding.message for finding in task.findings)


def test_queries_left_out_are_said_beside_the_figure(tmp_path: Path) -> None:
    parts = corpus_parts()
    folder = write_parts(tmp_path / "task", parts, "qrels.jsonl")
    run = made_run(parts) | {"other": {"nowhere": 1.0}}
    done = rerank(folder, write_json(tmp_path / "run.json", run), tmp_path / "results")
    assert done.code == 0, done.stderr
    assert "1 of the run's 9 queries are not the task's" in " ".join(done.stdout.split())
    content, candidates, _ = read_one(tmp_path / "results")
    assert "other" not in set(candidates["query_id"])
    assert any("1 of the run's 9 queries" in str(one) for one in content["evalkit"]["task"]["findings"])


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_a_run_of_another_task_is_refused(kept: int, tmp_path: Path) -> None:
    parts = corpus_parts()
    folder = write_parts(tmp_path / "task", parts, "qrels.jsonl")
    run = dict(list(made_run(parts).items())[:kept]) | {"other": {"nowhere": 1.0}, "another": {"nowhere": 1.0}}
    with pytest.raises(EvalkitError) as error:
        evalkit.load_task(path=folder, candidates=write_trec(tmp_path / "run.trec", run))
    assert f"run.trec, row {20 * kept + 1}, column query_id: 'other' names no query of the task" in str(error.value)
    assert f"2 of the run's {kept + 2} queries are not the task's, and it has {kept} of the 8 queries" in str(
        error.value
    )


def test_half_of_the_queries_that_are_judged_is_enough(tmp_path: Path) -> None:
    """MS MARCO's queries are many more than its qrels name."""
    parts = corpus_parts()
    run = made_run(parts) | {"other": {"nowhere": 1.0}}
    parts["queries"] += [{"id": f"unjudged{i}", "text": "?"} for i in range(50)]
    folder = write_parts(tmp_path / "task", parts, "qrels.jsonl")
    task = evalkit.load_task(path=folder, candidates=write_json(tmp_path / "run.json", run))
    assert len(task.requests) == 8
    assert any("it has 8 of the 8 queries" in finding.message for finding in task.findings)


def changed(run: Run, change: str) -> Any:
    first, second = list(run)[:2]
    documents = list(run[second])
    if change == "query":
        return {first: run[first], "stranger": run[second]}
    if change == "document":
        return {first: run[first], second: {**dict.fromkeys(documents[:3], 0.5), "nowhere": 0.25}}
    return {first: run[first], second: {documents[0]: float("nan")}}


@pytest.mark.parametrize(
    ("change", "write", "told"),
    [
        ("query", write_trec, "run, row 21, column query_id: 'stranger' names no query of the task"),
        ("query", write_parquet, "run, row 21, column query_id: 'stranger' names no query of the task"),
        ("query", write_json, "run, column query_id: 'stranger' names no query of the task"),
        (
            "document",
            write_trec,
            "run, row 24, column doc_id: 'nowhere' of query 'test_query1' names no document of the task",
        ),
        ("document", write_parquet, "run, row 24, column doc_id: 'nowhere' of query 'test_query1' names no document"),
        ("document", write_json, "run, column doc_id: 'nowhere' of query 'test_query1' names no document of the task"),
        ("score", write_trec, "has the score 'nan', not a finite number"),
    ],
)
@pytest.mark.parametrize("layout", ["parts", "rows"])
def test_strange_ids_and_scores_are_refused(
    change: str, write: Callable[[Path, Any], Path], told: str, layout: str, tmp_path: Path
) -> None:
    parts = corpus_parts()
    rows = [json.loads(line) for line in (DEMO / "zh2en.jsonl").read_text(encoding="utf-8").splitlines()]
    folder = (
        write_parts(tmp_path / "task", parts, "qrels.jsonl")
        if layout == "parts"
        else write_jsonl(tmp_path / "task" / "test.jsonl", rows).parent
    )
    suffix = {write_json: ".json", write_trec: ".trec", write_parquet: ".parquet"}[write]
    file = write(tmp_path / f"run{suffix}", changed(made_run(parts), change))
    done = rerank(folder, file, tmp_path / "results")
    assert done.code == 2
    (line,) = done.stderr.splitlines()
    assert told.replace("run,", f"{file},") in line


def test_a_document_twice_is_refused(tmp_path: Path) -> None:
    parts = corpus_parts()
    task = write_parts(tmp_path / "task", parts, "qrels.jsonl")
    run = made_run(parts)
    trec = write_trec(tmp_path / "run.trec", run)
    trec.write_text(trec.read_text() + trec.read_text().splitlines()[3] + "\n")
    done = rerank(task, trec, tmp_path / "results")
    assert (done.code, len(done.stderr.splitlines())) == (2, 1)
    assert f"{trec}, row 161: document " in done.stderr
    assert "is scored twice for one query" in done.stderr


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"top_k": 5}, "task.top_k=5 says how much of a first stage's run is reranked"),
        ({"candidates": "nowhere.json"}, "task.candidates=nowhere.json: there is no such file"),
        ({"candidates": "{run}", "top_k": 0}, "task.top_k=0: "),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], told: str, tmp_path: Path) -> None:
    parts = corpus_parts()
    run = write_json(tmp_path / "run.json", made_run(parts))
    given = {key: value.format(run=run) if isinstance(value, str) else value for key, value in settings.items()}
    with pytest.raises(EvalkitError) as caught:
        evalkit.load_task(path=write_parts(tmp_path / "task", parts, "qrels.jsonl"), **given)
    assert told in str(caught.value)


def test_a_suite_has_no_candidates(tmp_path: Path) -> None:
    done = run_here("task=demo", "task.candidates=run.json", "model=random", f"results_dir={tmp_path}")
    assert done.code == 2
    assert "task.candidates says nothing to demo, which is a suite" in done.stderr


def test_a_run_that_finds_nothing_is_refused(tmp_path: Path) -> None:
    parts = corpus_parts()
    relevant = {row["corpus-id"] for row in parts["qrels"] if row["score"]}
    run = {query["id"]: {one: 1.0 for one in doc_ids(parts) if one not in relevant} for query in parts["queries"]}
    done = rerank(
        write_parts(tmp_path / "task", parts, "qrels.jsonl"),
        write_json(tmp_path / "run.json", run),
        tmp_path / "results",
    )
    assert done.code == 2
    assert "for none of the 8 queries" in done.stderr.splitlines()[-1]
    assert "raise task.top_k" in done.stderr.splitlines()[-1]
