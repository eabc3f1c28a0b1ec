"""What a page is made of: which queries and candidates, distributions, the Pareto front, rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import altair
import jsonschema
import numpy as np
import pandas as pd
import pytest
from command import run_here
from made_pages import HOSTILE, LONG, describe, hostile_task, scores_of
from made_results import change_json, change_table, noisy_scores, ranking_task, write_scores
from made_tasks import make_task
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

from evalkit.compare.pairs import compare_pairs
from evalkit.compare.shared_queries import group_by_task, shared_queries
from evalkit.report.content import Report, ReportChoices
from evalkit.report.html.charts import chart_config, chart_specs, speed_domains
from evalkit.report.html.page import counts
from evalkit.report.html.rows import BoardRows, board_rows, rate_text, size_text
from evalkit.report.html.systems import pareto_front, system_facts
from evalkit.report.html.tasks import (
    BINS,
    SHOWN,
    TEXT_LENGTH,
    cut_text,
    query_details,
    score_distribution,
    task_data,
    worst_queries,
)
from evalkit.results.published import preferred
from evalkit.results.reading import read_results

CHOICES = ReportChoices(metric=None, alpha=0.05, seed=42, slices=())


def report_of(folder: Path, choices: ReportChoices = CHOICES) -> Report:
    return Report(tuple(read_results([folder])), choices)


def rows_of(folder: Path) -> list[BoardRows]:
    report = report_of(folder)
    groups = group_by_task(report.results)
    return board_rows(report, groups, system_facts(report, groups))


def test_worst_queries_are_taken_in_turn_from_each_system() -> None:
    values = np.array([[0.1, 0.9], [0.2, 0.5], [0.9, 0.1], [0.5, 0.6], [0.3, 0.2]])
    assert worst_queries(values, 10) == [0, 2, 1, 4, 3]
    assert worst_queries(values, 3) == [0, 2, 1]
    assert worst_queries(values, 0) == []
    # the first's worst, the second's worst, the first's second worst; the second's is 4
    assert worst_queries(values[:, :1], 2) == [0, 1]


def test_details_hold_every_system_s_first_candidates_and_all_relevant_ones(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    gains = np.zeros(200, int)
    gains[[0, 1, 199]] = 1
    task = make_task(
        *[([f"q{n}"], [(f"text {n} {place}", int(gain)) for place, gain in enumerate(gains)]) for n in range(3)]
    )
    scores = [generator.integers(0, 40, size=(3, 200)).astype(np.float32) for _ in range(2)]
    for name, own in zip("ab", scores, strict=True):
        write_scores(tmp_path, task, own, name)
    shared = shared_queries(group_by_task(read_results([tmp_path]))[0])
    details = query_details(shared, 2, with_texts=True)
    assert [detail.query for detail in details] == worst_queries(shared.values, 2)
    for detail in details:
        rows = [own[detail.query] for own in scores]
        first = {
            int(place) for row in rows for place in sorted(range(200), key=lambda place: (-row[place], place))[:SHOWN]
        }
        assert list(detail.places) == sorted(first | {0, 1, 199})
        assert detail.n_candidates == 200
        assert detail.texts == ()
        assert detail.truncated == (None, None)
        for system, row in enumerate(rows):
            expected = rankdata(-row, method="min")[list(detail.places)]
            assert list(detail.ranks[system]) == expected.astype(int).tolist()
            shares = [number for number, place in enumerate(detail.places) if (row == row[place]).sum() > 1]
            assert list(detail.tied[system]) == shares
            assert list(detail.scores[system]) == row[list(detail.places)].tolist()


def test_details_show_texts_and_what_was_cut_whatever_the_order_of_the_queries(tmp_path: Path) -> None:
    task = hostile_task("made")
    path = write_scores(tmp_path, task, scores_of(task, 1.0, 1), "a")
    write_scores(tmp_path, task, scores_of(task, 1.0, 2), "b", texts=True)
    change_table(path, lambda table: table.assign(tokens=3, truncated=np.arange(len(table)) % 3 == 0), "run")
    change_table(path, lambda table: table.iloc[::-1].reset_index(drop=True))
    change_table(
        path, lambda table: pd.concat([part for _, part in table.groupby("query_id", sort=False)][::-1]), "run"
    )
    first, second = group_by_task(read_results([tmp_path]))[0].results
    assert first.queries["query_id"].tolist() == second.queries["query_id"].tolist()[::-1]
    shared = shared_queries(group_by_task([first, second])[0])
    for detail in query_details(shared, 5, with_texts=True):
        request = next(one for one in task.requests if one.query.query_id == shared.query_ids[detail.query])
        assert detail.doc_ids == tuple(candidate.doc_id for candidate in request.candidates)
        assert detail.texts == tuple(cut_text(candidate.text) for candidate in request.candidates)
        assert detail.lengths == {
            n: len(LONG) for n, candidate in enumerate(request.candidates) if candidate.text == LONG
        }
        flags = first.candidates.set_index("doc_id")["truncated"]
        assert detail.truncated[0] == tuple(n for n, doc_id in enumerate(detail.doc_ids) if flags[doc_id])
        assert detail.truncated[1] is None
    assert all(detail.texts == () for detail in query_details(shared, 5, with_texts=False))


def test_texts_are_cut_to_their_beginning() -> None:
    assert len(cut_text(LONG)) == TEXT_LENGTH + 1
    assert cut_text("a \n b" + "c" * 500).startswith("a b")
    assert cut_text("c" * 500).endswith("c…")
    assert cut_text("c" * TEXT_LENGTH) == "c" * TEXT_LENGTH


@pytest.mark.parametrize(("column", "what"), [("doc_id", "candidates"), ("label", "labels")])
def test_results_with_other_candidates_are_left_out(tmp_path: Path, column: str, what: str) -> None:
    task = ranking_task(4)
    write_scores(tmp_path, task, noisy_scores(task, 1), "a")
    path = write_scores(tmp_path, task, noisy_scores(task, 2), "b")
    change_table(
        path,
        lambda table: table.assign(**{column: table[column].iloc[[1, 2, 0, *range(3, len(table))]].to_numpy()}),
        "run",
    )
    done = run_here("report", str(tmp_path), "--format", "html", "-o", str(tmp_path / "page.html"))
    assert done.code == 0
    assert done.stderr.startswith("left out: ")
    assert f"different {what} for query q0" in done.stderr
    assert "run one of the evaluations again" in done.stderr
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert f"different {what} for query q0" in page
    assert '"systems":[{"label":"a"' in page
    assert '"label":"b"' not in page


def test_distribution_counts_shares_and_separation() -> None:
    generator = np.random.default_rng(5)
    gains = generator.integers(0, 2, 3000)
    scores = np.round(generator.normal(size=3000) + gains, 1).astype(np.float32)
    found = score_distribution(scores, gains)
    assert found.separation == pytest.approx(roc_auc_score(gains, scores), abs=1e-12)
    assert len(found.relevant) == len(found.irrelevant) == BINS
    assert sum(found.relevant) == pytest.approx(1)
    assert sum(found.irrelevant) == pytest.approx(1)
    width = (found.high - found.low) / BINS
    bins = np.clip(((scores.astype(float) - found.low) / width).astype(int), 0, BINS - 1)
    middle = slice(1, BINS - 1)
    counts = np.bincount(bins[gains > 0], minlength=BINS) / (gains > 0).sum()
    assert found.relevant[middle] == pytest.approx(counts[middle], abs=2 / 1500)


def test_distribution_of_constant_scores_and_of_one_label() -> None:
    found = score_distribution(np.full(6, 2.5, np.float32), np.array([1, 1, 0, 0, 0, 0]))
    assert (found.low, found.high, found.separation) == (2.0, 3.0, 0.5)
    assert max(found.relevant) == max(found.irrelevant) == 1.0
    alone = score_distribution(np.array([1.0, 2.0]), np.array([1, 1]))
    assert alone.separation is None
    assert set(alone.irrelevant) == {0.0}


def test_pareto_front() -> None:
    points = [(0.9, 10.0), (0.8, 20.0), (0.8, 15.0), (0.7, 20.0), (0.5, 99.0), (0.9, 10.0), (0.1, 1.0)]
    assert pareto_front(points) == [True, True, False, False, True, True, False]


def test_rows_say_what_was_published_and_how_far_off_it_is(tmp_path: Path) -> None:
    task = hostile_task("T2Reranking")
    path = write_scores(tmp_path, task, scores_of(task, 1.0, 1), "bge-reranker-base")
    change_json(path, lambda content: content["evalkit"]["model"].update(hub_id="BAAI/bge-reranker-base"))
    describe(path, "cross-encoder", 278.0, 12.34)
    figure = preferred("BAAI/bge-reranker-base", "T2Reranking", "map", "cmteb-v1")
    assert figure is not None
    (row,) = rows_of(tmp_path)[0].rows
    value = read_results([tmp_path])[0].scores["map"]
    assert row.difference == pytest.approx((value - figure.value) * 100)
    assert row.shown["published"] == f"{figure.value * 100:.2f}"
    assert row.shown["origin"] == "card"
    assert (row.shown["size"], row.shown["rate"], row.facts.kind) == ("278 M", "12.3", "cross-encoder")
    change_json(path, lambda content: content["evalkit"]["task"].update(differences=["half of it"]))
    assert rows_of(tmp_path)[0].rows[0].shown["difference"] == "n/a (other data)"
    change_json(path, lambda content: content["evalkit"]["task"].update(limit=24))
    assert rows_of(tmp_path)[0].rows[0].shown["difference"] == "n/a (limit)"
    assert rows_of(tmp_path)[0].name == "T2Reranking (limit 24)"


def test_ties_stand_beside_the_second_metric_too(tmp_path: Path) -> None:
    """Equal scores: the worst order has both relevant candidates last, at ranks 9 and 10."""
    for name in ("one", "two"):
        task = ranking_task(4, name)
        write_scores(tmp_path, task, np.zeros((4, 10), np.float32), "constant")
        write_scores(tmp_path, task, noisy_scores(task), "untied")
    for board in rows_of(tmp_path):
        shown = {row.facts.label: row.shown["second_ties"] for row in board.rows}
        assert shown == {"constant": "11.11–100.00", "untied": ""}
    page = run_here("report", str(tmp_path), "--format", "html").stdout
    assert page.count("<small>ties 11.11–100.00</small>") == 3


def test_a_task_and_its_queries_are_counted_once(tmp_path: Path) -> None:
    whole, other = hostile_task("one", 12), hostile_task("another", 5)
    part = replace(whole, requests=whole.requests[:3], fingerprint="f" * 64, limit=3)
    for folder, task, protocol in (
        ("a", whole, "cmteb-v1"),
        ("b", whole, "mteb-v2"),
        ("c", part, "cmteb-v1"),
        ("d", other, "cmteb-v1"),
    ):
        write_scores(tmp_path / folder, task, scores_of(task, 1.0, 1), "model", protocol=protocol)
    tasks = [shared_queries(group) for group in group_by_task(read_results([tmp_path]))]
    assert [len(shared.query_ids) for shared in tasks] == [12, 12, 3, 5]
    assert counts(tasks).endswith(" · 2 tasks · 17 queries")
    assert counts(tasks[2:3]) == "1 system · 1 task · 3 queries"


def test_speed_of_an_average_is_all_pairs_over_all_seconds_and_models_alone_have_one(tmp_path: Path) -> None:
    tasks = [hostile_task("one", 10), hostile_task("three", 30)]
    for name, kind, rates in (
        ("a", "embedder", (10.0, 40.0)),
        ("b", "run", (10.0, 40.0)),
        ("c", "embedder", (10.0, None)),
    ):
        for task, rate in zip(tasks, rates, strict=True):
            describe(write_scores(tmp_path, task, scores_of(task, 1.0, 2), name), kind, None, rate)
    average = next(board for board in rows_of(tmp_path) if len(board.tasks) == 2)
    rates = {row.facts.label: row.rate for row in average.rows}
    assert rates == {"a": pytest.approx((120 + 360) / (12 + 9)), "b": None, "c": None}
    assert [row.facts.label for row, front in zip(average.rows, average.front, strict=True) if front] == ["a"]


@pytest.mark.parametrize(("rate", "text"), [(None, ""), (1234.5, "1,234"), (45.67, "45.7"), (0.0123, "0.0123")])
def test_rates_are_written_with_three_digits(rate: float | None, text: str) -> None:
    assert rate_text(rate) == text


@pytest.mark.parametrize(("millions", "text"), [(None, ""), (118.0, "118 M"), (999.9, "1 B"), (2510.0, "2.51 B")])
def test_sizes_are_written_in_millions_and_billions(millions: float | None, text: str) -> None:
    assert size_text(millions) == text


def test_pairs_are_those_of_compare(tmp_path: Path) -> None:
    task = ranking_task(30)
    for seed in range(3):
        write_scores(tmp_path, task, noisy_scores(task, seed), f"model-{seed}")
    report = report_of(tmp_path)
    (group,) = group_by_task(report.results)
    shared = shared_queries(group)
    data = task_data(report, shared, {system: number for number, system in enumerate(group.systems)})
    expected = compare_pairs(shared.values, seed=42, alpha=0.05)
    assert len(data["pairs"]) == len(expected) == 3
    for found, pair in zip(data["pairs"], expected, strict=True):
        assert (found["first"], found["second"]) == (pair.first, pair.second)
        assert (found["wins"], found["losses"], found["ties"]) == (pair.wins, pair.losses, pair.ties)
        assert found["difference"] == pytest.approx(pair.difference)
        assert (*found["interval"], found["p"]) == (*pair.interval, pair.adjusted_p)


@pytest.mark.parametrize("name", ["speed", "distribution", "differences"])
def test_charts_are_vega_lite(name: str) -> None:
    """By the schema of Vega-Lite, with which Altair checks what it reads."""
    spec = {**chart_specs()[name], "config": chart_config()}
    assert altair.Chart.from_dict(spec).to_dict(validate=True)
    with pytest.raises(jsonschema.ValidationError):
        altair.Chart.from_dict({**spec, "height": "no height"}).to_dict(validate=True)


def test_axes_of_speed_never_have_no_length() -> None:
    assert speed_domains([]) == {}
    assert speed_domains([(float("nan"), 3.0)]) == {}
    alone = speed_domains([(41.0, 353.330226305)])
    assert alone["x"] == pytest.approx((353.330226305 / 2**0.5, 353.330226305 * 2**0.5))
    assert alone["y"] == (40.5, 41.5)
    close = speed_domains([(41.0, 100.0), (41.001, 100.1)])
    assert close["x"][1] / close["x"][0] == pytest.approx(2)
    assert close["y"][1] - close["y"][0] == pytest.approx(1)
    apart = speed_domains([(60.0, 10.0), (35.0, 4000.0), (50.0, 300.0)])
    assert apart["x"] == pytest.approx((10.0, 4000.0))
    assert apart["y"] == (35.0, 60.0)


def test_hostile_texts_are_what_they_should_be() -> None:
    assert len(LONG) == 120_000
    assert len(set(HOSTILE)) == len(HOSTILE)
