"""The rest of evalkit beside infinity: with numpy 1, transformers 4 and sentence-transformers 3."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from chinese_texts import demo_pairs
from command import run_program
from transformers_reference import assert_same_ranking, reference_scores, reference_vectors, run_scores

from evalkit.backends import prepare_model
from evalkit.models.interfaces import PairScorer, Runtime, TextEmbedder
from evalkit.models.settings import model_settings

PAIRS = demo_pairs(24)


def test_these_are_the_old_versions() -> None:
    assert [version(name).partition(".")[0] for name in ("numpy", "transformers", "sentence-transformers")] == [
        "1",
        "4",
        "3",
    ]


def test_the_demo(tmp_path: Path) -> None:
    """The bundled model, and the figures that the README prints."""
    done = run_program(tmp_path, "task=demo-en2zh", "offline=true")
    assert done.code == 0, done.stderr
    assert done.rows[0][:4] == ["multilingual-e5-small-q4", "demo-en2zh", "73.06", "84.90"]


def test_the_lists(tmp_path: Path) -> None:
    done = run_program(tmp_path, "list")
    assert done.code == 0, done.stderr
    for name in ("infinity", "T2Reranking", "bge-reranker-base", "cmteb-v1"):
        assert f"\n{name} " in done.stdout


@pytest.mark.parametrize("backend", ["torch", "sentence-transformers"])
def test_a_cross_encoder(backend: str, tiny_bert_reranker: Path, tmp_path: Path) -> None:
    done = run_program(
        tmp_path, "task=demo-zh", "limit=6", "model=local-cross-encoder", f"model.path={tiny_bert_reranker}",
        f"backend={backend}", "model.max_length=64",
    )  # fmt: skip
    assert done.code == 0, done.stderr
    pairs, found = run_scores(tmp_path / "results", "demo-zh")
    assert_same_ranking(found, reference_scores(tiny_bert_reranker, pairs, 64))


def test_sentence_transformers_3(tiny_bert_reranker: Path, e5_small: Path) -> None:
    """Prompts, white space, and long texts."""
    recipe = {"name": "made", "query_prompt": "query: ", "document_prompt": "passage: "}
    pairs = [(" 感冒\n", "\u3000多喝水 "), *PAIRS]
    prompted = [(f"query: {query}", f"passage: {text}") for query, text in pairs]
    settings = model_settings(recipe | {"path": str(tiny_bert_reranker)})
    reranker = prepare_model("sentence-transformers", settings, Runtime(device="cpu")).scorer
    assert isinstance(reranker, PairScorer)
    assert_same_ranking(reranker.score(pairs), reference_scores(tiny_bert_reranker, prompted))
    settings = model_settings(recipe | {"path": str(e5_small), "kind": "embedder", "pooling": "mean"})
    embedder = prepare_model("sentence-transformers", settings, Runtime(device="cpu")).scorer
    assert isinstance(embedder, TextEmbedder)
    texts = [text for _, text in pairs[:9]]
    expected = reference_vectors(e5_small, [f"passage: {text}" for text in texts])
    np.testing.assert_allclose(embedder.embed(texts, "document"), expected, atol=1e-5, rtol=0)
