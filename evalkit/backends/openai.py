"""OpenAI's embeddings, and any server that speaks like it. It has no way to cut texts: those too long it refuses.

A language model that reranks is asked at /v1/completions, for as many of the likeliest tokens as the server tells of.
"""

from __future__ import annotations

from evalkit.backends import read_backend
from evalkit.backends.servers.codecs import EmbeddingCodec, openai_entries
from evalkit.backends.servers.names import listed_findings
from evalkit.backends.servers.scorers import (
    LANGUAGE_MODEL,
    open_client,
    refuse_changed,
    refuse_dot,
    served_model,
    served_model_name,
)
from evalkit.backends.servers.words import served_words
from evalkit.errors import EvalkitError
from evalkit.models.interfaces import RunnableModel, Runtime
from evalkit.models.settings import ModelSettings

NAME = "openai"
BATCH_SIZE = 32
MODELS = "/v1/models"
EMBED = EmbeddingCodec("/v1/embeddings", openai_entries, {"encoding_format": "base64"})


def prepare(settings: ModelSettings, runtime: Runtime) -> RunnableModel:
    """Check that the server can run the model as it is meant. Nothing is sent yet."""
    client = open_client(NAME, settings, runtime)
    models = None if client.url == read_backend(NAME).url else MODELS
    if settings.kind == LANGUAGE_MODEL:
        if client.settings.endpoint == "score":
            raise EvalkitError(f"backend.endpoint=score: backend={NAME} has none, backend=vllm has")
        return served_words(client, settings, runtime, models=models)
    refuse_changed(NAME, settings, "max_length", "pooling")
    refuse_dot(NAME, settings)
    name = served_model_name(client, settings)
    return served_model(
        client,
        settings,
        EMBED,
        name=name,
        batch_size=client.settings.batch_size or BATCH_SIZE,
        cache_dir=runtime.cache_dir,
        facts={"outputs": "vectors", "truncation": "the server's, if it has one"},
        doubts=tuple if models is None else lambda: listed_findings(client, settings, name, models),
    )
