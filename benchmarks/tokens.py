"""Tokenising: evalkit beside `encode_batch_fast` of the tokenizers library alone, in one thread and in four."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import folders, texts

TEXTS, ROUNDS = 2_048, 7
THREADS = (1, 4)
WHOLE = 10**9  # tokens, which no text has: truncation is off
AT_LEAST = 0.85


def measure() -> dict[str, Any]:
    """Measure each number of threads in a process of its own, where the library reads it once."""
    found = {f"{threads} thread{'s' * (threads > 1)}": _in_process(threads) for threads in THREADS}
    rows = [
        (f"{title}, {threads}", ratios[kind], target)
        for title, kind, target in (
            ("tokenising / encode_batch_fast alone, whole texts", "whole", AT_LEAST),
            ("tokenising / encode_batch_fast alone, 512 tokens a text", "cut", None),
        )
        for threads, ratios in found.items()
    ]
    return {
        "ratios": {
            title: {"median": statistics.median(values), "min": min(values), "max": max(values), "target": target}
            for title, values, target in rows
        }
    }


def _in_process(threads: int) -> dict[str, list[float]]:
    environment = os.environ | {"RAYON_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "true"}
    command = [sys.executable, "-m", "benchmarks.tokens", str(folders.tiny_reranker())]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    found: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(folder: Path) -> dict[str, list[float]]:
    """Ratios, round by round: the library's seconds by evalkit's, whole texts and texts cut to 512 tokens."""
    from evalkit.models.settings import model_settings
    from evalkit.models.text_tokens import TextTokenizer
    from evalkit.models.tokenizers import load_tokenizer

    documents = texts.passages(TEXTS, 841, seed=4, spread=1.0)
    tokenizer = load_tokenizer(model_settings({"name": "timed", "path": str(folder)}), folder)
    whole, cut = TextTokenizer(tokenizer, WHOLE), TextTokenizer(tokenizer, 512)
    calls: dict[str, Callable[[], object]] = {
        "alone": lambda: tokenizer._tokenizer.encode_batch_fast(documents, add_special_tokens=False),
        "whole": lambda: whole(documents),
        "cut": lambda: cut(documents),
    }
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for number in range(ROUNDS + 1):  # the first one does not count
        for name in names[number % 3 :] + names[: number % 3]:
            started = time.perf_counter()
            found = calls[name]()
            del found  # to give it back is part of the work
            seconds[name].append(time.perf_counter() - started)
    return {
        name: [alone / own for alone, own in zip(seconds["alone"], seconds[name], strict=True)][1:]
        for name in ("whole", "cut")
    }


if __name__ == "__main__":
    print(json.dumps(compare(Path(sys.argv[1]))))
