"""Results as mteb has written them since 2023."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalkit.audit.command import audit_files, coverage
from evalkit.audit.figures import AuditFinding
from evalkit.audit.readers import read_figures
from evalkit.errors import EvalkitError

V1 = {"map": 0.6343782399577538, "mrr": 0.6949976190476191}
OLD = {
    "dataset_revision": None,
    "dev": {"evaluation_time": 12.5, "map": 0.6772885, "mrr": 0.771315192743764},
    "mteb_dataset_name": "T2Reranking",
    "mteb_version": "1.0.2",
}
OLD_FIGURES = [("T2Reranking", "map", "0.6772885", 5908), ("T2Reranking", "mrr", "0.771315192743764", 5908)]
OWN_FIGURES = [("Own", "map", "0.6343782399577538", None), ("Own", "mrr", "0.6949976190476191", None)]
NEW = {
    "dataset_revision": "8d7f1e942507dac42dc58017c1a001c3717da7df",
    "evaluation_time": 3.2,
    "kg_co2_emissions": None,
    "mteb_version": "1.18.0",
    "scores": {
        "test": [
            {"hf_subset": "default", "languages": ["cmn-Hans"], "main_score": V1["map"], **V1, "nAUC_map_max": -0.2}
        ]
    },
    "task_name": "CMedQAv1-reranking",
}


def v2_block(**changes: float) -> dict[str, Any]:
    maps = {f"map_at_{cutoff}": value for cutoff, value in ((1, 0.3), (10, 0.6), (1000, 0.64683))}
    return {"hf_subset": "default", "main_score": 0.64683, **maps, "mrr_at_10": 0.698046, "ndcg_at_10": 0.7, **changes}


V2 = {**NEW, "mteb_version": "2.6.7", "scores": {"test": [v2_block()]}}


def write(folder: Path, content: object, name: str = "CMedQAv1-reranking.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def findings(path: Path) -> list[AuditFinding]:
    return list(audit_files([path])[0].findings)


@pytest.mark.parametrize(
    ("content", "figures"),
    [
        (OLD, OLD_FIGURES),
        ({**OLD, "dev": {"zh": OLD["dev"]}}, OLD_FIGURES),
        (
            NEW,
            [
                ("CMedQAv1", "main_score", "0.6343782399577538", 1000),
                ("CMedQAv1", "map", "0.6343782399577538", 1000),
                ("CMedQAv1", "mrr", "0.6949976190476191", 1000),
            ],
        ),
        ({"dev": V1, "mteb_dataset_name": "Own"}, OWN_FIGURES),
    ],
)  # fmt: skip
def test_each_shape_is_read(tmp_path: Path, content: object, figures: list[tuple[str, str, str, int | None]]) -> None:
    read = read_figures(write(tmp_path, content)).figures
    assert [(figure.task, figure.metric, figure.printed, figure.queries) for figure in read] == figures
    assert {figure.protocol for figure in read if figure.metric != "main_score"} == {"cmteb-v1"}


def test_mteb_2s_metrics_are_of_its_protocol(tmp_path: Path) -> None:
    read = read_figures(write(tmp_path, V2)).figures
    assert {figure.protocol for figure in read} == {"mteb-v2"}
    assert {"map_at_1000", "mrr_at_10", "ndcg_at_10"} <= {figure.metric for figure in read}


@pytest.mark.parametrize(
    ("folder", "model"),
    [
        ("intfloat__multilingual-e5-small/fd1525a9fd15316a2d503bf26ab031a61d056e98", "intfloat/multilingual-e5-small"),
        ("results/multilingual-e5-small/no_revision_available", "intfloat/multilingual-e5-small"),
        ("somewhere/else", ""),
    ],
)
def test_the_path_names_the_model(tmp_path: Path, folder: str, model: str) -> None:
    assert {figure.model for figure in read_figures(write(tmp_path / folder, NEW)).figures} == {model}


def test_the_file_beside_it_names_the_model_before_the_path_does(tmp_path: Path) -> None:
    path = write(tmp_path / "a__b/c", NEW)
    write(path.parent, {"name": "me/mine"}, "model_meta.json")
    assert {figure.model for figure in read_figures(path).figures} == {"me/mine"}


@pytest.mark.parametrize("content", [OLD, NEW, V2])
def test_published_results_are_clean(tmp_path: Path, content: object) -> None:
    assert findings(write(tmp_path / "intfloat__multilingual-e5-small/x", content)) == []


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"map": 63.4}, "range"),
        ({"map": None}, "range"),
        ({"mrr": -0.1}, "range"),
        ({"mrr": "NaN"}, "range"),
        ({"mrr": {}}, "range"),
        ({"mrr": 0.6949976190486191}, "lattice"),
        ({"map": 0.99}, "map and mrr"),
    ],
)
def test_what_cannot_be_is_an_error(tmp_path: Path, changes: dict[str, Any], rule: str) -> None:
    content = {**NEW, "scores": {"test": [{**V1, **changes}]}}
    assert ("error", rule) in {(finding.severity, finding.rule) for finding in findings(write(tmp_path, content))}


def test_another_split_is_not_held_against_the_published_tasks_size(tmp_path: Path) -> None:
    wrong = {"map": 0.99, "mrr": 0.6949976190486191}
    found = {
        split: {finding.rule for finding in findings(write(tmp_path, {**NEW, "scores": {split: [wrong]}}))}
        for split in ("test", "train")
    }
    assert found == {"test": {"lattice", "map and mrr"}, "train": set()}


def test_a_map_far_from_all_published_ones_is_a_warning(tmp_path: Path) -> None:
    for value, found in ((0.634, set()), (0.55, {("warning", "map and mrr")}), (0.9, {("error", "map and mrr")})):
        content = {**NEW, "scores": {"test": [{**V1, "map": value}]}}
        assert {(finding.severity, finding.rule) for finding in findings(write(tmp_path, content))} == found


def test_bare_nan_is_an_error_too(tmp_path: Path) -> None:
    path = tmp_path / "CMedQAv1-reranking.json"
    path.write_text('{"scores": {"test": [{"map": NaN, "mrr": -Infinity}]}}', encoding="utf-8")
    assert [finding.rule for finding in findings(path)] == ["range", "range"]


def test_a_main_score_that_is_not_map_and_a_name_of_the_other_protocol_are_warnings(tmp_path: Path) -> None:
    other = {**NEW, "scores": {"test": [{**V1, "main_score": V1["mrr"]}]}}
    (main,) = findings(write(tmp_path, other))
    assert (main.severity, main.rule) == ("warning", "protocol")
    assert "it is mrr" in main.evidence
    found = findings(write(tmp_path, {**NEW, "mteb_version": "2.6.7"}))
    assert {(finding.severity, finding.rule) for finding in found} == {("warning", "protocol")}
    assert {finding.what for finding in found} == {
        "map of CMedQAv1 stands in a result of mteb-v2",
        "mrr of CMedQAv1 stands in a result of mteb-v2",
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not valid JSON"),
        ("[1]", "holds no JSON object"),
        ("[" * 100_000, "not valid JSON"),
        ("{}", "holds no figures of reranking"),
        ('{"scores": {"test": [{"accuracy": 0.5}]}}', "holds no figures of reranking"),
        ('{"scores": {"test": [{"main_score": 0.5}]}}', "holds no figures of reranking"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(EvalkitError, match=said):
        read_figures(path)


def test_what_mteb_itself_computes_is_clean(tmp_path: Path) -> None:
    from mteb._evaluators.retrieval_metrics import calculate_retrieval_scores, make_score_dict

    generator = np.random.default_rng(7)
    qrels = {f"q{number}": {f"d{place}": 1 for place in range(2 if number < 7 else 1)} for number in range(100)}
    run = {
        query_id: {f"d{place}": float(generator.normal() + 1.5 * (f"d{place}" in relevant)) for place in range(60)}
        for query_id, relevant in qrels.items()
    }
    scores = calculate_retrieval_scores(run, qrels, [1, 3, 5, 10, 20, 100, 1000])
    metrics = make_score_dict(
        ndcg=scores.ndcg,
        _map=scores.map,
        recall=scores.recall,
        precision=scores.precision,
        mrr=scores.mrr,
        naucs=scores.naucs,
        naucs_mrr=scores.naucs_mrr,
        hit_rate=scores.hit_rate,
        task_scores={},
    )
    for decimals in (17, 6):
        block = {name: round(float(value), decimals) for name, value in metrics.items()}
        block["main_score"] = block["map_at_1000"]
        content = {"task_name": "MMarcoReranking", "mteb_version": "2.26.24", "scores": {"dev": [block]}}
        (report,) = audit_files([write(tmp_path, content, "MMarcoReranking.json")])
        assert report.findings == ()
        tested = coverage(report.figures)
        assert tested.off_lattice == 0
        assert tested.on_lattice["mteb-v2"] >= 3  # at cutoffs of 3 to 10, and at 20 with all digits
