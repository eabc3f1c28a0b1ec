"""The store never mixes: whatever was stored before, a run's scores are those of one run of one model."""

from __future__ import annotations

import io
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command import run_here
from fakes import Network, PairParts, Pairs, TextParts, Vectors, overlap
from made_tasks import make_task, scored
from numpy.typing import NDArray
from store_rows import rows_in
from stored_scores import TASK, WAY, opened, score
from task_files import uneven_rows, write_jsonl

from evalkit.backends import prepare_model
from evalkit.errors import EvalkitError
from evalkit.models.interfaces import Encoding, Part, Runtime, Scorer
from evalkit.models.settings import model_settings
from evalkit.records import Role, Task
from evalkit.scoring import plan
from evalkit.scoring.plan import CALL
from evalkit.scoring.store import FILE_NAME, StoredOutput, item_key, ways

TESTS = Path(__file__).parents[1]


# the bits of one run


class RoundingNetwork(Network):
    """Rounds by the batch's shape, as real networks do."""

    def run(self, batch: Sequence[Encoding]) -> NDArray[np.float32]:
        longest = max(len(encoding.token_ids) for encoding in batch)
        return super().run(batch) * np.float32(1 + 1e-6 * len(batch) + 1e-7 * longest)


class RoundingPairs(Pairs):
    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        return super().score(pairs) * np.float32(1 + 1e-6 * len(pairs) + 1e-7 * max(len(d) for _, d in pairs))


class RoundingVectors(Vectors):
    def embed(self, texts: Sequence[str], role: Role) -> NDArray[np.float32]:
        return super().embed(texts, role) + np.float32(1e-4 * len(texts))


ROUNDING: list[tuple[str, Callable[[], Scorer]]] = [
    ("cross-encoder", RoundingNetwork),
    ("embedder", RoundingNetwork),
    ("cross-encoder", RoundingPairs),
    ("embedder", RoundingVectors),
]


def first(queries: int) -> Task:
    return replace(TASK, requests=TASK.requests[:queries])


SHARING = replace(TASK, requests=TASK.requests[15:] + TASK.requests[:3])
BEFORE: dict[str, list[Task]] = {
    "limit=1": [first(1)],
    "limit=10": [first(10)],
    "limit=10, then 15": [first(10), first(15)],
    "limit=15, then 10": [first(15), first(10)],
    "a task that shares texts": [SHARING],
    "the queries in another order": [replace(TASK, requests=TASK.requests[::-1])],
    "the candidates in another order": [
        replace(TASK, requests=tuple(replace(r, candidates=r.candidates[::-1]) for r in TASK.requests))
    ],
    "fewer candidates": [replace(TASK, requests=tuple(replace(r, candidates=r.candidates[:7]) for r in TASK.requests))],
}


@pytest.mark.parametrize("window", [64, 2_048])
@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize(("kind", "make"), ROUNDING)
def test_what_was_scored_before_moves_no_bit(
    kind: str, make: Callable[[], Scorer], before: str, window: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "WINDOW_ITEMS", window)
    undisturbed = scored(make(), TASK, kind=kind).scores.tobytes()
    for task in BEFORE[before]:
        run = score(tmp_path, make(), task, kind=kind)
        assert run.scores.tobytes() == scored(make(), task, kind=kind).scores.tobytes()
    assert score(tmp_path, make(), kind=kind).scores.tobytes() == undisturbed
    for task in BEFORE[before]:  # and what came after it
        again = score(tmp_path, make(), task, kind=kind)
        assert again.usage.items_from_store == again.usage.items
        assert again.scores.tobytes() == scored(make(), task, kind=kind).scores.tobytes()


def test_full_windows_are_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A longer run scores no more than the last window of a shorter one again."""
    monkeypatch.setattr(plan, "WINDOW_ITEMS", 64)
    shorter = score(tmp_path, RoundingNetwork(), first(10))
    whole = score(tmp_path, RoundingNetwork())
    assert (shorter.usage.items, whole.usage.items_from_store) == (200, 192)


@pytest.mark.parametrize(
    ("kind", "model", "queries", "orders"),
    [
        ("cross-encoder", "tiny_bert_reranker", 12, (("limit=2",), ("limit=5", "limit=2"), ("limit=2", "limit=5"))),
        ("embedder", "e5_small", 6, (("limit=2", "limit=5"),)),
    ],
)
def test_a_real_network_gives_one_run_s_tables(
    kind: str,
    model: str,
    queries: int,
    orders: Sequence[Sequence[str]],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    """By torch, whose last bits depend on the batch: limits in several orders, and then the whole task."""
    path = request.getfixturevalue(model)
    rows = uneven_rows(queries=queries, candidates=8, longest=50)
    task = write_jsonl(tmp_path / "tasks" / "made" / "test.jsonl", rows).parent

    def run(cache: str, *limit: str) -> dict[str, bytes]:
        results = tmp_path / "results" / cache / "-".join(limit)
        done = run_here(
            *("task=local", f"task.path={task}", "backend=torch", "runner.threads=1", "device=cpu", *limit),
            *(f"model=local-{kind}", f"model.path={path}", f"cache_dir={tmp_path / cache}", f"results_dir={results}"),
        )
        assert done.code == 0, done.stderr
        return {path.name: path.read_bytes() for path in sorted(results.rglob("*.parquet"))}

    alone = {limit: run(f"alone-{'-'.join(limit)}", *limit) for limit in ((), ("limit=2",), ("limit=5",))}
    whole, part = (pd.read_parquet(io.BytesIO(alone[limit]["made.run.parquet"])) for limit in ((), ("limit=5",)))
    assert kind == "embedder" or (whole["score"][: len(part)] != part["score"]).any()  # the batch does move bits
    for number, order in enumerate(orders):
        for limit in order:
            assert run(f"shared-{number}", limit) == alone[(limit,)]
        assert run(f"shared-{number}") == alone[()]
    assert run("shared-0") == alone[()]


# a refresh that is interrupted


class DiedError(Exception):
    """What ends a run in the middle."""


@dataclass
class Dying:
    """Answers as `scorer` does, and dies after some parts or calls."""

    scorer: Pairs | Vectors | PairParts | TextParts
    lives: int

    def _live(self) -> None:
        self.lives -= 1
        if self.lives < 0:
            raise DiedError


class DyingPairs(Dying):
    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        self._live()
        return self.scorer.score(pairs)  # type: ignore[union-attr]


class DyingVectors(Dying):
    def embed(self, texts: Sequence[str], role: Role) -> NDArray[np.float32]:
        self._live()
        return self.scorer.embed(texts, role)  # type: ignore[union-attr]


class DyingPairParts(Dying):
    def score_parts(self, pairs: Sequence[tuple[str, str]]) -> Generator[Part]:
        for part in self.scorer.score_parts(pairs):  # type: ignore[union-attr]
            self._live()
            yield part


class DyingTextParts(Dying):
    def embed_parts(self, texts: Sequence[str], role: Role) -> Generator[Part]:
        for part in self.scorer.embed_parts(texts, role):  # type: ignore[union-attr]
            self._live()
            yield part


class OtherPairs(Pairs):
    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        return -super().score(pairs)


class OtherVectors(Vectors):
    def embed(self, texts: Sequence[str], role: Role) -> NDArray[np.float32]:
        return super().embed(texts, role)[:, ::-1] ** 2


class OtherPairParts(PairParts):
    def score_parts(self, pairs: Sequence[tuple[str, str]]) -> Generator[Part]:
        for part in super().score_parts(pairs):
            yield replace(part, outputs=-part.outputs)


class OtherTextParts(TextParts):
    def embed_parts(self, texts: Sequence[str], role: Role) -> Generator[Part]:
        for part in super().embed_parts(texts, role):
            yield replace(part, outputs=part.outputs[:, ::-1] ** 2)


# what was there, what the server became, and how that dies
CHANGES = {
    "cross-encoder": (Pairs, OtherPairs, DyingPairs, False),
    "embedder": (Vectors, OtherVectors, DyingVectors, False),
    "served cross-encoder": (PairParts, OtherPairParts, DyingPairParts, True),
    "served embedder": (TextParts, OtherTextParts, DyingTextParts, True),
}


@pytest.mark.parametrize("lives", [0, 2, 8])
@pytest.mark.parametrize("change", CHANGES)
def test_an_interrupted_refresh_leaves_no_blend(change: str, lives: int, tmp_path: Path) -> None:
    """The plain run goes on with it: it scores what is missing, and nothing that the refresh has scored."""
    before, after, dying, independent = CHANGES[change]
    kind = change.split()[-1]
    score(tmp_path, before(), kind=kind, independent=independent)
    with pytest.raises(DiedError):
        score(tmp_path, dying(after(), lives), kind=kind, refresh=True, independent=independent)
    made = newest(tmp_path)
    run = score(tmp_path, after(), kind=kind, independent=independent)
    assert run.scores.tobytes() == scored(after(), TASK, kind=kind).scores.tobytes()
    assert run.usage.items_from_store == made
    assert made < run.usage.items
    assert (made > 0) == (lives > 0)


def newest(folder: Path) -> int:
    """How many outputs the newest epoch holds."""
    return max(ways(folder), key=lambda info: info.description.get("refresh", 0)).rows


@pytest.mark.parametrize("change", CHANGES)
def test_a_refresh_of_the_first_queries_leaves_no_blend(change: str, tmp_path: Path) -> None:
    before, after, _, independent = CHANGES[change]
    kind = change.split()[-1]
    score(tmp_path, before(), kind=kind, independent=independent)
    score(tmp_path, after(), first(5), kind=kind, refresh=True, independent=independent)
    run = score(tmp_path, after(), kind=kind, independent=independent)
    assert run.scores.tobytes() == scored(after(), TASK, kind=kind).scores.tobytes()


def test_two_interrupted_refreshes_of_two_models(tmp_path: Path) -> None:
    score(tmp_path, PairParts(), independent=True)
    for scorer in (DyingPairParts(OtherPairParts(), 40), DyingPairParts(PairParts(), 3)):
        with pytest.raises(DiedError):
            score(tmp_path, scorer, refresh=True, independent=True)
    run = score(tmp_path, PairParts(), independent=True)
    assert (run.usage.items_from_store, run.scores.tobytes()) == (21, scored(Pairs(), TASK).scores.tobytes())
    assert len(ways(tmp_path)) == 2  # the one before is kept for whoever reads it now


def test_the_tasks_of_one_process_share_a_refresh(tmp_path: Path) -> None:
    """And a task that is refreshed twice is scored twice."""
    one, two = first(5), replace(TASK, requests=TASK.requests[5:])
    for task in (one, two):
        score(tmp_path, PairParts(), task, independent=True)
    for task in (one, two):
        score(tmp_path, OtherPairParts(), task, independent=True, refresh=True)
    for task in (one, two):
        run = score(tmp_path, PairParts(), task, independent=True)
        assert run.usage.items_from_store == run.usage.items
        assert (run.scores < 0).any()
    again = score(tmp_path, PairParts(), two, independent=True, refresh=True)
    assert again.usage.items_from_store == 0
    assert again.scores.tobytes() == scored(Pairs(), two).scores.tobytes()


def test_a_run_that_reads_while_another_refreshes_stays_with_what_it_read(tmp_path: Path) -> None:
    with opened(tmp_path) as reading, opened(tmp_path) as refreshing:
        reading.write({item_key("a"): StoredOutput(np.float32([1]), 1, False)})
        refreshing.begin_anew([item_key("a")])
        refreshing.write({item_key("a"): StoredOutput(np.float32([2]), 1, False)})
        reading.write({item_key("b"): StoredOutput(np.float32([1]), 1, False)})
        assert [found.output[0] for _, found in reading.read([item_key("a"), item_key("b")])] == [1, 1]
        assert [found.output[0] for _, found in refreshing.read([item_key("a"), item_key("b")])] == [2]
    with opened(tmp_path) as later:
        assert [found.output[0] for _, found in later.read([item_key("a"), item_key("b")])] == [2]


SLOW = """
import sys, time
from pathlib import Path
import numpy as np
from fakes import Pairs
from stored_scores import score

class Slow(Pairs):
    def score(self, pairs):
        time.sleep(0.1)
        return super().score(pairs) + np.float32(sys.argv[2])

score(Path(sys.argv[1]), Slow(), refresh=sys.argv[3] == "refresh")
"""


def kill_when_stored(folder: Path, rows: int, added: str, cache: str) -> None:
    """Start a slow run in a process of its own, and kill it as soon as the store has that many rows."""
    paths = os.pathsep.join(map(str, (TESTS.parent, TESTS, Path(__file__).parent)))
    command = [sys.executable, "-c", SLOW, str(folder), added, cache]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": paths})
    deadline = time.monotonic() + 60
    while rows_in(folder / FILE_NAME) < rows:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_killed_refresh_leaves_no_blend(tmp_path: Path) -> None:
    score(tmp_path, Pairs(lambda query, document: overlap(query, document) + 1))
    kill_when_stored(tmp_path, 400 + 3 * CALL, "5", "refresh")
    scorer = Pairs(lambda query, document: overlap(query, document) + 5)
    run = score(tmp_path, scorer)
    assert run.scores.tobytes() == scored(scorer, TASK).scores.tobytes()
    assert run.usage.items_from_store >= 3 * CALL


def test_a_killed_scorer_that_batches_by_itself_loses_one_call(tmp_path: Path) -> None:
    """It used to lose 256 items, which takes a slow model minutes."""
    kill_when_stored(tmp_path, CALL, "0", "on")
    run = score(tmp_path, Pairs())
    assert CALL <= run.usage.items_from_store < plan.CHUNK
    assert run.scores.tobytes() == scored(Pairs(), TASK).scores.tobytes()


def test_calls_are_small_and_of_like_lengths() -> None:
    """So that the libraries, which sort what they get by length, pad as little as before."""
    scorer = Pairs()
    task = make_task((["q"], [("文" * (1 + 37 * number % 500), 0) for number in range(300)]))
    scored(scorer, task)
    assert [len(call) for call in scorer.calls] == [CALL] * 8 + [CALL, 300 - 256 - CALL]
    for calls in (scorer.calls[:8], scorer.calls[8:]):
        lengths = [len(document) for call in calls for _, document in call]
        assert lengths == sorted(lengths, reverse=True)


# vectors of another length


@dataclass
class Wide(TextParts):
    """A TextStream whose vectors have as many numbers as it says of the role."""

    widths: tuple[int, int] = (4, 4)

    def embed_parts(self, texts: Sequence[str], role: Role) -> Generator[Part]:
        width = self.widths[role == "document"]
        for number, part in enumerate(super().embed_parts(texts, role)):
            yield replace(part, outputs=part.outputs[:, 1 : width + 1] + np.float32(number + 1))


def wide(folder: Path, *widths: int, task: Task = TASK, lives: int | None = None, refresh: bool = False) -> None:
    scorer: Scorer = Wide(widths=(widths[0], widths[-1]))
    if lives is not None:
        scorer = DyingTextParts(scorer, lives)  # type: ignore[arg-type]
    score(folder, scorer, task, kind="embedder", independent=True, refresh=refresh)


@pytest.mark.parametrize("now", [8, 2, 1])
@pytest.mark.parametrize("stored", ["all of the first queries", "all queries", "some queries", "some documents"])
def test_vectors_of_another_length_than_those_stored(stored: str, now: int, tmp_path: Path) -> None:
    if stored == "all of the first queries":
        wide(tmp_path, 4, task=first(3))
    else:
        lives = {"all queries": 3, "some queries": 1, "some documents": 7}[stored]
        with pytest.raises(DiedError):
            wide(tmp_path, 4, lives=lives)
    rows = rows_in(tmp_path / FILE_NAME)
    with pytest.raises(EvalkitError, match=rf"has {now} numbers, those before it have 4: .*cache=refresh") as raised:
        wide(tmp_path, now)
    assert "\n" not in str(raised.value)
    assert rows_in(tmp_path / FILE_NAME) == rows  # none of them is stored
    wide(tmp_path, now, refresh=True)
    wide(tmp_path, now)


@pytest.mark.parametrize("widths", [(4, 8), (8, 4), (1, 4), (4, 1)])
def test_vectors_of_another_length_within_a_run(widths: tuple[int, int], tmp_path: Path) -> None:
    named = rf"the vector of document .* has {widths[1]} numbers, those before it have {widths[0]}"
    with pytest.raises(EvalkitError, match=named):
        wide(tmp_path, *widths)
    with pytest.raises(EvalkitError, match=named):
        scored(Wide(widths=widths), TASK, kind="embedder")


@pytest.mark.parametrize("widths", [(4, 8), (1, 4), (4, 1)])
def test_vectors_of_two_lengths_in_one_store(widths: tuple[int, int], tmp_path: Path) -> None:
    """As an earlier evalkit could leave them."""
    with opened(tmp_path, WAY | {"kind": "embedder"}) as store:
        for request, width in zip(TASK.requests, widths, strict=False):
            key = item_key("query", request.query.texts[0])
            store.write({key: StoredOutput(np.ones(width, np.float32), -1, False)})
    with pytest.raises(EvalkitError, match=r"holds vectors of \d and of \d numbers for one model: .*cache=refresh"):
        wide(tmp_path, 4)
    wide(tmp_path, 4, refresh=True)


def test_vectors_of_one_number_are_the_same_from_the_store(tmp_path: Path) -> None:
    for _ in range(2):
        run = score(tmp_path, Wide(widths=(1, 1)), kind="embedder", independent=True)
        np.testing.assert_array_equal(run.scores, 1)


# what an earlier evalkit left


def test_an_earlier_store_is_read_as_the_time_before_any_refresh(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.write({item_key("a"): StoredOutput(np.float32([1]), 1, False)})
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection:
        assert "refresh" not in connection.execute("select description from ways").fetchone()[0]
    with opened(tmp_path) as store:
        assert len(list(store.read([item_key("a")]))) == 1


def test_what_an_earlier_evalkit_stored_of_a_local_model_is_not_used_which_is_said_once(
    tiny_bert_reranker: Path, tmp_path: Path
) -> None:
    settings = model_settings({"name": "made", "path": str(tiny_bert_reranker), "kind": "cross-encoder"})
    way = prepare_model("torch", settings, Runtime(device="cpu", cache_dir=tmp_path / "cache")).way
    assert way is not None
    with opened(tmp_path / "cache", way) as store:
        store.write({item_key("a", "b"): StoredOutput(np.float32([1]), 1, False)})
    arguments = ("task=demo-zh2en", "limit=1", "model=local-cross-encoder", f"model.path={tiny_bert_reranker}")
    arguments += (
        "backend=torch",
        "device=cpu",
        f"cache_dir={tmp_path / 'cache'}",
        f"results_dir={tmp_path / 'results'}",
    )
    said = [run_here(*arguments).stderr.count("an earlier evalkit left scores in the store") for _ in range(2)]
    assert said == [1, 0]
