"""What must hold after each run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from evalkit.results.writing import without_timings

_COURSE = ("cache", "cache_dir", "results_dir")
_LIMITS = ("retries", "timeout", "concurrency", "batch_size")


def contents(folder: Path) -> dict[str, Any]:
    """A folder of results: JSON without times and places, tables byte by byte."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".json":
            content = without_timings(json.loads(path.read_text(encoding="utf-8")))
            own = content.get("evalkit", {})
            own.get("provenance", {}).get("evalkit", {}).pop("git", None)  # somebody may work on it meanwhile
            config = own.get("config", {})
            for key in _COURSE:
                config.pop(key, None)
            for key in _LIMITS:
                config.get("backend", {}).pop(key, None)
            found[name] = content
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """The files that one has and the other has not, or has otherwise; of JSON, where."""
    names = [name for name in sorted({*found, *expected}) if found.get(name) != expected.get(name)]
    return [f"{name} ({', '.join(_places(found.get(name), expected.get(name)))})" for name in names]


def _places(found: Any, expected: Any, place: str = "") -> list[str]:
    if isinstance(found, dict) and isinstance(expected, dict):
        keys = [key for key in sorted({*found, *expected}) if found.get(key) != expected.get(key)]
        return [one for key in keys for one in _places(found.get(key), expected.get(key), f"{place}.{key}")][:5]
    return [f"{place} {str(found)[:40]} for {str(expected)[:40]}"]


def left_behind(*folders: Path) -> list[str]:
    """Files and folders that should not outlive a run."""
    return [
        str(path)
        for folder in folders
        for path in folder.rglob("*")
        if path.name.endswith((".tmp", ".unfinished"))
        or "verdicts.json." in path.name
        or "fingerprints.json." in path.name
    ]


def children_of(pid: int) -> list[int]:
    """The processes that a process has started and that still are (Linux)."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))
