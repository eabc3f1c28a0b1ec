"""Where evalkit keeps what it need not make again: scores, exported networks, verdicts on backends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import platformdirs

from evalkit.output.files import replace_file


def cache_folder(chosen: Path | None) -> Path:
    """Return the folder that the user chose, or evalkit's own in the user's cache."""
    return chosen or Path(platformdirs.user_cache_dir("evalkit", appauthor=False))


def read_entries(path: Path) -> dict[str, object]:
    """Return the entries of a file of the cache; none where it is missing or damaged, since they can be made again."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def store_entry(path: Path, key: str, value: object) -> None:
    """Add an entry to a file of the cache, or replace the one of that key. Raises OSError where it can't be written."""
    store_entries(path, {key: value})


def store_entries(path: Path, entries: Mapping[str, object]) -> None:
    """Add entries to a file of the cache, or replace those of the same keys. Raises OSError where it can't be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {**read_entries(path), **entries}
    replace_file(path, json.dumps(content, indent=1, ensure_ascii=False).encode())
