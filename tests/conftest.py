"""Fixtures of several packages' tests: folders with models, made once and then only read."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from bert_model import write_bert_reranker
from real_models import shared_folder, write_e5_small, write_xlmr_reranker
from recipe_models import write_gemma, write_lists, write_m3, write_qwen, write_qwen2

# workers that share the processors get in each other's way when each one starts a thread per processor
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

# as evalkit's backend does, for tests that import OpenVINO first: its telemetry forks while other threads compute
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

# ranx computes the same uncompiled; compiling its metrics takes most of a minute
os.environ.setdefault("NUMBA_DISABLE_JIT", "1")


@pytest.fixture(scope="session")
def e5_small() -> Path:
    """The real multilingual-e5-small (weights of 4 bits' precision)."""
    return shared_folder("e5-small", write_e5_small)


@pytest.fixture(scope="session")
def tiny_reranker() -> Path:
    """bge-reranker-base's architecture and tokenizer: 2 layers, 64 wide, random weights."""

    def write(folder: Path) -> None:
        write_xlmr_reranker(folder, layers=2, hidden=64, heads=4, ff=128)

    return shared_folder("tiny-reranker", write)


@pytest.fixture(scope="session")
def tiny_bert_reranker() -> Path:
    """A BERT classifier with segment ids: 2 layers, 64 wide, random weights."""
    return shared_folder("tiny-bert-reranker", write_bert_reranker)


@pytest.fixture(scope="session")
def tiny_lists() -> Path:
    """jina-reranker-v3's architecture with random weights, which ranks whole lists."""
    return shared_folder("lists", write_lists)


@pytest.fixture(scope="session")
def tiny_gemma() -> Path:
    """bge-reranker-v2-gemma's architecture with random weights, and a byte-level tokenizer."""
    return shared_folder("tiny-gemma", write_gemma)


@pytest.fixture(scope="session")
def tiny_qwen() -> Path:
    """Qwen3-Reranker's architecture with random weights, and a byte-level tokenizer that splits as Qwen's."""
    return shared_folder("tiny-qwen", write_qwen)


@pytest.fixture(scope="session")
def tiny_qwen2() -> Path:
    """mxbai-rerank-v2's architecture with random weights, and the tokenizer of `tiny_qwen`."""
    return shared_folder("tiny-qwen2", write_qwen2)


@pytest.fixture(scope="session")
def tiny_m3() -> Path:
    """bge-m3's architecture, heads and tokenizer with random weights."""
    return shared_folder("tiny-m3", write_m3)
