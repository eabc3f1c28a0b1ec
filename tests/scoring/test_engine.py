"""Unique work once, results back in the task's order: through fakes that remember what they were asked."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from fakes import Network, Pairs, Vectors, overlap, vector
from hypothesis import given, settings
from hypothesis import strategies as st
from made_tasks import Group, make_task, scored

from evalkit.errors import EvalkitError
from evalkit.records import Task
from evalkit.scoring import plan
from evalkit.scoring.engine import similarities

TEXTS = st.text("abc感冒", min_size=1, max_size=6)
GROUPS = st.lists(
    st.tuples(
        st.lists(TEXTS, min_size=1, max_size=3),
        st.lists(st.tuples(TEXTS, st.integers(0, 1)), min_size=1, max_size=5),
    ),
    min_size=1,
    max_size=5,
)
REPEATING = make_task(
    (["感冒"], [("多喝水", 1), ("苹果", 0), ("多喝水", 1)]),
    (["发烧", "感冒"], [("苹果", 0), ("多喝水", 1), ("休息", 1)]),
    (["感冒"], [("休息", 1), ("苹果", 0)]),
)
PAIRS = {("感冒", "多喝水"), ("感冒", "苹果"), ("感冒", "休息"), ("发烧", "苹果"), ("发烧", "多喝水"), ("发烧", "休息")}


def by_hand(task: Task) -> list[float]:
    """The best score over each query's texts, candidate by candidate."""
    return [
        max(overlap(text, candidate.text) for text in request.query.texts)
        for request in task.requests
        for candidate in request.candidates
    ]


def distinct_pairs(task: Task) -> int:
    return len(
        {
            (text, candidate.text)
            for request in task.requests
            for text in request.query.texts
            for candidate in request.candidates
        }
    )


@given(groups=GROUPS)
@settings(max_examples=80, deadline=None)
def test_pair_scores_come_back_in_order(groups: list[Group]) -> None:
    task = make_task(*groups)
    for scorer in (Pairs(), Network(), Network(batch_tokens=1), Network(parallel=3)):
        run = scored(scorer, task)
        assert run.scores.dtype == np.float32
        np.testing.assert_array_equal(run.scores, np.float32(by_hand(task)))
        assert run.usage.items == distinct_pairs(task)


@given(groups=GROUPS)
@settings(max_examples=50, deadline=None)
def test_vector_scores_come_back_in_order(groups: list[Group]) -> None:
    task = make_task(*groups)
    for kind in ("cosine", "dot"):
        expected = [
            max(
                float(a @ b) / (float(np.linalg.norm(a) * np.linalg.norm(b)) if kind == "cosine" else 1)
                for a in (vector(text, "query") for text in request.query.texts)
                for b in [vector(candidate.text, "document")]
            )
            for request in task.requests
            for candidate in request.candidates
        ]
        run = scored(Vectors(), task, kind="embedder", similarity=kind)
        np.testing.assert_allclose(run.scores, expected, rtol=1e-6)


def test_a_pair_is_scored_once() -> None:
    scorer = Pairs()
    run = scored(scorer, REPEATING)
    assert Counter(pair for call in scorer.calls for pair in call) == Counter(PAIRS)
    assert run.usage.items == len(PAIRS)
    assert (run.tokens, run.truncated) == (None, None)


def test_a_network_reads_a_text_once_and_a_pair_once() -> None:
    network = Network()
    scored(network, REPEATING)
    texts = {("query", "感冒"), ("query", "发烧"), ("document", "多喝水"), ("document", "苹果"), ("document", "休息")}
    assert Counter(network.tokenized) == Counter(texts)
    inputs = Counter(
        tuple("".join(map(chr, encoding.token_ids)).split("\0")) for batch in network.batches for encoding in batch
    )
    assert inputs == Counter(PAIRS)


@pytest.mark.parametrize("scorer", [Vectors(), Network()])
def test_a_text_is_embedded_once_per_role(scorer: Vectors | Network) -> None:
    task = make_task((["苹果"], [("感冒", 0), ("苹果", 1)]), (["感冒"], [("感冒", 1), ("苹果", 0)]))
    run = scored(scorer, task, kind="embedder")
    asked = scorer.tokenized if isinstance(scorer, Network) else [(role, t) for role, ts in scorer.calls for t in ts]
    assert Counter(asked) == Counter([(role, text) for role in ("query", "document") for text in ("苹果", "感冒")])
    assert run.usage.items == 4


def test_equal_candidates_score_equally() -> None:
    for scorer, kind in ((Pairs(), "cross-encoder"), (Vectors(), "embedder"), (Network(), "embedder")):
        scores = scored(scorer, REPEATING, kind=kind).scores
        assert scores[0] == scores[2]


def test_chunks_of_a_scorer_that_batches_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "CHUNK", 4)
    pairs, vectors = Pairs(), Vectors()
    run = scored(pairs, REPEATING)
    assert [len(call) for call in pairs.calls] == [4, 2]
    np.testing.assert_array_equal(run.scores, np.float32(by_hand(REPEATING)))
    many = make_task((["q"], [(str(number), 0) for number in range(9)]))
    scored(vectors, many, kind="embedder")
    assert [(role, len(texts)) for role, texts in vectors.calls] == [
        ("query", 1),
        *[("document", n) for n in (4, 4, 1)],
    ]


@pytest.mark.parametrize("window", [1, 2, 5])
def test_windows_smaller_than_the_data(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "WINDOW_ITEMS", window)
    network = Network()
    run = scored(network, REPEATING)
    np.testing.assert_array_equal(run.scores, np.float32(by_hand(REPEATING)))
    assert max(Counter(network.tokenized).values()) == 1  # still each text once
    np.testing.assert_array_equal(
        scored(Network(), REPEATING, kind="embedder").scores, scored(Vectors(), REPEATING, kind="embedder").scores
    )


def test_a_window_without_a_new_text_works_with_a_real_tokenizer(
    tiny_bert_reranker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evalkit.backends.torch import prepare
    from evalkit.models.interfaces import Runtime
    from evalkit.models.settings import model_settings

    model = prepare(model_settings({"path": str(tiny_bert_reranker)}), Runtime(device="cpu"))
    whole = scored(model.scorer, REPEATING).scores
    monkeypatch.setattr(plan, "WINDOW_ITEMS", 1)
    np.testing.assert_allclose(scored(model.scorer, REPEATING).scores, whole, atol=1e-5)


def test_tokens_and_truncation_per_candidate() -> None:
    task = make_task((["ab", "a"], [("cdefgh", 1), ("c", 0)]), (["abc"], [("c", 0), ("cdefgh", 1)]))
    run = scored(Network(max_length=6), task)
    assert run.tokens is not None
    assert run.truncated is not None
    assert (run.tokens.dtype, run.truncated.dtype) == (np.int32, np.bool_)
    assert run.tokens.tolist() == [6, 4, 5, 6]  # of a query's texts, the first one's
    assert run.truncated.tolist() == [True, False, False, True]
    # six distinct pairs: ab-cdefgh, ab-c, a-cdefgh, a-c, abc-c, abc-cdefgh
    assert (run.usage.items, run.usage.tokens, run.usage.truncated_items) == (6, 6 + 4 + 6 + 3 + 5 + 6, 3)
    documents = scored(Network(max_length=6), task, kind="embedder")
    assert documents.tokens is not None
    assert documents.truncated is not None
    assert documents.tokens.tolist() == [6, 2, 2, 6]
    assert documents.truncated.tolist() == [True, False, False, True]


def test_padding_is_counted() -> None:
    task = make_task((["a"], [("b" * length, 0) for length in (1, 2, 4)]))
    run = scored(Network(batch_tokens=1_000), task)
    assert (run.usage.tokens, run.usage.padding_tokens) == (3 + 4 + 6, 3 * 6 - (3 + 4 + 6))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("make", [Pairs, Network])
def test_scores_that_are_no_numbers_name_the_pair(value: float, make: type[Pairs] | type[Network]) -> None:
    def spoilt(query: str, document: str) -> float:
        return value if (query, document) == ("发烧", "休息") else overlap(query, document)

    with pytest.raises(EvalkitError, match="query '发烧' with document '休息'") as caught:
        scored(make(score_pair=spoilt), REPEATING)
    assert "\n" not in str(caught.value)


class Spoilt(Vectors):
    """One number of one vector is not one."""

    def embed(self, texts, role):
        vectors = super().embed(texts, role)
        vectors[[place for place, text in enumerate(texts) if (role, text) == ("document", "休息")], 3] = np.inf
        return vectors


def test_vectors_that_are_no_numbers_name_the_text() -> None:
    with pytest.raises(EvalkitError, match="document '休息'"):
        scored(Spoilt(), REPEATING, kind="embedder")


def test_long_texts_are_shortened_in_messages() -> None:
    task = make_task((["感" * 500], [("冒" * 500, 1)]))
    with pytest.raises(EvalkitError) as caught:
        scored(Pairs(lambda query, document: float("nan")), task)
    assert f"'{'感' * 40}…'" in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_batch_that_does_not_fit_runs_in_parts() -> None:
    network = Network(batch_tokens=1_000, most_tokens=12)
    np.testing.assert_array_equal(scored(network, REPEATING).scores, np.float32(by_hand(REPEATING)))
    assert all(len(batch) * max(len(e.token_ids) for e in batch) <= 12 for batch in network.batches)


def test_an_input_that_does_not_fit_alone_is_named() -> None:
    task = make_task((["a"], [("b", 0), ("c" * 30, 1)]))
    with pytest.raises(
        EvalkitError, match=r"out of memory with one input alone, query 'a' with document 'c+' \(32 tokens\)"
    ):
        scored(Network(most_tokens=20), task)


def test_similarities_of_equal_vectors_are_equal_whatever_their_place() -> None:
    generator = np.random.default_rng(0)
    queries, documents = (generator.normal(size=(3, 384)).astype(np.float32) for _ in range(2))
    meetings = np.array([(query, document) for query in range(3) for document in range(3)] * 3_000)
    scores = similarities(queries, documents, meetings, "cosine")
    np.testing.assert_array_equal(scores.reshape(-1, 9), np.tile(scores[:9], (3_000, 1)))
    normal = [vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (queries, documents)]
    np.testing.assert_allclose(scores[:9].reshape(3, 3), normal[0] @ normal[1].T, atol=1e-6)
