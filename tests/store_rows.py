"""What a score store holds, seen and changed from outside."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from evalkit.scoring.store import FILE_NAME


def keep_rows(folder: Path, number: int) -> None:
    """Delete all of a store's rows but that many."""
    with closing(sqlite3.connect(folder / FILE_NAME)) as connection, connection:
        connection.execute("delete from outputs where key not in (select key from outputs limit ?)", (number,))


def rows_in(store: Path) -> int:
    """The rows of a store, 0 while there is none."""
    try:
        with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as connection:
            return int(connection.execute("select count(*) from outputs").fetchone()[0])
    except sqlite3.OperationalError:  # not there yet, or being made
        return 0
