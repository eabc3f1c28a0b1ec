"""The models that are timed: a real embedder, and bge-reranker-base's architecture with random weights, whole and reduced."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from real_models import shared_folder, write_e5_small, write_xlmr_reranker


def e5_small() -> Path:
    """multilingual-e5-small, its weights of 4 bits' precision."""
    return shared_folder("e5-small", write_e5_small)


def full_reranker() -> Path:
    """bge-reranker-base's architecture at full size: its cost and numerics are real, its rankings are noise."""
    return shared_folder("full-reranker", write_xlmr_reranker)


def tiny_reranker() -> Path:
    """The same with 2 layers, 64 wide."""
    return shared_folder(
        "tiny-reranker", lambda folder: write_xlmr_reranker(folder, layers=2, hidden=64, heads=4, ff=128)
    )
