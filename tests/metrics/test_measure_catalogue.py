"""The catalogue of measures: notation, names, and values against ir_measures'."""

from __future__ import annotations

import ir_measures
import numpy as np
import pytest

from evalkit.errors import EvalkitError
from evalkit.metrics import PROTOCOLS, Measure, find_measure, read_measures, score_run
from evalkit.metrics.measures import (
    METRICS,
    TREC_EVAL,
    all_measures,
    asked_measures,
    is_measure,
    leading_like,
    leading_with,
    protocol_of,
    same_measures,
)

NOTATIONS = (
    *(
        "AP",
        "AP@5",
        "AP(rel=2)",
        "AP(rel=3)@10",
        "nDCG@3",
        "nDCG@20",
        "nDCG",
        "RR",
        "RR@10",
        "RR(rel=2)",
        "RR(rel=3)@5",
    ),
    *("P@5", "P(rel=2)@10", "R@5", "R(rel=2)@10", "Success@1", "Success(rel=2)@5"),
)


def graded_run(seed: int) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, int]]]:
    """Queries with grades 0 to 3, missed documents, queries without relevant ones, and no ties."""
    generator = np.random.default_rng(seed)
    run, qrels = {}, {}
    for number in range(30):
        n = int(generator.integers(1, 40))
        doc_ids = [f"d{i}" for i in range(n)]
        run[f"q{number}"] = dict(zip(doc_ids, generator.permutation(n).astype(float).tolist(), strict=True))
        grades = generator.integers(0, 4, size=n + 3) * (generator.random(n + 3) < 0.4)
        qrels[f"q{number}"] = dict(zip([*doc_ids, "m0", "m1", "m2"], grades.tolist(), strict=True))
    return run, qrels


@pytest.mark.parametrize("seed", range(5))
def test_values_are_ir_measures_s(seed: int) -> None:
    run, qrels = graded_run(seed)
    found = score_run(run, qrels, protocol="mteb-v2", measures=NOTATIONS)
    table = found.queries.set_index("query_id")
    theirs = {name: ir_measures.parse_measure(name) for name in NOTATIONS}
    checked = 0
    for metric in ir_measures.iter_calc(list(theirs.values()), qrels, run):
        name = next(name for name, measure in theirs.items() if measure == metric.measure)
        assert table.loc[metric.query_id, name] == pytest.approx(metric.value, abs=1e-12), (name, metric.query_id)
        checked += 1
    assert checked >= len(NOTATIONS) * len(run)
    for name in NOTATIONS:
        assert found.scores[name] == pytest.approx(table[name].mean(), abs=1e-12)
        assert found.intervals[name][0] <= found.scores[name] <= found.intervals[name][1]


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("nDCG@20", "nDCG@20"),
        ("ndcg@20", "nDCG@20"),
        ("MAP", "AP"),
        ("map(rel = 2)", "AP(rel=2)"),
        (" MRR@10 ", "RR@10"),
        ("recall@5", "R@5"),
        ("AP(rel=1)", "AP"),
        ("Success@3", "Success@3"),
    ],
)
def test_notation_has_one_name(written: str, name: str) -> None:
    (measure,) = read_measures([written])
    assert measure.name == measure.column == name
    assert read_measures(measure.name) == (measure,)


@pytest.mark.parametrize(
    ("written", "part"),
    [
        ("nDCG@0", "a rank from 1"),
        ("nDCG@-1", "no metric"),
        ("nDCG@9999999999", "a rank from 1"),
        ("AP(rel=0)", "from 1 on"),
        ("AP(rel=two)", "from 1 on"),
        ("AP(rel=)", "from 1 on"),
        ("AP(dcg=2)", "only parameter is rel"),
        ("AP(rel=2", "no metric"),
        ("P", "write P@10"),
        ("nDCC@10", "did you mean"),
        ("", "no metric"),
        ("ERR@10", "no metric"),
        ("AP@10@20", "no metric"),
    ],
)
def test_what_is_no_measure_is_refused_by_name(written: str, part: str) -> None:
    with pytest.raises(EvalkitError, match=part.replace("(", r"\(")):
        read_measures([written])


def test_each_is_taken_once_in_the_order_given() -> None:
    assert [one.name for one in read_measures(["RR@10", "nDCG@20", "mrr@10"])] == ["RR@10", "nDCG@20"]
    assert read_measures([]) == ()


def test_results_names_are_found() -> None:
    for protocol in PROTOCOLS.values():
        for measure in protocol.measures:
            assert find_measure(measure.name) is measure
            # mteb-retrieval leads with another of mteb-v2's measures
            assert protocol_of(measure.name) == {"mteb-retrieval": "mteb-v2"}.get(protocol.name, protocol.name)
        assert protocol.main_score == protocol.leading[0].name
    assert find_measure("ndcg_at_7").cutoff == 7
    assert not is_measure("languages")
    assert not is_measure("main_score")
    assert find_measure("map").title == "MAP"
    assert find_measure("mrr").title == "MRR"
    assert find_measure("mrr_at_10").title == "MRR@10"
    assert find_measure("hit_rate_at_1").title == "hit rate@1"
    assert find_measure("AP(rel=2)@20").title == "AP(rel=2)@20"


def test_counterparts() -> None:
    assert leading_like("map", "mteb-v2") == "map_at_1000"
    assert leading_like("mrr_at_10", "cmteb-v1") == "mrr"
    assert leading_like("ndcg_at_10", "cmteb-v1") == "ndcg_at_10"
    assert leading_like("map", "unheard of") == "map"
    assert leading_with("MAP") == ("map", "map_at_1000")
    names = [measure.name for measure in all_measures()]
    assert [one.name for one in same_measures(find_measure("nDCG@10"), names)] == ["ndcg_at_10"]
    assert same_measures(find_measure("nDCG@7"), names) == ()
    assert same_measures(find_measure("AP"), names) == ()
    assert same_measures(find_measure("RR@10"), names) == ()  # mteb's tells ties in float64
    assert protocol_of("nDCG@20") == "trec_eval"
    assert [one.name for one in asked_measures([*names, "nDCG@20", "languages"])] == ["nDCG@20"]


def test_one_name_means_one_measure() -> None:
    """A protocol that gives a name of another's to something else is refused, not mixed up."""
    other = find_measure("nDCG@20")
    twin = type(other)("map", other.metric, other.rules, other.cutoff)
    with pytest.raises(ValueError, match="two measures are called map"):
        all_measures([twin])


def test_no_word_means_two_metrics() -> None:
    owners: dict[str, str] = {}
    for metric in METRICS.values():
        for word in (metric.notation, metric.name, metric.title):
            assert owners.setdefault(word.casefold(), metric.name) == metric.name


def test_a_protocol_s_measure_and_the_same_asked_for_are_one() -> None:
    """So that a protocol may report measures under the field's own names."""
    made = Measure("nDCG@10", METRICS["ndcg"], TREC_EVAL, 10)
    assert read_measures("nDCG@10") == (made,)
    assert made.title == "nDCG@10"
    assert all_measures([made, *read_measures("nDCG@10")])[-1] == made
    assert read_measures(None) == ()
    assert read_measures(["map", "MAP"])[0] is PROTOCOLS["cmteb-v1"].leading[0]
