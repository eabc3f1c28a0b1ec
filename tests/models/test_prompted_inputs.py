"""Prompted inputs against FlagEmbedding's own, and against a tokenizer that reads the whole text."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from evalkit.configuration.files import read_option
from evalkit.errors import EvalkitError
from evalkit.models.batches import pad_batch
from evalkit.models.interfaces import Encoding
from evalkit.models.prompted import PromptedInputs
from evalkit.models.settings import model_settings

# among them what a tokenizer may join with its neighbours: marks, line breaks, spaces, combining characters, special tokens
PIECES = [
    "感冒",
    "发烧怎么办",
    "？",
    "\n",
    " \n",
    "panda",
    " doctor",
    "2024",
    "(",
    ">:",
    ")\n",
    "e",
    "\u0301",
    "<|im_end|>",
    "<bos>",
]
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=30).map("".join)
GEMMA, QWEN = "bge-reranker-v2-gemma", "Qwen3-Reranker-0.6B"


@cache
def builder(name: str, folder: Path, **fields: Any) -> PromptedInputs:
    chosen = model_settings(read_option("model", name), fields)
    return PromptedInputs.create(AutoTokenizer.from_pretrained(folder), chosen, 10_000)


def pair(inputs: PromptedInputs, query: str, document: str) -> Encoding:
    return inputs.encode_pair(inputs.tokenize([query], "query")[0], inputs.tokenize([document], "document")[0])


def flagembedding_ids(folder: Path, query: str, document: str, max_length: int) -> list[int]:
    from FlagEmbedding.inference.reranker.decoder_only.base import DatasetForReranker

    tokenizer = builder(GEMMA, folder).tokenizer
    first, second = (
        tokenizer(text, add_special_tokens=False, truncation=True, max_length=most)
        for text, most in (("A: " + query, max_length * 3 // 4), ("B: " + document, max_length))
    )
    ids: list[int] = DatasetForReranker([first], [second], str(folder), max_length)[0]["input_ids"]
    return ids


@given(query=TEXTS, document=TEXTS, max_length=st.integers(16, 120))
@settings(max_examples=60, deadline=None)
def test_inputs_are_flagembeddings(tiny_gemma: Path, query: str, document: str, max_length: int) -> None:
    found = pair(builder(GEMMA, tiny_gemma, max_length=max_length), query, document)
    assert found.token_ids.tolist() == flagembedding_ids(tiny_gemma, query, document, max_length)
    whole = flagembedding_ids(tiny_gemma, query, document, 9_000)
    assert found.truncated == (found.token_ids.tolist() != whole)


@given(query=TEXTS, document=TEXTS, max_length=st.integers(150, 300))
@settings(max_examples=100, deadline=None)
def test_one_text_in_two_pieces_is_the_tokenizers(tiny_qwen: Path, query: str, document: str, max_length: int) -> None:
    recipe = read_option("model", QWEN)
    tokenizer = builder(QWEN, tiny_qwen).tokenizer
    head, tail = (
        tokenizer(recipe[part], add_special_tokens=False)["input_ids"] for part in ("system_prompt", "prompt")
    )
    text = f"{recipe['query_prompt']}{query}\n<Document>: {document}"
    whole = tokenizer(text)["input_ids"]
    inner = whole[: max_length - len(head) - len(tail)]
    found = pair(builder(QWEN, tiny_qwen, max_length=max_length), query, document)
    assert found.token_ids.tolist() == [*head, *inner, *tail]
    assert found.truncated == (len(inner) < len(whole))


def test_type_ids_name_the_parts(tiny_gemma: Path) -> None:
    inputs = builder(GEMMA, tiny_gemma)
    found = pair(inputs, "感冒", "多喝水")
    assert found.type_ids is not None
    parts = [inputs.tokenizer.decode(found.token_ids[found.type_ids == part]) for part in range(3)]
    assert parts == ["<bos>A: 感冒\n", "B: 多喝水", "\n" + read_option("model", GEMMA)["prompt"]]
    assert (np.diff(found.type_ids) >= 0).all()


def test_each_text_is_tokenised_once_for_all_its_pairs(tiny_gemma: Path) -> None:
    inputs = builder(GEMMA, tiny_gemma)
    queries, documents = inputs.tokenize(["a", "b"], "query"), inputs.tokenize(["c", "", "d"], "document")
    for query, text in zip(queries, "ab", strict=True):
        assert inputs.encode_pair(query, documents[1]).token_ids.tolist() == pair(inputs, text, "").token_ids.tolist()


def test_padding_stands_where_the_answer_does_not(tiny_gemma: Path) -> None:
    batch = [pair(builder(GEMMA, tiny_gemma), "感冒", text) for text in ("", "多喝水 " * 9)]
    arrays = builder(GEMMA, tiny_gemma).pad(batch)
    assert arrays["input_ids"].shape[1] % 8 == 0
    assert arrays["attention_mask"][:, -1].all()
    right = pad_batch(batch, 9, multiple=8)
    assert right["attention_mask"][:, 0].all()
    for row, encoding in enumerate(batch):
        for side in (arrays, right):
            assert side["input_ids"][row][side["attention_mask"][row] == 1].tolist() == encoding.token_ids.tolist()


def test_a_tokenizer_that_cuts_on_the_left_is_refused(tiny_gemma: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_gemma, truncation_side="left")
    with pytest.raises(EvalkitError, match="its texts are cut on their right"):
        PromptedInputs.create(tokenizer, model_settings(read_option("model", GEMMA)), 4_096)
