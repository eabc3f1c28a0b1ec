"""SiliconFlow's API, which serves models of others under their Hub ids.

It gives probabilities, which order as scores do but for ties near 0 and 1. With some models a long document's score is that of its
best chunk.
"""

from __future__ import annotations

from evalkit.backends.servers.codecs import RerankCodec
from evalkit.backends.servers.scorers import served_reranker
from evalkit.models.interfaces import RunnableModel, Runtime
from evalkit.models.settings import ModelSettings

NAME = "siliconflow"
TRUNCATION = "the server's; a long document may score as the best of its chunks"
RERANK = RerankCodec("/v1/rerank", {"return_documents": False})


def prepare(settings: ModelSettings, runtime: Runtime) -> RunnableModel:
    """Check that the server can run the model as it is meant. Nothing is sent yet."""
    return served_reranker(
        NAME,
        settings,
        runtime,
        RERANK,
        truncation=TRUNCATION,
        hub_ids=True,
    )
