"""Servers on the loopback that answer as the real ones' descriptions say, and misbehave as the real ones do when told to."""

from __future__ import annotations

import base64
import itertools
import json
import re
import struct
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from server_schemas import known_paths, request_problems, response_problems

from evalkit.backends.servers.probing import DOCUMENTS, QUERY, TOPICS
from evalkit.configuration.files import option_names, read_option

DIMENSIONS = 8
TOKEN = re.compile(r"\s*([A-Za-z0-9]+|\S)")
READ = 480  # words and characters of a document, about: the models of the tests read 512 tokens with the query
USAGE = {"prompt_tokens": 1, "total_tokens": 1}
Answer = Callable[["FakeServer", str, str, Any], tuple[int, Any]]
Mishap = Callable[["Handler"], None]


def read(text: str, length: int = READ) -> str:
    """What a model reads of a text that has so many tokens for it: a word is one, and a character of Chinese."""
    ends = [token.end() for token in itertools.islice(TOKEN.finditer(text), length)]
    return text[: ends[-1]] if len(ends) == length else text


def score(query: str, document: str) -> float:
    """A logit, exact in float32."""
    document = read(document)
    crumb = zlib.crc32(f"{query}\0{document}".encode("utf-8", "surrogatepass")) / 2**32
    return float(np.float32(sum(not one.isascii() for one in set(query) & set(document)) - 4 + crumb))


def vector(text: str) -> list[float]:
    text = read(text)
    crumbs = [zlib.crc32(f"{number}{text}".encode("utf-8", "surrogatepass")) for number in range(DIMENSIONS)]
    return np.float32(np.array(crumbs) / 2**31 - 1).astype(float).tolist()


def is_probe(body: Any) -> bool:
    """Whether a request is one of those with which evalkit probes a server before it scores."""
    content = json.dumps(body, ensure_ascii=False)
    texts = body.get("input") or body.get("texts") or body.get("inputs") or ["x"]
    return any(text in content for text in (QUERY, *DOCUMENTS, TOPICS[0].format(1))) or texts == [""]


def sigmoid(value: float) -> float:
    return float(1 / (1 + np.exp(-value)))


@cache
def _hub_ids() -> list[str]:
    return [str(hub_id) for name in option_names("model") if (hub_id := read_option("model", name).get("hub_id"))]


def known_models() -> list[dict[str, Any]]:
    """A list of models as a gateway gives it: every Hub id that evalkit has a file for."""
    return [{"id": hub_id, "object": "model"} for hub_id in _hub_ids()]


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class FakeServer:
    """Answers as `backend` does, or by another `answer`; the next POST requests meet the `mishaps`, one each, instead.

    Those with which evalkit probes it meet none, come without delay, and are counted apart, as `probes`.

    Whatever does not fit the published description of that backend, be it a request or an answer of this server's own, is an
    AssertionError at the end; requests may have `own_fields` beside. Where there are none, `chance` may think of
    one. `models` is its list of models (None: it has none). `most_at_once` is the most requests that were in flight
    together.
    """

    backend: str
    answer: Answer = lambda fake, *request: fake.described(*request)
    mishaps: list[Mishap] = field(default_factory=list)
    model: str = "BAAI/bge-reranker-base"
    kind: str = "reranker"
    limit: int = 32
    delay: float = 0.0
    info: dict[str, Any] = field(default_factory=dict)
    key: str | None = None
    port: int = 0
    own_fields: tuple[str, ...] = ()
    models: list[dict[str, Any]] | None = field(default_factory=known_models)
    requests: list[Request] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    chance: Callable[[], Mishap | None] = lambda: None
    most_at_once: int = 0
    _at_once: int = 0

    def __enter__(self) -> FakeServer:
        self.lock = threading.Lock()
        handler = type("BoundHandler", (Handler,), {"fake": self})
        self.server = QuietServer(("127.0.0.1", self.port), handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        assert kind or not self.problems, self.problems

    def described(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """The answer that fits the backend's description."""
        status, content = ANSWERS[self.backend](self, method, path, body)
        if method == "GET" or path in known_paths(self.backend):
            self.problems += response_problems(self.backend, path, status, content)
        return status, content

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    @property
    def posts(self) -> list[Request]:
        return [request for request in self.requests if request.method == "POST" and not is_probe(request.body)]

    @property
    def probes(self) -> list[Request]:
        return [request for request in self.requests if request.method == "POST" and is_probe(request.body)]


class QuietServer(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """Connections that break off are meant to."""


class Handler(BaseHTTPRequestHandler):
    fake: FakeServer
    body: Any = None
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._take("GET", None)
        if self.path.endswith("/models"):
            models = self.fake.models
            self.reply(
                *((404, {"detail": "Not Found"}) if models is None else (200, {"object": "list", "data": models}))
            )
            return
        self.reply(*self.fake.answer(self.fake, "GET", self.path, None))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fake = self.fake
        probe = is_probe(body)
        mishap = None
        with fake.lock:
            fake._at_once += 1
            fake.most_at_once = max(fake.most_at_once, fake._at_once)
            if not probe:
                mishap = fake.mishaps.pop(0) if fake.mishaps else fake.chance()
        self._take("POST", body)
        self.body = body
        if self.path in known_paths(fake.backend):
            fake.problems += request_problems(fake.backend, self.path, body, fake.own_fields)
        try:
            time.sleep(0 if probe else fake.delay)
            if mishap:
                mishap(self)
            elif fake.key and self.headers.get("Authorization") != f"Bearer {fake.key}":
                self.reply(401, {"message": f"wrong key {self.headers.get('Authorization')}"})
            else:
                self.reply(*fake.answer(fake, "POST", self.path, body))
        finally:
            with fake.lock:
                fake._at_once -= 1

    def _take(self, method: str, body: Any) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        with self.fake.lock:
            self.fake.requests.append(Request(method, self.path, headers, body))

    def reply(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        self.send_bytes(status, json.dumps(content, ensure_ascii=False).encode(), headers)

    def send_bytes(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(content)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


def tei(fake: FakeServer, method: str, path: str, body: Any) -> tuple[int, Any]:
    if path == "/info":
        content = (
            {"embedding": {"pooling": "cls"}}
            if fake.kind == "embedding"
            else {"id2label": {"0": "L"}, "label2id": {"L": 0}}
        )
        kind = content if fake.kind == "embedding" else {fake.kind: content}
        return 200, {
            "model_id": fake.model,
            "model_sha": "2cfc18c9415c912f9d8155881c133215df768a70",
            "model_dtype": "float32",
            "served_model_name": fake.model,
            "model_type": kind,
            "max_concurrent_requests": 512,
            "max_input_length": 512,
            "max_batch_tokens": 16384,
            "max_client_batch_size": fake.limit,
            "auto_truncate": False,
            "tokenization_workers": 2,
            "version": "1.9.3",
            **fake.info,
        }
    texts = body["texts"] if path == "/rerank" else body["inputs"]
    if len(texts) > fake.limit:
        return 413, {
            "error": f"batch size {len(texts)} > maximum allowed batch size {fake.limit}",
            "error_type": "Validation",
        }
    if not body.get("truncate"):
        return 413, {"error": "`inputs` must have less than 512 tokens", "error_type": "Validation"}
    if path == "/embed":
        return 200, [vector(text) for text in texts]
    shape = float if body.get("raw_scores") else sigmoid
    return 200, [[{"score": shape(score(*pair)), "label": "L"}] for pair in texts]


def infinity(fake: FakeServer, method: str, path: str, body: Any) -> tuple[int, Any]:
    """Strips texts, sorts by score."""
    if path == "/embeddings":
        return 200, _embeddings(fake, [text.strip() for text in body["input"]], body)
    if path != "/rerank" or len(body["documents"]) > 2048:
        return 422, {"detail": "no"}
    shape = float if body.get("raw_scores") else sigmoid
    scores = [shape(score(body["query"].strip(), text.strip())) for text in body["documents"]]
    return 200, {
        "object": "rerank",
        "model": body["model"],
        "usage": USAGE,
        "results": _ranked(scores, body.get("top_n")),
    }


def vllm(fake: FakeServer, method: str, path: str, body: Any) -> tuple[int, Any]:
    """/score gives `data`, here in an order of its own."""
    if not body.get("truncate_prompt_tokens"):
        return 400, {"object": "error", "message": "This model's maximum context length is 512 tokens", "code": 400}
    if path == "/v1/embeddings":
        return 200, {"id": "embd-1", "created": 1, **_embeddings(fake, body["input"], body)}
    if path != "/score":
        return 404, {"detail": "Not Found"}
    shape = float if body.get("use_activation") is False else sigmoid
    scores = [shape(score(body["text_1"], text)) for text in body["text_2"]]
    entries = [
        {"index": entry["index"], "object": "score", "score": entry["relevance_score"]}
        for entry in _ranked(scores, None)
    ]
    return 200, {
        "id": "score-1",
        "object": "list",
        "created": 1,
        "model": body["model"],
        "data": entries,
        "usage": USAGE,
    }


def cohere(fake: FakeServer, method: str, path: str, body: Any) -> tuple[int, Any]:
    if path == "/v2/embed":
        if body.get("input_type") not in ("search_query", "search_document") or len(body["texts"]) > 96:
            return 400, {"message": "invalid request"}
        return 200, {
            "id": "1",
            "embeddings": {"float": [vector(text) for text in body["texts"]]},
            "texts": body["texts"],
        }
    if path != "/v2/rerank":
        return 404, {"message": "not found"}
    scores = [sigmoid(score(body["query"], text)) for text in body["documents"]]
    return 200, {"id": "1", "results": _ranked(scores, body.get("top_n")), "meta": {"api_version": {"version": "2"}}}


def jina(fake: FakeServer, method: str, path: str, body: Any) -> tuple[int, Any]:
    if path == "/v1/embeddings":
        return 200, _embeddings(fake, body["input"], body)
    if path != "/v1/rerank":
        return 404, {"detail": "not found"}
    scores = [sigmoid(score(body["query"], text)) for text in body["documents"]]
    return 200, {"model": body["model"], "usage": {"total_tokens": 1}, "results": _ranked(scores, body.get("top_n"))}


def voyage(fake: FakeServer, method: str, path: str, body: Any) -> tuple[int, Any]:
    if path != "/v1/rerank" or len(body["query"]) * len(body["documents"]) + sum(map(len, body["documents"])) > 600_000:
        return 400, {"detail": "The request has too many tokens"}
    scores = [sigmoid(score(body["query"], text)) for text in body["documents"]]
    data = _ranked(scores, body.get("top_k"))
    return 200, {"object": "list", "data": data, "model": body["model"], "usage": {"total_tokens": 1}}


def dashscope(fake: FakeServer, method: str, path: str, body: Any) -> tuple[int, Any]:
    if path != "/v1/reranks":
        return 404, {"error": {"message": "not found"}}
    scores = [sigmoid(score(body["query"], text)) for text in body["documents"]]
    ranked = _ranked(scores, body.get("top_n"))
    return 200, {"object": "list", "results": ranked, "model": body["model"], "id": "1", "usage": {"total_tokens": 1}}


def siliconflow(fake: FakeServer, method: str, path: str, body: Any) -> tuple[int, Any]:
    if path != "/v1/rerank":
        return 404, "404 page not found"
    scores = [sigmoid(score(body["query"], text)) for text in body["documents"]]
    ranked = [{**entry, "document": None} for entry in _ranked(scores, body.get("top_n"))]
    return 200, {"id": "1", "results": ranked, "meta": {"tokens": {"input_tokens": 1, "output_tokens": 0}}}


def mixedbread(fake: FakeServer, method: str, path: str, body: Any) -> tuple[int, Any]:
    if path != "/v1/reranking":
        return 404, {"detail": "Not Found"}
    ranked = _ranked([sigmoid(score(body["query"], text)) for text in body["input"]], body.get("top_k"))
    data = [
        {"index": entry["index"], "score": entry["relevance_score"], "input": None, "object": "rank_result"}
        for entry in ranked
    ]
    return 200, {
        "usage": USAGE,
        "model": body["model"],
        "data": data,
        "object": "list",
        "top_k": body.get("top_k", len(data)),
        "return_input": False,
    }


def openai(fake: FakeServer, method: str, path: str, body: Any) -> tuple[int, Any]:
    if path != "/v1/embeddings":
        return 404, {"error": {"message": "unknown route"}}
    return 200, _embeddings(fake, body["input"], body)


def _ranked(scores: list[float], top: int | None) -> list[dict[str, Any]]:
    """Best first, and ties in reverse."""
    order = sorted(range(len(scores)), key=lambda index: (scores[index], index), reverse=True)[:top]
    return [{"index": index, "relevance_score": scores[index]} for index in order]


def _embeddings(fake: FakeServer, texts: list[str], body: Any) -> dict[str, Any]:
    """The last one first: the index says which it is."""
    packed = body.get("encoding_format") == "base64"
    vectors = [vector(text) for text in texts]
    entries = [
        {"object": "embedding", "index": index, "embedding": _base64(vectors[index]) if packed else vectors[index]}
        for index in reversed(range(len(texts)))
    ]
    return {"object": "list", "data": entries, "model": body["model"], "usage": USAGE}


def _base64(values: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


ANSWERS: dict[str, Answer] = {
    "tei": tei,
    "infinity-server": infinity,
    "vllm": vllm,
    "cohere": cohere,
    "jina": jina,
    "voyage": voyage,
    "dashscope": dashscope,
    "siliconflow": siliconflow,
    "mixedbread": mixedbread,
    "openai": openai,
}
