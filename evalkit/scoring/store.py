"""The score store: what was scored once is never scored again.

One SQLite file in WAL mode. A row is an item's output under one way of scoring (weights, recipe, backend, precision), found
by a hash of the item's texts, and carries a checksum of all that it holds. A damaged row counts as missing; a damaged file is
set aside. Several processes may use one store at once: a batch is written in one transaction, whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import EvalkitError

FILE_NAME = "scores.sqlite3"
KEY_BYTES = 16
BUSY_SECONDS = 120.0
KEYS_AT_ONCE = 500
_SCHEMA = """
create table if not exists ways (way integer primary key, hash blob not null unique, description text not null);
create table if not exists outputs (
    way integer not null, key blob not null, output blob not null, tokens integer not null, truncated integer not null,
    checksum integer not null, primary key (way, key)
) without rowid;
"""
logger = logging.getLogger("evalkit")


@dataclass(frozen=True, slots=True)
class StoredOutput:
    """One item's output: a score (one number) or a vector; the tokens read (-1: not counted), and whether text was cut."""

    output: NDArray[np.float32]
    tokens: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class WayInfo:
    """One way of scoring in a store: its description, and how much is stored under it."""

    way: int
    description: Mapping[str, Any]
    rows: int
    output_bytes: int


def item_key(*texts: str) -> bytes:
    """Hash an item's texts (a pair, or a role and a text) to KEY_BYTES bytes; equal only for equal texts in that order."""
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.digest()


class ScoreStore:
    """The outputs of one way of scoring. Make one with `open_store`."""

    def __init__(self, path: Path, description: Mapping[str, Any]) -> None:
        self._path = path
        self._description = json.dumps(description, sort_keys=True, ensure_ascii=False)
        self._hash = hashlib.sha256(self._description.encode()).digest()
        self._connection = self._connect()
        self._way = self._register()

    def read(self, keys: Sequence[bytes]) -> Iterator[tuple[bytes, StoredOutput]]:
        """Read what is stored of these items. A row whose checksum is wrong counts as missing, and is told."""
        damaged = 0
        try:
            for start in range(0, len(keys), KEYS_AT_ONCE):
                for row in self._select(keys[start : start + KEYS_AT_ONCE]):
                    key, output, tokens, truncated, checksum = row
                    if not _is_row(row) or checksum != _checksum(self._hash, key, output, tokens, truncated):
                        damaged += 1
                        continue
                    yield key, StoredOutput(np.frombuffer(output, np.float32), tokens, bool(truncated))
        except sqlite3.DatabaseError as error:
            self._set_aside(error)
        if damaged:
            logger.warning("%s: %d damaged rows are scored again", self._path, damaged)

    def write(self, outputs: Mapping[bytes, StoredOutput]) -> None:
        """Store a batch, whole or not at all; it replaces what was there under the same keys."""
        rows = []
        for key, stored in outputs.items():
            output = np.ascontiguousarray(stored.output, np.float32).tobytes()
            values = (key, output, int(stored.tokens), int(stored.truncated))
            rows.append((self._way, *values, _checksum(self._hash, *values)))
        try:
            self._insert(rows)
        except sqlite3.OperationalError as error:
            if "full" in str(error) or "readonly" in str(error) or "I/O" in str(error) or "locked" in str(error):
                raise EvalkitError(
                    f"{self._path} can't take more scores: {error}; what it holds is kept. Make room, or choose another place "
                    "with cache_dir=FOLDER, or cache=off"
                ) from error
            raise
        except sqlite3.DatabaseError as error:
            self._set_aside(error)
            self._insert([(self._way, *row[1:]) for row in rows])

    def close(self) -> None:
        """Close the file. What was written stays."""
        self._connection.close()

    def _select(self, keys: Sequence[bytes]) -> Iterator[tuple[Any, ...]]:
        marks = ",".join("?" * len(keys))
        query = f"select key, output, tokens, truncated, checksum from outputs where way = ? and key in ({marks})"  # noqa: S608
        yield from self._connection.execute(query, (self._way, *keys))

    def _insert(self, rows: Sequence[tuple[Any, ...]]) -> None:
        with _transaction(self._connection):
            self._connection.executemany("insert or replace into outputs values (?, ?, ?, ?, ?, ?)", rows)

    def _connect(self) -> sqlite3.Connection:
        try:
            return connect(self._path)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise EvalkitError(
                    f"{self._path} can't be opened: {error}; choose another cache_dir=FOLDER, or cache=off"
                ) from error
            set_aside(self._path, error)
            return connect(self._path)

    def _register(self) -> int:
        with _transaction(self._connection):
            self._connection.execute(
                "insert or ignore into ways (hash, description) values (?, ?)", (self._hash, self._description)
            )
        row = self._connection.execute("select way from ways where hash = ?", (self._hash,)).fetchone()
        return int(row[0])

    def _set_aside(self, error: sqlite3.DatabaseError) -> None:
        self._connection.close()
        set_aside(self._path, error)
        self._connection = connect(self._path)
        self._way = self._register()


def open_store(folder: Path, description: Mapping[str, Any]) -> ScoreStore:
    """Open, or make, the store in a folder for one way of scoring.

    Raises EvalkitError where the folder can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EvalkitError(
            f"cache_dir={folder} can't be made: {error.strerror}; choose another folder, or cache=off"
        ) from error
    return ScoreStore(folder / FILE_NAME, description)


def connect(path: Path) -> sqlite3.Connection:
    """Open the file, in WAL mode, and make its tables. Raises sqlite3.DatabaseError where it is damaged."""
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        connection.execute("pragma journal_mode = wal")
        connection.execute(
            "pragma synchronous = normal"
        )  # with WAL: a killed process loses nothing, a power cut the last batches
        connection.executescript(_SCHEMA)
    except sqlite3.DatabaseError:
        connection.close()
        raise
    return connection


def is_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether SQLite says that the file itself is broken (and not busy, full or forbidden)."""
    return not isinstance(error, sqlite3.OperationalError) or "malformed" in str(error) or "no such" in str(error)


def set_aside(path: Path, error: sqlite3.DatabaseError) -> None:
    """Rename a damaged store (with its journal), so that nothing reads it any more and nobody's bytes are lost."""
    number = 1
    while path.with_name(f"{path.name}.damaged-{number}").exists():
        number += 1
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(path.with_name(f"{path.name}.damaged-{number}{suffix}"))
    logger.warning(
        "%s is damaged (%s); it is set aside as %s.damaged-%d, and its scores are made again",
        path,
        error,
        path.name,
        number,
    )


def ways(folder: Path) -> list[WayInfo]:
    """List the ways of scoring in a folder's store, and how much each holds."""
    path = folder / FILE_NAME
    if not path.is_file():
        return []
    columns = "w.way, w.description, count(o.key), coalesce(sum(length(o.output)), 0)"
    query = f"select {columns} from ways w left join outputs o using (way) group by w.way order by w.way"  # noqa: S608
    with closing(connect(path)) as connection:
        rows = connection.execute(query).fetchall()
    return [WayInfo(way, json.loads(description), count, size) for way, description, count, size in rows]


def damaged_rows(folder: Path) -> tuple[int, int]:
    """Check every row of a folder's store: how many there are, and how many are damaged.

    Raises sqlite3.DatabaseError where the file itself is broken.
    """
    total = damaged = 0
    with closing(connect(folder / FILE_NAME)) as connection:
        for (message,) in connection.execute("pragma integrity_check(1)"):
            if message != "ok":
                raise sqlite3.DatabaseError(message)
        columns = "w.hash, o.key, o.output, o.tokens, o.truncated, o.checksum"
        for way_hash, *row in connection.execute(f"select {columns} from outputs o left join ways w using (way)"):  # noqa: S608
            total += 1
            damaged += way_hash is None or not _is_row(row) or row[-1] != _checksum(way_hash, *row[:-1])
    return total, damaged


def prune(folder: Path, doomed: Sequence[int]) -> None:
    """Delete ways of scoring with their outputs, and give the space back."""
    with closing(connect(folder / FILE_NAME)) as connection:
        with _transaction(connection):
            for way in doomed:
                connection.execute("delete from outputs where way = ?", (way,))
                connection.execute("delete from ways where way = ?", (way,))
        connection.execute("vacuum")


def _is_row(row: Sequence[Any]) -> bool:
    key, output, *numbers = row
    return isinstance(key, bytes) and isinstance(output, bytes) and all(isinstance(number, int) for number in numbers)


def _checksum(way_hash: bytes, key: bytes, output: bytes, tokens: int, truncated: int) -> int:
    return zlib.crc32(b"".join((way_hash, key, output, b"%d,%d" % (tokens, truncated))))


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("begin immediate")
    try:
        yield
    except BaseException:
        connection.execute("rollback")
        raise
    connection.execute("commit")
