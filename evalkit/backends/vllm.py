"""vLLM's server: logits of cross-encoders from /score, vectors of embedders; it is told how long an input may be.

/score and not /rerank, which sends every document back. A language model that reranks is asked at /v1/completions, where evalkit
assembles its input, or at /score, where the server does, by the template that it was started with: what does not fit it refuses
there, since cutting would take the template's end away.
"""

from __future__ import annotations

from collections.abc import Mapping

from evalkit.backends.servers.codecs import EmbeddingCodec, RerankCodec, openai_entries
from evalkit.backends.servers.names import listed_findings
from evalkit.backends.servers.scorers import (
    LANGUAGE_MODEL,
    open_client,
    refuse_changed,
    refuse_dot,
    request_size,
    served_model,
    served_model_name,
)
from evalkit.backends.servers.words import served_words
from evalkit.models.interfaces import RunnableModel, Runtime
from evalkit.models.settings import ModelSettings

NAME = "vllm"
BATCH_SIZE = 32
MODELS = "/v1/models"
AS_LONG_AS_IT_CAN = -1


def score_codec(wishes: Mapping[str, object]) -> RerankCodec:
    """Ask for one text_1 with several text_2."""
    return RerankCodec(
        "/score",
        {**wishes, "use_activation": False},
        query="text_1",
        documents="text_2",
        top=None,
        results="data",
        score="score",
    )


def prepare(settings: ModelSettings, runtime: Runtime) -> RunnableModel:
    """Check that the server can run the model as it is meant. Nothing is sent yet."""
    refuse_dot(NAME, settings)
    client = open_client(NAME, settings, runtime)
    if settings.kind == LANGUAGE_MODEL and client.settings.endpoint != "score":
        return served_words(client, settings, runtime, models=MODELS)
    refuse_changed(NAME, settings, "pooling")
    cut = {"truncate_prompt_tokens": settings.max_length or AS_LONG_AS_IT_CAN}
    # the prompt of a whole list is refused where it is too long, and never cut
    wishes = {} if settings.kind in (LANGUAGE_MODEL, "listwise") else cut
    embedder = settings.kind == "embedder"
    name = served_model_name(client, settings)
    return served_model(
        client,
        settings,
        EmbeddingCodec("/v1/embeddings", openai_entries, {**wishes, "encoding_format": "float"})
        if embedder
        else score_codec(wishes),
        name=name,
        batch_size=request_size(client, settings, BATCH_SIZE),
        cache_dir=runtime.cache_dir,
        facts={
            "outputs": "vectors" if embedder else "raw scores",
            "truncation": "at max_length" if wishes else "none: what is too long is refused",
            **({"endpoint": "score"} if settings.kind == LANGUAGE_MODEL else {}),
        },
        doubts=lambda: listed_findings(client, settings, name, MODELS),
    )
