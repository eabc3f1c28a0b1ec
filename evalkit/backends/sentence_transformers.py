"""sentence-transformers' CrossEncoder and SentenceTransformer, with evalkit's recipe.

A SentenceTransformer is built of the recipe's parts (Transformer, Pooling, Normalize), whatever `modules.json` says. A folder
with other parts, such as a dense layer behind the pooling, is refused, since no recipe here has a place for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evalkit.backends.libraries import (
    CheckedModel,
    as_scores,
    follow_files,
    library_model,
    quiet,
    refuse_stripping,
    refuse_truncation,
    within_memory,
)
from evalkit.backends.modules_json import POOLING_MODES, refuse_other_modules
from evalkit.errors import EvalkitError
from evalkit.machine import installed_version
from evalkit.models.interfaces import RunnableModel, Runtime
from evalkit.models.local import Inputs
from evalkit.models.settings import ModelSettings
from evalkit.records import Role

NAME = "sentence-transformers"
BATCH_SIZE = 32
OLD, NEW = 3, 6  # versions; those between had still other arguments
# the network's output for either kind, and what sentence-transformers' next part calls it
OUTPUTS = {"cross-encoder": ("logits", "scores"), "embedder": ("last_hidden_state", "token_embeddings")}


class CrossEncoderScorer:
    """A PairScorer: CrossEncoder.predict, opened without the sigmoid that it puts on a single label."""

    def __init__(self, model: Any, query_prompt: str, document_prompt: str) -> None:
        self._model = model
        self._prompts = query_prompt, document_prompt

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        query_prompt, document_prompt = self._prompts
        inputs = [(query_prompt + query, document_prompt + document) for query, document in pairs]

        def call(batch_size: int) -> NDArray[np.float32]:
            return as_scores(self._model.predict(inputs, batch_size=batch_size, show_progress_bar=False))

        return within_memory(call, BATCH_SIZE)


class SentenceTransformerEmbedder:
    """A TextEmbedder: SentenceTransformer.encode with the role's prompt."""

    def __init__(self, model: Any, query_prompt: str, document_prompt: str) -> None:
        self._model = model
        self._prompts = {"query": query_prompt, "document": document_prompt}

    def embed(self, texts: Sequence[str], role: Role) -> NDArray[np.float32]:
        def call(batch_size: int) -> NDArray[np.float32]:
            vectors = self._model.encode(
                list(texts), prompt=self._prompts[role], batch_size=batch_size, show_progress_bar=False
            )
            return np.asarray(vectors, np.float32)

        return within_memory(call, BATCH_SIZE)


def prepare(settings: ModelSettings, runtime: Runtime) -> RunnableModel:
    """Find the model. Raises EvalkitError for a truncation that the library does not have."""
    _refuse_versions_between()
    refuse_truncation(
        settings, NAME, "longest_first", "model.truncation=longest_first, or backend=torch or flagembedding"
    )
    reranks = settings.kind == "cross-encoder"
    return library_model(
        settings,
        runtime,
        open_cross_encoder if reranks else open_embedder,
        name=NAME,
        package=NAME,
        class_name="CrossEncoder" if reranks else "SentenceTransformer",
        check=None if reranks else refuse_other_modules,
        check_inputs=_refuse_stripping if _major_version() == OLD else None,
    )


def open_cross_encoder(model: CheckedModel) -> CrossEncoderScorer:
    """Load a CrossEncoder."""
    load = _load_old_cross_encoder if _major_version() == OLD else _load_cross_encoder
    return CrossEncoderScorer(load(model), model.settings.query_prompt, model.settings.document_prompt)


def open_embedder(model: CheckedModel) -> SentenceTransformerEmbedder:
    """Build a SentenceTransformer of the recipe's parts."""
    load = _load_old_embedder if _major_version() == OLD else _load_embedder
    return SentenceTransformerEmbedder(load(model), model.settings.query_prompt, model.settings.document_prompt)


def _major_version() -> int:
    return int(installed_version(NAME).partition(".")[0])


def _refuse_versions_between() -> None:
    if OLD < _major_version() < NEW:
        raise EvalkitError(
            f"backend={NAME} runs version {OLD} and those from {NEW} on, and {installed_version(NAME)} is installed: "
            f'pip install "{NAME}>={NEW}"'
        )


def _refuse_stripping(settings: ModelSettings, _: Path, inputs: Inputs) -> None:
    refuse_stripping(settings, inputs, f"{NAME} {OLD}", f"version {NEW} does not, nor backend=torch")


def _load_cross_encoder(model: CheckedModel) -> Any:
    from sentence_transformers import CrossEncoder

    transformer = _transformer(model, "sequence-classification")
    return CrossEncoder(modules=[transformer], device=str(model.device), activation_fn=torch.nn.Identity())


def _load_embedder(model: CheckedModel) -> Any:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

    settings = model.settings
    transformer = _transformer(model, "feature-extraction")
    pooling = Pooling(transformer.get_embedding_dimension(), POOLING_MODES[settings.pooling])
    parts = [transformer, pooling, *([Normalize()] if settings.similarity == "cosine" else [])]
    return SentenceTransformer(modules=parts, device=str(model.device))


def _transformer(model: CheckedModel, task: str) -> Any:
    """Return the network with its tokenizer, for text alone: a tokenizer with a chat template would have it take messages."""
    from sentence_transformers.sentence_transformer.modules import Transformer

    output, name = OUTPUTS[model.settings.kind]
    given = {"trust_remote_code": model.settings.trust_remote_code, "local_files_only": True}
    with quiet("sentence_transformers"):
        transformer = Transformer(
            str(model.folder),
            transformer_task=task,
            model_kwargs={"dtype": model.dtype, **given},
            processor_kwargs={"model_max_length": model.inputs.max_length, **given},
            config_kwargs=given,
            modality_config={"text": {"method": "forward", "method_output_name": output}},
            module_output_name=name,
        )
    follow_files(model, transformer)
    return transformer


def _load_old_cross_encoder(model: CheckedModel) -> Any:
    """Return a CrossEncoder that gives raw logits."""
    from sentence_transformers import CrossEncoder

    with quiet("sentence_transformers"):
        cross_encoder = CrossEncoder(
            str(model.folder),
            max_length=model.inputs.max_length,
            device=str(model.device),
            automodel_args={"torch_dtype": model.dtype},
            trust_remote_code=model.settings.trust_remote_code,
            local_files_only=True,
            default_activation_function=torch.nn.Identity(),
        )
    follow_files(model, cross_encoder)
    return cross_encoder


def _old_transformer(model: CheckedModel) -> Any:
    """Return the first part of a SentenceTransformer: the network with its tokenizer."""
    from sentence_transformers.models import Transformer

    given = {"trust_remote_code": model.settings.trust_remote_code, "local_files_only": True}
    with quiet("sentence_transformers"):
        transformer = Transformer(
            str(model.folder),
            max_seq_length=model.inputs.max_length,
            model_args={"torch_dtype": model.dtype, **given},
            tokenizer_args=dict(given),
            config_args=given,
        )
    follow_files(model, transformer)
    return transformer


def _load_old_embedder(model: CheckedModel) -> Any:
    """Return a SentenceTransformer of the recipe's parts."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling

    settings = model.settings
    transformer = _old_transformer(model)
    pooling = Pooling(transformer.get_word_embedding_dimension(), pooling_mode=POOLING_MODES[settings.pooling])
    parts = [transformer, pooling, *([Normalize()] if settings.similarity == "cosine" else [])]
    return SentenceTransformer(modules=parts, device=str(model.device))
