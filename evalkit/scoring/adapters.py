"""One adapter per kind of scorer: how it gets the outputs of items, as batches that are given when they are done.

The engine, and an actor of a cluster, choose it once with `adapter_of` and know nothing else of the kinds.
"""

from __future__ import annotations

import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import EvalkitError, NonFiniteError
from evalkit.models.interfaces import (
    DoneBatch,
    Items,
    ListScorer,
    ListStream,
    LocalNetwork,
    OutOfMemoryError,
    PairScorer,
    PairStream,
    Part,
    Scorer,
    TaskScorer,
    TextEmbedder,
    TextStream,
    WindowScorer,
    name_text,
)
from evalkit.records import Run, Task, Usage
from evalkit.scoring.execution import Memory, network_batches
from evalkit.scoring.plan import Batch, chunks, encoded_windows, lacking_windows, pack, text_window, whole_lists


class Adapter(ABC):
    """How the engine, or an actor, gets the outputs of a scorer, whatever its kind."""

    @abstractmethod
    def batches(self, items: Items, known: NDArray[np.bool_]) -> Generator[DoneBatch]:
        """Run all that lacks an output; `known`, shape (items,), says which items have theirs, and is read as the work goes on.

        Raises TypeError for what scores whole tasks.
        """

    @property
    def planned(self) -> Planned | None:
        """The adapter, where its batches are those of the plan, so that an actor can run a window; None for other kinds."""
        return None

    @property
    def whole_task(self) -> WholeTask | None:
        """The adapter, where it scores whole tasks; None for other kinds."""
        return None


class Planned(Adapter):
    """A scorer in this process, whose batches are those of the plan: a window of it can be run on any machine."""

    @property
    def planned(self) -> Planned:
        return self

    @abstractmethod
    def plan(self, items: Items, known: NDArray[np.bool_]) -> Iterator[Batch]:
        """Plan the batches of each window that lacks an output; `known`, shape (items,), says which items have theirs."""

    @abstractmethod
    def run(self, items: Items, batches: Iterable[Batch]) -> Generator[DoneBatch]:
        """Run the batches. Closing the generator ends the work."""

    def lacking(self, items: Items, known: NDArray[np.bool_], share: int = 0, shares: int = 1) -> Iterator[Batch]:
        """Plan the batches that lack an output, of every `shares`th batch from number `share` on."""
        for batch in itertools.islice(self.plan(items, known), share, None, shares):
            if not known[batch.items - items.first].all():
                yield batch

    def batches(self, items: Items, known: NDArray[np.bool_]) -> Generator[DoneBatch]:
        return self.run(items, self.lacking(items, known))


@dataclass(frozen=True)
class InProcess(Planned):
    """A LocalNetwork, with what is known of its device's memory."""

    network: LocalNetwork
    memory: Memory = field(default_factory=Memory)

    def plan(self, items: Items, known: NDArray[np.bool_]) -> Iterator[Batch]:
        for window in encoded_windows(self.network, items, known):
            yield from pack(window.encodings, window.start, self.network.batch_tokens)

    def run(self, items: Items, batches: Iterable[Batch]) -> Generator[DoneBatch]:
        return network_batches(self.network, batches, self.memory, items.name)


@dataclass(frozen=True)
class InChunks(Planned):
    """A PairScorer or TextEmbedder, which batches by itself: `call` gives the outputs of a chunk of the items."""

    call: Callable[[Items, NDArray[np.int64]], NDArray[np.float32]]

    def plan(self, items: Items, known: NDArray[np.bool_]) -> Iterator[Batch]:
        return chunks(items, known)

    def run(self, items: Items, batches: Iterable[Batch]) -> Generator[DoneBatch]:
        for batch in batches:
            started = time.perf_counter()
            outputs = self.call(items, batch.items)
            yield DoneBatch(batch.items, outputs, time.perf_counter() - started)


@dataclass(frozen=True)
class InParts(Adapter):
    """A PairStream or TextStream: `ask` gets all items that lack an output at once, and answers in parts."""

    ask: Callable[[Items, NDArray[np.int64]], Generator[Part]]

    def batches(self, items: Items, known: NDArray[np.bool_]) -> Generator[DoneBatch]:
        lacking = items.first + np.flatnonzero(~known)
        with closing(self.ask(items, lacking)) as parts:
            for part in parts:
                yield DoneBatch(lacking[part.positions], part.outputs, part.seconds)


@dataclass(frozen=True)
class InLists(Planned):
    """A ListScorer: a batch is one query's whole list."""

    scorer: ListScorer

    def plan(self, items: Items, known: NDArray[np.bool_]) -> Iterator[Batch]:
        return whole_lists(items, known)

    def run(self, items: Items, batches: Iterable[Batch]) -> Generator[DoneBatch]:
        for batch in batches:
            query, documents = items.query_list(batch.items)
            started = time.perf_counter()
            try:
                found = self.scorer.score_list(query, documents)
            except OutOfMemoryError as error:
                raise EvalkitError(
                    f"out of memory with {name_text('query', query)} and its {len(documents)} documents, which are scored "
                    f"together: {str(error).splitlines()[0]}; try dtype=bf16, a smaller model.max_length, or device=cpu"
                ) from error
            if found.scores.shape != (len(documents),):
                raise EvalkitError(
                    f"the model gives scores of the shape {found.scores.shape} for {name_text('query', query)}, which has "
                    f"{len(documents)} documents"
                )
            seconds = time.perf_counter() - started
            yield DoneBatch(batch.items, found.scores, seconds, lengths=found.tokens, truncated=found.truncated)


@dataclass(frozen=True)
class InListParts(Adapter):
    """A ListStream, which gets all lists that lack an output at once, and answers in parts."""

    scorer: ListStream

    def batches(self, items: Items, known: NDArray[np.bool_]) -> Generator[DoneBatch]:
        lists = [batch.items for batch in whole_lists(items, known)]
        lacking = np.concatenate([np.empty(0, np.int64), *lists])
        with closing(self.scorer.score_lists([items.query_list(one) for one in lists])) as parts:
            for part in parts:
                yield DoneBatch(lacking[part.positions], part.outputs, part.seconds)


@dataclass(frozen=True)
class Elsewhere(Adapter):
    """A WindowScorer, which gets each window as it is when it is handed out."""

    scorer: WindowScorer

    def batches(self, items: Items, known: NDArray[np.bool_]) -> Generator[DoneBatch]:
        return self.scorer.run_windows(lacking_windows(items, known), lambda start: text_window(items, known, start))


@dataclass(frozen=True)
class WholeTask(Adapter):
    """A TaskScorer, which has no items: it scores all candidates of a task at once, and nothing of it is stored."""

    scorer: TaskScorer

    def batches(self, *_: object) -> Generator[DoneBatch]:
        raise TypeError(f"{type(self.scorer).__name__} scores whole tasks: nothing of it can be stored")

    @property
    def whole_task(self) -> WholeTask:
        return self

    def score(self, task: Task) -> Run:
        """Score every candidate. Raises NonFiniteError, naming the candidate, where a score is not finite."""
        started = time.perf_counter()
        scores = self.scorer.score_task(task)
        if not np.isfinite(scores).all():
            raise NonFiniteError(
                f"task {task.name}: the score of candidate {int(np.argmin(np.isfinite(scores))) + 1} is not finite"
            )
        return Run(scores, Usage(time.perf_counter() - started, len(scores)))


def adapter_of(scorer: object) -> Adapter:
    """Choose the adapter of a scorer by its kind; where it is of several, the first of this table.

    Raises TypeError for what is no scorer.
    """
    match scorer:
        case TaskScorer():
            return WholeTask(scorer)
        case LocalNetwork():
            return InProcess(scorer)
        case WindowScorer():
            return Elsewhere(scorer)
        case ListStream():
            return InListParts(scorer)
        case ListScorer():
            return InLists(scorer)
        case PairStream():
            return InParts(lambda items, numbers: scorer.score_parts(items.pairs(numbers)))
        case TextStream():
            return InParts(lambda items, numbers: scorer.embed_parts(*items.texts(numbers)))
        case PairScorer():
            return InChunks(lambda items, numbers: scorer.score(items.pairs(numbers)))
        case TextEmbedder():
            return InChunks(lambda items, numbers: scorer.embed(*items.texts(numbers)))
    kinds = ", ".join(kind.__name__ for kind in get_args(Scorer))
    raise TypeError(
        f"{type(scorer).__name__} is no scorer: it has the methods of none of {kinds} (models/interfaces.py)"
    )
