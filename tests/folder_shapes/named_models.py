"""Folders as named models have them: small networks of their architectures, with the files that sentence-transformers reads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from evalkit.models.settings import read_model
from folder_shapes.layouts import NORMALIZE, dense, write_classifier, write_embedder
from folder_shapes.networks import HIDDEN
from folder_shapes.oddities import write_reranker_of_parts
from folder_shapes.shapes import Shape

WIDE = dense(HIDDEN, HIDDEN + 24, "Identity")


def embedder(
    name: str, architecture: str, after: Any, pooling: str | None = None, **sizes: Any
) -> Callable[[Path], Any]:
    """A folder as the model's own, or with another pooling, and with its prompts in sentence-transformers' files."""
    model = read_model(name)
    pooling = pooling or {"last": "lasttoken"}.get(model.pooling, model.pooling)
    prompts = {"prompts": {"query": model.query_prompt, "document": ""}, "similarity_fn_name": "cosine"}
    return partial(
        write_embedder,
        architecture=architecture,
        pooling=[pooling],
        after=[after],
        length=model.max_length,
        settings=prompts,
        **sizes,
    )


BERT: dict[str, Any] = {"max_position_embeddings": 512}
LONG: dict[str, Any] = {"max_position_embeddings": 8_192}
EMBEDDERS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    **dict.fromkeys(("gte-small-zh", "gte-base-zh", "gte-large-zh"), ("bert", NORMALIZE, BERT)),
    **dict.fromkeys(
        ("stella-base-zh-v3-1792d", "stella-large-zh-v3-1792d", "xiaobu-embedding-v2", "Conan-embedding-v1"),
        ("bert", WIDE, BERT),
    ),
    "multilingual-e5-large-instruct": ("xlm-r", NORMALIZE, {"max_position_embeddings": 514}),
    **dict.fromkeys(("Qwen3-Embedding-4B", "Qwen3-Embedding-8B"), ("qwen3", NORMALIZE, LONG)),
    "bge-multilingual-gemma2": ("gemma2", NORMALIZE, LONG),
}
ETTIN = tuple(f"ettin-reranker-{size}-v1" for size in ("17m", "32m", "68m", "150m", "400m", "1b"))
SHORT = {"max_length": 128}  # as much as the small networks have positions for
NAMED = [
    *(
        Shape(f"named-{name}", name, "embedder", embedder(name, architecture, after, **sizes), model=name)
        for name, (architecture, after, sizes) in EMBEDDERS.items()
    ),
    *(
        Shape(f"named-{name}", name, "cross-encoder", write_reranker_of_parts, model=name, recipe=SHORT)
        for name in ETTIN
    ),
    Shape(
        "named-gte-reranker-modernbert-base",
        "gte-reranker-modernbert-base",
        "cross-encoder",
        partial(write_classifier, architecture="modernbert"),
        model="gte-reranker-modernbert-base",
        recipe=SHORT,
    ),
]
