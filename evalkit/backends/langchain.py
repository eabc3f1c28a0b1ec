"""LangChain's HuggingFaceEmbeddings and HuggingFaceCrossEncoder with evalkit's recipe, or any object of these interfaces.

LangChain loads a folder through sentence-transformers and goes by what the folder says of itself (`modules.json`), so a recipe
that says otherwise is refused. It writes line breaks as spaces, which most tokenizers do too.

`model=langchain model.object=MODULE:NAME` takes an object of your own, whatever it is: an `Embeddings` or a cross-encoder.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from evalkit.backends.in_memory import class_name
from evalkit.backends.libraries import (
    CheckedModel,
    follow_files,
    library_model,
    quiet,
    refuse_changed_texts,
    refuse_other_recipe,
    refuse_parts,
    refuse_truncation,
    within_memory,
)
from evalkit.errors import EvalkitError
from evalkit.machine import installed_version
from evalkit.models.interfaces import PairScorer, RunnableModel, Runtime, TextEmbedder
from evalkit.models.local import Inputs
from evalkit.models.settings import ModelSettings
from evalkit.records import ModelIdentity, Role

NAME = "langchain"
LOADER = "sentence_transformers"
BATCH_SIZE = 32
Item = TypeVar("Item")


class LangChainEmbedder:
    """A TextEmbedder: any LangChain `Embeddings`, which takes queries one by one."""

    def __init__(self, embeddings: Any) -> None:
        self._embeddings = embeddings

    def embed(self, texts: Sequence[str], role: Role) -> NDArray[np.float32]:
        def embed(part: Sequence[str]) -> Any:
            if role == "query":
                return [self._embeddings.embed_query(text) for text in part]
            return self._embeddings.embed_documents(list(part))

        return _in_parts(embed, texts)


class LangChainScorer:
    """A PairScorer: any LangChain cross-encoder."""

    def __init__(self, cross_encoder: Any, query_prompt: str = "", document_prompt: str = "") -> None:
        self._cross_encoder = cross_encoder
        self._prompts = query_prompt, document_prompt

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        query_prompt, document_prompt = self._prompts
        prompted = [(query_prompt + query, document_prompt + document) for query, document in pairs]
        return _in_parts(lambda part: list(self._cross_encoder.score(list(part))), prompted)


def _in_parts(call: Callable[[Sequence[Item]], Any], items: Sequence[Item]) -> NDArray[np.float32]:
    """Call for all at once, or where they do not fit into memory in parts: LangChain's interface says nothing of batches."""

    def parts(size: int) -> NDArray[np.float32]:
        return np.concatenate([np.array(call(items[at : at + size]), np.float32) for at in range(0, len(items), size)])

    return within_memory(parts, len(items))


def prepare(settings: ModelSettings, runtime: Runtime) -> RunnableModel:
    """Find the model, or the object. Raises EvalkitError for a recipe that LangChain's classes can't be told."""
    if settings.object:
        return _own_object(settings, settings.object)
    refuse_truncation(
        settings, NAME, "longest_first", "model.truncation=longest_first, or backend=torch or flagembedding"
    )
    if settings.kind == "cross-encoder":
        refuse_parts(settings, NAME)
        return library_model(
            settings,
            runtime,
            open_cross_encoder,
            name=NAME,
            package="langchain-community",
            class_name="HuggingFaceCrossEncoder",
        )
    return library_model(
        settings,
        runtime,
        open_embeddings,
        name=NAME,
        package="langchain-huggingface",
        class_name="HuggingFaceEmbeddings",
        check=refuse_other_recipe,
        check_inputs=refuse_line_breaks,
    )


def open_embeddings(model: CheckedModel) -> LangChainEmbedder:
    """Load HuggingFaceEmbeddings."""
    from langchain_huggingface import HuggingFaceEmbeddings

    settings = model.settings
    encoding = encoding_arguments(model)
    with quiet(LOADER):
        embeddings = HuggingFaceEmbeddings(
            model_name=str(model.folder),
            model_kwargs={**loading_arguments(model), "model_kwargs": {"dtype": model.dtype}},
            encode_kwargs={**encoding, "prompt": settings.document_prompt},
            query_encode_kwargs={**encoding, "prompt": settings.query_prompt},
        )
    follow_files(model, embeddings._client)
    return LangChainEmbedder(embeddings)


def open_cross_encoder(model: CheckedModel) -> LangChainScorer:
    """Load HuggingFaceCrossEncoder, without the sigmoid that it puts on a single label."""
    settings = model.settings
    with quiet(LOADER):
        from langchain_community.cross_encoders import HuggingFaceCrossEncoder

        cross_encoder = HuggingFaceCrossEncoder(
            model_name=str(model.folder),
            model_kwargs={
                **loading_arguments(model),
                "model_kwargs": {"dtype": model.dtype},
                "activation_fn": torch.nn.Identity(),
            },
        )
    follow_files(model, cross_encoder.client)
    return LangChainScorer(cross_encoder, settings.query_prompt, settings.document_prompt)


def loading_arguments(model: CheckedModel) -> dict[str, Any]:
    """Return what LangChain hands to sentence-transformers when it loads a folder."""
    return {
        "device": str(model.device),
        "trust_remote_code": model.settings.trust_remote_code,
        "local_files_only": True,
        "processor_kwargs": {"model_max_length": model.inputs.max_length},
    }


def encoding_arguments(model: CheckedModel) -> dict[str, Any]:
    """Return what LangChain hands to sentence-transformers with texts."""
    return {"normalize_embeddings": model.settings.similarity == "cosine", "batch_size": BATCH_SIZE}


def refuse_line_breaks(settings: ModelSettings, _: Path, inputs: Inputs) -> None:
    """Raise EvalkitError where the tokenizer tells line breaks from spaces, since LangChain makes no difference."""

    def spaced(text: str) -> str:
        return text.replace("\n", " ")

    refuse_changed_texts(
        settings, inputs, spaced, "LangChain writes line breaks as spaces", "backend=sentence-transformers"
    )


def complete(settings: ModelSettings) -> ModelSettings:
    """Return the settings of an object of the user's own, with its kind. Raises EvalkitError where there is no such object."""
    if not settings.object:
        raise EvalkitError(
            "model=langchain needs model.object=MODULE:NAME, a LangChain Embeddings or cross-encoder of your own; one of "
            "Hugging Face's models is run by its own name with backend=langchain"
        )
    found = _load_object(settings.object)
    is_embedder = all(hasattr(found, name) for name in ("embed_query", "embed_documents"))
    if not is_embedder and not hasattr(found, "score"):
        raise EvalkitError(
            f"model.object={settings.object} is a {type(found).__name__}, neither an Embeddings (embed_query, embed_documents) nor "
            "a cross-encoder (score)"
        )
    kind = "embedder" if is_embedder else "cross-encoder"
    return settings.model_copy(update={"kind": kind, "name": settings.object})


def _own_object(settings: ModelSettings, place: str) -> RunnableModel:
    """Return the model that an object is. What it is made of nobody here knows, so its scores are not stored."""
    found = _load_object(place)
    description: Mapping[str, object] = {
        "name": NAME,
        "class": class_name(found),
        "version": installed_version("langchain-core"),
    }
    scorer: PairScorer | TextEmbedder = (
        LangChainEmbedder(found) if settings.kind == "embedder" else LangChainScorer(found)
    )
    identity = ModelIdentity(settings.name, f"local/{place}", "", settings.kind)
    return RunnableModel(identity, description, None, lambda: scorer)


@cache
def _load_object(place: str) -> Any:
    """Return the object at MODULE:NAME, the module looked for in the current folder too; a class or function is called."""
    module, _, name = place.partition(":")
    if not module or not name:
        raise EvalkitError(f"model.object={place}: write MODULE:NAME, as in my_search.models:embeddings")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
        return found() if inspect.isclass(found) or inspect.isfunction(found) else found
    except Exception as error:  # it is the user's code, which may fail in any way
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise EvalkitError(f"model.object={place} can't be loaded: {reason}") from error
