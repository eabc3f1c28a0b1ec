"""What an actor does, without Ray: a window run in shares gives what a run on one machine gives, bit by bit."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_tasks import make_task, scored
from numpy.typing import NDArray
from scoring.fakes import Network, PairParts, Pairs, TextParts, Vectors, Whole

from evalkit.cluster.work import DEATHS, Job, Work
from evalkit.cluster.worker import OUTBOX, Description, Failure, Worker, differences
from evalkit.errors import EvalkitError
from evalkit.models.interfaces import DoneBatch, Encoding, Part, RunnableModel, Scorer, TextWindow
from evalkit.models.settings import model_settings
from evalkit.records import ModelIdentity, Run, Task
from evalkit.scoring.engine import ScoreMemory, score_task
from evalkit.scoring.items import text_items
from evalkit.scoring.plan import WINDOW_ITEMS
from evalkit.scoring.store import FILE_NAME, open_store

IDENTITY = ModelIdentity("made", "local/made", "made", "cross-encoder", "0" * 64)
GROUPS = [
    ([f"问题{query}"], [(f"答案{query}{'很长' * (row % 9)}{row}", row % 2) for row in range(30)]) for query in range(90)
]
TASK = make_task(*GROUPS)  # more pairs and documents than one window has


@dataclass
class ShapedNetwork(Network):
    """Rounds by the shape of the batch, as real networks do."""

    def run(self, batch: Sequence[Encoding]) -> NDArray[np.float32]:
        longest = max(len(encoding.token_ids) for encoding in batch)
        return super().run(batch) * np.float32(1 + 1e-6 * len(batch) + 1e-7 * longest)


@dataclass
class InTurn:
    """A WindowScorer: workers in this process, the last part first."""

    make: Callable[[], Scorer]
    shares: int = 1
    workers: list[Worker] = field(default_factory=lambda: [Worker(), Worker()])

    def run_windows(self, starts: Sequence[int], window: Callable[[int], TextWindow | None]) -> Generator[DoneBatch]:
        parts = [(start, share) for start in starts for share in range(self.shares)]
        for number, (start, share) in enumerate(reversed(parts)):
            now = window(start)
            if now is None:
                continue
            worker = self.workers[number % len(self.workers)]
            asked = replace(now, share=share, shares=self.shares)
            scoring = threading.Thread(target=worker.score, args=("key", self.prepare, asked), daemon=True)
            scoring.start()
            yield from self.taken(worker)
            scoring.join()

    def prepare(self) -> RunnableModel:
        return runnable(self.make())

    def taken(self, worker: Worker) -> Generator[DoneBatch]:
        while True:
            for _, message in worker.take():
                if message is None:
                    return
                if isinstance(message, EvalkitError):
                    raise message
                assert isinstance(message, DoneBatch), message
                yield message


def runnable(scorer: Scorer, **changes: Any) -> RunnableModel:
    return RunnableModel(IDENTITY, {"name": "made"}, {}, lambda: scorer, **changes)


@pytest.mark.parametrize("kind", ["cross-encoder", "embedder"])
@pytest.mark.parametrize("shares", [1, 3, 16])
def test_shares_of_windows_give_the_same_bits(kind: str, shares: int) -> None:
    make = partial(ShapedNetwork, batch_tokens=96, parallel=2, max_length=12)
    here, there = scored(make(), TASK, kind=kind), scored(InTurn(make, shares), TASK, kind=kind)
    assert TASK.statistics.pairs > WINDOW_ITEMS
    assert there.scores.tobytes() == here.scores.tobytes()
    assert there.tokens is not None
    assert here.tokens is not None
    assert there.tokens.tobytes() == here.tokens.tobytes()
    assert there.truncated is not None
    assert here.truncated is not None
    assert there.truncated.any()
    assert there.truncated.tobytes() == here.truncated.tobytes()
    for count in ("items", "tokens", "padding_tokens", "truncated_items"):
        assert getattr(there.usage, count) == getattr(here.usage, count)


def test_a_scorer_that_batches_by_itself_gets_the_same_calls() -> None:
    here, there = Pairs(), Pairs()
    expected = scored(here, TASK)
    found = scored(InTurn(lambda: there, 3), TASK)
    assert found.scores.tobytes() == expected.scores.tobytes()
    assert found.tokens is None
    assert sorted(there.calls) == sorted(here.calls)
    vectors_here, vectors_there = Vectors(), Vectors()
    expected = scored(vectors_here, TASK, kind="embedder")
    found = scored(InTurn(lambda: vectors_there, 3), TASK, kind="embedder")
    assert found.scores.tobytes() == expected.scores.tobytes()
    assert sorted(vectors_there.calls) == sorted(vectors_here.calls)


@pytest.mark.parametrize(
    ("kind", "make"),
    [("cross-encoder", Pairs), ("cross-encoder", Network), ("embedder", Vectors), ("embedder", Network)],
)
@pytest.mark.parametrize("shares", [1, 3])
def test_an_actor_gives_the_bytes_of_every_kind_that_it_runs(
    kind: str, make: Callable[[], Scorer], shares: int, tmp_path: Path
) -> None:
    small = make_task(*GROUPS[:20])
    here, there = (
        score(tmp_path / place, scorer, small, kind)
        for place, scorer in (("here", make()), ("there", InTurn(make, shares)))
    )
    assert there.scores.tobytes() == here.scores.tobytes()
    assert stored_rows(tmp_path / "there") == stored_rows(tmp_path / "here")


@pytest.mark.parametrize("make", [PairParts, TextParts, Whole, lambda: InTurn(Network), object])
def test_an_actor_refuses_every_other_kind(make: Callable[[], Scorer]) -> None:
    worker = Worker()
    worker.score("", lambda: runnable(make()), window_of(3))
    ((_, message),) = worker.take()
    assert isinstance(message, Failure)
    assert message.kind == "TypeError"
    assert type(make()).__name__ in message.text


def score(folder: Path, scorer: Scorer, task: Task, kind: str) -> Run:
    with closing(open_store(folder, {"kind": kind})) as store:
        settings = model_settings({"name": "made", "kind": kind})
        return score_task(runnable(scorer), settings, task, ScoreMemory(store))


def stored_rows(folder: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / FILE_NAME)) as connection:
        return connection.execute("select * from outputs order by way, key").fetchall()


@pytest.mark.parametrize("kind", ["cross-encoder", "embedder"])
def test_errors_name_the_item_as_here(kind: str) -> None:
    messages = set()
    make = partial(ShapedNetwork, most_tokens=20)
    small = make_task(*GROUPS[:20])  # one window: of several, the last is run first here
    for scorer in (make(), InTurn(make)):
        with pytest.raises(EvalkitError) as caught:
            scored(scorer, small, kind=kind)
        messages.add(str(caught.value))
    (message,) = messages
    assert "很长很长很长" in message
    nan = partial(Network, score_pair=lambda query, document: np.nan if query == "问题70" else 0.0)
    if kind == "cross-encoder":
        messages = set()
        for scorer in (nan(), InTurn(nan, 3)):
            with pytest.raises(EvalkitError, match="not a finite number for query '问题70' with document"):
                scored(scorer, TASK)


def window_of(count: int, **changes: Any) -> TextWindow:
    texts = tuple(f"{number}{'字' * (number % 5)}" for number in range(count))
    return replace(TextWindow(text_items("document", texts), np.zeros(count, np.bool_)), **changes)


def test_what_is_known_is_not_run_again() -> None:
    network = Network(batch_tokens=16)
    known = np.zeros(40, np.bool_)
    known[[number for number in range(40) if number % 5 < 3]] = True
    worker = Worker()
    asked = ("", lambda: runnable(network), window_of(40, known=known))
    threading.Thread(target=worker.score, args=asked, daemon=True).start()
    done: list[Any] = []
    while not done or done[-1] is not None:
        done += [message for _, message in worker.take()]
    items = np.concatenate([batch.items for batch in done[:-1]])
    assert set(np.flatnonzero(~known)) <= set(items)
    assert len(items) < 40


def test_one_model_at_a_time_and_no_more_than_the_outbox_holds() -> None:
    """An actor that nobody asks waits, so that its death costs little."""
    network = Network(batch_tokens=1)
    worker = Worker()
    scoring = threading.Thread(target=worker.score, args=("a", lambda: runnable(network), window_of(200)), daemon=True)
    scoring.start()
    scoring.join(0.5)
    assert scoring.is_alive()
    assert OUTBOX <= len(network.batches) <= OUTBOX + 3
    made: list[str] = []

    def prepare(name: str) -> Callable[[], RunnableModel]:
        def make() -> RunnableModel:
            made.append(name)
            return runnable(Network())

        return make

    other = Worker()
    for name in ("a", "a", "b", "b", "a"):
        assert isinstance(other.describe(name, prepare(name), True), Description)
    assert made == ["a", "a", "b", "b", "a"]  # found anew each time, and opened once while nothing changed
    unloaded = RunnableModel(IDENTITY, {"name": "made"}, {}, lambda: pytest.fail("nothing is to be loaded"))
    assert isinstance(other.describe("c", lambda: unloaded, False), Description)


def test_what_actors_are_no_place_for() -> None:
    @dataclass
    class Stream:
        def score_parts(self, pairs: Sequence[tuple[str, str]]) -> Generator[Part]:
            raise NotImplementedError

    def for_task(task: Task) -> RunnableModel:
        raise NotImplementedError

    for model, word in ((runnable(Pairs(), for_task=for_task), "each task"), (runnable(Stream()), "by itself")):
        answer = Worker().describe("", lambda model=model: model, True)
        assert isinstance(answer, EvalkitError)
        assert word in str(answer)
        assert "runner=local" in str(answer)

    def broken() -> RunnableModel:
        raise ValueError("no one foresaw this")

    assert Worker().describe("", broken, False) == Failure("ValueError", "no one foresaw this")


def test_a_part_that_kills_its_actors() -> None:
    texts = window_of(100)
    work = Work(Job("made", "", lambda: runnable(Network())), [0], lambda start: texts, actors=1)
    parts = list(work.waiting)
    assert len(parts) == len(set(parts)) == 8
    for _ in range(DEATHS - 1):
        taken = [work.waiting.popleft(), work.waiting.popleft()]
        work.take_back(taken)
        assert list(work.waiting) == parts
    work.moves(parts[0])  # a batch of it came back: the count starts anew
    for _ in range(DEATHS - 1):
        work.take_back([work.waiting.popleft()])
    texts.known[:7] = True
    with pytest.raises(EvalkitError, match=r"3 actors in a row died at document '7字字'.*kept"):
        work.take_back([work.waiting.popleft()])


def test_differences_name_both_sides() -> None:
    assert differences({"torch": "2.1", "numpy": "2"}, {"torch": "2.2", "numpy": "2", "openvino": "1"}) == [
        "torch: 2.1, there 2.2",
        "openvino: none, there 1",
    ]
