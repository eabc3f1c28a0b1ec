"""Cohere's API, and what speaks like it. It gives probabilities, which order as scores do but for ties near 0 and 1."""

from __future__ import annotations

from typing import Any

from evalkit.backends.servers.answers import in_order, member
from evalkit.backends.servers.codecs import EmbeddingCodec, RerankCodec
from evalkit.backends.servers.scorers import (
    open_client,
    refuse_changed,
    refuse_dot,
    request_size,
    served_model,
    served_model_name,
)
from evalkit.models.interfaces import RunnableModel, Runtime
from evalkit.models.settings import ModelSettings

NAME = "cohere"
RERANK_BATCH_SIZE = 100  # as many documents as one "search unit" pays for
EMBED_BATCH_SIZE = 96  # the most that it takes
TOKENS_PER_DOCUMENT = 4_096  # its default


def embed_entries(answer: Any, count: int) -> list[Any]:
    """Return the vectors in an answer of /v2/embed. Raises WrongAnswerError where their number is wrong."""
    return in_order(member(member(answer, "embeddings"), "float"), count)


EMBED = EmbeddingCodec("/v2/embed", embed_entries, {"embedding_types": ["float"], "truncate": "END"}, texts="texts")


def prepare(settings: ModelSettings, runtime: Runtime) -> RunnableModel:
    """Check that the server can run the model as it is meant. Nothing is sent yet."""
    refuse_dot(NAME, settings)
    refuse_changed(NAME, settings, "pooling")
    client = open_client(NAME, settings, runtime)
    embedder = settings.kind == "embedder"
    tokens = settings.max_length or TOKENS_PER_DOCUMENT
    wishes = {"max_tokens_per_doc": tokens}
    return served_model(
        client,
        settings,
        EMBED if embedder else RerankCodec("/v2/rerank", wishes),
        name=served_model_name(client, settings),
        batch_size=request_size(client, settings, EMBED_BATCH_SIZE, EMBED_BATCH_SIZE)
        if embedder
        else request_size(client, settings, RERANK_BATCH_SIZE),
        cache_dir=runtime.cache_dir,
        facts={
            "outputs": "vectors" if embedder else "probabilities",
            "truncation": "the server's, at the end" if embedder else f"documents at {tokens} tokens",
        },
    )
