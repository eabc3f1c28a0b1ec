"""Where evalkit keeps what it need not make again: scores, exported networks, verdicts on backends."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import platformdirs

from evalkit.interruption import scratch


def cache_folder(chosen: Path | None) -> Path:
    """The folder that the user chose, or evalkit's own in the user's cache."""
    return chosen or Path(platformdirs.user_cache_dir("evalkit", appauthor=False))


def remembered(path: Path) -> dict[str, object]:
    """What a file of the cache remembers; nothing where it is missing or damaged, since it can be had again."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def remember(path: Path, key: str, value: object) -> None:
    """Put one more thing into the file. Raises OSError where it can't be written."""
    content: Mapping[str, object] = {**remembered(path), key: value}
    path.parent.mkdir(parents=True, exist_ok=True)
    with scratch(path.with_name(f"{path.name}.{os.getpid()}")) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
        temporary.replace(path)
