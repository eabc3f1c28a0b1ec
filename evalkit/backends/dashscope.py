"""DashScope's API (Alibaba Cloud's Model Studio), in the form that its OpenAI-compatible address takes.

It gives probabilities, which order as scores do but for ties near 0 and 1. A request has at most 500 documents; a query and a
document are cut to 4,000 tokens each, and qwen3-rerank's instruction is its default ("Given a web search query, …").
"""

from __future__ import annotations

from evalkit.backends.servers.codecs import RerankCodec
from evalkit.backends.servers.scorers import served_reranker
from evalkit.models.interfaces import RunnableModel, Runtime
from evalkit.models.settings import ModelSettings

NAME = "dashscope"
DOCUMENTS = 500
CHARACTERS = 30_000
"""The fewest tokens that one of its models takes in a request, the query's once per document; each has a character or more."""
RERANK = RerankCodec("/v1/reranks", {}, characters=CHARACTERS)


def prepare(settings: ModelSettings, runtime: Runtime) -> RunnableModel:
    """Check that the server can run the model as it is meant. Nothing is sent yet."""
    return served_reranker(NAME, settings, runtime, RERANK, truncation="at 4,000 tokens", most=DOCUMENTS)
