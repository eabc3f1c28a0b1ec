"""Every item in exactly one batch, within the budget, with little padding."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import Network
from hypothesis import given
from hypothesis import strategies as st

from evalkit.models.interfaces import Encoding, Items
from evalkit.scoring import plan
from evalkit.scoring.items import text_items
from evalkit.scoring.plan import encoded_windows, pack


def encodings(lengths: list[int]) -> list[Encoding]:
    return [Encoding(np.full(length, number, np.int32), None, False) for number, length in enumerate(lengths)]


@given(
    lengths=st.lists(st.integers(1, 512), min_size=1, max_size=200),
    budget=st.integers(1, 2_000),
    first=st.integers(0, 9_000),
)
def test_every_item_is_in_one_batch_within_the_budget(lengths: list[int], budget: int, first: int) -> None:
    batches = list(pack(encodings(lengths), first, budget))
    items = np.concatenate([batch.items for batch in batches])
    assert sorted(items.tolist()) == list(range(first, first + len(lengths)))
    for batch in batches:
        assert len(batch.items) == len(batch.encodings)
        assert batch.padded_tokens <= budget or len(batch.items) == 1
        for item, encoding in zip(batch.items.tolist(), batch.encodings, strict=True):
            assert encoding.token_ids[0] == item - first
        assert batch.tokens == sum(lengths[item - first] for item in batch.items.tolist())
    in_order = [len(encoding.token_ids) for batch in batches for encoding in batch.encodings]
    assert in_order == sorted(lengths, reverse=True)


def test_little_padding_where_lengths_have_a_long_tail() -> None:
    """Lengths as documents have them: log-normal, cut at 512."""
    lengths = np.random.default_rng(0).lognormal(4.5, 1, 4_096).clip(4, 512).astype(int).tolist()
    batches = list(pack(encodings(lengths), 0, 2_048))
    padded = sum(batch.padded_tokens for batch in batches)
    assert padded < 1.03 * sum(lengths)
    unsorted = sum(16 * max(lengths[start : start + 16]) for start in range(0, len(lengths), 16))
    assert unsorted > 2 * sum(lengths)
    filled = [batch.padded_tokens for batch in batches[:-1]]
    assert min(filled) > 2_048 - 512  # and no batch is small without need


@pytest.fixture
def window() -> int:
    return 4


@pytest.fixture(autouse=True)
def small_windows(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "WINDOW_ITEMS", window)


QUERIES = ["a", "b", "c"]
DOCUMENTS = ["dd", "ee", "ff", "gg"]
ALL_PAIRS = np.array([(query, document) for query in range(3) for document in range(4)])


def pair_items(pairs: np.ndarray) -> Items:
    return Items((("query", QUERIES), ("document", DOCUMENTS)), pairs)


def nothing_known(items: Items) -> np.ndarray:
    return np.zeros(len(items), np.bool_)


@pytest.mark.parametrize(
    "pairs", [ALL_PAIRS, ALL_PAIRS[::-1], ALL_PAIRS[:1], ALL_PAIRS[:0], ALL_PAIRS[[0, 4, 8, 1, 5, 9]]]
)
def test_pair_windows_cover_the_pairs(pairs: np.ndarray) -> None:
    network = Network()
    items = pair_items(pairs)
    windows = list(encoded_windows(network, items, nothing_known(items)))
    assert [window.start for window in windows] == list(range(0, len(pairs), 4))
    texts = ["".join(map(chr, encoding.token_ids)) for window in windows for encoding in window.encodings]
    assert texts == [f"{QUERIES[query]}\0{DOCUMENTS[document]}" for query, document in pairs.tolist()]
    assert len(network.tokenized) == len(set(network.tokenized))


def test_text_windows_cover_the_texts() -> None:
    texts = [chr(97 + number) * (number + 1) for number in range(10)]
    items = text_items("document", texts)
    windows = list(encoded_windows(Network(), items, nothing_known(items)))
    assert [(window.start, len(window.encodings)) for window in windows] == [(0, 4), (4, 4), (8, 2)]
    found = ["".join(map(chr, encoding.token_ids[1:])) for window in windows for encoding in window.encodings]
    assert found == texts
    assert list(encoded_windows(Network(), text_items("document", []), np.zeros(0, np.bool_))) == []


def test_windows_that_lack_nothing_are_passed_over() -> None:
    network = Network()
    known = np.ones(len(ALL_PAIRS), np.bool_)
    known[5] = False
    windows = list(encoded_windows(network, pair_items(ALL_PAIRS), known))
    assert [window.start for window in windows] == [4]
    assert {text for role, text in network.tokenized if role == "query"} == {"b"}


def test_tokenization_stays_one_window_ahead() -> None:
    network = Network()
    items = text_items("document", [str(number) for number in range(40)])
    windows = encoded_windows(network, items, nothing_known(items))
    next(windows)
    assert len(network.tokenized) <= 3 * 4
    assert sum(1 for _ in windows) == 9


def test_errors_of_the_tokenizer_reach_the_caller() -> None:
    class Broken(Network):
        def tokenize(self, texts, role):
            raise ValueError("broken tokenizer")

    with pytest.raises(ValueError, match="broken tokenizer"):
        list(encoded_windows(Broken(), text_items("query", ["a"]), np.zeros(1, np.bool_)))
