"""Mixedbread's API. It gives probabilities, which order as scores do but for ties near 0 and 1."""

from __future__ import annotations

from evalkit.backends.servers.codecs import RerankCodec
from evalkit.backends.servers.scorers import served_reranker
from evalkit.models.interfaces import RunnableModel, Runtime
from evalkit.models.settings import ModelSettings

NAME = "mixedbread"
RERANK = RerankCodec(
    "/v1/reranking", {"return_input": False}, documents="input", top="top_k", results="data", score="score"
)


def prepare(settings: ModelSettings, runtime: Runtime) -> RunnableModel:
    """Check that the server can run the model as it is meant. Nothing is sent yet."""
    return served_reranker(NAME, settings, runtime, RERANK, truncation="at the model's own length", hub_ids=True)
