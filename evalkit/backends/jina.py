"""Jina's API, and what speaks like it. It gives probabilities, which order as scores do but for ties near 0 and 1."""

from __future__ import annotations

from evalkit.backends.servers.codecs import EmbeddingCodec, RerankCodec, openai_entries
from evalkit.backends.servers.scorers import (
    open_client,
    refuse_changed,
    request_size,
    served_model,
    served_model_name,
)
from evalkit.models.interfaces import RunnableModel, Runtime
from evalkit.models.settings import ModelSettings

NAME = "jina"
BATCH_SIZE = 32
RERANK = RerankCodec("/v1/rerank", {"return_documents": False, "truncation": True})


def embed_codec(settings: ModelSettings) -> EmbeddingCodec:
    """Return the codec: vectors of length one, unless the similarity is a dot product."""
    wishes = {"truncate": True, "normalized": settings.similarity == "cosine", "embedding_type": "float"}
    return EmbeddingCodec("/v1/embeddings", openai_entries, wishes)


def prepare(settings: ModelSettings, runtime: Runtime) -> RunnableModel:
    """Check that the server can run the model as it is meant. Nothing is sent yet."""
    refuse_changed(NAME, settings, "max_length")
    client = open_client(NAME, settings, runtime)
    embedder = settings.kind == "embedder"
    return served_model(
        client,
        settings,
        embed_codec(settings) if embedder else RERANK,
        name=served_model_name(client, settings),
        batch_size=request_size(client, settings, BATCH_SIZE),
        cache_dir=runtime.cache_dir,
        facts={"outputs": "vectors" if embedder else "probabilities", "truncation": "at the model's own length"},
    )
