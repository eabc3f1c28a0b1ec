"""Texts of very different lengths, some longer than a network reads."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import evalkit

DEMO = Path(evalkit.__file__).parent / "tasks" / "demo"
LONG_QUERY = "阿尔茨海默病的早期症状有哪些？" * 60
LONG_DOCUMENT = "记忆力下降是最常见的早期表现, but it is not the only one. " * 80


def demo_pairs(number: int) -> list[tuple[str, str]]:
    """Queries of the bundled task with their candidates, and pairs that no network reads whole."""
    pairs = [(row["query"], text) for row in _rows() for text in row["positive"][:1] + row["negative"][:1]]
    long = [("感冒", LONG_DOCUMENT), (LONG_QUERY, "苹果"), (LONG_QUERY, LONG_DOCUMENT)]
    return [*pairs[: number - len(long)], *long]


def _rows() -> list[dict[str, list[str]]]:
    files = sorted(DEMO.glob("*.jsonl"))
    lines = [line for path in files for line in islice(path.open(encoding="utf-8"), 10)]
    return [json.loads(line) for line in lines]
