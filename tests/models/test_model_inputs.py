"""Network inputs against the tokenizers themselves."""

from __future__ import annotations

import json
import shutil
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.pair_inputs import flagembedding_2024_ids
from transformers import AutoTokenizer

from evalkit.errors import EvalkitError
from evalkit.models.batches import pad_batch
from evalkit.models.interfaces import Encoding
from evalkit.models.settings import model_settings
from evalkit.models.tokenization import InputBuilder, longest_first, only_second

POSITIONS = 512
# words of both tokenizers, unknown ones, white space, combining and control characters, and the special tokens' own names
PIECES = [
    "感冒",
    "发烧怎么办",
    "～",
    "？",
    "panda",
    " doctor",
    "  ",
    "\n",
    "2024",
    "🍎",
    "e\u0301",
    "\u200b",
    "Ⅷ",
    "</s>",
    "[SEP]",
]
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=40).map("".join)


@pytest.fixture(scope="module", params=["XLM-R", "BERT"])
def folder(request: pytest.FixtureRequest, tiny_reranker: Path, tiny_bert_reranker: Path) -> Path:
    return tiny_reranker if request.param == "XLM-R" else tiny_bert_reranker


@cache
def tokenizer(folder: Path, side: str = "right") -> Any:
    return AutoTokenizer.from_pretrained(folder, truncation_side=side)


@cache
def builder(folder: Path, side: str = "right", **fields: Any) -> InputBuilder:
    return InputBuilder.create(tokenizer(folder, side), model_settings({"name": "made"} | fields), POSITIONS)


def pair(inputs: InputBuilder, query: str, document: str) -> Encoding:
    return inputs.encode_pair(inputs.tokenize([query], "query")[0], inputs.tokenize([document], "document")[0])


def text(inputs: InputBuilder, document: str) -> Encoding:
    return inputs.encode_text(inputs.tokenize([document], "document")[0])


def assert_as_tokenized(found: Encoding, tokenizer: Any, *texts: str, max_length: int) -> None:
    """The tokenizer's own ids and segments at this length; `truncated` as its ids without a length would be longer."""
    batch = [[text] for text in texts]  # called with single texts, transformers drops an empty second one
    expected = tokenizer(*batch, truncation=True, max_length=max_length, return_token_type_ids=True)
    assert found.token_ids.tolist() == expected["input_ids"][0]
    assert found.truncated == (len(tokenizer(*batch, verbose=False)["input_ids"][0]) > max_length)
    if "token_type_ids" in tokenizer.model_input_names:
        assert found.type_ids is not None
        assert found.type_ids.tolist() == expected["token_type_ids"][0]
    else:
        assert found.type_ids is None


@given(query=TEXTS, document=TEXTS, max_length=st.integers(6, 80), side=st.sampled_from(["right", "left"]))
@settings(max_examples=150, deadline=None)
def test_longest_first_pairs_are_the_tokenizers_own(
    folder: Path, query: str, document: str, max_length: int, side: str
) -> None:
    found = pair(builder(folder, side, max_length=max_length), query, document)
    assert_as_tokenized(found, tokenizer(folder, side), query, document, max_length=max_length)


@given(document=TEXTS, max_length=st.integers(4, 60), side=st.sampled_from(["right", "left"]))
@settings(max_examples=100, deadline=None)
def test_single_texts_are_the_tokenizers_own(folder: Path, document: str, max_length: int, side: str) -> None:
    found = text(builder(folder, side, max_length=max_length, kind="embedder"), document)
    assert_as_tokenized(found, tokenizer(folder, side), document, max_length=max_length)


@given(query=TEXTS, document=TEXTS)
@settings(max_examples=50, deadline=None)
def test_prompts_are_part_of_the_texts(folder: Path, query: str, document: str) -> None:
    prompts = {"query_prompt": "为这个句子 query: ", "document_prompt": "passage: "}
    found = pair(builder(folder, max_length=60, **prompts), query, document)
    texts = (prompts["query_prompt"] + query, prompts["document_prompt"] + document)
    assert_as_tokenized(found, tokenizer(folder), *texts, max_length=60)


def test_batched_tokenization_equals_one_text_at_a_time(folder: Path) -> None:
    inputs = builder(folder, max_length=30)
    texts = ["", "感冒", "what is a panda? " * 40, "\n"]
    together = inputs.tokenize(texts, "document")
    for single, batched in zip(texts, together, strict=True):
        assert inputs.tokenize([single], "document")[0].token_ids.tolist() == batched.token_ids.tolist()
    assert [t.whole_length for t in together] == [
        len(tokenizer(folder)(single, add_special_tokens=False)["input_ids"]) for single in texts
    ]
    assert inputs.tokenize([], "document") == []


@given(query=TEXTS, document=TEXTS, max_length=st.integers(16, 80))
@settings(max_examples=150, deadline=None)
def test_only_second_is_flagembeddings_rule(tiny_reranker: Path, query: str, document: str, max_length: int) -> None:
    inputs = builder(tiny_reranker, max_length=max_length, truncation="only_second")
    found = pair(inputs, query, document)
    assert found.token_ids.tolist() == flagembedding_2024_ids(tokenizer(tiny_reranker), query, document, max_length)
    whole = tokenizer(tiny_reranker)([query], [document], verbose=False)["input_ids"][0]
    assert found.truncated == (found.token_ids.tolist() != whole)


@pytest.mark.parametrize(
    ("query", "document", "same"),
    [
        (254, 600, True),
        (255, 253, True),
        (255, 254, False),
        (384, 124, True),
        (384, 125, False),
        (385, 10, False),
        (600, 124, True),
    ],
)
def test_where_the_two_truncations_agree(tiny_reranker: Path, query: int, document: int, same: bool) -> None:
    texts = ("a " * query, "the " * document)  # words of one token each
    inputs = [builder(tiny_reranker, max_length=512, truncation=rule) for rule in ("longest_first", "only_second")]
    assert [tokenized.whole_length for tokenized in inputs[0].tokenize(texts, "query")] == [query, document]
    first, second = (pair(one, *texts).token_ids.tolist() for one in inputs)
    assert (first == second) is same


def test_where_the_two_truncations_agree_for_all_lengths() -> None:
    room = 512 - 4
    for query, document in product(range(0, 620, 3), range(0, 620, 2)):
        # the last case: either rule leaves 384 tokens of the query beside a document of 124
        same = query <= 254 or (query <= 384 and query + document <= room) or (query > 384 and document == 124)
        assert (longest_first(query, document, room) == only_second(query, document, room, 512)) is same
        assert sum(longest_first(query, document, room)) == min(query + document, room)


def test_odd_room_goes_to_the_longer_text() -> None:
    assert longest_first(600, 500, 509) == (255, 254)
    assert longest_first(500, 600, 509) == (254, 255)
    assert longest_first(500, 500, 509) == (254, 255)
    assert longest_first(600, 10, 509) == (499, 10)


def test_max_length_is_the_networks_own_where_the_recipe_is_silent(folder: Path) -> None:
    assert builder(folder).max_length == 512
    assert InputBuilder.create(tokenizer(folder), model_settings({}), 300).max_length == 300


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"max_length": 513}, "max_length=513 is more than made can read: at most 512"),
        ({"max_length": 3}, "max_length=3 is too short"),
        ({"max_length": 8, "truncation": "only_second"}, "max_length=8 is too short"),
        ({"max_length": 2, "kind": "embedder"}, "max_length=2 is too short"),
    ],
)
def test_lengths_that_cannot_be(tiny_reranker: Path, fields: dict[str, Any], says: str) -> None:
    with pytest.raises(EvalkitError, match=says):
        builder(tiny_reranker, **fields)


def test_a_tokenizer_without_a_limit_needs_max_length(tiny_reranker: Path) -> None:
    unbounded = AutoTokenizer.from_pretrained(tiny_reranker, model_max_length=10**30)  # as tokenizers say "unknown"
    with pytest.raises(EvalkitError, match=r"set model\.max_length"):
        InputBuilder.create(unbounded, model_settings({"name": "made"}), None)
    assert InputBuilder.create(unbounded, model_settings({"max_length": 64}), None).max_length == 64


def test_a_prompt_that_leaves_no_probe(tiny_reranker: Path) -> None:
    prompt = "很长的提示" * 20
    inputs = builder(tiny_reranker, max_length=40, truncation="only_second", query_prompt=prompt)
    expected = flagembedding_2024_ids(tokenizer(tiny_reranker), prompt + "感冒", "多喝水", 40)
    assert pair(inputs, "感冒", "多喝水").token_ids.tolist() == expected


def test_a_tokenizer_that_no_template_describes_is_refused(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    other = shutil.copytree(tiny_bert_reranker, tmp_path / "other", ignore=shutil.ignore_patterns("*.safetensors"))
    content = json.loads((other / "tokenizer.json").read_text())
    content["post_processor"]["pair"].reverse()  # the second text comes first
    (other / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(EvalkitError, match="changes a text's tokens"):
        builder(other, max_length=64)


class Trimming:
    """A tokenizer that makes something else of pairs when it cuts them."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(self, *texts: Any, **options: Any) -> Any:
        encoded = self._tokenizer(*texts, **options)
        if options.get("truncation"):
            encoded["input_ids"] = [ids[:-1] for ids in encoded["input_ids"]]
        return encoded


@pytest.mark.parametrize("kind", ["cross-encoder", "embedder"])
def test_a_tokenizer_whose_cut_inputs_differ_is_refused(folder: Path, kind: str) -> None:
    with pytest.raises(EvalkitError, match="builds inputs that differ from evalkit's"):
        InputBuilder.create(Trimming(tokenizer(folder)), model_settings({"kind": kind}), POSITIONS)


def test_pairs_need_a_cross_encoder(tiny_reranker: Path) -> None:
    with pytest.raises(TypeError, match="does not encode pairs"):
        pair(builder(tiny_reranker, kind="embedder"), "a", "b")


def test_batches_are_padded_on_the_right() -> None:
    batch = [
        Encoding(np.array([5, 6, 7], np.int32), np.array([0, 1, 1], np.int32), False),
        Encoding(np.array([8], np.int32), np.array([1], np.int32), False),
    ]
    arrays = pad_batch(batch, pad_id=9)
    assert arrays["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert arrays["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert arrays["token_type_ids"].tolist() == [[0, 1, 1], [1, 0, 0]]
    without = [Encoding(encoding.token_ids, None, False) for encoding in batch]
    assert set(pad_batch(without, 9)) == {"input_ids", "attention_mask"}
