"""One backend's outputs beside torch's in fp32, through the engine as a run makes them."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from chinese_texts import demo_pairs
from made_tasks import make_task, scored
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

from evalkit.backends import prepare_model
from evalkit.models.interfaces import LocalNetwork, RunnableModel, Runtime
from evalkit.models.settings import model_settings

PAIRS = demo_pairs(14)
TEXTS = [document for _, document in PAIRS[:-2]]
RECIPES = [("cls", "cosine"), ("mean", "dot"), ("last", "cosine")]  # e5 below: mean, cosine
E5 = {"kind": "embedder", "pooling": "mean", "query_prompt": "query: ", "document_prompt": "passage: "}


def prepared(backend: str, folder: Path, cache_dir: Path, dtype: str = "fp32", **fields: Any) -> RunnableModel:
    settings = model_settings({"name": "made", "path": str(folder)} | fields)
    return prepare_model(backend, settings, Runtime(device="cpu", dtype=dtype, threads=2, cache_dir=cache_dir))


@cache
def spare_cache() -> Path:
    """A cache of this process, for tests that ask nothing of it."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def scores(model: RunnableModel) -> NDArray[np.float32]:
    """A cross-encoder's score of each pair."""
    return scored(model.scorer, make_task(*(([query], [(document, 1)]) for query, document in PAIRS))).scores


def vectors(model: RunnableModel, texts: Sequence[str] = TEXTS) -> NDArray[np.float32]:
    """An embedder's vectors, all in one padded batch."""
    network = model.scorer
    assert isinstance(network, LocalNetwork)
    return network.run([network.encode_text(text) for text in network.tokenize(texts, "document")])


@cache
def expected_scores(folder: Path) -> NDArray[np.float32]:
    return scores(prepared("torch", folder, spare_cache()))


@cache
def expected_vectors(folder: Path, pooling: str, similarity: str) -> NDArray[np.float32]:
    return vectors(prepared("torch", folder, spare_cache(), kind="embedder", pooling=pooling, similarity=similarity))


def write_embedder(classifier: Path, folder: Path) -> Path:
    """A classifier's encoder alone."""
    AutoModel.from_pretrained(classifier).save_pretrained(folder)
    AutoTokenizer.from_pretrained(classifier).save_pretrained(folder)
    return folder


@cache
def expected_e5(folder: Path) -> NDArray[np.float32]:
    return vectors(prepared("torch", folder, spare_cache(), **E5), TEXTS[:4])
