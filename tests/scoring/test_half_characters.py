"""Half a surrogate pair in a task made in Python: an error that names the text, whatever kind of model reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made_tasks import make_task

import evalkit
from evalkit.errors import EvalkitError

IN_DOCUMENT = make_task((["感冒了怎么办？"], [("多喝水。", 1), ("\ud83d 今天", 0)]))
IN_QUERY = make_task((["感冒\udc00"], [("多喝水。", 1), ("今天", 0)]))


@pytest.mark.parametrize(
    ("name", "fixture", "backend"),
    [
        ("jina-reranker-v3", "tiny_lists", "torch"),
        ("local-cross-encoder", "tiny_reranker", "torch"),
        ("local-cross-encoder", "tiny_reranker", "sentence-transformers"),
        ("Qwen3-Reranker-0.6B", "tiny_qwen", "torch"),
    ],
)
def test_half_a_character_is_named(name: str, fixture: str, backend: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(fixture)
    model = evalkit.load_model(name, path=folder, backend=backend, device="cpu")
    with pytest.raises(EvalkitError, match="document q0-b of made holds half a surrogate pair"):
        evalkit.evaluate(model, IN_DOCUMENT, cache="off")
    with pytest.raises(EvalkitError, match="query q0 of made holds half a surrogate pair"):
        evalkit.evaluate(model, IN_QUERY, cache="off")


def test_another_error_stays_what_it_is() -> None:
    def broken(pairs: Any) -> Any:
        raise TypeError("of its own")

    with pytest.raises(TypeError, match="of its own"):
        evalkit.evaluate(evalkit.wrap(broken, kind="cross-encoder"), make_task((["q"], [("a", 1), ("b", 0)])))
