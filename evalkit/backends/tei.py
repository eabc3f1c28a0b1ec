"""text-embeddings-inference: raw scores of cross-encoders from /predict, vectors of embedders from /embed.

/predict and not /rerank: it answers in the order of the question, and takes pairs of any queries together, which fills requests.
The server says in /info what it runs; it must be the model that is meant, and cut at its max_length.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, ValidationError

from evalkit.backends.servers.answers import in_order, member, numbers
from evalkit.backends.servers.client import Client, Question
from evalkit.backends.servers.codecs import EmbeddingCodec, RerankCodec
from evalkit.backends.servers.names import cannot_be_known, compare_names, meant
from evalkit.backends.servers.scorers import open_client, request_size, served_model
from evalkit.models.interfaces import RunnableModel, Runtime
from evalkit.models.settings import ModelSettings

NAME = "tei"
RERANK = RerankCodec(
    "/rerank",
    {"raw_scores": True, "truncate": True},
    documents="texts",
    top=None,
    results=None,
    score="score",
    model=None,
)
"""For whole lists: /predict takes pairs, of which none knows the others."""
POOLINGS = {"cls": "cls", "mean": "mean", "last": "lasttoken"}
logger = logging.getLogger("evalkit")


class Info(BaseModel):
    """What /info says that matters here."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())

    model_id: str
    model_dtype: str
    model_type: dict[str, Any] | str
    max_input_length: NonNegativeInt
    max_client_batch_size: PositiveInt = 32
    model_sha: str | None = None
    served_model_name: str | None = None
    version: str = ""

    @property
    def kinds(self) -> dict[str, Any]:
        """`reranker`, `classifier` or `embedding`, with what belongs to it."""
        kinds = self.model_type if isinstance(self.model_type, dict) else {self.model_type: {}}
        return {kind.lower(): content for kind, content in kinds.items()}


@dataclass(frozen=True)
class PredictCodec:
    """A PairCodec: pairs as they come, one label's score for each."""

    path: str = "/predict"

    def questions(self, model: str, pairs: Sequence[tuple[str, str]], size: int) -> Iterator[Question]:
        del model  # a server runs one
        for start in range(0, len(pairs), size):
            chosen = [list(pair) for pair in pairs[start : start + size]]
            body = {"inputs": chosen, "raw_scores": True, "truncate": True}
            yield Question(np.arange(start, start + len(chosen)), self.path, body, self._read(len(chosen)))

    def _read(self, count: int) -> Any:
        def read(answer: Any) -> NDArray[np.float32]:
            return numbers([member(in_order(labels, 1)[0], "score") for labels in in_order(answer, count)])

        return read


def embed_codec(settings: ModelSettings) -> EmbeddingCodec:
    """Return the codec: vectors of length one, unless the similarity is a dot product."""
    wishes = {"truncate": True, "normalize": settings.similarity == "cosine"}
    return EmbeddingCodec("/embed", in_order, wishes, texts="inputs", model=None)


def prepare(settings: ModelSettings, runtime: Runtime) -> RunnableModel:
    """Ask the server what it runs, and check that it is the model that is meant."""
    client = open_client(NAME, settings, runtime)
    info = _info(client)
    doubts = _names_of_model(client, settings, info)
    _refuse_other_recipe(client, settings, info)
    if settings.revision and info.model_sha and info.model_sha != settings.revision and not settings.path:
        logger.warning(
            "%s: %s runs revision %s, the recipe is of %s", NAME, client.url, info.model_sha, settings.revision
        )
    embedder = settings.kind == "embedder"
    return served_model(
        client,
        settings,
        embed_codec(settings) if embedder else RERANK if settings.kind == "listwise" else PredictCodec(),
        name=info.model_id,
        batch_size=request_size(client, settings, info.max_client_batch_size, info.max_client_batch_size),
        cache_dir=runtime.cache_dir,
        facts={
            "outputs": "vectors" if embedder else "raw scores",
            "truncation": f"at {info.max_input_length} tokens",
            "dtype": info.model_dtype,
            "revision": info.model_sha,
            "version": info.version,
        },
        revision=info.model_sha,
        doubts=lambda: doubts,
    )


def _info(client: Client) -> Info:
    answer = client.get("/info")
    try:
        return Info.model_validate(answer)
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"]) or "the answer"
        raise client.refusal("/info", f"does not answer as TEI does ({field}: {problem['msg']}); is it one?") from None


def _names_of_model(client: Client, settings: ModelSettings, info: Info) -> list[str]:
    """Return what a reader should know of the names of the model. Raises EvalkitError where the server runs another."""
    said = [name for name in (info.model_id, info.served_model_name) if name]
    verdict = compare_names(settings, client.settings.served_model, said)
    if verdict == "other":
        raise client.refusal(
            "/info",
            f"runs {info.model_id}, not {client.settings.served_model or meant(settings)}; if that is the same model by another "
            f"name: backend.served_model={info.model_id}",
        )
    return [cannot_be_known(settings, info.model_id)] if verdict == "unknown" else []


def _refuse_other_recipe(client: Client, settings: ModelSettings, info: Info) -> None:
    kind = "embedding" if settings.kind == "embedder" else "reranker"
    if kind not in info.kinds:
        found = " or ".join(info.kinds)
        raise client.refusal("/info", f"runs {info.model_id} as {found}; a {settings.kind} needs {kind}")
    if settings.kind != "listwise" and settings.max_length and settings.max_length != info.max_input_length:
        raise client.refusal(
            "/info",
            f"cuts at {info.max_input_length} tokens, and {settings.name} is meant to read {settings.max_length}; start it "
            f"otherwise, or say model.max_length={info.max_input_length}",
        )
    pooling = str((info.kinds[kind] or {}).get("pooling", "")) if kind == "embedding" else ""
    if pooling and pooling.lower().replace("_", "").replace("-", "") != POOLINGS.get(settings.pooling):
        raise client.refusal(
            "/info",
            f"pools {pooling}, and {settings.name} is meant to be pooled {settings.pooling}; start it with another --pooling, or "
            "say model.pooling=…",
        )
