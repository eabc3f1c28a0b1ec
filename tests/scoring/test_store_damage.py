"""The score store: whatever happens to its file, never a wrong score."""

from __future__ import annotations

import logging
import random
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from fakes import Pairs, Vectors
from made_tasks import make_task
from stored_scores import TASK, WAY, opened, score, truth

from evalkit.errors import EvalkitError
from evalkit.models.interfaces import RunnableModel
from evalkit.models.settings import model_settings
from evalkit.records import ModelIdentity
from evalkit.scoring import plan, store_file
from evalkit.scoring.engine import ScoreMemory, score_task
from evalkit.scoring.store import FILE_NAME, StoredOutput, damaged_rows, item_key, open_store, prune, ways


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store as a run leaves it: one file."""
    folder = tmp_path_factory.mktemp("whole")
    score(folder, Pairs())
    score(folder, Vectors(), kind="embedder")
    return folder


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store as a killed run leaves it: the last batches stand in the journal, some of them in the file as well."""
    folder, copy = tmp_path_factory.mktemp("interrupted"), tmp_path_factory.mktemp("copies") / "interrupted"
    with pytest.MonkeyPatch.context() as patch, closing(open_store(folder, WAY | {"kind": "cross-encoder"})) as store:
        patch.setattr(plan, "CHUNK", 16)
        model = RunnableModel(ModelIdentity("made", "local/made", "made", "made"), {}, WAY, Pairs)
        settings = model_settings({"name": "made"})
        half = make_task(
            *(([f"问题{q}"], [(f"答案{q}-{d}" * (1 + d % 3), d % 2) for d in range(20)]) for q in range(12))
        )
        score_task(model, settings, half, ScoreMemory(store))
        with closing(sqlite3.connect(folder / FILE_NAME)) as other:
            other.execute("pragma wal_checkpoint")
        score_task(model, settings, TASK, ScoreMemory(store))
        shutil.copytree(folder, copy)
    (copy / f"{FILE_NAME}-shm").unlink()
    return copy


@dataclass(frozen=True)
class Damage:
    """The file, and what is done to it: cut at a place, or one bit turned over."""

    file: str
    kind: str
    seed: int

    def __str__(self) -> str:
        return f"{self.kind}-{self.file}-{self.seed}"

    def do(self, folder: Path) -> None:
        generator = random.Random(self.seed)
        path = folder / self.file
        content = bytearray(path.read_bytes())
        if self.kind == "cut":
            del content[generator.randrange(1, len(content)) :]
        else:
            # the header of the file and the tables' descriptions stand at both ends of the first page
            first = [*range(100), *range(3_300, 4_096)]
            place = generator.choice(first) if self.kind == "first page" else generator.randrange(len(content))
            content[place] ^= 1 << generator.randrange(8)
        path.write_bytes(content)


WHOLE = [
    Damage(FILE_NAME, kind, n) for kind, times in (("flip", 60), ("first page", 25), ("cut", 15)) for n in range(times)
]
INTERRUPTED = [
    *[Damage(FILE_NAME, kind, n) for kind, times in (("flip", 15), ("cut", 5)) for n in range(times)],
    *[Damage(f"{FILE_NAME}-wal", kind, n) for kind, times in (("flip", 15), ("cut", 5)) for n in range(times)],
]


def rescored(folder: Path, caplog: pytest.LogCaptureFixture) -> tuple[int, list[str]]:
    """A run on a damaged store: how many scores it made again, and what it said. The scores are the right ones."""
    scorer = Pairs()
    caplog.clear()
    with caplog.at_level(logging.WARNING, "evalkit"):
        run = score(folder, scorer)
    np.testing.assert_array_equal(run.scores, truth())
    again = score(folder, Pairs())
    np.testing.assert_array_equal(again.scores, truth())
    assert all("\n" not in message for message in caplog.messages)
    return run.usage.items - run.usage.items_from_store, caplog.messages


@pytest.fixture(autouse=True)
def heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever an earlier test's command line did to the logger."""
    monkeypatch.setattr(logging.getLogger("evalkit"), "propagate", True)
    monkeypatch.setattr(logging.getLogger("evalkit"), "handlers", [])


def test_damage_is_found_told_and_mended(whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lost = 0
    for damage in WHOLE:
        folder = shutil.copytree(whole, tmp_path / str(damage))
        damage.do(folder)
        missing, messages = rescored(folder, caplog)
        assert bool(messages) >= bool(missing), damage
        vectors = score(folder, Vectors(), kind="embedder")
        np.testing.assert_array_equal(vectors.scores, score(tmp_path / "new", Vectors(), kind="embedder").scores)
        lost += bool(missing)
        if missing and not list(folder.glob("*.damaged-*")):
            assert f"{folder / FILE_NAME}: " in messages[0]
            assert "damaged row" in messages[0]
        elif missing:
            assert f"{folder / FILE_NAME} is damaged (" in messages[0]
            assert f"it is set aside as {FILE_NAME}.damaged-1: " in messages[0]
            assert messages[0].endswith("are made again")
    assert lost > len(WHOLE) / 3  # the damage was real


def test_damage_after_a_crash(interrupted: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is lost with the journal's end can't be told from what was never written; all else is told."""
    for damage in INTERRUPTED:
        folder = shutil.copytree(interrupted, tmp_path / str(damage))
        damage.do(folder)
        missing, messages = rescored(folder, caplog)
        assert messages or not missing or damage.file.endswith("-wal"), damage
    folder = shutil.copytree(interrupted, tmp_path / "as it was")
    assert rescored(folder, caplog) == (0, [])


def test_many_damages_at_once(whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = shutil.copytree(whole, tmp_path / "copy")
    for seed in range(100):
        Damage(FILE_NAME, "flip", seed).do(folder)
    missing, messages = rescored(folder, caplog)
    assert missing
    assert messages


EDITS: dict[str, str] = {
    "a way's hash": "update ways set hash = randomblob(32) where way = 1",
    "a way's description": "update ways set description = replace(description, 'made', 'mode')",
    "a description that is no text": "update ways set description = x'00ff' where way = 1",
    "scores": "update outputs set output = x'00000000' where chosen(key)",
    "scores of another length": "update outputs set output = output || output where chosen(key)",
    "no score": "update outputs set output = x'' where chosen(key)",
    "text for a score": "update outputs set output = 'long' where chosen(key)",
    "bytes that are no text": "update outputs set output = cast(x'ff00ff80' as text) where chosen(key)",
    "tokens": "update outputs set tokens = tokens + 1 where chosen(key)",
    "tokens that are no number": "update outputs set tokens = 'many' where chosen(key)",
    "truncated": "update outputs set truncated = 1 - truncated where chosen(key)",
    "a checksum": "update outputs set checksum = checksum + 1 where chosen(key)",
    "a huge checksum": "update outputs set checksum = 9223372036854775807 where chosen(key)",
    "scores that changed places": "update outputs set output = (select output from outputs o where o.way = outputs.way "
    "and o.key > outputs.key limit 1), checksum = (select checksum from outputs o where o.way = outputs.way and o.key > "
    "outputs.key limit 1) where chosen(key)",
    "no table of outputs": "drop table outputs",
    "no table of ways": "drop table ways",
    "another table": "alter table outputs rename column output to result",
    "a table more": "create table other (a)",
    "another program's": "drop table ways; drop table outputs; create table notes (text)",
}


@pytest.mark.parametrize("edit", EDITS)
def test_rows_that_are_not_what_was_written(
    edit: str, whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shutil.copytree(whole, tmp_path / "copy")
    with closing(sqlite3.connect(folder / FILE_NAME)) as connection:
        connection.create_function("chosen", 1, lambda key: key[0] % 7 == 0)
        for statement in EDITS[edit].split(";"):
            connection.execute(statement)
        connection.commit()
    missing, messages = rescored(folder, caplog)
    assert bool(missing) == (edit != "a table more")  # which hides no row
    assert messages
    vectors = score(folder, Vectors(), kind="embedder").scores
    np.testing.assert_array_equal(vectors, score(tmp_path / "new", Vectors(), kind="embedder").scores)
    assert damaged_rows(folder)[1] == 0 or list(folder.glob("*.damaged-*"))


@pytest.mark.parametrize(
    "edit",
    [
        "update ways set way = 13 - way",
        "delete from ways where way = 1",
        "update outputs set way = 2 where way = 1 and chosen(key)",
    ],
)
def test_rows_under_a_wrong_way(edit: str, whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody asks for them; verification finds them, and pruning deletes what is of no way."""
    folder = shutil.copytree(whole, tmp_path / "copy")
    with closing(sqlite3.connect(folder / FILE_NAME)) as connection:
        connection.create_function("chosen", 1, lambda key: key[0] % 7 == 0)
        connection.execute(edit)
        connection.commit()
    _, damaged = damaged_rows(folder)
    assert damaged
    missing, _ = rescored(folder, caplog)
    assert missing
    vectors = score(folder, Vectors(), kind="embedder").scores
    np.testing.assert_array_equal(vectors, score(tmp_path / "new", Vectors(), kind="embedder").scores)
    assert damaged_rows(folder)[1] == damaged
    prune(folder, [info.way for info in ways(folder)])
    assert damaged_rows(folder) == (0, 0)


OTHER_FILES: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_bytes(b"not a database at all" * 99),
    "zeros": lambda path: path.write_bytes(bytes(40_960)),
    "a header alone": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "a page alone": lambda path: path.write_bytes(path.read_bytes()[:4_096]),
    "a page too many": lambda path: path.write_bytes(path.read_bytes() + path.read_bytes()[:5_000]),
    "a file of a later format": lambda path: path.write_bytes(
        path.read_bytes()[:18] + b"\3\3" + path.read_bytes()[20:]
    ),
    "a file that says it is only to be read": lambda path: path.write_bytes(
        path.read_bytes()[:18] + b"\3" + path.read_bytes()[19:]
    ),
}


@pytest.mark.parametrize("content", OTHER_FILES)
def test_a_file_that_is_no_store(content: str, whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = shutil.copytree(whole, tmp_path / "copy")
    OTHER_FILES[content](folder / FILE_NAME)
    before = (folder / FILE_NAME).read_bytes()
    missing, messages = rescored(folder, caplog)
    if missing:
        assert messages
        assert len((folder / f"{FILE_NAME}.damaged-1").read_bytes()) == len(before)


def test_a_file_that_says_it_is_only_to_be_read_takes_no_scores(
    whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By damage, that is; where the user said so, it is kept as it is."""
    folder = shutil.copytree(whole, tmp_path / "copy")
    OTHER_FILES["a file that says it is only to be read"](folder / FILE_NAME)
    with opened(folder, {"model": "a new one"}) as store:
        store.write({item_key("a"): StoredOutput(np.float32([1]), 1, False)})
        assert len(list(store.read([item_key("a")]))) == 1
    assert f"it is set aside as {FILE_NAME}.damaged-1" in caplog.text


def test_rows_that_a_page_hides(whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A page that counts one row less than it holds gives no sign when it is read."""
    content = (whole / FILE_NAME).read_bytes()
    leaves = [start for start in range(4_096, len(content), 4_096) if content[start] == 10 and content[start + 4] > 9]
    hidden = 0
    for start in leaves:
        folder = shutil.copytree(whole, tmp_path / str(start))
        (folder / FILE_NAME).write_bytes(content[: start + 4] + bytes([content[start + 4] - 1]) + content[start + 5 :])
        missing, messages = rescored(folder, caplog)
        hidden += missing > 0
        assert not missing or messages
    assert hidden >= 3


def test_stores_set_aside_do_not_replace_each_other(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        (tmp_path / FILE_NAME).write_bytes(b"no store" * 500 * number)
        score(tmp_path, Pairs())
    assert [len((tmp_path / f"{FILE_NAME}.damaged-{n}").read_bytes()) for n in (1, 2, 3)] == [4_000, 8_000, 12_000]


def test_damage_that_comes_while_the_store_is_in_use(tmp_path: Path) -> None:
    """Two stores on one file find it broken one after the other; the second keeps what the first began anew."""
    outputs = {item_key(str(n)): StoredOutput(np.float32([n] * 400), n, False) for n in range(50)}
    with opened(tmp_path) as one, opened(tmp_path) as two:
        one.write(outputs)
        with closing(sqlite3.connect(tmp_path / FILE_NAME)) as other:
            other.execute("pragma wal_checkpoint(truncate)")
        size = (tmp_path / FILE_NAME).stat().st_size
        with (tmp_path / FILE_NAME).open("r+b") as file:
            file.write(b"\xff" * size)
        for number, store in enumerate((one, two)):
            assert list(store.read(list(outputs))) == []
            store.write({item_key(f"new {number}"): StoredOutput(np.float32([number]), number, False)})
        for store in (one, two):
            assert len(list(store.read([item_key("new 0"), item_key("new 1")]))) == 2
    assert len(list(tmp_path.glob("*.damaged-?"))) == 1
    assert damaged_rows(tmp_path) == (2, 0)


# one damaged page

MANY = {item_key(str(number)): StoredOutput(np.float32([number]), number, False) for number in range(5_000)}
LONG = {item_key(f"v{number}"): StoredOutput(np.full(700, number, np.float32), number, False) for number in range(300)}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 5,000 scores, and 300 vectors that fill more than half a page each."""
    folder = tmp_path_factory.mktemp("large")
    for way, outputs in (({"kind": "scores"}, MANY), ({"kind": "vectors"}, LONG)):
        with opened(folder, way) as store:
            store.write(outputs)
    return folder


def read_all(folder: Path) -> int:
    """Read everything; what comes back is what was written. Return how much that is."""
    total = 0
    for way, outputs in (({"kind": "scores"}, MANY), ({"kind": "vectors"}, LONG)):
        with opened(folder, way) as store:
            found = dict(store.read(list(outputs)))
        for key, stored in found.items():
            assert stored.output.tobytes() == outputs[key].output.tobytes()
        total += len(found)
    return total


def pages(content: bytes, *kinds: int) -> list[int]:
    return [start for start in range(4_096, len(content), 4_096) if content[start] in kinds]


def told(caplog: pytest.LogCaptureFixture) -> tuple[int, int]:
    (message,) = [message for message in caplog.messages if "is set aside" in message]
    found = re.search(r"([\d,]+) of its scores are kept, about ([\d,]+) can't be read and are made again", message)
    assert found
    return int(found[1].replace(",", "")), int(found[2].replace(",", ""))


@pytest.mark.parametrize("garbage", [b"\xff", b"\0"])
def test_a_damaged_page_takes_no_healthy_scores_along(
    garbage: bytes, large: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = (large / FILE_NAME).read_bytes()
    leaves = pages(content, 10)
    for start in (leaves[0], leaves[1], leaves[len(leaves) // 2], leaves[-1]):
        caplog.clear()
        folder = shutil.copytree(large, tmp_path / str(start))
        (folder / FILE_NAME).write_bytes(content[:start] + garbage * 4_096 + content[start + 4_096 :])
        damaged = (folder / FILE_NAME).read_bytes()
        kept = read_all(folder)
        missing = len(MANY) + len(LONG) - kept
        assert (missing > 0) == (start != leaves[0])  # an index, which nothing is lost with
        assert missing <= 120  # what a page holds
        assert told(caplog)[0] == kept
        assert told(caplog)[1] == pytest.approx(missing, rel=0.5, abs=3)
        assert (folder / f"{FILE_NAME}.damaged-1").read_bytes() == damaged
        assert read_all(folder) == kept
        assert damaged_rows(folder) == (kept, 0)
        assert not [path for path in folder.iterdir() if ".saved" in path.name]


def test_damaged_pages_of_every_kind(large: Path, tmp_path: Path) -> None:
    """Inner pages, those of vectors that are longer than a page, several at once."""
    content = (large / FILE_NAME).read_bytes()
    inner, leaves = pages(content, 2), pages(content, 10)
    others = [start for start in range(4_096, len(content), 4_096) if start not in {*inner, *leaves}]
    chosen = {"inner": inner[-1:], "overflow": others[-3:-2], "several": [leaves[3], leaves[-3], others[-1]]}
    for name, starts in chosen.items():
        folder = shutil.copytree(large, tmp_path / name)
        damaged = bytearray(content)
        for start in starts:
            damaged[start : start + 4_096] = b"\xff" * 4_096
        (folder / FILE_NAME).write_bytes(damaged)
        kept = read_all(folder)
        assert 0 < kept < len(MANY) + len(LONG), name
        assert kept > 4_500 or name == "inner"


def test_what_stands_in_the_journal_alone_is_saved_too(large: Path, tmp_path: Path) -> None:
    whole, folder = shutil.copytree(large, tmp_path / "whole"), tmp_path / "copy"
    with opened(whole, {"kind": "scores"}) as store:
        store.write({item_key("last"): StoredOutput(np.float32([7]), 7, False)})
        shutil.copytree(whole, folder, ignore=shutil.ignore_patterns("*.lease-*", "*-shm"))
    start = pages((folder / FILE_NAME).read_bytes(), 10)[5]
    with (folder / FILE_NAME).open("r+b") as file:
        file.seek(start)
        file.write(b"\xff" * 4_096)
    assert read_all(folder) > 4_500
    with opened(folder, {"kind": "scores"}) as store:
        assert [stored.tokens for _, stored in store.read([item_key("last")])] == [7]


def test_no_room_for_what_is_saved_leaves_the_damaged_file_where_it_is(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(large, tmp_path / "copy")
    with (folder / FILE_NAME).open("r+b") as file:
        file.seek(pages((large / FILE_NAME).read_bytes(), 10)[0])
        file.write(b"\xff" * 4_096)

    def full(*_: object) -> tuple[int, int]:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(store_file, "_save", full)
        with pytest.raises(EvalkitError, match="can't be used: database or disk is full; the scores that it holds are"):
            read_all(folder)
    assert not list(folder.glob("*damaged*"))
    assert read_all(folder) > 5_000
