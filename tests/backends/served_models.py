"""Models that a server on the loopback runs."""

from __future__ import annotations

from typing import Any

from fake_servers import FakeServer

import evalkit
from evalkit import Model

PAIRS = [
    (query, f"{query[:2]}文档 {number} about {query}" if number % 3 else "同样的文档")
    for query in ("感冒了应该吃什么药", "如何办理护照", "深度学习是什么")
    for number in range(7)
]
TEXTS = [document for _, document in PAIRS[:9]]


def fake(backend: str, **settings: Any) -> FakeServer:
    return FakeServer(backend, **settings)


def served(backend: str, url: str, model: str = "bge-reranker-base", **settings: Any) -> Model:
    """The model through that backend; `settings` of the server, of which tests want few tries."""
    recipe = settings.pop("recipe", {})
    return evalkit.load_model(model, backend=backend, server={"url": url, "retries": 1, **settings}, **recipe)
