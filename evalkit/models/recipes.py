"""What a kind of model needs to run with transformers: the builder of its inputs, and its network."""

from __future__ import annotations

from pathlib import Path

import torch

from evalkit.models.bge_m3 import TextPairInputs, load_m3
from evalkit.models.language_models import load_language_model
from evalkit.models.layerwise import load_layerwise, read_layerwise_config
from evalkit.models.local import Inputs
from evalkit.models.networks import load_inputs, load_network, load_tokenizer, position_limit
from evalkit.models.prompted import PromptedInputs
from evalkit.models.settings import ModelSettings


def load_recipe(settings: ModelSettings, folder: Path) -> tuple[Inputs, torch.nn.Module]:
    """The inputs and the network of a model's kind; what can't be is refused before weights load.

    The network takes the arrays of the inputs' `pad` as tensors, and gives logits of shape (inputs,) or vectors of shape
    (inputs, dimensions) in float32.
    """
    if settings.kind == "llm-reranker":
        inputs = PromptedInputs.create(load_tokenizer(settings, folder), settings, position_limit(settings, folder))
        return inputs, load_language_model(settings, folder, inputs.tokenizer)
    if settings.kind == "layerwise-reranker":
        settings = settings.model_copy(update={"trust_remote_code": False})  # its code is not needed, and would not run
        config = read_layerwise_config(settings, folder)
        inputs = PromptedInputs.create(load_tokenizer(settings, folder), settings, config.positions)
        return inputs, load_layerwise(settings, folder, config)
    if settings.kind == "bge-m3":
        encoder = settings.model_copy(update={"kind": "embedder", "pooling": "cls", "similarity": "cosine"})
        if settings.score == "dense":
            return load_inputs(encoder, folder), load_network(encoder, folder)
        texts = load_inputs(encoder, folder)
        return TextPairInputs(texts), load_m3(settings, encoder, folder, texts.tokenizer)
    return load_inputs(settings, folder), load_network(settings, folder)
