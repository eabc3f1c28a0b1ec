"""Batches in parallel, within the memory there is: each stored when it is done, whatever stops the run."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from fakes import Network, overlap
from made_tasks import make_task
from numpy.typing import NDArray
from store_rows import keep_rows

from evalkit.errors import EvalkitError
from evalkit.models.interfaces import Encoding, OutOfMemoryError, RunnableModel
from evalkit.models.settings import model_settings
from evalkit.records import ModelIdentity, Run, Task
from evalkit.scoring.engine import ScoreMemory, score_task
from evalkit.scoring.store import ScoreStore, damaged_rows, open_store

TASK = make_task(*(([f"q{q}"], [("文" * (1 + (7 * row + q) % 23), row % 2) for row in range(12)]) for q in range(10)))
Step = Callable[[int], None]


def truth(task: Task = TASK) -> NDArray[np.float32]:
    pairs = [(request.query.texts[0], candidate.text) for request in task.requests for candidate in request.candidates]
    return np.float32([overlap(*pair) for pair in pairs])


def run(network: Network, store: ScoreStore | None = None, task: Task = TASK) -> Run:
    model = RunnableModel(ModelIdentity("made", "local/made", "made", "cross-encoder"), {}, {}, lambda: network)
    return score_task(model, model_settings({"name": "made"}), task, ScoreMemory(store))


def padded(batch: Sequence[Encoding]) -> int:
    return len(batch) * max(len(encoding.token_ids) for encoding in batch)


@dataclass
class Counting(Network):
    """Tells which thread runs which batch, and does something before the batch of a number."""

    before: Step = lambda number: None
    threads: list[int] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, batch: Sequence[Encoding]) -> NDArray[np.float32]:
        with self.lock:
            number = len(self.threads)
            self.threads.append(threading.get_ident())
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            self.before(number)
            return super().run(batch)
        finally:
            with self.lock:
                self.at_once -= 1


# memory


@pytest.mark.parametrize("parallel", [1, 3])
def test_the_budget_halves_and_stays_so(
    parallel: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network(batch_tokens=256, most_tokens=70, parallel=parallel)
    # whatever an earlier test's command line did to it
    monkeypatch.setattr(logging.getLogger("evalkit"), "propagate", True)
    monkeypatch.setattr(logging.getLogger("evalkit"), "handlers", [])
    with caplog.at_level(logging.WARNING, "evalkit"):
        found = run(network)
    np.testing.assert_array_equal(found.scores, truth())
    assert all(padded(batch) <= 70 for batch in network.batches)
    # from 256 to 64 in two steps; threads that fail at once say so too, but nobody comes back to what failed
    assert 1 <= len(caplog.messages) <= 2 * parallel
    assert caplog.messages[0].startswith("out of memory with 2")
    assert caplog.messages[0].endswith(" tokens in a batch; going on with half as many")
    assert Counter(len(encoding.token_ids) for batch in network.batches for encoding in batch) == Counter(
        found.tokens.tolist() if found.tokens is not None else []
    )


def test_a_smaller_budget_is_never_forgotten() -> None:
    """A batch that was cut before another one failed fails later: what the other learnt holds."""
    from evalkit.scoring.execution import Memory

    class Shrinking(Network):
        def run(self, batch: Sequence[Encoding]) -> NDArray[np.float32]:
            if padded(batch) > 8:
                memory.most_tokens = 8  # another thread, meanwhile
                failures.append(padded(batch))
                raise OutOfMemoryError("no room")
            return super().run(batch)

    memory, network = Memory(), Shrinking()
    failures: list[int] = []
    query, *documents = network.tokenize(["a", *["bb"] * 16], "document")
    assert len(memory.run(network, [network.encode_pair(query, document) for document in documents])) == 16
    assert (memory.most_tokens, failures) == (8, [64])
    assert [padded(batch) for batch in network.batches] == [8] * 8


def test_one_item_that_does_not_fit_is_named(tmp_path: Path) -> None:
    task = make_task((["ab"], [("c" * 30, 0), ("d" * 10, 1), ("e" * 10, 0)]))
    with closing(open_store(tmp_path, {})) as store, pytest.raises(EvalkitError) as caught:
        run(Network(most_tokens=20), store, task)
    says = str(caught.value)
    assert (
        f"out of memory with one input alone, query 'ab' with document '{'c' * 30}' (33 tokens): no room; try a" in says
    )
    assert "\n" not in says
    text = make_task(([" "], [("d" * 40, 1)]))
    model = RunnableModel(ModelIdentity("m", "local/m", "m", "embedder"), {}, {}, lambda: Network(most_tokens=20))
    with pytest.raises(EvalkitError, match=r"out of memory with one input alone, document 'd+' "):
        score_task(model, model_settings({"kind": "embedder"}), text)


def test_scores_that_fitted_are_kept_when_one_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longest first in a window, so the one that does not fit comes first; here it is in the last of ten windows."""
    groups = [([f"q{q}"], [("文" * (50 if q == 9 else 3) + str(row), 1) for row in range(12)]) for q in range(10)]
    monkeypatch.setattr("evalkit.scoring.plan.WINDOW_ITEMS", 12)
    with closing(open_store(tmp_path, {})) as store, pytest.raises(EvalkitError, match="one input alone"):
        run(Network(most_tokens=40), store, make_task(*groups))
    total, damaged = damaged_rows(tmp_path)
    assert (total, damaged) == (9 * 12, 0)


# threads


def test_all_threads_are_used_and_no_more() -> None:
    together = threading.Barrier(3, timeout=20)
    network = Counting(
        batch_tokens=64, parallel=3, before=lambda number: together.wait() and None if number < 6 else None
    )
    np.testing.assert_array_equal(run(network).scores, truth())
    assert len(set(network.threads)) == 3
    assert network.most_at_once == 3
    assert threading.get_ident() not in network.threads


@pytest.mark.parametrize("parallel", [1, 2, 4])
def test_results_do_not_depend_on_threads(parallel: int) -> None:
    found = run(Network(batch_tokens=64, parallel=parallel))
    np.testing.assert_array_equal(found.scores, truth())
    alone = run(Network(batch_tokens=64))
    assert found.usage.padding_tokens == alone.usage.padding_tokens
    assert found.tokens is not None
    assert alone.tokens is not None
    np.testing.assert_array_equal(found.tokens, alone.tokens)


def test_every_query_has_its_time() -> None:
    assert len(run(Network(batch_tokens=64, parallel=2)).usage.latencies) == 10


class StopError(Exception):
    """Something that no one expects."""


@pytest.mark.parametrize("parallel", [1, 2])
@pytest.mark.parametrize("error", [StopError("on the way"), KeyboardInterrupt()])
def test_what_a_network_raises_comes_out(parallel: int, error: BaseException, tmp_path: Path) -> None:
    def stop(number: int) -> None:
        if number == 8:
            raise error
        if number > 8:
            time.sleep(0.5)  # still runs when the other one has failed

    network = Counting(batch_tokens=64, parallel=parallel, before=stop)
    with closing(open_store(tmp_path, {})) as store:
        with pytest.raises(type(error)):
            run(network, store)
        time.sleep(0.05)
        assert network.at_once == 0  # nothing runs on, nothing begins
        stored, damaged = damaged_rows(tmp_path)
        # seven or eight batches were done; with two threads one of them may be lost
        begun = sum(len(batch) for batch in network.batches)
        assert 0 < stored <= begun
        assert begun - stored <= (parallel + 1) * max(map(len, network.batches))
        assert not damaged
        again = Counting(batch_tokens=64, parallel=parallel)
        result = run(again, store)
    np.testing.assert_array_equal(result.scores, truth())
    assert sum(len(batch) for batch in again.batches) == len(truth()) - stored
    assert result.usage.items_from_store == stored


def test_interrupted_while_it_waits(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Ctrl-C comes to the main thread, which waits for a batch."""
    import _thread

    def interrupt(number: int) -> None:
        if number == 5:
            _thread.interrupt_main()

    # a program that was started in the background may have been told to ignore it
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    network = Counting(batch_tokens=64, parallel=2, before=interrupt)
    with closing(open_store(tmp_path, {})) as store:
        with pytest.raises(KeyboardInterrupt):
            run(network, store)
        assert network.at_once == 0
        assert len(network.threads) < 12
        stored, damaged = damaged_rows(tmp_path)
        assert (stored > 0, damaged) == (True, 0)
        np.testing.assert_array_equal(run(Network(batch_tokens=64), store).scores, truth())


def test_a_store_that_fails_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Counting(batch_tokens=64, parallel=2)
    with closing(open_store(tmp_path, {})) as store:
        write, calls = store.write, iter(range(100))

        def full(outputs: object) -> None:
            if next(calls) == 3:
                raise EvalkitError("no room")
            write(outputs)

        monkeypatch.setattr(store, "write", full)
        with pytest.raises(EvalkitError, match="no room") as caught:
            run(network, store)
        assert network.at_once == 0, caught
        begun = len(network.threads)
        assert begun <= 3 + 4
    assert damaged_rows(tmp_path)[0] > 0


# a run that goes on


def test_batches_keep_their_shapes_when_a_run_goes_on(tmp_path: Path) -> None:
    """The last bits of a score come of its batch's shape; so a batch that lacks one output runs whole, a full one not."""
    whole = Network(batch_tokens=64)
    run(whole)
    shapes = Counter(tuple(sorted(len(e.token_ids) for e in batch)) for batch in whole.batches)
    with closing(open_store(tmp_path, {})) as store:
        run(Network(batch_tokens=64), store)
        keep_rows(tmp_path, 12)
        rest = Network(batch_tokens=64)
        result = run(rest, store)
    assert result.usage.items_from_store == 12
    assert not Counter(tuple(sorted(len(e.token_ids) for e in batch)) for batch in rest.batches) - shapes
