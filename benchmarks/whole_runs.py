"""Whole processes, as a user starts them: T2Reranking's size stored and not, memory, the first batch, quick commands."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import folders, texts
from evalkit.scoring.store import FILE_NAME

QUERIES, PAIRS = 5_908, 97_422
POLL_SECONDS = 0.05


def measure() -> dict[str, Any]:
    """Measure each row of the table; each process is a fresh one."""
    data = t2_like()
    tiny = folders.tiny_reranker()
    full = folders.full_reranker()
    cache = texts.WORK / "cache"
    nothing_stored = texts.WORK / "floor"
    for folder in (cache, nothing_stored):
        shutil.rmtree(folder, ignore_errors=True)
    floor = run(one_query(data), tiny, nothing_stored)
    cold = run(data, tiny, cache)
    warm = [run(data, tiny, cache) for _ in range(3)]
    usage = json.loads(next((texts.WORK / "out").rglob("t2_like.json")).read_text("utf-8"))["evalkit"]
    shutil.rmtree(texts.WORK / "first", ignore_errors=True)
    first = [first_batch(data, full) for _ in range(3)]
    starts = [overhead(one_pair(), full, again) for _ in range(3) for again in (False, True)]
    quick = {name: sorted(seconds(["-m", "evalkit", name]) for _ in range(5))[2] for name in ("--help", "list")}
    padding = padded_share(texts.WORK / "padding", data, tiny)
    above = (cold["peak_bytes"] - floor["peak_bytes"]) / 2**30
    return {
        "pairs": PAIRS,
        "usage": usage["usage"],
        "rows": [
            row(
                "97,422 T2-like pairs, all in the store: start to table",
                f"{sorted(w['seconds'] for w in warm)[1]:.1f} s",
                "12 s",
            ),
            row("peak memory of scoring them, data included, above a run on one query", f"{above:.2f} GiB", "1.5 GiB"),
            row("first batch stored after start, full-size network", f"{first[-1]:.1f} s", "20 s"),
            row("the same at the very first start, when the network is converted", f"{first[0]:.1f} s", ""),
            row(
                "a whole run of two short pairs, backend=auto: a model's first",
                f"{sorted(starts[::2])[1]:.1f} s",
                "20 s",
            ),
            row("the same in a later run", f"{sorted(starts[1::2])[1]:.1f} s", "7 s"),
            row("padding tokens computed", f"{padding:.2%}", "2 %"),
            row("evalkit --help", f"{quick['--help']:.2f} s", "0.7 s"),
            row("evalkit list", f"{quick['list']:.2f} s", "0.7 s"),
        ],
        "cold_seconds": cold["seconds"],
    }


def row(what: str, measured: str, target: str) -> dict[str, str]:
    """Return a row of the table."""
    return {"what": what, "measured": measured, "target": target}


def t2_like() -> Path:
    """Write a task of T2Reranking's size: 5,908 queries, 97,422 passages of 841 characters on average with a long tail."""
    path = texts.WORK / "t2_like.jsonl"
    if not path.is_file():
        documents = texts.passages(PAIRS, 841, seed=4, spread=1.0)
        queries = texts.passages(QUERIES, 11, seed=5, spread=0.3)
        chance = random.Random(6)
        cuts = sorted(chance.sample(range(1, PAIRS // 2), QUERIES - 1))
        with path.open("w", encoding="utf-8") as stream:
            for query, start, stop in zip(queries, [0, *cuts], [*cuts, PAIRS // 2], strict=True):
                chosen = documents[2 * start : 2 * stop]
                half = max(1, len(chosen) // 2)
                line = {"query": query, "positive": chosen[:half], "negative": chosen[half:]}
                stream.write(json.dumps(line, ensure_ascii=False) + "\n")
    return path


def one_query(data: Path) -> Path:
    """Write the first query of a task as a task of its own."""
    path = data.with_name("one_query.jsonl")
    with data.open(encoding="utf-8") as stream:
        path.write_text(next(stream), "utf-8")
    return path


def one_pair() -> Path:
    """Write a task that takes next to no time to score: what its run takes is what any run takes besides scoring."""
    path = texts.WORK / "one_pair.jsonl"
    row = {"query": "感冒吃什么药", "positive": ["感冒了可以多喝水。"], "negative": ["今天天气很好。"]}
    path.write_text(json.dumps(row, ensure_ascii=False) + "\n", "utf-8")
    return path


def run(data: Path, model: Path, cache: Path, *more: str, backend: str = "openvino") -> dict[str, float]:
    """Run the command and give its wall seconds and peak resident memory."""
    started = time.perf_counter()
    words = command(data, model, cache, *more, backend=backend)
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(process.args)} ended with {status}")
    return {"seconds": time.perf_counter() - started, "peak_bytes": usage.ru_maxrss * 1024.0}


def overhead(data: Path, model: Path, again: bool) -> float:
    """Seconds of a whole run of a short query: its model's first, or `again` in a cache that has its verdict and conversion."""
    cache = texts.WORK / "overhead"
    if not again:
        shutil.rmtree(cache, ignore_errors=True)
    return run(data, model, cache, "cache=off", backend="auto")["seconds"]


def command(data: Path, model: Path, cache: Path, *more: str, backend: str = "openvino") -> list[str]:
    """`evalkit` on the data with a local cross-encoder."""
    words = [
        "task=local",
        f"task.path={data}",
        "model=local-cross-encoder",
        f"model.path={model}",
        "model.max_length=512",
    ]
    places = [f"cache_dir={cache}", f"results_dir={texts.WORK / 'out'}"]
    return [sys.executable, "-m", "evalkit", *words, f"backend={backend}", *places, *more]


def first_batch(data: Path, model: Path) -> float:
    """Seconds from the start of the command until its first batch is in the store."""
    cache = texts.WORK / "first"
    for stored in cache.glob(f"{FILE_NAME}*"):  # the converted network stays, as it does at a user's
        stored.unlink()
    started = time.perf_counter()
    process = subprocess.Popen(command(data, model, cache), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not _has_rows(cache / FILE_NAME):
            if process.poll() is not None:
                raise RuntimeError("the run ended before its first batch")
            time.sleep(POLL_SECONDS)
        return time.perf_counter() - started
    finally:
        process.kill()
        process.wait()


def padded_share(cache: Path, data: Path, model: Path) -> float:
    """Return the share of padding among all tokens computed, for the first thousand queries."""
    shutil.rmtree(cache, ignore_errors=True)
    run(data, model, cache, "limit=1000")
    path = max(
        (texts.WORK / "out").rglob("experiments/*limit*1000*/t2_like.json"), key=lambda file: file.stat().st_mtime
    )
    own = json.loads(path.read_text("utf-8"))["evalkit"]
    padding, tokens = own["timing"]["padding_tokens"], own["usage"]["tokens"]
    return padding / (padding + tokens)


def seconds(arguments: list[str]) -> float:
    """Wall seconds of a Python command."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - started


def _has_rows(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5) as connection:
            return connection.execute("select count(*) from outputs").fetchone()[0] > 0
    except sqlite3.OperationalError:  # its tables are not made yet
        return False
