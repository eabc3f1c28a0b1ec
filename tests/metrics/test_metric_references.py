"""10,000 random queries, with and without ties, against the reference libraries themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import sklearn
from oracles.metric_references import (
    CUTOFFS,
    TREC_NAMES,
    cmteb_v1_values,
    mteb_v2_reciprocal_ranks,
    mteb_v2_scores,
)

from evalkit.metrics import find_protocol, lists_of_run, score_lists, score_run
from evalkit.records import QueryScores

N_QUERIES = 10_000


def random_scores(generator: np.random.Generator, kind: int, n: int) -> np.ndarray:
    scores = generator.normal(size=n)
    if kind == 0:  # a model's float32
        return scores.astype(np.float32).astype(np.float64)
    if kind == 1:  # many ties
        return np.round(scores, 1)
    if kind == 2:  # distinct in float64, tied or out of order in float32
        return 0.7 + 1e-9 * np.round(scores * 30)
    if kind == 3:  # a constant scorer
        return np.full(n, scores[0])
    return 1 / (1 + np.exp(-20 * scores.astype(np.float32))).astype(np.float64)  # saturated


@dataclass
class Data:
    run: dict[str, dict[str, float]]
    qrels: dict[str, dict[str, int]]

    @property
    def retrieved_qrels(self) -> dict[str, dict[str, int]]:
        """The qrels without relevant documents that the run lacks, which cmteb-v1 refuses."""
        return {
            query_id: {doc_id: gain for doc_id, gain in gains.items() if doc_id in self.run[query_id]}
            for query_id, gains in self.qrels.items()
        }


@pytest.fixture(scope="module")
def data() -> Data:
    generator = np.random.default_rng(2024)
    lengths = np.exp(generator.uniform(0, np.log(200), size=N_QUERIES)).astype(int)
    lengths[:60] = np.repeat([1, 2, 11, 100, 101, 998, 999, 1000, 1001, 1002, 1002, 0], 5)
    run, qrels = {}, {}
    for number, n in enumerate(lengths):
        names = [f"文{i}" if number % 2 else f"d-{i:04d}" for i in generator.permutation(n)]
        kind = number % 5
        run[f"q{number}"] = dict(zip(names, random_scores(generator, kind, max(n, 1))[:n].tolist(), strict=True))
        share = generator.choice([0.0, 0.05, 0.3, 1.0], p=[0.1, 0.45, 0.4, 0.05])
        gains = (generator.random(n) < share) * generator.integers(1, 4, size=n)
        judged = generator.random(n) < 0.9
        missed = {f"missed{i}": int(i % 3) for i in range(generator.integers(0, 4))}
        graded = {name: int(gain) for name, gain, known in zip(names, gains, judged, strict=True) if known}
        qrels[f"q{number}"] = graded | missed or {"absent": 0}
    return Data(run, qrels)


@pytest.fixture(scope="module")
def cmteb_reference(data: Data) -> dict[str, tuple[float, float] | None]:
    qrels = data.retrieved_qrels
    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):  # for speed alone
        return {query_id: cmteb_v1_values(scores, qrels[query_id]) for query_id, scores in data.run.items()}


@pytest.fixture(scope="module")
def mteb_v2(data: Data) -> QueryScores:
    protocol = find_protocol("mteb-v2")
    return score_lists(lists_of_run(data.run, data.qrels, protocol), protocol.measures)


@pytest.fixture(scope="module")
def mteb_reference(data: Data) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    return mteb_v2_scores(data.run, data.qrels)


def test_the_data_has_what_matters(data: Data) -> None:
    lengths = {len(documents) for documents in data.run.values()}
    assert {0, 1, 2, 1000, 1001, 1002} <= lengths
    assert any(not any(gain > 0 for gain in gains.values()) for gains in data.qrels.values())
    float64_ties = sum(len(set(docs.values())) < len(docs) for docs in data.run.values())
    float32_ties = sum(len(set(map(np.float32, docs.values()))) < len(docs) for docs in list(data.run.values())[2::5])
    assert float64_ties > 3000
    assert float32_ties > 1000


def test_cmteb_v1_equals_scikit_learn_and_numpy(data: Data, cmteb_reference) -> None:
    qrels = data.retrieved_qrels
    protocol = find_protocol("cmteb-v1")
    result = score_lists(lists_of_run(data.run, qrels, protocol), protocol.measures)
    assert result.query_ids == tuple(query_id for query_id in data.run if qrels[query_id])
    assert all(cmteb_reference[query_id] is None for query_id in data.run if not qrels[query_id])
    expected = [cmteb_reference[query_id] or (np.nan, np.nan) for query_id in result.query_ids]
    got = np.column_stack([result.values["map"], result.values["mrr"]])
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
    assert np.isnan(got[:, 0]).sum() > 1000
    np.testing.assert_allclose(
        [result.means["map"], result.means["mrr"]], np.nanmean(expected, axis=0), rtol=0, atol=1e-12
    )


def test_mteb_v2_equals_pytrec_eval_per_query(mteb_v2: QueryScores, mteb_reference) -> None:
    _, per_query = mteb_reference
    assert mteb_v2.query_ids == tuple(per_query)
    for name, trec_name in TREC_NAMES.items():
        for k in CUTOFFS:
            expected = [values[f"{trec_name}_{k}"] for values in per_query.values()]
            np.testing.assert_allclose(
                mteb_v2.values[f"{name}_at_{k}"], expected, rtol=0, atol=1e-12, err_msg=f"{name} {k}"
            )


def test_mteb_v2_equals_mtebs_reciprocal_ranks_per_query(data: Data, mteb_v2: QueryScores) -> None:
    for name, expected in mteb_v2_reciprocal_ranks(data.run, data.qrels).items():
        np.testing.assert_array_equal(mteb_v2.values[name], expected, err_msg=name)


def test_mteb_v2_means_equal_mtebs_as_it_rounds_them(mteb_v2: QueryScores, mteb_reference) -> None:
    means, _ = mteb_reference
    assert dict(mteb_v2.means) == means


def test_the_two_protocols_agree_without_ties(data: Data, cmteb_reference) -> None:
    qrels = data.retrieved_qrels
    untied = {
        query_id: scores
        for query_id, scores in list(data.run.items())[::5]
        if len(scores) <= 1000 and cmteb_reference[query_id]
    }
    first, second = (score_run(untied, {q: qrels[q] for q in untied}, protocol=p) for p in ("cmteb-v1", "mteb-v2"))
    assert first.scores["map"] == pytest.approx(second.scores["map_at_1000"], abs=6e-6)
    assert first.scores["mrr"] == pytest.approx(second.scores["mrr_at_10"], abs=1e-12)


def test_every_range_holds_what_it_must(data: Data, mteb_v2: QueryScores) -> None:
    for name, (expected, low, high) in mteb_v2.tie_values.items():
        assert np.all(low <= expected), name
        assert np.all(expected <= high), name
        assert np.all(low <= mteb_v2.values[name]), name
        assert np.all(mteb_v2.values[name] <= high), name
        ties = mteb_v2.ties[name]
        assert ties.low <= mteb_v2.means[name] <= ties.high
        assert ties.low <= ties.expected <= ties.high
