"""FlagEmbedding's own classes, with evalkit's recipe: FlagReranker for cross-encoders, FlagModel for embedders.

FlagEmbedding cuts a pair as its authors have done since 2024 (`truncation: only_second`), embeds by CLS or mean pooling, and
computes in fp32 on a CPU. Another recipe is refused.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evalkit.backends.libraries import CheckedModel, as_scores, library_model, quiet, refuse_truncation, within_memory
from evalkit.errors import EvalkitError
from evalkit.models.interfaces import PairScorer, RunnableModel, Runtime, TextEmbedder, TokenizedText
from evalkit.models.settings import ModelSettings
from evalkit.models.tokenization import InputBuilder
from evalkit.records import Role

NAME = "flagembedding"
PACKAGE = "FlagEmbedding"
BATCH_SIZE = 32


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
    """A TextEmbedder: `encode_queries` and `encode_corpus`, which put the prompts before the texts."""

    def __init__(self, model: Any, max_length: int) -> None:
        self._model = model
        self._max_length = max_length

    def embed(self, texts: Sequence[str], role: Role) -> NDArray[np.float32]:
        encode = self._model.encode_queries if role == "query" else self._model.encode_corpus

        def call(batch_size: int) -> NDArray[np.float32]:
            return np.asarray(encode(list(texts), batch_size=batch_size, max_length=self._max_length), np.float32)

        with _quietly(self._model):
            return within_memory(call, BATCH_SIZE)


def prepare(settings: ModelSettings, runtime: Runtime) -> RunnableModel:
    """Find the model. Raises EvalkitError for a recipe or precision that the library does not have."""
    chosen = CLASSES[settings.kind]
    recipe = "model.recipe=flagembedding, or " if "flagembedding" in settings.recipes else ""
    refuse_truncation(settings, NAME, "only_second", f"{recipe}model.truncation=only_second; or another backend")
    if settings.kind == "embedder" and settings.pooling == "last":
        raise EvalkitError(
            f"backend={NAME} pools by cls or mean, and {settings.name}'s recipe says last; backend=torch"
        )
    if runtime.dtype not in chosen.dtypes:
        raise EvalkitError(f"dtype={runtime.dtype}: {chosen.name} of {PACKAGE} runs {', '.join(chosen.dtypes)}")
    model = library_model(
        settings, runtime, partial(chosen.open, chosen.name), name=NAME, package=PACKAGE, class_name=chosen.name
    )
    if runtime.dtype != "fp32" and model.description["device"] == "cpu":
        raise EvalkitError(f"dtype={runtime.dtype}: {PACKAGE} computes in fp32 on a CPU; dtype=fp32, or backend=torch")
    return model


def open_reranker(class_name: str, model: CheckedModel) -> FlagScorer:
    """Load a reranker of that class."""
    settings = model.settings
    reranker = _load(
        class_name,
        model,
        query_instruction_for_rerank=settings.query_prompt or None,
        passage_instruction_for_rerank=settings.document_prompt or None,
    )
    if not hasattr(reranker.tokenizer, "prepare_for_model"):
        reranker.tokenizer.prepare_for_model = partial(_prepare_for_model, model.inputs)
    return FlagScorer(reranker, model.inputs.max_length)


def open_embedder(class_name: str, model: CheckedModel) -> FlagEmbedder:
    """Load an embedder of that class."""
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


def _load(class_name: str, model: CheckedModel, **arguments: Any) -> Any:
    import FlagEmbedding

    with quiet(PACKAGE):
        loaded = getattr(FlagEmbedding, class_name)(
            str(model.folder),
            use_fp16=str(model.dtype) == "torch.float16",
            devices=str(model.device),
            trust_remote_code=model.settings.trust_remote_code,
            **arguments,
        )
    loaded.model.to(model.dtype)  # a checkpoint may be of another precision than was asked for
    return loaded


def _prepare_for_model(
    inputs: InputBuilder, first: Sequence[int], second: Sequence[int], **_: object
) -> Mapping[str, list[int]]:
    """What FlagEmbedding asks a tokenizer for: a pair of token ids, cut and put between special tokens.

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
        with quiet(PACKAGE):
            yield
    finally:
        module.tqdm, module.trange = bars


def _without_bar(items: Iterable[Any], **_: object) -> Iterable[Any]:
    return items


# the class for each kind of model
CLASSES = {
    "cross-encoder": FlagClass("FlagReranker", ("fp32", "fp16"), open_reranker),
    "embedder": FlagClass("FlagModel", ("fp32", "fp16", "bf16"), open_embedder),
}
