"""Fixtures of several packages' tests: folders with models, made once and then only read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from bert_model import write_bert_reranker
from real_models import shared_folder, write_e5_small, write_xlmr_reranker

# workers that share the processors get in each other's way when each one starts a thread per processor
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))


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
