"""infinity's server: raw scores of cross-encoders, vectors of embedders.

The server strips white space from texts and cuts them to the length that it was started with; it can be told neither.
"""

from __future__ import annotations

from evalkit.backends.servers.codecs import EmbeddingCodec, RerankCodec, openai_entries
from evalkit.backends.servers.names import listed_findings
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

NAME = "infinity-server"
BATCH_SIZE = 32
MOST = 2_048  # that it takes
MODELS = "/models"
RERANK = RerankCodec("/rerank", {"raw_scores": True, "return_documents": False})
EMBED = EmbeddingCodec("/embeddings", openai_entries, {"encoding_format": "float"})


def prepare(settings: ModelSettings, runtime: Runtime) -> RunnableModel:
    """Check that the server can run the model as it is meant. Nothing is sent yet."""
    refuse_changed(NAME, settings, "max_length", "pooling")
    refuse_dot(NAME, settings)
    client = open_client(NAME, settings, runtime)
    embedder = settings.kind == "embedder"
    name = served_model_name(client, settings)
    return served_model(
        client,
        settings,
        EMBED if embedder else RERANK,
        name=name,
        batch_size=request_size(client, settings, BATCH_SIZE, MOST),
        cache_dir=runtime.cache_dir,
        facts={"outputs": "vectors" if embedder else "raw scores", "truncation": "the server's; texts stripped"},
        doubts=lambda: listed_findings(client, settings, name, MODELS),
    )
