"""Cards: as published they are clean; what is changed is told, and what it can be told from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_cards import BASE, LARGE, published_metrics, write_card

from evalkit.audit.command import audit_files
from evalkit.audit.figures import AuditedFigures, AuditFinding, Registry
from evalkit.audit.readers import read_figures
from evalkit.audit.rules.lattice import lattice_state, other_cutoff
from evalkit.results.published import all_figures

QUERIES = {"T2Reranking": 5908, "MMarcoReranking": 100, "CMedQAv1": 1000, "CMedQAv2": 1000}


def findings(*paths: Path, model: str = "") -> list[AuditFinding]:
    return [finding for report in audit_files(paths, model) for finding in report.findings]


def kinds(*paths: Path, model: str = "") -> set[tuple[str, str]]:
    return {(finding.severity, finding.rule) for finding in findings(*paths, model=model)}


def mean_reciprocal_rank(queries: int, cutoff: int, *, seed: int, hit_rate: float = 0.55) -> float:
    """The metric in percent for ranks drawn at random, computed as C-MTEB's script does."""
    ranks = np.random.default_rng(seed).geometric(hit_rate, queries)
    return float(np.mean(np.where(ranks <= cutoff, 1 / ranks, 0.0))) * 100


def test_the_card_as_published_is_clean(tmp_path: Path) -> None:
    assert findings(write_card(tmp_path, published_metrics())) == []
    assert findings(write_card(tmp_path / "BAAI/bge-reranker-base", published_metrics(), name="another name")) == []


@pytest.mark.parametrize(
    ("key", "value"), [(("CMedQAv1", "mrr"), 84.14238195238095), (("T2Reranking", "mrr"), 77.1315192744764)]
)
def test_a_changed_digit_of_an_mrr_is_off_the_lattice_whoevers_it_is(
    tmp_path: Path, key: tuple[str, str], value: float
) -> None:
    path = write_card(tmp_path, {**published_metrics(), key: value}, name="nobody-published-this")
    errors = [finding for finding in findings(path, model="nobody/this") if finding.rule == "lattice"]
    assert len(errors) == 1
    assert errors[0].severity == "error"
    assert f"({key[0]} {key[1]})" in errors[0].place
    assert repr(value) in errors[0].evidence


@pytest.mark.parametrize("value", [81.27206722526007, 81.37206722525007, 71.27206722525007])
def test_a_changed_digit_of_a_map_is_told_from_what_was_published(tmp_path: Path, value: float) -> None:
    path = write_card(tmp_path, {**published_metrics(), ("CMedQAv1", "map"): value})
    (changed,) = [finding for finding in findings(path) if finding.rule == "changed"]
    assert changed.severity == "error"
    assert f"{value!r} here; the nearest published is 81.2" in changed.evidence


def test_a_mean_over_another_number_of_queries_is_off_the_lattice_and_the_number_is_named(tmp_path: Path) -> None:
    for queries in (999, 1001, 990):
        metrics = {**published_metrics(), ("CMedQAv1", "mrr"): mean_reciprocal_rank(queries, 10, seed=queries)}
        (off,) = [finding for finding in findings(write_card(tmp_path, metrics)) if finding.rule == "lattice"]
        assert f"it fits {queries:,} queries" in off.evidence


def test_mrr_at_20_is_an_error_and_the_cutoff_a_warning(tmp_path: Path) -> None:
    for task, queries in QUERIES.items():
        metrics = {**published_metrics(), (task, "mrr"): mean_reciprocal_rank(queries, 20, seed=1, hit_rate=0.2)}
        found = findings(write_card(tmp_path, metrics))
        assert ("error", "lattice") in {(finding.severity, finding.rule) for finding in found}
        (cutoff,) = [finding for finding in found if finding.rule == "cutoff"]
        assert cutoff.severity == "warning"
        assert cutoff.what == f"mrr of {task} may be cut at 20, not at 10"


def test_mrr_at_5_is_a_warning_with_its_chance(tmp_path: Path) -> None:
    for task, queries in QUERIES.items():
        metrics = {**published_metrics(), (task, "mrr"): mean_reciprocal_rank(queries, 5, seed=2)}
        (cutoff,) = [finding for finding in findings(write_card(tmp_path, metrics)) if finding.rule == "cutoff"]
        assert cutoff.severity == "warning"
        assert "chance that so many MRR@10 are is about 0.0" in cutoff.evidence
    new = published_metrics() | {
        (task, "mrr"): mean_reciprocal_rank(queries, 5, seed=3) for task, queries in QUERIES.items()
    }
    (cutoff,) = [finding for finding in findings(write_card(tmp_path, new)) if finding.rule == "cutoff"]
    assert cutoff.what == "4 of 4 MRRs may be cut at 5, not at 10"


def test_mrr_at_5_is_told_of_rounded_figures_too_where_several_hint_at_it(tmp_path: Path) -> None:
    new = published_metrics() | {
        (task, "mrr"): round(mean_reciprocal_rank(queries, 5, seed=19 + queries + ord(task[-1])), 4)
        for task, queries in QUERIES.items()
    }
    (cutoff,) = [finding for finding in findings(write_card(tmp_path, new)) if finding.rule == "cutoff"]
    assert cutoff.what == "4 of 4 MRRs may be cut at 5, not at 10"
    tested = audit_files([write_card(tmp_path, new)])[0].figures
    assert [lattice_state(figure) for figure in tested if figure.metric == "mrr"].count("rounded too far") == 3


def test_honest_cards_are_seldom_taken_for_mrr_at_5(tmp_path: Path) -> None:
    card = read_figures(write_card(tmp_path, published_metrics(), name="mine"), model="me/mine").figures
    warned = 0
    for seed in range(400):
        new = {
            task: mean_reciprocal_rank(queries, 10, seed=1000 + seed, hit_rate=0.35)
            for task, queries in QUERIES.items()
        }
        figures = tuple(
            replace(figure, value=new[figure.task] / 100, printed=repr(new[figure.task]))
            for figure in card
            if figure.metric == "mrr"
        )
        warned += bool(list(other_cutoff(AuditedFigures(figures, Registry()))))
    assert 10 < warned < 64  # the stated chance is at most 10 % a card: 40, and four deviations


@pytest.mark.parametrize(
    "folder", ["bge-reranker-large", "BAAI__bge-reranker-large", "models--BAAI--bge-reranker-large"]
)
def test_the_card_of_large_that_repeats_base_is_an_error_name_included(tmp_path: Path, folder: str) -> None:
    path = write_card(tmp_path / folder, published_metrics(), name="bge-reranker-base")
    (copy,) = findings(path)
    assert (copy.severity, copy.rule) == ("error", "copy")
    assert copy.what == f"{LARGE} has the figures of {BASE}"
    assert "8 in common" in copy.evidence


def test_a_copied_card_is_noticed_by_the_name_it_gives_itself_and_by_the_option(tmp_path: Path) -> None:
    by_itself = write_card(tmp_path / "a", published_metrics(), name="bge-reranker-large")
    assert kinds(by_itself) == {("error", "copy")}
    assert kinds(write_card(tmp_path / "b", published_metrics()), model=LARGE) == {("error", "copy")}


def test_one_copied_figure_is_enough_at_full_precision_but_not_rounded(tmp_path: Path) -> None:
    one = {("CMedQAv1", "map"): 81.27206722525007}
    assert kinds(write_card(tmp_path, one), model="new/model") == {("error", "copy")}
    assert kinds(write_card(tmp_path, {("CMedQAv1", "map"): 81.27}), model="new/model") == set()
    rounded = {key: round(float(str(value)), 2) for key, value in published_metrics().items()}
    assert kinds(write_card(tmp_path, rounded), model="new/model") == {("error", "copy")}


@pytest.mark.parametrize(
    "metrics",
    [
        {("MMarcoReranking", "mrr"): 34.60238095238095},  # one of some 25,000 values that models have there
        {("CMedQAv1", "map"): 81.27, ("CMedQAv2", "map"): 84.1},
    ],
)
def test_what_two_models_may_share_by_chance_is_not_told(
    tmp_path: Path, metrics: dict[tuple[str, str], object]
) -> None:
    assert kinds(write_card(tmp_path, metrics), model="new/model") == set()


def test_a_mirror_of_a_model_is_a_note(tmp_path: Path) -> None:
    path = write_card(tmp_path, published_metrics())
    assert kinds(path, model="somebody/bge-reranker-base") == {("note", "copy")}


def test_two_new_cards_with_the_same_figures_are_compared_with_each_other(tmp_path: Path) -> None:
    mine = {("CMedQAv1", "map"): 80.123456789012, ("CMedQAv2", "map"): 82.987654321098}
    one, two = (write_card(tmp_path / f"me__{name}", mine, name=name) for name in ("one", "two"))
    assert kinds(one) == set()
    found = findings(one, two)
    assert [(finding.severity, finding.file) for finding in found] == [("error", str(one)), ("error", str(two))]
    assert found[0].what == "me/one has the figures of me/two"


def test_a_fraction_among_percentages_and_what_is_no_metric_are_errors(tmp_path: Path) -> None:
    for value in (0.8127, -3.0, 812.7, float("nan"), float("inf"), "soon", None, [1], True, 10**400):
        path = write_card(tmp_path, {**published_metrics(), ("CMedQAv1", "map"): value}, name="mine")
        errors = [finding for finding in findings(path, model="me/mine") if finding.rule == "range"]
        assert len(errors) == 1, value
        assert errors[0].severity == "error"


def test_a_card_in_fractions_is_read_as_such(tmp_path: Path) -> None:
    fractions = {
        (figure.task, figure.metric): figure.value
        for figure in all_figures()
        if figure.model == BASE and figure.source == "model-index"
    }
    assert findings(write_card(tmp_path, fractions)) == []
    (percentage,) = [
        finding
        for finding in findings(write_card(tmp_path, {**fractions, ("CMedQAv1", "map"): 81.3}))
        if finding.rule == "range"
    ]
    assert "looks like a percentage" in percentage.why


@pytest.mark.parametrize(
    ("metrics", "found"),
    [
        ({("T2Reranking", "map"): 51.07, ("T2Reranking", "mrr"): 58.36}, {("error", "fingerprint")}),
        ({("T2Reranking", "map"): 51.0704321, ("T2Reranking", "mrr"): 58.3561}, {("error", "fingerprint")}),
        ({("T2Reranking", "map"): 51.07, ("T2Reranking", "mrr"): 58.5}, {("warning", "fingerprint")}),
        ({("T2Reranking", "map"): 51.08, ("T2Reranking", "mrr"): 58.37}, set()),
        (
            {("MMarcoReranking", "map"): 0.6, ("T2Reranking", "map"): 60.0},
            {("error", "fingerprint"), ("warning", "range")},
        ),
        ({("MMarcoReranking", "map"): 6.0}, set()),
    ],
)
def test_fingerprints_of_known_mistakes(
    tmp_path: Path, metrics: dict[tuple[str, str], object], found: set[tuple[str, str]]
) -> None:
    assert kinds(write_card(tmp_path, metrics, name="mine"), model="me/mine") == found


def test_mteb_2s_figure_under_cmtebs_name_is_a_warning_where_both_are_known(tmp_path: Path) -> None:
    small = "intfloat/multilingual-e5-small"
    as_v1 = write_card(tmp_path / "a", {("CMedQAv1", "map"): 64.683, ("CMedQAv1", "mrr"): 69.8046}, name="x")
    assert kinds(as_v1, model=small) == {("warning", "protocol")}
    as_v2 = {("CMedQAv1", "map_at_1000"): 64.683, ("CMedQAv1", "mrr_at_10"): 69.8046}
    assert kinds(write_card(tmp_path / "b", as_v2, name="x"), model=small) == set()
    v1_as_v2 = {("CMedQAv1", "map_at_1000"): 64.68555921308085}
    assert kinds(write_card(tmp_path / "c", v1_as_v2, name="x"), model=small) == {("warning", "protocol")}
