"""The store's file: how it is opened, how damage in it is found, and what is then saved of it."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from evalkit.errors import EvalkitError
from evalkit.interruption import scratch
from evalkit.scoring.lease import Lease

BUSY_SECONDS = 120.0
KEY_DIGITS = 3  # the first bytes of a key, by which a damaged file is read in ranges
KEY_SPAN, FIRST_RANGES, NARROWEST = 256**KEY_DIGITS, 4_096, 256
_TABLES = (
    "create table ways (way integer primary key, hash blob not null unique, description text not null)",
    "create table outputs (way integer not null, key blob not null, output blob not null, tokens integer not null, "
    "truncated integer not null, checksum integer not null, primary key (way, key)) without rowid",
)
# what SQLite says of the circumstances; whatever else it says of a file that is used as here, damage has brought about
_CIRCUMSTANCES = frozenset({
    sqlite3.SQLITE_PERM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOLFS,
    sqlite3.SQLITE_AUTH,
})  # fmt: skip
Outcome = TypeVar("Outcome")
logger = logging.getLogger("evalkit")


class StoreFile:
    """A store's file, in use. Where it shows damage it is set aside, and one with what can be read of it takes its place.

    `introduce` is called with each connection that is opened, before any other work. Raises EvalkitError where another computer
    uses the file.
    """

    def __init__(self, path: Path, introduce: Callable[[sqlite3.Connection], object]) -> None:
        self._path = path
        self._introduce = introduce
        self._connection: sqlite3.Connection | None = None
        self._lease = Lease(path)
        self._identity: tuple[int, int] | None = None
        try:
            self.do(lambda _: None)
        except BaseException:
            self.close()
            raise

    def do(self, work: Callable[[sqlite3.Connection], Outcome]) -> Outcome:
        """Do the work, with what can be saved of the file where it is found to be damaged.

        Raises EvalkitError where circumstances (a full disk, a lock, no permission) forbid it; the file then keeps what it has.
        """
        try:
            return work(self._opened())
        except sqlite3.DatabaseError as error:
            if not is_damage(error, self._path):
                raise refusal(self._path, error) from error
            damage = error
        self._give_up(damage)
        try:
            return work(self._opened())
        except sqlite3.DatabaseError as error:
            raise refusal(self._path, error) from error

    def close(self) -> None:
        """Close the connection. What was written stays."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._lease.give_back()

    def _opened(self) -> sqlite3.Connection:
        try:
            self._lease.take()
        except OSError as error:
            raise refusal(self._path, error) from error
        if self._connection is None:
            with _alone(self._path):
                self._path.touch()
                self._identity = _identity(self._path)
                self._connection = open_database(self._path)
                self._introduce(self._connection)
        return self._connection

    def _give_up(self, damage: sqlite3.DatabaseError) -> None:
        """Set the file aside and save what can be read, unless another process did already: a new one has its name then."""
        self.close()
        with _alone(self._path):
            if self._path.exists() and _identity(self._path) == self._identity:
                replace_damaged(self._path, damage)


def open_database(path: Path) -> sqlite3.Connection:
    """Open the file, in WAL mode, with its tables. Raises sqlite3.DatabaseError where it is damaged or can't be opened."""
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        connection.execute("pragma journal_mode = wal")
        # with WAL: a killed process loses nothing, a power cut the last batches
        connection.execute("pragma synchronous = normal")
        if not _tables(connection):
            with transaction(connection):
                _make_tables(connection)
        _refuse_damaged_tables(connection)
    except sqlite3.DatabaseError:
        connection.close()
        raise
    return connection


def check_structure(connection: sqlite3.Connection) -> None:
    """Raise sqlite3.DatabaseError where the file's pages or trees are broken."""
    _refuse_unless_ok(connection, "pragma integrity_check(1)")


def is_damage(error: sqlite3.DatabaseError, path: Path) -> bool:
    """Whether the file itself is broken (and not busy, full or forbidden)."""
    # Python's own error, of text that is not UTF-8, has no code
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    if code & 0xFF == sqlite3.SQLITE_READONLY:  # the first page can say so too
        return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    return code & 0xFF not in _CIRCUMSTANCES or code == sqlite3.SQLITE_IOERR_SHORT_READ


def refusal(path: Path, error: Exception) -> EvalkitError:
    """Return what to tell where a store can't be used, though it is whole."""
    return EvalkitError(
        f"{path} can't be used: {error}; the scores that it holds are kept. Mend that (room on the disk, permission to write), or "
        "choose another place with cache_dir=FOLDER, or cache=off"
    )


def set_aside(path: Path) -> Path:
    """Rename a damaged store (with its journal), so that nothing reads it any more and nobody's bytes are lost."""
    number = 1
    while path.with_name(f"{path.name}.damaged-{number}").exists():
        number += 1
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(path.with_name(f"{path.name}.damaged-{number}{suffix}"))
    return path.with_name(f"{path.name}.damaged-{number}")


def replace_damaged(path: Path, damage: Exception) -> None:
    """Put a store with what can be read of a damaged one in its place, and set that aside; report how much is lost.

    Raises EvalkitError where the new one can't be written; the damaged one then stays where it is.
    """
    with scratch(path.with_name(f"{path.name}.saved")) as folder:
        shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
        try:
            folder.mkdir()
            kept, lost = _save(path, folder / path.name)
        except (OSError, sqlite3.DatabaseError) as error:
            raise refusal(path, error) from error
        aside = set_aside(path)
        (folder / path.name).rename(path)
    found = "none of its scores can be read, and they are made again"
    if kept:
        found = f"{kept:,} of its scores are kept, about {lost:,} can't be read and are made again"
    logger.warning("%s is damaged (%s); it is set aside as %s: %s", path, damage, aside.name, found)


def _save(path: Path, saved: Path) -> tuple[int, int]:
    """Copy every sound row of a damaged store; return how many there were, and about how many there were besides."""
    kept = lost = 0
    with (
        closing(open_database(saved)) as new,
        closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as old,
    ):
        old.text_factory = bytes  # a text that is damaged is no error
        for way, way_hash, description in _sound_ways(old):
            rows, unread = 0, Unread()
            with transaction(new):
                new.execute("insert into ways values (?, ?, ?)", (way, way_hash, description))
                for start in range(0, KEY_SPAN, KEY_SPAN // FIRST_RANGES):
                    found = _read_range(old, way, (start, start + KEY_SPAN // FIRST_RANGES), unread)
                    sound = [(way, *row) for row in found if is_whole(way_hash, row)]
                    new.executemany("insert or ignore into outputs values (?, ?, ?, ?, ?, ?)", sound)
                    rows += len(sound)
                    lost += len(found) - len(sound)
            kept += rows
            lost += round(rows * unread.keys / max(KEY_SPAN - unread.keys, 1))  # keys are hashes, so they lie evenly
    return kept, lost


@dataclass
class Unread:
    """How many of KEY_SPAN beginnings of keys could not be read."""

    keys: int = 0


def _sound_ways(connection: sqlite3.Connection) -> list[tuple[int, bytes, str]]:
    """Return the ways of scoring that can be read and are what their hashes say."""
    found = []
    with suppress(sqlite3.DatabaseError):
        for way, way_hash, description in connection.execute("select way, hash, description from ways"):
            if isinstance(description, bytes) and hashlib.sha256(description).digest() == way_hash:
                found.append((way, way_hash, description.decode()))
    return found


def _read_range(
    connection: sqlite3.Connection, way: int, keys: tuple[int, int], unread: Unread
) -> list[tuple[Any, ...]]:
    """Read the rows of a way whose keys begin from one number to before another; where a page is damaged, those beside it."""
    start, end = keys
    low, high = (number.to_bytes(KEY_DIGITS) if number < KEY_SPAN else b"\xff" * 17 for number in keys)
    query = "select key, output, tokens, truncated, checksum from outputs where way = ? and key >= ? and key < ?"
    try:
        return connection.execute(query, (way, low, high)).fetchall()
    except sqlite3.DatabaseError:
        if end - start <= NARROWEST:
            unread.keys += end - start
            return []
    middle = (start + end) // 2
    return [
        *_read_range(connection, way, (start, middle), unread),
        *_read_range(connection, way, (middle, end), unread),
    ]


def is_whole(way_hash: bytes, row: Sequence[Any]) -> bool:
    """Whether a row (key, output, tokens, truncated, checksum) is what was written under this way."""
    key, output, *numbers = row
    typed = isinstance(key, bytes) and isinstance(output, bytes) and all(isinstance(number, int) for number in numbers)
    return typed and row[-1] == checksum(way_hash, *row[:-1])


def checksum(way_hash: bytes, key: bytes, output: bytes, tokens: int, truncated: int) -> int:
    """Return the checksum of a row of a way."""
    return zlib.crc32(b"".join((way_hash, key, output, b"%d,%d" % (tokens, truncated))))


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Whole or not at all."""
    connection.execute("begin immediate")
    try:
        yield
        connection.execute("commit")
    except BaseException:
        if connection.in_transaction:  # SQLite may have rolled back by itself
            connection.execute("rollback")
        raise


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """No other process opens the store or sets it aside meanwhile."""
    try:
        with FileLock(f"{path}.lock", timeout=BUSY_SECONDS):
            yield
    except OSError as error:
        raise refusal(path, error) from error


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _refuse_unless_ok(connection: sqlite3.Connection, check: str) -> None:
    for (message,) in connection.execute(check):
        if message != "ok":
            raise sqlite3.DatabaseError(" ".join(message.split()))


def _make_tables(connection: sqlite3.Connection) -> None:
    for statement in _TABLES:
        connection.execute(statement)


def _tables(connection: sqlite3.Connection) -> list[tuple[Any, ...]]:
    return connection.execute("select type, name, tbl_name, sql from sqlite_schema order by name").fetchall()


def _refuse_damaged_tables(connection: sqlite3.Connection) -> None:
    """Refuse a store whose tables are not those of a new one, or a way of which is not the one that its hash says."""
    with closing(sqlite3.connect(":memory:")) as new:
        _make_tables(new)
        if _tables(connection) != _tables(new):
            raise sqlite3.DatabaseError("its tables are not those of a score store")
    _refuse_unless_ok(connection, "pragma integrity_check(ways)")
    for stored, description in connection.execute("select hash, description from ways"):
        if not isinstance(description, str) or stored != hashlib.sha256(description.encode()).digest():
            raise sqlite3.DatabaseError("a way of scoring is not what its hash says")
