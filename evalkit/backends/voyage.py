"""Voyage's API. It gives probabilities, which order as scores do but for ties near 0 and 1."""

from __future__ import annotations

from evalkit.backends.servers.codecs import RerankCodec
from evalkit.backends.servers.scorers import served_reranker
from evalkit.models.interfaces import RunnableModel, Runtime
from evalkit.models.settings import ModelSettings

NAME = "voyage"
CHARACTERS = 100_000
"""The fewest tokens that one of its models takes in a request, the query's once per document; each has a character or more."""
RERANK = RerankCodec(
    "/v1/rerank", {"return_documents": False, "truncation": True}, top="top_k", results="data", characters=CHARACTERS
)


def prepare(settings: ModelSettings, runtime: Runtime) -> RunnableModel:
    """Check that the server can run the model as it is meant. Nothing is sent yet."""
    return served_reranker(NAME, settings, runtime, RERANK, truncation="at the model's own length")
