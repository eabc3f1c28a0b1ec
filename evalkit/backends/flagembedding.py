"""FlagEmbedding's own classes, with evalkit's recipe: FlagReranker, FlagLLMReranker, FlagModel and BGEM3FlagModel.

FlagEmbedding cuts a pair as its authors have done since 2024 (`truncation: only_second`), embeds by CLS or mean pooling, and
computes in fp32 on a CPU. Another recipe is refused. So are the models of its layerwise classes, in configs/backend/.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evalkit.backends.libraries import (
    CheckedModel,
    as_scores,
    follow_files,
    library_model,
    quiet,
    refuse_parts,
    refuse_truncation,
    within_memory,
)
from evalkit.errors import EvalkitError
from evalkit.machine import installed_version
from evalkit.models.findings import report_once
from evalkit.models.interfaces import PairScorer, RunnableModel, Runtime, TextEmbedder, TokenizedText
from evalkit.models.local import Inputs
from evalkit.models.settings import ModelSettings
from evalkit.models.weights import M3_HEADS
from evalkit.records import Role

NAME = "flagembedding"
PACKAGE = "FlagEmbedding"
BATCH_SIZE = 32
# what FlagLLMReranker can't be told
BUILT_IN = {
    "truncation": "only_second", "system_prompt": "", "separator": "\n", "document_ending": "", "bos": None, "strip": False,
    "positive_word": "Yes", "negative_word": None, "temperature": 1.0,
}  # fmt: skip


class FlagClass(NamedTuple):
    """A class of FlagEmbedding: how it is opened, and the precisions that it can be told."""

    name: str
    dtypes: tuple[str, ...]
    open: Callable[[str, CheckedModel], PairScorer | TextEmbedder]


class FlagScorer:
    """A PairScorer: `compute_score` of any of FlagEmbedding's rerankers, without the sigmoid."""

    def __init__(self, reranker: Any, max_length: int) -> None:
        self._reranker = reranker
        self._max_length = max_length

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        inputs = [list(pair) for pair in pairs]

        def call(batch_size: int) -> NDArray[np.float32]:
            scores = self._reranker.compute_score(
                inputs, batch_size=batch_size, max_length=self._max_length, normalize=False
            )
            return as_scores(scores)

        with _quietly(self._reranker):
            return within_memory(call, BATCH_SIZE)


class FlagEmbedder:
    """A TextEmbedder: `encode_queries` and `encode_corpus`, which put the prompts before the texts.

    BGEM3FlagModel gives its dense vectors among others.
    """

    def __init__(self, model: Any, max_length: int) -> None:
        self._model = model
        self._max_length = max_length

    def embed(self, texts: Sequence[str], role: Role) -> NDArray[np.float32]:
        encode = self._model.encode_queries if role == "query" else self._model.encode_corpus

        def call(batch_size: int) -> NDArray[np.float32]:
            found = encode(list(texts), batch_size=batch_size, max_length=self._max_length)
            return np.asarray(found["dense_vecs"] if isinstance(found, dict) else found, np.float32)

        with _quietly(self._model):
            return within_memory(call, BATCH_SIZE)


class M3Scorer:
    """A PairScorer: BGEM3FlagModel's sparse, colbert or fused score, out of `encode_…` and its own scores of two texts.

    Its `compute_score` would compare padding too, where a batch holds texts of several lengths.
    """

    def __init__(self, model: Any, max_length: int, settings: ModelSettings) -> None:
        self._model = model
        self._weights = {
            name: weight
            for name, weight in zip(("dense", "sparse", "colbert"), settings.weights, strict=True)
            if settings.score in (name, "fused")
        }
        self._options = {
            "max_length": max_length,
            "return_dense": "dense" in self._weights,
            "return_sparse": "sparse" in self._weights,
            "return_colbert_vecs": "colbert" in self._weights,
        }

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        def call(batch_size: int) -> NDArray[np.float32]:
            starts = range(0, len(pairs), batch_size)
            batches = (self._score(pairs[start : start + batch_size], batch_size) for start in starts)
            return as_scores(list(chain.from_iterable(batches)))

        with _quietly(self._model):
            return within_memory(call, BATCH_SIZE)

    def _score(self, pairs: Sequence[tuple[str, str]], batch_size: int) -> list[float]:
        queries, documents = (
            self._encode(encode, [pair[side] for pair in pairs], batch_size)
            for side, encode in enumerate((self._model.encode_queries, self._model.encode_corpus))
        )
        return [self._match(queries[query], documents[document]) for query, document in pairs]

    def _encode(self, encode: Any, texts: Sequence[str], batch_size: int) -> dict[str, dict[str, Any]]:
        """Return what the model makes of each distinct text."""
        distinct = list(dict.fromkeys(texts))
        found = encode(distinct, batch_size=batch_size, **self._options)
        return {
            text: {part: values[place] for part, values in found.items() if values is not None}
            for place, text in enumerate(distinct)
        }

    def _match(self, query: Mapping[str, Any], document: Mapping[str, Any]) -> float:
        scores = {
            "dense": lambda: query["dense_vecs"] @ document["dense_vecs"],
            "sparse": lambda: self._model.compute_lexical_matching_score(
                query["lexical_weights"], document["lexical_weights"]
            ),
            "colbert": lambda: self._model.colbert_score(query["colbert_vecs"], document["colbert_vecs"]),
        }
        if len(self._weights) == 1:
            return float(scores[next(iter(self._weights))]())
        weighted = sum(weight * float(scores[name]()) for name, weight in self._weights.items())
        return weighted / sum(self._weights.values())


def prepare(settings: ModelSettings, runtime: Runtime) -> RunnableModel:
    """Find the model. Raises EvalkitError for a recipe or precision that the library does not have."""
    chosen = CLASSES[settings.kind]
    recipe = "model.recipe=flagembedding, or " if "flagembedding" in settings.recipes else ""
    refuse_truncation(settings, NAME, "only_second", f"{recipe}model.truncation=only_second; or another backend")
    refuse_parts(settings, NAME, poolings=("cls", "mean"))
    if settings.kind == "llm-reranker":
        _refuse_other_prompts(settings, chosen.name)
    if runtime.dtype not in chosen.dtypes:
        raise EvalkitError(f"dtype={runtime.dtype}: {chosen.name} of {PACKAGE} runs {', '.join(chosen.dtypes)}")
    model = library_model(
        settings,
        runtime,
        partial(chosen.open, chosen.name),
        name=NAME,
        package=PACKAGE,
        class_name=chosen.name,
        check=_refuse_unasked_pickles if settings.kind == "bge-m3" else None,
    )
    if runtime.dtype != "fp32" and model.description["device"] == "cpu":
        raise EvalkitError(f"dtype={runtime.dtype}: {PACKAGE} computes in fp32 on a CPU; dtype=fp32, or backend=torch")
    return model


def _refuse_other_prompts(settings: ModelSettings, class_name: str) -> None:
    for field, built_in in BUILT_IN.items():
        if (said := getattr(settings, field)) != built_in:
            raise EvalkitError(
                f"{class_name} of {PACKAGE} has model.{field}={built_in!r} built in, and {settings.name}'s recipe says "
                f"{said[:40] if isinstance(said, str) else said!r}; backend=torch"
            )


def _refuse_unasked_pickles(settings: ModelSettings, folder: Path) -> None:
    """Refuse heads that are pickles without leave: BGEM3FlagModel reads its heads whatever the score."""
    heads = [name for name in M3_HEADS if (folder / name).is_file()]
    if heads and not settings.allow_pickle:
        raise EvalkitError(
            f"{folder / heads[0]} is a pickle, which can run code when loaded, and {PACKAGE} loads it for any score; if you trust "
            "its author: model.allow_pickle=true (or backend=torch)"
        )


def open_reranker(class_name: str, model: CheckedModel) -> FlagScorer:
    """Load a reranker of that class."""
    settings = model.settings
    reranker = _load(
        class_name,
        model,
        query_instruction_for_rerank=settings.query_prompt or None,
        passage_instruction_for_rerank=settings.document_prompt or None,
        **({"prompt": settings.prompt} if settings.kind == "llm-reranker" else {}),
    )
    if settings.kind == "cross-encoder" and not hasattr(reranker.tokenizer, "prepare_for_model"):
        reranker.tokenizer.prepare_for_model = partial(_prepare_for_model, model.inputs)
    return FlagScorer(reranker, model.inputs.max_length)


def open_embedder(class_name: str, model: CheckedModel) -> FlagEmbedder:
    """Load an embedder of that class, with pooling and similarity of the recipe's."""
    settings = model.settings
    embedder = _load(
        class_name,
        model,
        normalize_embeddings=settings.similarity == "cosine",
        pooling_method=settings.pooling,
        query_instruction_for_retrieval=settings.query_prompt or None,
        passage_instruction_for_retrieval=settings.document_prompt or None,
        use_bf16=str(model.dtype) == "torch.bfloat16",
    )
    return FlagEmbedder(embedder, model.inputs.max_length)


def open_m3(class_name: str, model: CheckedModel) -> FlagEmbedder | M3Scorer:
    """Load a model of that class for its dense vectors, or for another of its scores."""
    settings = model.settings
    loaded = _load(
        class_name,
        model,
        query_instruction_for_retrieval=settings.query_prompt or None,
        passage_instruction_for_retrieval=settings.document_prompt or None,
        use_bf16=str(model.dtype) == "torch.bfloat16",
    )
    if settings.makes_vectors:
        return FlagEmbedder(loaded, model.inputs.max_length)
    return M3Scorer(loaded, model.inputs.max_length, settings)


def _load(class_name: str, model: CheckedModel, **arguments: Any) -> Any:
    with _naming_versions(), quiet(PACKAGE):
        import FlagEmbedding

        from evalkit.models.networks import stored_wider

        loaded = getattr(FlagEmbedding, class_name)(
            str(model.folder),
            use_fp16=str(model.dtype) == "torch.float16",
            devices=str(model.device),
            trust_remote_code=model.settings.trust_remote_code,
            **arguments,
        )
    follow_files(model, loaded)
    if (wider := stored_wider(model.folder)) is not None and loaded.model.dtype != wider[0]:
        rounded = str(loaded.model.dtype).removeprefix("torch.")
        report_once(model.settings.name, [f"{PACKAGE} is no exception: it has rounded its weights to {rounded}"])
    loaded.model.to(model.dtype)  # a checkpoint may be of another precision than was asked for
    return loaded


def _prepare_for_model(
    inputs: Inputs, first: Sequence[int], second: Sequence[int], **_: object
) -> Mapping[str, list[int]]:
    """Return what FlagEmbedding asks a tokenizer for: a pair of token ids, cut and put between special tokens.

    Tokenizers have had no such method since transformers 5. FlagEmbedding then writes the ids out as text and tokenises that
    again, which gives other ids where a character is unknown or a text was cut within a word.
    """
    texts = [TokenizedText(np.asarray(ids, np.int32), len(ids)) for ids in (first, second)]
    encoding = inputs.encode_pair(*texts)
    item = {"input_ids": encoding.token_ids.tolist(), "attention_mask": [1] * len(encoding.token_ids)}
    return item if encoding.type_ids is None else {**item, "token_type_ids": encoding.type_ids.tolist()}


@contextmanager
def _quietly(loaded: Any) -> Iterator[None]:
    """No remarks, and no progress bars of the library's own, which no argument turns off; evalkit shows one."""
    module: Any = sys.modules[type(loaded).__module__]
    bars = module.tqdm, module.trange
    module.tqdm, module.trange = _without_bar, lambda *numbers, **_: range(*numbers)
    try:
        with _naming_versions(), quiet(PACKAGE):
            yield
    finally:
        module.tqdm, module.trange = bars


@contextmanager
def _naming_versions() -> Iterator[None]:
    """Name both versions where FlagEmbedding asks transformers for what that one does not have, or no longer."""
    try:
        yield
    except (ImportError, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise EvalkitError(
            f"{PACKAGE} {installed_version(PACKAGE)} fails with the installed transformers {installed_version('transformers')} "
            f"({reason}); another version of the two may do, or backend=torch"
        ) from error


def _without_bar(items: Iterable[Any], **_: object) -> Iterable[Any]:
    return items


# the class for each kind of model
CLASSES = {
    "cross-encoder": FlagClass("FlagReranker", ("fp32", "fp16"), open_reranker),
    "llm-reranker": FlagClass("FlagLLMReranker", ("fp32", "fp16"), open_reranker),
    "embedder": FlagClass("FlagModel", ("fp32", "fp16", "bf16"), open_embedder),
    "bge-m3": FlagClass("BGEM3FlagModel", ("fp32", "fp16", "bf16"), open_m3),
}
