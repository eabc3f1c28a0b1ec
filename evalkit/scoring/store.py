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
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import EvalkitError
from evalkit.scoring.lease import refuse_other_host
from evalkit.scoring.store_file import (
    StoreFile,
    check_structure,
    checksum,
    is_whole,
    open_database,
    transaction,
)

FILE_NAME = "scores-v1.sqlite3"  # other tables, another name: two versions of evalkit may share a folder
KEY_BYTES = 16
KEYS_AT_ONCE = 500
ROW_BYTES = 41  # what a row takes beside its output
EPOCH = "refresh"  # the field of a description that numbers its refreshes
logger = logging.getLogger("evalkit")


@dataclass(frozen=True, slots=True)
class StoredOutput:
    """One item's output: a score (one number) or a vector; the tokens read (-1: not counted), and whether text was cut."""

    output: NDArray[np.float32]
    tokens: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class WayInfo:
    """One way of scoring in a store: its description, how much is stored under it, and when it was last opened (Unix time).

    It is `replaced` where a refresh began another way in its place.
    """

    way: int
    description: Mapping[str, Any]
    rows: int
    output_bytes: int
    last_used: float = 0.0
    replaced: bool = False

    @property
    def stored_bytes(self) -> int:
        """About what it takes in the file."""
        return self.output_bytes + ROW_BYTES * self.rows


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
    """The outputs of one way of scoring. Make one with `open_store`.

    Each refresh begins an epoch, a way of its own: the description with the number of the refresh. Only the newest epoch is
    read, so that what an interrupted refresh made and what was there before never meet in one run.
    """

    def __init__(self, path: Path, description: Mapping[str, Any]) -> None:
        self.path = path
        self._base = description
        self._description = ""
        self._hash = b""
        self._way = 0
        self._file = StoreFile(path, self._register)

    def begin_anew(self, keys: Sequence[bytes]) -> None:
        """Begin an epoch, which holds nothing; from now on nobody who opens the store reads an earlier one.

        The epoch that this process began last is gone on with where it holds none of these items, so that the tasks of one
        command share it. The one before the new epoch stays for runs that read it now; those before that are deleted.
        """
        self._file.do(lambda connection: self._begin_anew(connection, keys))
        _begun.add((self.path.resolve(), self._hash))

    def _begin_anew(self, connection: sqlite3.Connection, keys: Sequence[bytes]) -> None:
        with transaction(connection):
            epochs = self._epochs(connection)
            newest = max(epochs)
            self._take(connection, newest)
            ours = (self.path.resolve(), self._hash) in _begun
            if ours and not any(self._rows(connection, part) for part in _parts(keys)):
                return
            for number, way in epochs.items():
                if number < newest:
                    connection.execute("delete from outputs where way = ?", (way,))
                    connection.execute("delete from ways where way = ?", (way,))
            self._take(connection, newest + 1)

    def read(self, keys: Sequence[bytes]) -> Iterator[tuple[bytes, StoredOutput]]:
        """Read what is stored of these items.

        Where some are missing, damage may have hidden them: then all is looked through, and what is damaged is told.
        """
        found = 0
        for part in _parts(keys):
            for row in self._select(part):
                if is_whole(self._hash, row):
                    found += 1
                    key, output, tokens, truncated, _ = row
                    yield key, StoredOutput(np.frombuffer(output, np.float32), tokens, bool(truncated))
        if found < len(keys):
            damaged = self._file.do(self._delete_damaged)
            if damaged:
                logger.warning("%s: %d damaged rows are deleted, and scored again where needed", self.path, damaged)

    def write(self, outputs: Mapping[bytes, StoredOutput]) -> None:
        """Store a batch, whole or not at all; it replaces what was there under the same keys.

        Raises EvalkitError where there is no room, or no permission; what was stored before stays.
        """
        rows = []
        for key, stored in outputs.items():
            output = np.ascontiguousarray(stored.output, np.float32).tobytes()
            values = (key, output, int(stored.tokens), int(stored.truncated))
            rows.append((*values, checksum(self._hash, *values)))

        def insert(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                # others' refreshes may have deleted it since
                self._way = _way(connection, self._description, self._way)
                numbered = [(self._way, *row) for row in rows]
                connection.executemany("insert or replace into outputs values (?, ?, ?, ?, ?, ?)", numbered)

        self._file.do(insert)

    def close(self) -> None:
        """Close the file. What was written stays."""
        self._file.close()

    def _select(self, keys: Sequence[bytes]) -> list[Row]:
        return self._file.do(lambda connection: self._rows(connection, keys))

    def _rows(self, connection: sqlite3.Connection, keys: Sequence[bytes]) -> list[Row]:
        marks = ",".join("?" * len(keys))
        query = f"select key, output, tokens, truncated, checksum from outputs where way = ? and key in ({marks})"  # noqa: S608
        return connection.execute(query, (self._way, *keys)).fetchall()

    def _delete_damaged(self, connection: sqlite3.Connection) -> int:
        check_structure(connection)
        rows = connection.execute(
            "select key, output, tokens, truncated, checksum from outputs where way = ?", (self._way,)
        )
        damaged = [(self._way, row[0]) for row in rows if not is_whole(self._hash, row)]
        if damaged:
            with transaction(connection):
                connection.executemany("delete from outputs where way = ? and key = ?", damaged)
        return len(damaged)

    def _register(self, connection: sqlite3.Connection) -> None:
        """Take the newest epoch, or again the one that this store has, in a file that was opened anew."""
        if self._hash:
            self._way = _way(connection, self._description)
        else:
            self._take(connection, max(self._epochs(connection), default=0))
        with suppress(OSError):  # the store itself says where the folder can't be written
            mark = _mark(self.path, self._hash)
            mark.parent.mkdir(exist_ok=True)
            mark.touch()

    def _epochs(self, connection: sqlite3.Connection) -> dict[int, int]:
        """Return the way of each epoch by its number; 0 is what was there before any refresh."""
        found = {}
        for way, text in connection.execute("select way, description from ways"):
            description = json.loads(text)
            number = description.pop(EPOCH, 0)
            if _text(description) == _text(self._base):
                found[number] = way
        return found

    def _take(self, connection: sqlite3.Connection, epoch: int) -> None:
        """Make this epoch, which may be new, the one that is read and written."""
        self._description = _text({**self._base, EPOCH: epoch} if epoch else self._base)
        self._hash = _hash(self._description)
        self._way = _way(connection, self._description)


def _mark(path: Path, way_hash: bytes) -> Path:
    """Return the file beside a store whose time is when a way of scoring was last opened."""
    return path.with_name(f"{path.name}.used") / way_hash.hex()


def _last_used(mark: Path, path: Path) -> float:
    """Return the time of a way's mark. One that has none yet gets the store's own time: it was used no later."""
    if not mark.exists():
        changed = path.stat().st_mtime
        try:
            mark.parent.mkdir(exist_ok=True)
            mark.touch()
            os.utime(mark, (changed, changed))
        except OSError:  # the folder may only be read
            return changed
    return mark.stat().st_mtime


_begun: set[tuple[Path, bytes]] = set()  # the epochs that this process began, as file and hash of the way


def _text(description: Mapping[str, Any]) -> str:
    return json.dumps(description, sort_keys=True, ensure_ascii=True)


def _way(connection: sqlite3.Connection, description: str, number: int | None = None) -> int:
    """Return the number of a way of scoring, which may be new: then it gets this `number`, or one that none has had."""
    row = connection.execute("select way from ways where hash = ?", (_hash(description),)).fetchone()
    if row is not None:
        return int(row[0])
    with nullcontext() if connection.in_transaction else transaction(connection):
        values = number or _new_number(connection), _hash(description), description
        connection.execute("insert or ignore into ways values (?, ?, ?)", values)
    return _way(connection, description)


def _new_number(connection: sqlite3.Connection) -> int:
    """Return a number that no way has had: a run whose way is deleted meanwhile still writes rows of its number."""
    (number,) = connection.execute(
        "select 1 + max(user_version, (select coalesce(max(way), 0) from ways)) from pragma_user_version"
    ).fetchone()
    connection.execute(f"pragma user_version = {number:d}")
    return int(number)


def _parts(keys: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(keys), KEYS_AT_ONCE):
        yield keys[start : start + KEYS_AT_ONCE]


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
    """List the ways of scoring in a folder's store, how much each holds, and when it was last opened.

    Of one that nobody has opened since its use is noted, that is when the store was last changed.

    Raises sqlite3.DatabaseError where the file is broken or can't be opened, EvalkitError where another computer uses it.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return []
    columns = "w.way, w.description, count(o.key), coalesce(sum(length(o.output)), 0)"
    query = f"select {columns} from ways w left join outputs o using (way) group by w.way order by w.way"  # noqa: S608
    refuse_other_host(path)
    with closing(open_database(path)) as connection:
        rows = connection.execute(query).fetchall()
    known = [(json.loads(description), _mark(path, _hash(description))) for _, description, _, _ in rows]
    newest: dict[str, int] = {}
    for description, _ in known:
        base = _text({**description, EPOCH: 0})
        newest[base] = max(description.get(EPOCH, 0), newest.get(base, 0))
    return [
        WayInfo(
            way,
            description,
            count,
            size,
            last_used=_last_used(mark, path),
            replaced=description.get(EPOCH, 0) < newest[_text({**description, EPOCH: 0})],
        )
        for (way, _, count, size), (description, mark) in zip(rows, known, strict=True)
    ]


def descriptions(folder: Path) -> list[Mapping[str, Any]]:
    """List what the ways of scoring in a folder's store say of themselves; none where it can't be read."""
    path = folder / FILE_NAME
    if not path.is_file():
        return []
    try:
        refuse_other_host(path)
        with closing(open_database(path)) as connection:
            found = connection.execute("select description from ways order by way").fetchall()
        return [json.loads(description) for (description,) in found]
    except (EvalkitError, sqlite3.DatabaseError, ValueError):  # whoever uses the store says what is wrong with it
        return []


def damaged_rows(folder: Path) -> tuple[int, int]:
    """Check every row of a folder's store: how many there are, and how many are damaged.

    Raises sqlite3.DatabaseError where the file itself is broken.
    """
    total = damaged = 0
    refuse_other_host(folder / FILE_NAME)
    with closing(open_database(folder / FILE_NAME)) as connection:
        check_structure(connection)
        columns = "w.hash, o.key, o.output, o.tokens, o.truncated, o.checksum"
        for way_hash, *row in connection.execute(f"select {columns} from outputs o left join ways w using (way)"):  # noqa: S608
            total += 1
            damaged += way_hash is None or not is_whole(way_hash, row)
    return total, damaged


def prune(folder: Path, doomed: Sequence[int]) -> None:
    """Delete ways of scoring with their outputs, and outputs of no way, and give the space back.

    Raises sqlite3.DatabaseError where the file is broken or can't be written.
    """
    refuse_other_host(folder / FILE_NAME)
    with closing(open_database(folder / FILE_NAME)) as connection:
        with transaction(connection):
            connection.executemany("delete from ways where way = ?", [(way,) for way in doomed])
            connection.execute("delete from outputs where way not in (select way from ways)")
        connection.execute("vacuum")
        left = {bytes(way_hash).hex() for (way_hash,) in connection.execute("select hash from ways")}
    for mark in (folder / f"{FILE_NAME}.used").glob("*"):
        if mark.name not in left:
            mark.unlink(missing_ok=True)


def _hash(description: str) -> bytes:
    return hashlib.sha256(description.encode()).digest()
