"""An NVIDIA GPU: evalkit beside sentence-transformers and FlagEmbedding on it, and the GPU's own limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks import systems

PAIRS = 4_096
SIZE = 8_192
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
TRIMMED = ("evalkit fp16", "evalkit bf16")
RATIOS: dict[str, tuple[str, str, float | None]] = {
    "GPU, fp32 / sentence-transformers fp32": ("evalkit fp32", "sentence-transformers fp32", None),
    "GPU, fp16 / sentence-transformers fp16": ("evalkit fp16", "sentence-transformers fp16", None),
    "GPU, fp16 / sentence-transformers fp16, batches of 256": (
        "evalkit fp16",
        "sentence-transformers fp16, batches of 256",
        None,
    ),
    "GPU, bf16 / sentence-transformers bf16": ("evalkit bf16", "sentence-transformers bf16", None),
    "GPU, fp16 / FlagReranker fp16, whole call": ("evalkit fp16", "FlagReranker fp16", None),
    "GPU, fp16 / FlagReranker fp16, without its probe": ("evalkit fp16", "FlagReranker fp16, without its probe", None),
    "GPU, fp16 without padding / with padding": ("evalkit fp16", "evalkit fp16, padded", None),
}


def systems_of_pairs(folder: Path) -> dict[str, Callable[[], systems.PairScores]]:
    """Return what loads each system: evalkit in each precision, the others as documented and in larger batches."""
    theirs = partial(systems.sentence_transformers_cross_encoder, folder, device="cuda")
    found: dict[str, Callable[[], systems.PairScores]] = {}
    for name, dtype in PRECISIONS.items():
        found[f"evalkit {name}"] = partial(systems.evalkit_cross_encoder, folder, "torch", name, device="cuda")
        found[f"sentence-transformers {name}"] = partial(theirs, dtype)
    found["evalkit fp16, padded"] = partial(systems.evalkit_padded, folder, "fp16")
    found["sentence-transformers fp16, batches of 256"] = partial(theirs, torch.float16, 256)
    found["FlagReranker fp16"] = partial(systems.FlagRerankerCall, folder, device="cuda:0", fp16=True)
    return found


def limits() -> dict[str, float]:
    """GFLOP/s of a large matrix product by precision: the best of some seconds."""
    return {name: _rate(dtype) for name, dtype in PRECISIONS.items()}


def _rate(dtype: torch.dtype) -> float:
    left, right = (torch.randn(SIZE, SIZE, device="cuda", dtype=dtype) for _ in range(2))
    best, started = float("inf"), time.perf_counter()
    while time.perf_counter() - started < 1.0:
        torch.cuda.synchronize()
        before = time.perf_counter()
        left @ right
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - before)
    return 2 * SIZE**3 / best / 1e9
