"""BM25 against the formula written out."""

from __future__ import annotations

import jieba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_tasks import Group, make_task
from oracles.bm25 import bm25_scores

from evalkit.backends.lexical import BM25, prepare, words
from evalkit.models.interfaces import Runtime
from evalkit.models.settings import read_model
from evalkit.records import Task

PHRASES = ["感冒", "发烧怎么办", "多喝水", "苹果", "red apple", "Apple", "2024年", "，", "？！", " "]
TEXTS = st.lists(st.sampled_from(PHRASES), max_size=6).map("".join)
CANDIDATES = st.lists(st.tuples(TEXTS, st.integers(0, 1)), min_size=1, max_size=5)
GROUPS = st.lists(st.tuples(st.lists(TEXTS, min_size=1, max_size=3), CANDIDATES), min_size=1, max_size=4)


def reference(task: Task, k1: float = 1.5, b: float = 0.75) -> list[float]:
    """Each candidate's score among the task's distinct candidates; the best over the query's texts."""
    documents = {candidate.text: 0 for request in task.requests for candidate in request.candidates}
    cut = {text: cut_words(text) for text in documents}
    if not any(cut.values()):
        return [0.0] * task.statistics.pairs
    scores = []
    for request in task.requests:
        by_text = [
            dict(zip(documents, bm25_scores(cut_words(text), list(cut.values()), k1, b), strict=True))
            for text in request.query.texts
        ]
        scores += [max(found[candidate.text] for found in by_text) for candidate in request.candidates]
    return scores


def cut_words(text: str) -> list[str]:
    return [word for word in jieba.lcut(text.lower()) if word.strip("，。？！、 ")]


@given(groups=GROUPS)
@settings(max_examples=100, deadline=None)
def test_scores_are_lucenes(groups: list[Group]) -> None:
    task = make_task(*groups)
    found = BM25().score_task(task)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, reference(task), rtol=1e-5, atol=1e-6)


def test_parameters_count() -> None:
    task = make_task((["感冒发烧"], [("感冒感冒怎么办", 1), ("发烧多喝水，注意休息", 0), ("苹果", 0)]))
    for k1, b in ((1.5, 0.75), (0.9, 0.4), (1.2, 0.0)):
        np.testing.assert_allclose(BM25(k1, b).score_task(task), reference(task, k1, b), rtol=1e-5)
    assert not np.allclose(BM25(0.9, 0.4).score_task(task), BM25().score_task(task))


def test_statistics_are_over_distinct_texts() -> None:
    """The same text offered for two queries is one document: idf does not sink."""
    once = make_task((["感冒"], [("感冒", 1), ("苹果", 0), ("发烧", 0)]))
    again = make_task(
        (["感冒"], [("感冒", 1), ("苹果", 0), ("发烧", 0)]), (["苹果"], [("感冒", 0), ("苹果", 1), ("感冒", 0)])
    )
    np.testing.assert_array_equal(BM25().score_task(once), BM25().score_task(again)[:3])


@pytest.mark.parametrize("query", ["", "？！", " ", "无人提到的词"])
def test_queries_without_a_known_word_score_zero(query: str) -> None:
    task = make_task(([query], [("感冒", 1), ("苹果", 0)]), (["感冒"], [("感冒", 1)]))
    scores = BM25().score_task(task)
    assert scores[:2].tolist() == [0, 0]
    assert scores[2] > 0


def test_documents_without_words() -> None:
    assert BM25().score_task(make_task((["感冒"], [("？！", 1), ("", 0)]))).tolist() == [0, 0]


def test_words_are_jiebas_without_punctuation() -> None:
    assert words("感冒发烧，COVID-19怎么办？ 3.5%") == ["感冒", "发烧", "covid", "19", "怎么办", "3.5%"]
    assert words("，。 \n") == []


def test_what_it_says_of_itself() -> None:
    model = prepare(read_model("bm25"), Runtime())
    assert isinstance(model.scorer, BM25)
    assert (model.identity.hub_id, model.identity.kind) == ("local/bm25", "lexical")
    assert model.identity.revision.startswith("bm25s-")
    assert (model.description["k1"], model.description["b"]) == (1.5, 0.75)
    assert model.way is None  # its scores depend on the other candidates
