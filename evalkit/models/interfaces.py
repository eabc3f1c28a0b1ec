"""What the engine sees of a model. A backend's `prepare` gives a RunnableModel, which opens one of the scorers."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from evalkit.models.findings import collecting, repeat
from evalkit.models.server_settings import ServerSettings
from evalkit.records import ModelIdentity, Role, Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@runtime_checkable
class PairScorer(Protocol):
    """Scores (query, document) pairs: float32, shape (pairs,), in the order given."""

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]: ...


QueryList = tuple[str, Sequence[str]]
"""A query and all its candidates' texts, in the order in which a listwise model is shown them."""


@dataclass(frozen=True, slots=True)
class ScoredList:
    """The scores of a list's documents, float32, shape (documents,).

    `tokens` and `truncated` are per document, None where the scorer does not count.
    """

    scores: NDArray[np.float32]
    tokens: list[int] | None = None
    truncated: list[bool] | None = None


@runtime_checkable
class ListScorer(Protocol):
    """Scores all candidates of one query together, in the order given, which is the order shown.

    `score_list` raises OutOfMemoryError where the list does not fit.
    """

    def score_list(self, query: str, documents: Sequence[str]) -> ScoredList: ...


@runtime_checkable
class TextEmbedder(Protocol):
    """Embeds texts in a role: float32, shape (texts, dimensions), in the order given."""

    def embed(self, texts: Sequence[str], role: Role) -> NDArray[np.float32]: ...


@runtime_checkable
class TaskScorer(Protocol):
    """Scores a whole task at once: float per candidate. For what needs the corpus (BM25) or the labels (an oracle)."""

    def score_task(self, task: Task) -> NDArray[np.floating]: ...


@dataclass(frozen=True, slots=True)
class Part:
    """Outputs of some of the items asked for: the items' positions, their outputs in that order, and the seconds that they took."""

    positions: NDArray[np.int64]
    outputs: NDArray[np.float32]
    seconds: float


@runtime_checkable
class PairStream(Protocol):
    """Scores (query, document) pairs with several requests in flight: what is answered is given at once, in any order.

    Closing the generator ends the work.
    """

    def score_parts(self, pairs: Sequence[tuple[str, str]]) -> Generator[Part]: ...


@runtime_checkable
class ListStream(Protocol):
    """Scores whole lists with several requests in flight: what is answered is given at once, in any order, each list whole.

    Positions of a Part count the documents of all lists, one list after the other. Closing the generator ends the work.
    """

    def score_lists(self, lists: Sequence[QueryList]) -> Generator[Part]: ...


@runtime_checkable
class TextStream(Protocol):
    """Embeds texts in a role with several requests in flight: what is answered is given at once, in any order.

    Closing the generator ends the work.
    """

    def embed_parts(self, texts: Sequence[str], role: Role) -> Generator[Part]: ...


@dataclass(frozen=True, slots=True)
class ServerProbe:
    """What a handful of requests showed of a server.

    `answers` are those to the first one, and `again` those to the same once more; there were so many `requests`.
    `seen` says all that was looked at, `findings` what a reader of its scores should know.
    """

    answers: NDArray[np.float32]
    again: NDArray[np.float32]
    requests: int
    seen: tuple[str, ...]
    findings: tuple[str, ...]


@runtime_checkable
class Probed(Protocol):
    """A scorer elsewhere, whose model may change between two runs or during one, with what its probe showed when it was opened.

    `probe_again` asks the probe's first question once more and returns the answers, to be compared with the probe's.
    """

    @property
    def probe(self) -> ServerProbe: ...

    def probe_again(self) -> NDArray[np.float32]: ...


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """A text's token ids without special tokens, at most as many as a network can read, and how many there were.

    Of a text that was not tokenised to its end, `length` is more than a network can read, and `count_whole` counts all its tokens.
    `unpooled` of the finished input's first tokens, its prompt's, are to be left out of a vector.
    """

    token_ids: NDArray[np.int32]
    length: int
    unpooled: int = 0
    count_whole: Callable[[], int] | None = None

    @property
    def whole_length(self) -> int:
        """How many tokens the whole text has."""
        return self.length if self.count_whole is None else self.count_whole()


@dataclass(frozen=True, slots=True)
class Encoding:
    """One network input after truncation: token ids with special tokens, segment ids, and whether text was cut.

    `unpooled` of its first tokens are to be left out of a vector.
    """

    token_ids: NDArray[np.int32]
    type_ids: NDArray[np.int32] | None
    truncated: bool
    unpooled: int = 0


class OutOfMemoryError(Exception):
    """A batch needs more memory than the device has."""


@runtime_checkable
class LocalNetwork(Protocol):
    """A network in this process: it tokenises, and runs one prepared batch.

    `tokenize` puts the role's prompt before each text and gives token ids without special tokens; `encode_pair`
    (cross-encoders) or `encode_text` (embedders) cuts them to length and adds the special tokens; `run` gives logits of
    shape (inputs,) or vectors of shape (inputs, dimensions), float32. A batch's inputs times its longest length should
    stay within `batch_tokens`; `parallel` batches may run at once, from as many threads; `pads` says whether it computes
    padding. `run` raises OutOfMemoryError where a batch does not fit.
    """

    @property
    def batch_tokens(self) -> int: ...
    @property
    def parallel(self) -> int: ...
    @property
    def pads(self) -> bool: ...

    def tokenize(self, texts: Sequence[str], role: Role) -> list[TokenizedText]: ...
    def encode_pair(self, query: TokenizedText, document: TokenizedText) -> Encoding: ...
    def encode_text(self, text: TokenizedText) -> Encoding: ...
    def run(self, batch: Sequence[Encoding]) -> NDArray[np.float32]: ...


@dataclass(frozen=True, slots=True)
class Items:
    """What is to be scored: pairs of a query and a document, or texts in one role. Each text is held once.

    `sides` are the queries and the documents, or one of the two alone; `rows`, shape (items, sides), are the positions of each
    item's texts in them. Items are numbered from `first` on. For a listwise model `lists` says at which row each list starts: a
    list is a query with all its documents, which are consecutive rows in the order shown, and is scored whole.
    """

    sides: tuple[tuple[Role, Sequence[str]], ...]
    rows: NDArray[np.int64]
    first: int = 0
    lists: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def unit(self) -> str:
        """What progress and messages call one item: pair, query or document."""
        return "pair" if len(self.sides) == 2 else self.sides[0][0]

    def pairs(self, numbers: NDArray[np.int64]) -> list[tuple[str, str]]:
        """Return the (query, document) texts of these items. Raises TypeError where items are single texts, or whole lists."""
        if len(self.sides) != 2:
            raise TypeError(f"the items are texts in the role {self.unit!r}: a scorer of pairs can't score them")
        if self.lists is not None:
            raise TypeError("the items are whole lists: a scorer of single pairs can't score them")
        return self._pairs(numbers)

    def query_list(self, numbers: NDArray[np.int64]) -> QueryList:
        """Return the list that all these items are together."""
        pairs = self._pairs(numbers)
        return pairs[0][0], [document for _, document in pairs]

    def _pairs(self, numbers: NDArray[np.int64]) -> list[tuple[str, str]]:
        (_, queries), (_, documents) = self.sides
        return [(queries[query], documents[document]) for query, document in self.rows[numbers - self.first].tolist()]

    def texts(self, numbers: NDArray[np.int64]) -> tuple[list[str], Role]:
        """Return the texts of these items, and their role. Raises TypeError where items are pairs."""
        if len(self.sides) != 1:
            raise TypeError("the items are pairs: an embedder of texts can't score them")
        ((role, texts),) = self.sides
        return [texts[position] for (position,) in self.rows[numbers - self.first].tolist()], role

    def name(self, number: int) -> str:
        """Return how messages name an item: by the beginnings of its texts."""
        row = self.rows[number - self.first].tolist()
        return " with ".join(
            name_text(role, texts[position]) for (role, texts), position in zip(self.sides, row, strict=True)
        )


def name_text(role: Role, text: str) -> str:
    """Return how messages name a text: by its beginning."""
    return f"{role} {text if len(text) <= 40 else text[:40] + '…'!r}"


@dataclass(frozen=True, slots=True)
class TextWindow:
    """Consecutive items of a plan, as texts, for a scorer in another process.

    `known` items, shape (items,), have their output; they are there since a window is batched whole. Of its batches, every
    `shares`th is to be run, from number `share` on.
    """

    items: Items
    known: NDArray[np.bool_]
    share: int = 0
    shares: int = 1


@dataclass(frozen=True, slots=True)
class DoneBatch:
    """A batch with its outputs: the numbers of its items, the seconds that it took of the machine, what it computed.

    `lengths` (tokens) and `truncated` are per item, None where the scorer does not count.
    """

    items: NDArray[np.int64]
    outputs: NDArray[np.float32]
    seconds: float
    lengths: list[int] | None = None
    truncated: list[bool] | None = None
    padding_tokens: int = 0


@runtime_checkable
class WindowScorer(Protocol):
    """Runs whole windows elsewhere, several at once: batches come in any order.

    `window(start)` gives the window that starts there as it is at that moment, or None where it lacks nothing. Closing the
    generator ends the work.
    """

    def run_windows(
        self, starts: Sequence[int], window: Callable[[int], TextWindow | None]
    ) -> Generator[DoneBatch]: ...


Scorer = (
    PairScorer
    | ListScorer
    | TextEmbedder
    | PairStream
    | ListStream
    | TextStream
    | TaskScorer
    | LocalNetwork
    | WindowScorer
)


@dataclass(frozen=True, slots=True)
class Runtime:
    """Where and how precisely a model runs. `device` and `threads` are chosen by the backend where they are None.

    `server` is how a backend that is a server is reached.
    """

    device: str | None = None
    dtype: str = "fp32"
    threads: int | None = None
    seed: int = 42
    offline: bool = False
    cache_dir: Path | None = None
    server: ServerSettings | None = None


@dataclass(frozen=True)
class RunnableModel:
    """A model that a backend found and can run: what it is, and how to get its scorer.

    `description` is what the backend says of itself, for the result. `way` is all that can change a score (weights, recipe,
    backend, precision), the name under which scores are stored; None where they are not to be stored. `for_task` gives the model
    as it is on one task, where it does something for that task alone, such as an instruction before its queries. Under `guard`
    nothing of the model's files runs that the user did not consent to. `independent` says that no plan decides what an item is
    scored with, as at a server, which batches by itself: its outputs are stored one by one, and those of others by window.
    """

    identity: ModelIdentity
    description: Mapping[str, object]
    way: Mapping[str, object] | None
    open: Callable[[], Scorer]
    for_task: Callable[[Task], RunnableModel] | None = None
    guard: Callable[[], AbstractContextManager[None]] = nullcontext
    independent: bool = False

    @cached_property
    def _opened(self) -> tuple[Scorer, tuple[str, ...]]:
        with self.guard(), collecting() as found:
            return self.open(), tuple(found)

    @property
    def scorer(self) -> Scorer:
        """The scorer, its weights loaded at the first use."""
        return self._opened[0]

    @property
    def is_open(self) -> bool:
        """Whether the scorer was used before."""
        return "_opened" in self.__dict__

    @property
    def findings(self) -> tuple[str, ...] | None:
        """What came up when the scorer was opened; None where it was not yet."""
        return self._opened[1] if self.is_open else None

    def kept_open(self) -> RunnableModel:
        """Return the same model, whose scorer is the one that is open, in copies of it too; opening them finds what it found."""
        scorer, findings = self._opened

        def opened() -> Scorer:
            repeat(findings)
            return scorer

        return replace(self, open=opened)

    def scores_as(self, other: RunnableModel) -> bool:
        """Return whether another finding of a model has the same identity and way of scoring, so that either's scorer serves."""
        return (self.identity, self.way) == (other.identity, other.way)
