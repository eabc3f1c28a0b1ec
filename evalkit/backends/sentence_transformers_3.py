"""sentence-transformers' version 3, which infinity needs: the same classes, opened with the arguments that they had then.

It takes away white space around texts, which later versions leave.
"""

from __future__ import annotations

from typing import Any

import torch

from evalkit.backends.libraries import CheckedModel, quiet
from evalkit.backends.modules_json import POOLING_MODES


def load_cross_encoder(model: CheckedModel) -> Any:
    """A CrossEncoder that gives raw logits."""
    from sentence_transformers import CrossEncoder

    with quiet("sentence_transformers"):
        return CrossEncoder(
            str(model.folder),
            max_length=model.inputs.max_length,
            device=str(model.device),
            automodel_args={"torch_dtype": model.dtype},
            trust_remote_code=model.settings.trust_remote_code,
            local_files_only=True,
            default_activation_function=torch.nn.Identity(),
        )


def load_transformer(model: CheckedModel) -> Any:
    """The first part of a SentenceTransformer: the network with its tokenizer."""
    from sentence_transformers.models import Transformer

    given = {"trust_remote_code": model.settings.trust_remote_code, "local_files_only": True}
    with quiet("sentence_transformers"):
        return Transformer(
            str(model.folder),
            max_seq_length=model.inputs.max_length,
            model_args={"torch_dtype": model.dtype, **given},
            tokenizer_args=dict(given),
            config_args=given,
        )


def load_embedder(model: CheckedModel) -> Any:
    """A SentenceTransformer of the recipe's parts."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling

    settings = model.settings
    transformer = load_transformer(model)
    pooling = Pooling(transformer.get_word_embedding_dimension(), pooling_mode=POOLING_MODES[settings.pooling])
    parts = [transformer, pooling, *([Normalize()] if settings.similarity == "cosine" else [])]
    return SentenceTransformer(modules=parts, device=str(model.device))
