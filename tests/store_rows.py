"""What a score store holds, seen from outside while others write to it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path


def rows_in(store: Path) -> int:
    """The rows of a store, 0 while there is none."""
    try:
        with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as connection:
            return int(connection.execute("select count(*) from outputs").fetchone()[0])
    except sqlite3.OperationalError:  # not there yet, or being made
        return 0
