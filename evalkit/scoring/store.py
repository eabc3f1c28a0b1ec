"""The score store: what was scored once is never scored again.

One SQLite file in WAL mode. A row is an item's output under one way of scoring (weights, recipe, backend, precision), found
by a hash of the item's texts, and carries a checksum of all that it holds. A damaged row counts as missing; a damaged file is
set aside (see store_file.py). Several processes may use one store at once: a batch is written in one transaction, whole or
not at all.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import EvalkitError
from evalkit.scoring.store_file import StoreFile, check_structure, open_database, transaction

FILE_NAME = "scores-v1.sqlite3"  # other tables, another name: two versions of evalkit may share a folder
KEY_BYTES = 16
KEYS_AT_ONCE = 500
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


Row = tuple[Any, ...]  # key, output, tokens, truncated, checksum


class ScoreStore:
    """The outputs of one way of scoring. Make one with `open_store`."""

    def __init__(self, path: Path, description: Mapping[str, Any]) -> None:
        self._path = path
        self._description = json.dumps(description, sort_keys=True, ensure_ascii=True)
        self._hash = _hash(self._description)
        self._way = 0
        self._file = StoreFile(path, self._register)

    def read(self, keys: Sequence[bytes]) -> Iterator[tuple[bytes, StoredOutput]]:
        """Read what is stored of these items.

        Where some are missing, damage may have hidden them: then all is looked through, and what is damaged is told.
        """
        found = 0
        for start in range(0, len(keys), KEYS_AT_ONCE):
            for row in self._select(keys[start : start + KEYS_AT_ONCE]):
                if _is_whole(self._hash, row):
                    found += 1
                    key, output, tokens, truncated, _ = row
                    yield key, StoredOutput(np.frombuffer(output, np.float32), tokens, bool(truncated))
        if found < len(keys):
            damaged = self._file.do(self._delete_damaged)
            if damaged:
                logger.warning("%s: %d damaged rows are deleted, and scored again where needed", self._path, damaged)

    def write(self, outputs: Mapping[bytes, StoredOutput]) -> None:
        """Store a batch, whole or not at all; it replaces what was there under the same keys.

        Raises EvalkitError where there is no room, or no permission; what was stored before stays.
        """
        rows = []
        for key, stored in outputs.items():
            output = np.ascontiguousarray(stored.output, np.float32).tobytes()
            values = (key, output, int(stored.tokens), int(stored.truncated))
            rows.append((*values, _checksum(self._hash, *values)))

        def insert(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                numbered = [(self._way, *row) for row in rows]
                connection.executemany("insert or replace into outputs values (?, ?, ?, ?, ?, ?)", numbered)

        self._file.do(insert)

    def clear(self) -> None:
        """Delete all outputs of this way of scoring."""

        def delete(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                connection.execute("delete from outputs where way = ?", (self._way,))

        self._file.do(delete)

    def close(self) -> None:
        """Close the file. What was written stays."""
        self._file.close()

    def _select(self, keys: Sequence[bytes]) -> list[Row]:
        marks = ",".join("?" * len(keys))
        query = f"select key, output, tokens, truncated, checksum from outputs where way = ? and key in ({marks})"  # noqa: S608
        return self._file.do(lambda connection: connection.execute(query, (self._way, *keys)).fetchall())

    def _delete_damaged(self, connection: sqlite3.Connection) -> int:
        check_structure(connection)
        rows = connection.execute(
            "select key, output, tokens, truncated, checksum from outputs where way = ?", (self._way,)
        )
        damaged = [(self._way, row[0]) for row in rows if not _is_whole(self._hash, row)]
        if damaged:
            with transaction(connection):
                connection.executemany("delete from outputs where way = ? and key = ?", damaged)
        return len(damaged)

    def _register(self, connection: sqlite3.Connection) -> None:
        query = "select way from ways where hash = ?"
        row = connection.execute(query, (self._hash,)).fetchone()
        if row is None:
            with transaction(connection):
                connection.execute(
                    "insert or ignore into ways (hash, description) values (?, ?)", (self._hash, self._description)
                )
            row = connection.execute(query, (self._hash,)).fetchone()
        self._way = row[0]


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


def ways(folder: Path) -> list[WayInfo]:
    """List the ways of scoring in a folder's store, and how much each holds.

    Raises sqlite3.DatabaseError where the file is broken or can't be opened.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return []
    columns = "w.way, w.description, count(o.key), coalesce(sum(length(o.output)), 0)"
    query = f"select {columns} from ways w left join outputs o using (way) group by w.way order by w.way"  # noqa: S608
    with closing(open_database(path)) as connection:
        rows = connection.execute(query).fetchall()
    return [WayInfo(way, json.loads(description), count, size) for way, description, count, size in rows]


def descriptions(folder: Path) -> list[Mapping[str, Any]]:
    """List what the ways of scoring in a folder's store say of themselves; none where it can't be read."""
    path = folder / FILE_NAME
    if not path.is_file():
        return []
    try:
        with closing(open_database(path)) as connection:
            found = connection.execute("select description from ways order by way").fetchall()
        return [json.loads(description) for (description,) in found]
    except (sqlite3.DatabaseError, ValueError):  # whoever uses the store says what is wrong with it
        return []


def damaged_rows(folder: Path) -> tuple[int, int]:
    """Check every row of a folder's store: how many there are, and how many are damaged.

    Raises sqlite3.DatabaseError where the file itself is broken.
    """
    total = damaged = 0
    with closing(open_database(folder / FILE_NAME)) as connection:
        check_structure(connection)
        columns = "w.hash, o.key, o.output, o.tokens, o.truncated, o.checksum"
        for way_hash, *row in connection.execute(f"select {columns} from outputs o left join ways w using (way)"):  # noqa: S608
            total += 1
            damaged += way_hash is None or not _is_whole(way_hash, row)
    return total, damaged


def prune(folder: Path, doomed: Sequence[int]) -> None:
    """Delete ways of scoring with their outputs, and outputs of no way, and give the space back.

    Raises sqlite3.DatabaseError where the file is broken or can't be written.
    """
    with closing(open_database(folder / FILE_NAME)) as connection:
        with transaction(connection):
            connection.executemany("delete from ways where way = ?", [(way,) for way in doomed])
            connection.execute("delete from outputs where way not in (select way from ways)")
        connection.execute("vacuum")


def _hash(description: str) -> bytes:
    return hashlib.sha256(description.encode()).digest()


def _is_whole(way_hash: bytes, row: Sequence[Any]) -> bool:
    key, output, *numbers = row
    typed = isinstance(key, bytes) and isinstance(output, bytes) and all(isinstance(number, int) for number in numbers)
    return typed and row[-1] == _checksum(way_hash, *row[:-1])


def _checksum(way_hash: bytes, key: bytes, output: bytes, tokens: int, truncated: int) -> int:
    return zlib.crc32(b"".join((way_hash, key, output, b"%d,%d" % (tokens, truncated))))
