"""Whatever a server may answer: the scores are what the JSON says by index, or there are none."""

from __future__ import annotations

import base64
import gzip
import json
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from judging import fuzzed
from mutations import DEEP, LEAVES, NASTY, TREES, damaged, deep_json, json_bytes, mutated

import evalkit
from evalkit.models.interfaces import PairScorer, TextEmbedder

KIND = "server answers"
PAIRS = [("问题", "文档一"), ("问题", "文档二"), ("问题", "文档三")]
SCORES = [0.1, -1 / 3, 2.5]
VECTORS = [[0.1, 0.2], [1 / 3, -4.0], [0.5, 1.0]]
INFO = {
    "model_id": "BAAI/bge-reranker-base",
    "model_sha": "2cfc18c9415c912f9d8155881c133215df768a70",
    "model_dtype": "float32",
    "served_model_name": "BAAI/bge-reranker-base",
    "model_type": {"reranker": {"id2label": {"0": "L"}, "label2id": {"L": 0}}},
    "max_input_length": 512,
    "max_client_batch_size": 32,
    "version": "1.9.3",
}
EMBEDDER_INFO = INFO | {
    "model_id": "BAAI/bge-base-zh-v1.5",
    "served_model_name": None,
    "model_type": {"embedding": {"pooling": "cls"}},
}


def packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def ranked(name: str) -> list[dict[str, Any]]:
    return [{"index": index, name: SCORES[index]} for index in (2, 0, 1)]


def embedded(values: list[Any]) -> dict[str, Any]:
    return {
        "object": "list",
        "data": [{"index": index, "embedding": values[index]} for index in (2, 0, 1)],
        "model": "m",
    }


RERANKERS: dict[str, Any] = {
    "tei": [[{"score": score, "label": "L"}] for score in SCORES],
    "infinity-server": {"object": "rerank", "results": ranked("relevance_score")},
    "vllm": {"id": "1", "data": ranked("score")},
    "cohere": {"id": "1", "results": ranked("relevance_score")},
    "jina": {"model": "m", "results": ranked("relevance_score")},
    "voyage": {"object": "list", "data": ranked("relevance_score"), "model": "m"},
    "dashscope": {"object": "list", "results": ranked("relevance_score"), "id": "1"},
    "siliconflow": {"id": "1", "results": ranked("relevance_score")},
    "mixedbread": {"object": "list", "data": ranked("score"), "model": "m"},
}
EMBEDDERS: dict[str, Any] = {
    "tei": VECTORS,
    "infinity-server": embedded(VECTORS),
    "vllm": embedded(VECTORS),
    "cohere": {"id": "1", "embeddings": {"float": VECTORS}},
    "jina": embedded(VECTORS),
    "openai": embedded([packed(vector) for vector in VECTORS]),
}


class Canned(BaseHTTPRequestHandler):
    """Says what it is told to: to a GET /info and to a POST."""

    info: tuple[int, bytes, dict[str, str]] = (200, b"{}", {})
    answer: tuple[int, bytes, dict[str, str]] = (200, b"{}", {})
    raw: bytes | None = None
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._say(*type(self).info)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if type(self).raw is not None:
            self.wfile.write(type(self).raw)
            self.close_connection = True
        else:
            self._say(*type(self).answer)

    def _say(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


class Quiet(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """A client that has read enough of nonsense leaves."""


@pytest.fixture(scope="module", autouse=True)
def server() -> Any:
    with Quiet(("127.0.0.1", 0), Canned) as made:
        made.daemon_threads = True
        threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        Canned.url = f"http://127.0.0.1:{made.server_address[1]}"
        yield made
        made.shutdown()


def served(backend: str, model: str) -> Any:
    server = {"url": Canned.url, "retries": 0, "timeout": 3.0}
    return evalkit.load_model(model, backend=backend, server=server).runnable.scorer


def score(backend: str) -> np.ndarray:
    scorer = served(backend, "bge-reranker-base")
    assert isinstance(scorer, PairScorer)
    return scorer.score(PAIRS)


def embed(backend: str) -> np.ndarray:
    scorer = served(backend, "bge-base-zh-v1.5")
    assert isinstance(scorer, TextEmbedder)
    return scorer.embed([text for _, text in PAIRS], "document")


def tell(answer: bytes, info: bytes | None = None, status: int = 200, headers: dict[str, str] | None = None) -> None:
    Canned.raw, Canned.answer = None, (status, answer, headers or {})
    Canned.info = (200, json_bytes(INFO) if info is None else info, {})


def by_index(entries: list[Any], name: str) -> list[Any]:
    found = sorted(entries, key=lambda entry: entry["index"])
    assert [entry["index"] for entry in found] == [0, 1, 2]
    return [entry[name] for entry in found]


def scores_said(backend: str, content: Any) -> list[float]:
    if backend == "tei":
        return [labels[0]["score"] for labels in content]
    if backend in ("vllm", "mixedbread"):
        return by_index(content["data"], "score")
    if backend == "voyage":
        return by_index(content["data"], "relevance_score")
    return by_index(content["results"], "relevance_score")


def vectors_said(backend: str, content: Any) -> list[list[float]]:
    if backend == "tei":
        found = content
    elif backend == "cohere":
        found = content["embeddings"]["float"]
    else:
        found = by_index(content["data"], "embedding")
    return [
        struct.unpack(f"<{len(base64.b64decode(v)) // 4}f", base64.b64decode(v)) if isinstance(v, str) else v
        for v in found
    ]


def same(found: np.ndarray, said: list[Any]) -> None:
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(found, np.array(said, dtype=float).astype(np.float32))


ENCODINGS = st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1"])


@st.composite
def answers(draw: st.DrawFn, valid: dict[str, Any]) -> tuple[str, bytes]:
    """A backend, and what it says: nearly right, with other characters, or damaged."""
    backend = draw(st.sampled_from(sorted(valid)))
    content = json.dumps(draw(mutated(valid[backend])), ensure_ascii=draw(st.booleans()))
    encoded = content.encode(draw(ENCODINGS), errors="replace")
    return backend, draw(damaged(encoded)) if draw(st.integers(0, 4)) == 0 else encoded


@fuzzed(KIND, 0.35, said=answers(RERANKERS))
def test_rerankers(said: tuple[str, bytes]) -> None:
    backend, content = said
    tell(content)
    same(score(backend), scores_said(backend, json.loads(content)))


@fuzzed(KIND, 0.35, said=answers(EMBEDDERS))
def test_embedders(said: tuple[str, bytes]) -> None:
    backend, content = said
    tell(content, json_bytes(EMBEDDER_INFO))
    same(embed(backend), vectors_said(backend, json.loads(content)))


@fuzzed(KIND, 0.1, info=mutated(INFO) | TREES, embedder=st.booleans())
def test_what_tei_says_of_itself(info: Any, embedder: bool) -> None:
    if embedder:
        tell(json_bytes(EMBEDDERS["tei"]), json_bytes(info))
        same(embed("tei"), VECTORS)
    else:
        tell(json_bytes(RERANKERS["tei"]), json_bytes(info))
        same(score("tei"), SCORES)


HEADER = st.sampled_from(
    [text for text in NASTY if text.isascii() and text.isprintable()]
    + [
        "-5",
        "1e9",
        "Fri, 31 Dec 1999 23:59:59 GMT",
        "Fri, 99 Dec 99999 99:99:99 +9999",
        "http://[",
        "//x@y:z/",
        "http://a\\b",
        "1,2",
    ]
) | st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=20)


@fuzzed(
    KIND,
    0.1,
    backend=st.sampled_from(sorted(RERANKERS)),
    status=st.sampled_from([200, 204, 301, 307, 400, 401, 403, 404, 413, 422, 429, 500, 502, 503, 504, 599, 999]),
    content=(st.dictionaries(st.sampled_from(["error_type", "error", "message"]), LEAVES).map(json_bytes))
    | DEEP.map(deep_json)
    | st.binary(max_size=30),
    names=st.dictionaries(
        st.sampled_from(["Retry-After", "Location", "Content-Type", "Content-Encoding"]), HEADER, max_size=3
    ),
)
def test_other_statuses_and_headers(backend: str, status: int, content: bytes, names: dict[str, str]) -> None:
    tell(content, status=status, headers=names)
    same(score(backend), scores_said(backend, json.loads(content)))


RAW = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"[1, 2]")


@fuzzed(KIND, 0.1, backend=st.sampled_from(sorted(RERANKERS)), raw=damaged(RAW) | st.binary(max_size=80))
def test_what_is_hardly_http(backend: str, raw: bytes) -> None:
    tell(b"")
    Canned.raw = raw
    same(score(backend), [])
