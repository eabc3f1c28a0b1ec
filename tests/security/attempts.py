"""A command with words of any kind, and a task of three queries."""

from __future__ import annotations

from typing import Any

from command import Outcome
from command import run_here as run_words

ROWS: list[dict[str, Any]] = [
    {"query": f"问题{n}", "positive": ["答案"], "negative": ["别的", "另外"]} for n in range(3)
]


def run_here(*words: object) -> Outcome:
    return run_words(*map(str, words))
