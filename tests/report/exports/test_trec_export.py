"""TREC files give the metrics of evalkit's mteb-v2 in pytrec_eval, ir_measures and ranx, and its own figures read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command import run_here
from made_results import change_json, noisy_scores, ranking_task, table_of, write_scores
from task_files import write_parts
from trec_data import Made, make

GOLDEN = Path(__file__).parent.parent.parent / "golden"
CUTOFFS = (1, 3, 5, 10, 20, 100, 1000)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("trec"))


@pytest.fixture(scope="module")
def files(made: Made, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("out")
    done = run_here("report", str(made.results), "--format", "trec", "-o", str(folder))
    assert (done.code, done.stdout, done.stderr) == (0, "", "")
    return folder / "任务.qrels.trec", folder / "任务.scored.run.trec"


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        query_id, _, doc_id, gain = line.split(" ")
        found.setdefault(query_id, {})[doc_id] = int(gain)
    return found


def read_run(path: Path) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        query_id, _, doc_id, _, score, _ = line.split(" ")
        found.setdefault(query_id, {})[doc_id] = float(score)
    return found


def test_the_data_hold_what_is_hard(made: Made, files: tuple[Path, Path]) -> None:
    run, qrels = read_run(files[1]), read_qrels(files[0])
    assert any(len(set(scores.values())) < len(scores) for scores in run.values())
    assert any(set(qrels[query_id]) - set(scores) for query_id, scores in run.items())
    assert {gain for gains in qrels.values() for gain in gains.values()} == {0, 1, 2}
    assert made.queries["unretrieved_ids"].str.len().sum() > 10


def test_pytrec_eval_gives_the_same_metrics(made: Made, files: tuple[Path, Path]) -> None:
    import pytrec_eval

    names = {"map_cut": "map", "ndcg_cut": "ndcg", "recall": "recall", "P": "precision"}
    cuts = ",".join(map(str, CUTOFFS))
    evaluator = pytrec_eval.RelevanceEvaluator(read_qrels(files[0]), {f"{name}.{cuts}" for name in names})
    found = evaluator.evaluate(read_run(files[1]))
    assert set(found) == set(made.queries.index)
    for query_id, row in made.queries.iterrows():
        for theirs, ours in names.items():
            for cutoff in CUTOFFS:
                assert found[query_id][f"{theirs}_{cutoff}"] == pytest.approx(row[f"{ours}_at_{cutoff}"], abs=1e-12)


def test_ir_measures_gives_the_same_metrics(made: Made, files: tuple[Path, Path]) -> None:
    import ir_measures
    from ir_measures import AP, RR, P, R, Success, nDCG

    measures = {
        f"{name}_at_{cutoff}": measure @ cutoff
        for name, measure in {"map": AP, "ndcg": nDCG, "recall": R, "precision": P, "hit_rate": Success}.items()
        for cutoff in CUTOFFS
    }
    names = {str(measure): name for name, measure in measures.items()} | {"RR": "mrr_at_1000"}
    qrels, run = (
        list(read(str(path)))
        for read, path in zip((ir_measures.read_trec_qrels, ir_measures.read_trec_run), files, strict=True)
    )
    for metric in ir_measures.iter_calc([*measures.values(), RR], qrels, run):
        name = names[str(metric.measure)]
        assert metric.value == pytest.approx(made.queries.loc[metric.query_id, name], abs=1e-12), (name, metric)
    means = ir_measures.calc_aggregate(list(measures.values()), qrels, run)
    stated = json.loads(next(made.results.rglob("任务.json")).read_text(encoding="utf-8"))["scores"]["test"][0]
    for name, measure in measures.items():
        assert round(means[measure], 5) == pytest.approx(stated[name], abs=1e-9)


def test_ranx_gives_the_same_metrics(made: Made, files: tuple[Path, Path], tmp_path: Path) -> None:
    """For the queries without ties: ranx's sort puts tied documents in any order."""
    from ranx import Qrels, Run, evaluate

    untied = [query_id for query_id, scores in read_run(files[1]).items() if len(set(scores.values())) == len(scores)]
    assert len(untied) == 20
    copies = [tmp_path / path.name for path in files]
    for path, copy in zip(files, copies, strict=True):
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        copy.write_text("".join(line for line in lines if line.split(" ")[0] in untied), encoding="utf-8")
    qrels, run = Qrels.from_file(str(copies[0]), kind="trec"), Run.from_file(str(copies[1]), kind="trec")
    metrics = [
        f"{name}@{cutoff}" for name in ("map", "ndcg", "recall", "precision", "hit_rate", "mrr") for cutoff in CUTOFFS
    ]
    found = evaluate(qrels, run, metrics, return_mean=False)
    for metric in metrics:
        ours = made.queries.loc[list(run.keys()), metric.replace("@", "_at_")]
        np.testing.assert_allclose(found[metric], ours, atol=1e-12, err_msg=metric)


def test_ranks_follow_trec_evals_order(files: tuple[Path, Path]) -> None:
    table = pd.read_csv(files[1], sep=" ", names=["query", "q0", "doc", "rank", "score", "tag"])
    assert set(table["tag"]) == {"scored"}
    for _, rows in table.groupby("query", sort=False):
        assert rows["rank"].tolist() == list(range(1, len(rows) + 1))
        keys = list(zip(rows["score"], rows["doc"].map(str.encode), strict=True))
        assert keys == sorted(keys, reverse=True)


def test_evalkit_reads_its_run_back_to_the_same_figures(made: Made, files: tuple[Path, Path], tmp_path: Path) -> None:
    chosen = ("task=local", f"task.path={made.task}", "model=run", f"model.path={files[1]}")
    assert run_here(*chosen, f"results_dir={tmp_path}").code == 0
    before, after = (next(folder.rglob("任务.json")) for folder in (made.results, tmp_path))
    assert scores_of(after) | {"main_score": None} == scores_of(before) | {"main_score": None}
    assert (
        scores_of(after)["main_score"] == scores_of(before)["map_at_1000"]
    )  # the task's qrels name documents that are no candidates


def scores_of(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["scores"]["test"][0]
    return found


def test_float32_scores_stay_apart_and_tied(tmp_path: Path) -> None:
    """Neighbours among float32 are written with digits that tell them apart, equal ones with equal digits."""
    task = ranking_task(20)
    scores = noisy_scores(task)
    scores[:, 3] = np.nextafter(scores[:, 2], np.float32(np.inf))
    scores[:, 5] = scores[:, 4]
    write_scores(tmp_path / "results", task, scores)
    assert run_here("report", str(tmp_path / "results"), "--format", "trec", "-o", str(tmp_path / "out")).code == 0
    run = read_run(tmp_path / "out" / "made.scorer.run.trec")
    for query_id, row in zip(run, scores, strict=True):
        by_place = [run[query_id][candidate.doc_id] for candidate in task.requests[int(query_id[1:])].candidates]
        assert np.array_equal(np.float32(by_place), row)
        assert by_place[3] > by_place[2]
        assert by_place[5] == by_place[4]


def test_files_are_written_as_ever(tmp_path: Path) -> None:
    task = ranking_task(3)
    scores = np.round(noisy_scores(task), 1)
    for model in ("one", "two"):
        write_scores(tmp_path / "results", task, scores, model=model)
        scores = -scores
    assert run_here("report", str(tmp_path / "results"), "--format", "trec", "-o", str(tmp_path / "out")).code == 0
    for name in ("made.qrels.trec", "made.one.run.trec", "made.two.run.trec"):
        assert (tmp_path / "out" / name).read_text(encoding="utf-8") == (GOLDEN / name).read_text(encoding="utf-8")
    assert len(list((tmp_path / "out").iterdir())) == 3


def refusal(*arguments: object) -> str:
    done = run_here("report", *map(str, arguments))
    assert (done.code, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    return line


def test_what_trec_files_cannot_hold_is_refused(tmp_path: Path) -> None:
    for number, (query_id, doc_id) in enumerate((("q 1", "d"), ("q1", "d\u3000one"), ("q1", "tab\tbed"))):
        parts: dict[str, list[dict[str, Any]]] = {
            "corpus": [{"id": doc_id, "text": "a"}, {"id": "other", "text": "b"}],
            "queries": [{"id": query_id, "text": "c"}],
            "qrels": [
                {"query-id": query_id, "corpus-id": name, "score": gain} for name, gain in ((doc_id, 1), ("other", 0))
            ],
        }
        task = write_parts(tmp_path / f"task{number}", parts, "qrels.jsonl")
        results = tmp_path / f"results{number}"
        assert run_here("task=local", f"task.path={task}", "model=random", f"results_dir={results}").code == 0
        told = refusal(results, "--format", "trec", "-o", tmp_path / "out")
        assert "has white space in it or is empty, which TREC files can't hold" in told
        assert repr(query_id if number == 0 else doc_id) in told
    assert not (tmp_path / "out").exists()


def test_what_is_wrong_is_told_in_one_line(tmp_path: Path) -> None:
    task = ranking_task(4)
    path = write_scores(tmp_path / "results", task, noisy_scores(task))
    results = path.parent
    assert "is several files; name a folder with -o FOLDER" in refusal(results, "--format", "trec")
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    assert f"-o {notes} is a file" in refusal(results, "--format", "trec", "-o", notes)
    out = tmp_path / "out"
    out.mkdir()
    (out / "made.qrels.trec").write_text("my own notes\n")
    told = refusal(results, "--format", "trec", "-o", out)
    assert "made.qrels.trec exists and holds no report as trec; name another place" in told
    assert [file.name for file in out.iterdir()] == ["made.qrels.trec"]  # nothing is written where one file is refused
    (out / "made.qrels.trec").unlink()
    for _ in range(2):  # its own kind is replaced
        assert run_here("report", str(results), "--format", "trec", "-o", str(out)).code == 0
    table_of(path, "run").unlink()
    assert "made.run.parquet is missing" in refusal(results, "--format", "trec", "-o", out)


@pytest.mark.parametrize("names", [("a/b", "a_b"), ("a:b", "a?b"), ("mine", "mine.")])
def test_two_tasks_whose_files_would_have_one_name_are_refused(names: tuple[str, str], tmp_path: Path) -> None:
    """Also where different systems scored them, whose runs have files of their own."""
    task = ranking_task(3)
    for number, name in enumerate(names):
        path = write_scores(tmp_path / "results", task, noisy_scores(task), model=f"scorer{number}")
        change_json(path, lambda content, name=name: content["evalkit"]["task"].update(name=name, mteb_name=name))
        change_json(path, lambda content, name=name: content.update(task_name=name))
    done = run_here("report", str(tmp_path / "results"), "--format", "trec", "-o", str(tmp_path / "out"))
    assert (done.code, done.stderr.count("another task's qrels would be written to")) == (2, 1)
    assert not list(tmp_path.glob("out/*"))
