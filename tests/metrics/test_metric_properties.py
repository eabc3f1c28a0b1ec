"""What must hold for any lists."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.metrics import CandidateLists, find_protocol, score_lists
from evalkit.metrics.lists import candidate_lists
from evalkit.records import QueryScores

BOTH = ("cmteb-v1", "mteb-v2")

candidates = st.tuples(st.integers(-4, 4), st.integers(0, 3))
queries = st.tuples(st.lists(candidates, max_size=12), st.lists(st.integers(1, 3), max_size=2))
# the first query is one that either protocol can score
some_queries = st.lists(queries, max_size=5).map(lambda drawn: [([(1, 1), (0, 0)], []), *drawn])


def lists_from(drawn: list, transform=float) -> CandidateLists:
    flat = [candidate for listed, _ in drawn for candidate in listed]
    return candidate_lists(
        query_ids=[f"q{i}" for i in range(len(drawn))],
        lengths=[len(listed) for listed, _ in drawn],
        doc_ids=[f"d{i:03d}" for listed, _ in drawn for i in range(len(listed))],
        scores=[transform(score) for score, _ in flat],
        gains=[gain for _, gain in flat],
        unretrieved_gains=[tuple(missed) for _, missed in drawn],
    )


def scored(drawn: list, protocol: str, transform=float) -> QueryScores:
    return score_lists(lists_from(drawn, transform), find_protocol(protocol).measures)


def assert_same(first: QueryScores, second: QueryScores) -> None:
    for name in first.values:
        np.testing.assert_array_equal(first.values[name], second.values[name], err_msg=name)
        np.testing.assert_array_equal(first.tie_values[name], second.tie_values[name], err_msg=name)


@pytest.mark.parametrize("protocol", BOTH)
@pytest.mark.parametrize(
    "transform", [lambda s: 1000.0 * s - 7, lambda s: math.exp(s), lambda s: s**3, lambda s: math.atan(s)]
)
@settings(max_examples=25, deadline=None)
@given(drawn=some_queries)
def test_monotone_transforms_change_nothing(drawn: list, protocol: str, transform) -> None:
    assert_same(scored(drawn, protocol), scored(drawn, protocol, transform))


@pytest.mark.parametrize("protocol", BOTH)
@settings(max_examples=50, deadline=None)
@given(drawn=some_queries, data=st.data())
def test_the_order_of_queries_changes_no_query(drawn: list, protocol: str, data) -> None:
    order = data.draw(st.permutations(range(len(drawn))))
    first, second = scored(drawn, protocol), scored([drawn[i] for i in order], protocol)
    for name, values in first.values.items():
        np.testing.assert_array_equal(values[order], second.values[name])
        assert second.means[name] == pytest.approx(first.means[name], abs=1.1e-5)


@settings(max_examples=50, deadline=None)
@given(drawn=some_queries, data=st.data())
def test_the_order_of_candidates_changes_nothing_under_mteb_v2(drawn: list, data) -> None:
    lists = lists_from(drawn)
    order = np.concatenate(
        [data.draw(st.permutations(range(a, b))) for a, b in zip(lists.offsets[:-1], lists.offsets[1:], strict=True)]
    ).astype(int)
    shuffled = candidate_lists(
        lists.query_ids,
        lists.lengths,
        lists.doc_ids[order],
        lists.scores[order],
        lists.gains[order],
        lists.unretrieved_gains,
    )
    measures = find_protocol("mteb-v2").measures
    assert_same(score_lists(lists, measures), score_lists(shuffled, measures))


@settings(max_examples=50, deadline=None)
@given(drawn=some_queries, data=st.data())
def test_the_order_of_candidates_changes_nothing_under_cmteb_v1(drawn: list, data) -> None:
    shuffled = [(data.draw(st.permutations(listed)), missed) for listed, missed in drawn]
    assert_same(scored(drawn, "cmteb-v1"), scored(shuffled, "cmteb-v1"))


@pytest.mark.parametrize("protocol", BOTH)
@settings(max_examples=100, deadline=None)
@given(drawn=some_queries)
def test_values_and_expectations_lie_in_their_ranges(drawn: list, protocol: str) -> None:
    result = scored(drawn, protocol)
    for name, value in result.values.items():
        counted = ~np.isnan(value)
        expected, low, high = (part[counted] for part in result.tie_values[name])
        assert np.all((low >= 0) & (low <= expected) & (expected <= high) & (high <= 1 + 1e-12))
        assert np.all(low <= value[counted] + 1e-12)
        if (protocol, name) != ("cmteb-v1", "map"):  # scikit-learn's, which may exceed every order's
            assert np.all(value[counted] <= high)


@pytest.mark.parametrize("protocol", BOTH)
@settings(max_examples=50, deadline=None)
@given(drawn=some_queries)
def test_an_oracle_gets_the_best_and_its_reverse_no_more(drawn: list, protocol: str) -> None:
    graded = [([(gain, gain) for _, gain in listed], []) for listed, _ in drawn]
    reverse = [([(-gain, gain) for _, gain in listed], []) for listed, _ in drawn]
    oracle, reversed_oracle, model = (scored(each, protocol) for each in (graded, reverse, [(d, []) for d, _ in drawn]))
    for name in oracle.values:
        assert oracle.means[name] >= model.means[name] - 1e-12
        assert reversed_oracle.means[name] <= model.means[name] + 1e-12
    if protocol == "cmteb-v1":
        assert oracle.means["map"] == pytest.approx(1)
    else:
        positive = [any(gain for _, gain in listed) for listed, _ in drawn]
        assert oracle.means["ndcg_at_1000"] == pytest.approx(sum(positive) / len(positive), abs=1e-5)
