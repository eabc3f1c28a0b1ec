"""mteb's reranking tasks, and how large those are that evalkit's own files describe: a file beside this module."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

_FILE = Path(__file__).with_suffix(".json")


@cache
def published_statistics() -> Mapping[str, Mapping[str, int]]:
    """Return by a task's mteb name how many queries, pairs and so on it has: fields of TaskStatistics. Few tasks are known."""
    return {name: figures for name, figures in _content().items() if figures}


def mteb_task_names() -> tuple[str, ...]:
    """Return the names of all reranking tasks of text that mteb 2.26 has."""
    return tuple(_content())


@cache
def _content() -> Mapping[str, Mapping[str, int]]:
    content: dict[str, dict[str, int]] = json.loads(_FILE.read_text(encoding="utf-8"))
    return content
