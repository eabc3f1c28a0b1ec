"""The last layer that computes its first position alone, against transformers' own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from evalkit.models.bert import FirstTokenLayer, compute_first_token_alone
from evalkit.models.inputs import load_inputs
from evalkit.models.networks import load_network
from evalkit.models.settings import model_settings


def network_of(folder: Path, **fields: Any) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    settings = model_settings({"name": "made", "path": str(folder)} | fields)
    return load_network(settings, folder), load_inputs(settings, folder).example()  # two inputs, one of them padded


@pytest.mark.parametrize("architecture", ["XLM-R", "BERT"])
def test_the_score_is_the_whole_networks(architecture: str, tiny_reranker: Path, tiny_bert_reranker: Path) -> None:
    network, inputs = network_of(tiny_reranker if architecture == "XLM-R" else tiny_bert_reranker)
    assert not inputs["attention_mask"].all()
    with torch.inference_mode():
        whole = network(**inputs)
        trimmed = compute_first_token_alone(network)
        assert isinstance(trimmed.classifier.base_model.encoder.layer[-1], FirstTokenLayer)
        torch.testing.assert_close(trimmed(**inputs), whole, atol=2e-6, rtol=0)


def test_an_embedder_with_another_pooling_keeps_its_layer(e5_small: Path) -> None:
    network, inputs = network_of(e5_small, kind="embedder", pooling="mean")
    assert not isinstance(compute_first_token_alone(network).encoder.encoder.layer[-1], FirstTokenLayer)
    network, inputs = network_of(e5_small, kind="embedder", pooling="cls")
    with torch.inference_mode():
        whole = network(**inputs)
        trimmed = compute_first_token_alone(network)
        assert isinstance(trimmed.encoder.encoder.layer[-1], FirstTokenLayer)
        torch.testing.assert_close(trimmed(**inputs), whole, atol=2e-6, rtol=0)
