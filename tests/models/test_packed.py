"""Batches without padding, against transformers' own padded ones. The kernel is replaced where there is no GPU."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig

from evalkit.models import bert
from evalkit.models.bert import has_bert_layers
from evalkit.models.inputs import load_inputs
from evalkit.models.local import TokenizedNetwork
from evalkit.models.networks import load_network
from evalkit.models.settings import model_settings

PAIRS = [
    ("感冒了应该吃什么药？", "这种药一天三次，饭后服用。" * 9),
    ("How old is it", "no"),
    ("a <pad> in the text", "is a token that is <pad> seen"),  # and in XLM-R has no position of its own
    ("很长的问题" * 60, "很长的文档" * 120),
]
CPU = torch.device("cpu")


def attend_each_input(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, asked: torch.Tensor, offsets: torch.Tensor, *_: int
) -> torch.Tensor:
    """What the kernel computes, an input at a time."""
    found = []
    for rows, places in zip(pairwise(asked.tolist()), pairwise(offsets.tolist()), strict=True):
        parts = (query[slice(*rows)], key[slice(*places)], value[slice(*places)])
        attended = torch.nn.functional.scaled_dot_product_attention(*(part.transpose(0, 1)[None] for part in parts))
        found.append(attended[0].transpose(0, 1))
    return torch.cat(found)


def outputs_of(folder: Path, **fields: Any) -> tuple[np.ndarray, np.ndarray]:
    """Of the same batch: transformers' outputs, and the packed ones."""
    settings = model_settings({"name": "made", "path": str(folder)} | fields)
    network, inputs = load_network(settings, folder), load_inputs(settings, folder)
    texts = TokenizedNetwork(inputs, lambda _: np.zeros(0, np.float32), 0)
    if settings.makes_vectors:
        batch = [texts.encode_text(text) for text in texts.tokenize([d for _, d in PAIRS], "document")]
    else:
        queries = texts.tokenize([query for query, _ in PAIRS], "query")
        documents = texts.tokenize([document for _, document in PAIRS], "document")
        batch = [texts.encode_pair(query, document) for query, document in zip(queries, documents, strict=True)]
    arrays = inputs.pad(batch)
    assert not arrays["attention_mask"].all()
    with torch.inference_mode():
        padded = network(**{name: torch.from_numpy(array) for name, array in arrays.items()}).numpy()
    return padded, bert.packed_forward(network, CPU)(arrays)


@pytest.fixture(autouse=True)
def _kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bert, "attend", attend_each_input)


@pytest.mark.parametrize("architecture", ["XLM-R", "BERT"])
def test_scores_are_those_of_padded_batches(architecture: str, tiny_reranker: Path, tiny_bert_reranker: Path) -> None:
    padded, found = outputs_of(tiny_reranker if architecture == "XLM-R" else tiny_bert_reranker)
    assert padded.shape == found.shape == (len(PAIRS),)
    np.testing.assert_allclose(found, padded, atol=3e-6)
    assert np.ptp(padded) > 0.1


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_vectors_are_those_of_padded_batches(pooling: str, e5_small: Path) -> None:
    padded, found = outputs_of(e5_small, kind="embedder", pooling=pooling)
    assert padded.shape == found.shape == (len(PAIRS), 384)
    np.testing.assert_allclose(found, padded, atol=3e-6)


def test_a_row_holds_every_token_that_is_no_padding() -> None:
    class Config:
        model_type, pad_token_id = "xlm-roberta", 1

    arrays = {
        "input_ids": np.array([[0, 7, 1, 8, 2], [0, 9, 2, 1, 1]]),
        "attention_mask": np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
    }
    row, offsets = bert.pack_rows(arrays, Config)
    assert row["input_ids"].tolist() == [[0, 7, 1, 8, 2, 0, 9, 2]]
    assert row["position_ids"].tolist() == [[2, 3, 1, 4, 5, 2, 3, 4]]
    assert offsets.tolist() == [0, 5, 8]
    assert set(row) == {"input_ids", "position_ids"}


def test_a_model_with_code_of_its_own_is_left_alone(tiny_bert_reranker: Path) -> None:
    config = AutoConfig.from_pretrained(tiny_bert_reranker)
    assert has_bert_layers(config)
    config.auto_map = {"AutoModel": "modeling.OtherBert"}
    assert not has_bert_layers(config)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_processor_pads(dtype: torch.dtype) -> None:
    assert not bert.runs_packed(None, CPU, dtype)
