"""What a kind of model needs to run with transformers: the builder of its inputs, and its network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from evalkit.models.bge_m3 import TextPairInputs, load_m3
from evalkit.models.inputs import load_inputs, refuse_unknown_tokens
from evalkit.models.language_models import load_language_model, load_layerwise, read_layerwise_config
from evalkit.models.local import Inputs
from evalkit.models.networks import (
    WholeNetwork,
    load_config,
    load_network,
    position_limit,
    refuse_wrong_kind,
    report_stored_type,
)
from evalkit.models.prompted import PromptedInputs
from evalkit.models.settings import ModelSettings
from evalkit.models.tails import load_tail
from evalkit.models.tokenizers import read_tokenizer, share_padding
from evalkit.models.weights import read_config


def load_recipe(settings: ModelSettings, folder: Path) -> tuple[Inputs, torch.nn.Module]:
    """Return the inputs and the network of a model's kind; what can't be is refused before weights load.

    The network takes the arrays of the inputs' `pad` as tensors, and gives logits of shape (inputs,) or vectors of shape
    (inputs, dimensions) in float32; the parts behind it are in it.
    """
    inputs = recipe_inputs(settings, folder)
    network = recipe_network(settings, folder, inputs)
    tail = load_tail(settings, folder)
    return inputs, network if tail is None else WholeNetwork(network, tail).eval()


def recipe_inputs(settings: ModelSettings, folder: Path) -> Inputs:
    """Return what builds the inputs of a model's kind."""
    if settings.kind == "llm-reranker":
        longest = position_limit(settings, folder)
        return _prompted_inputs(settings, folder, load_config(settings, folder), longest)
    if settings.kind == "layerwise-reranker":
        settings = _without_its_code(settings)
        config = read_layerwise_config(settings, folder)
        return _prompted_inputs(settings, folder, config.layers, config.positions)
    if settings.kind == "bge-m3":
        texts = load_inputs(_encoder(settings), folder)
        return texts if settings.score == "dense" else TextPairInputs(texts)
    if settings.kind == "multi-vector":
        return load_inputs(_without_parts(settings), folder)
    refuse_wrong_kind(settings, read_config(folder))
    return load_inputs(settings, folder)


def recipe_network(settings: ModelSettings, folder: Path, inputs: Inputs) -> torch.nn.Module:
    """Return the network that takes these inputs."""
    if settings.kind == "llm-reranker":
        return load_language_model(settings, folder, inputs.tokenizer)
    if settings.kind == "layerwise-reranker":
        settings = _without_its_code(settings)
        return load_layerwise(settings, folder, read_layerwise_config(settings, folder))
    if settings.kind == "bge-m3":
        encoder = _encoder(settings)
        if settings.score == "dense":
            return load_network(encoder, folder)
        return load_m3(settings, encoder, folder, inputs.tokenizer)
    if settings.kind == "multi-vector":
        settings = _without_parts(settings)
    network = load_network(settings, folder)
    share_padding(network, inputs.tokenizer)
    return network


def _prompted_inputs(settings: ModelSettings, folder: Path, config: Any, longest: int | None) -> PromptedInputs:
    loaded = read_tokenizer(settings, folder)
    report_stored_type(settings, folder)
    inputs = PromptedInputs.create(loaded.tokenizer, settings, longest)
    refuse_unknown_tokens(settings, folder, config, loaded.tokenizer)
    return replace(inputs, findings=loaded.findings)


def _encoder(settings: ModelSettings) -> ModelSettings:
    """Return bge-m3's settings as what it is without its heads: an embedder."""
    return settings.model_copy(update={"kind": "embedder", "pooling": "cls", "similarity": "cosine", "modules": ()})


def _without_parts(settings: ModelSettings) -> ModelSettings:
    """Return a multi-vector model's settings without what its library puts behind the network."""
    return settings.model_copy(update={"modules": ()})


def _without_its_code(settings: ModelSettings) -> ModelSettings:
    """Return a layerwise reranker's settings without its Python code, which is not needed and would not run."""
    return settings.model_copy(update={"trust_remote_code": False})
