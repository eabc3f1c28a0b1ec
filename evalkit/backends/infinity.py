"""infinity's AsyncEmbeddingEngine in this process, with evalkit's recipe.

infinity goes by what a folder says of itself: its architecture, its pooling, the length of its texts. It takes away white space
around texts, and gives every vector the length one. A recipe that says otherwise is refused.

It makes batches of what it is asked for at the same time. Requests go one after the other, so that the texts that share a batch,
and with them the last bits of a score, are the same in every run.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Coroutine, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evalkit.backends.libraries import (
    CheckedModel,
    follow_files,
    library_model,
    quiet,
    refuse_changed_texts,
    refuse_other_recipe,
    refuse_parts,
    refuse_stripping,
    refuse_truncation,
)
from evalkit.backends.parts import by_query, joined
from evalkit.errors import EvalkitError
from evalkit.models.folders.files import read_folder
from evalkit.models.interfaces import Part, RunnableModel, Runtime
from evalkit.models.local import Inputs
from evalkit.models.settings import ModelSettings
from evalkit.models.tokenization import LONGEST
from evalkit.models.weights import read_config
from evalkit.records import Role

NAME = "infinity"
LIBRARY = "infinity_emb"
BATCH_SIZE = 32
REQUEST = 8 * BATCH_SIZE  # as many texts as infinity sorts by length at a time
PATIENCE = 0.5  # seconds between two looks whether infinity's threads still live
OTHER = "backend=torch"

Ask = Callable[[], Coroutine[Any, Any, NDArray[np.float32]]]


@dataclass(frozen=True)
class InfinityReranker:
    """A PairScorer and PairStream: `rerank` with raw scores, a query with its documents at a time."""

    engine: Any
    query_prompt: str
    document_prompt: str

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        return joined(self.score_parts(pairs), len(pairs))

    def score_parts(self, pairs: Sequence[tuple[str, str]]) -> Generator[Part]:
        return _answers(self.engine, ((group, self._asking(pairs, group)) for group in by_query(pairs, REQUEST)))

    def _asking(self, pairs: Sequence[tuple[str, str]], group: NDArray[np.int64]) -> Ask:
        query = self.query_prompt + pairs[group[0]][0]
        documents = [self.document_prompt + pairs[position][1] for position in group]

        async def ask() -> NDArray[np.float32]:
            ranking, _ = await self.engine.rerank(query=query, docs=documents, raw_scores=True)
            scores = np.full(len(documents), np.nan, np.float32)
            for entry in ranking:  # the best first
                scores[entry.index] = entry.relevance_score
            return scores

        return ask


@dataclass(frozen=True)
class InfinityEmbedder:
    """A TextEmbedder and TextStream: `embed` with the role's prompt before each text."""

    engine: Any
    query_prompt: str
    document_prompt: str

    def embed(self, texts: Sequence[str], role: Role) -> NDArray[np.float32]:
        return joined(self.embed_parts(texts, role), len(texts))

    def embed_parts(self, texts: Sequence[str], role: Role) -> Generator[Part]:
        prompt = self.query_prompt if role == "query" else self.document_prompt
        groups = (range(start, min(start + REQUEST, len(texts))) for start in range(0, len(texts), REQUEST))
        return _answers(
            self.engine,
            ((np.array(group), self._asking([prompt + texts[place] for place in group])) for group in groups),
        )

    def _asking(self, texts: list[str]) -> Ask:
        async def ask() -> NDArray[np.float32]:
            vectors, _ = await self.engine.embed(sentences=texts)
            return np.stack(vectors).astype(np.float32)

        return ask


def prepare(settings: ModelSettings, runtime: Runtime) -> RunnableModel:
    """Find the model. Raises EvalkitError for a recipe that infinity does not follow."""
    refuse_truncation(settings, NAME, "longest_first", f"model.truncation=longest_first, or {OTHER}")
    if settings.kind == "embedder" and settings.similarity != "cosine":
        raise EvalkitError(
            f"backend={NAME} gives every vector the length one, and {settings.name}'s recipe says {settings.similarity}: "
            f"model.similarity=cosine, or {OTHER}"
        )
    if settings.kind == "cross-encoder" or settings.dimensions is not None:
        refuse_parts(settings, NAME)
    return library_model(
        settings,
        runtime,
        open_engine,
        name=NAME,
        package="infinity-emb",
        class_name="AsyncEmbeddingEngine",
        check=_refuse_other_model,
        check_inputs=_refuse_other_inputs,
    )


def open_engine(model: CheckedModel) -> InfinityReranker | InfinityEmbedder:
    """Load the model as infinity does, from its folder alone."""
    from evalkit.models.networks import reporting_load_errors

    with _nothing_else_changed():
        from infinity_emb import AsyncEmbeddingEngine, EngineArgs
    cuda = [model.device.index or 0] if model.device.type == "cuda" else []
    with (
        quiet(LIBRARY),
        quiet("sentence_transformers"),
        reporting_load_errors(f"{model.folder}: infinity can't load it"),
    ):
        arguments = EngineArgs(  # all that environment variables could change otherwise
            model_name_or_path=str(model.folder.resolve()),  # what looks like a Hub id is looked for there
            revision=None,
            trust_remote_code=model.settings.trust_remote_code,
            engine="torch",
            device=model.device.type,
            device_id=cuda,
            dtype=str(model.dtype).removeprefix("torch."),
            embedding_dtype="float32",
            batch_size=BATCH_SIZE,
            bettertransformer=False,
            compile=False,
            lengths_via_tokenize=False,
            model_warmup=False,
            vector_disk_cache_path="",
        )
        engine = AsyncEmbeddingEngine.from_args(arguments)
    for replica in engine._model_replicas:  # loaded here; its threads start with the first request
        follow_files(model, replica)
    scorer = InfinityEmbedder if model.settings.kind == "embedder" else InfinityReranker
    return scorer(engine, model.settings.query_prompt, model.settings.document_prompt)


def _refuse_other_model(settings: ModelSettings, folder: Path) -> None:
    """Refuse a folder that infinity takes for another kind of model, or pools in another way, than the recipe says."""
    config = read_config(folder)
    named = config.get("architectures")
    architectures = [str(name) for name in named] if isinstance(named, list) else []
    classifier = any("SequenceClassification" in name for name in architectures)
    if not architectures or (settings.kind == "cross-encoder" and not classifier):
        raise EvalkitError(
            f"{folder / 'config.json'} must name the model's class under architectures (a reranker's, …ForSequenceClassification): "
            f"infinity goes by it; {OTHER} does not"
        )
    if settings.kind == "embedder":
        refuse_other_recipe(settings, folder)


def _refuse_other_inputs(settings: ModelSettings, folder: Path, inputs: Inputs) -> None:
    """Refuse a length that is not the folder's own, and a tokenizer that heeds what infinity changes in texts."""
    files = read_folder(folder)
    encoder = files.encoder if settings.kind == "embedder" and files.modules is not None else None
    own_length = encoder.max_seq_length if encoder is not None else None
    length: int = own_length or inputs.tokenizer.model_max_length
    if settings.kind == "embedder" and not own_length:  # then the network's positions set a limit too
        length = min(length, int(str(read_config(folder).get("max_position_embeddings") or length)))
    if length != inputs.max_length:
        place = files.encoder_name if own_length else "tokenizer"
        says = (
            f"{settings.name}'s {place} says {length}"
            if length < LONGEST
            else f"{settings.name}'s tokenizer sets no limit"
        )
        raise EvalkitError(
            f"backend={NAME} cuts texts as the model's folder says, and here {says}, but the recipe {inputs.max_length} tokens: "
            f"make them agree (model.max_length, or in the file), or {OTHER}"
        )
    refuse_stripping(settings, inputs, NAME, OTHER)
    if encoder is not None and encoder.do_lower_case and not settings.lower_case:
        refuse_changed_texts(settings, inputs, str.lower, f"{NAME} writes texts in small letters", OTHER)


def _answers(engine: Any, requests: Iterator[tuple[NDArray[np.int64], Ask]]) -> Generator[Part]:
    """Start the engine, ask it one request after the other, and stop it. It lives on an event loop in a thread of its own.

    Raises EvalkitError where infinity fails.
    """
    from anyio.from_thread import start_blocking_portal

    with _failures() as failures, start_blocking_portal() as portal, portal.wrap_async_context_manager(engine):
        for positions, ask in requests:
            started = time.perf_counter()
            outputs = portal.call(_answer, ask, failures)
            yield Part(positions, outputs, time.perf_counter() - started)


async def _answer(ask: Ask, failures: Sequence[BaseException]) -> NDArray[np.float32]:
    answer = asyncio.ensure_future(ask())
    while not answer.done():
        await asyncio.wait([answer], timeout=PATIENCE)
        if failures and not answer.done():
            answer.cancel()
            reason = " ".join(str(failures[0]).split())[:200] or type(failures[0]).__name__
            raise EvalkitError(f"infinity failed: {reason}; does {OTHER} run the model?")
    return answer.result()


class _Listener(logging.Handler):
    """Keeps the exceptions that are logged."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.exceptions: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1]:
            self.exceptions.append(record.exc_info[1])


@contextmanager
def _failures() -> Iterator[Sequence[BaseException]]:
    """Yield what infinity's threads die of: reported in the log alone, while others wait forever."""
    logger, listener = logging.getLogger(LIBRARY), _Listener()
    before = logger.handlers, logger.level, logger.propagate
    logger.handlers, logger.propagate = [listener], False
    logger.setLevel(logging.ERROR)
    try:
        yield listener.exceptions
    finally:
        logger.handlers, level, logger.propagate = before
        logger.setLevel(level)


@contextmanager
def _nothing_else_changed() -> Iterator[None]:
    """Undo what importing infinity changes: it makes a folder, takes over the root logger, and has CUDA compute fp32 in TF32."""
    root, cuda, cudnn = logging.getLogger(), torch.backends.cuda.matmul, torch.backends.cudnn
    handlers, level, tf32 = list(root.handlers), root.level, (cuda.allow_tf32, cudnn.allow_tf32)
    with TemporaryDirectory() as scratch:
        changes = {"INFINITY_HOME": scratch, "DO_NOT_TRACK": "1"}
        before = {name: os.environ.get(name) for name in changes}
        os.environ.update(changes)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
            root.handlers, (cuda.allow_tf32, cudnn.allow_tf32) = handlers, tf32
            root.setLevel(level)
