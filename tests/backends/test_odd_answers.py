"""Odd answers, for each kind of server: what is wrong is refused by its name, and what can be read is read rightly."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fake_servers import FakeServer, Handler, Mishap, score, sigmoid, vector
from mishaps import changes, says, says_bytes
from served_models import fake, served

from evalkit.errors import EvalkitError
from evalkit.models.interfaces import PairScorer, TextEmbedder

APIS = ("cohere", "jina", "voyage", "dashscope", "siliconflow", "mixedbread")
RERANKERS = ("tei", "vllm", "infinity-server", *APIS)
EMBEDDERS = ("tei", "vllm", "infinity-server", "cohere", "jina", "openai")
PAIRS = [("感冒了应该吃什么药", text) for text in ("多喝水", "感冒药一天三次", "应该吃什么")]
KINDS = [("reranker", name) for name in RERANKERS] + [("embedder", name) for name in EMBEDDERS]
LISTS = ("data", "results", "embeddings")


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COHERE", "JINA", "OPENAI"):
        monkeypatch.setenv(f"{name}_API_KEY", "k" * 20)


def server_of(kind: str, backend: str) -> FakeServer:
    embeds = kind == "embedder" and backend == "tei"
    return fake(backend, **({"kind": "embedding", "model": "BAAI/bge-base-zh-v1.5"} if embeds else {}))


def asking(kind: str, server: FakeServer, **settings: Any) -> Callable[[], np.ndarray]:
    """What asks that server, which was probed, for all texts."""
    name = "bge-reranker-base" if kind == "reranker" else "bge-base-zh-v1.5"
    scorer = served(server.backend, server.url, name, retries=0, **settings).runnable.scorer
    if kind == "reranker":
        assert isinstance(scorer, PairScorer)
        return lambda: scorer.score(PAIRS)
    assert isinstance(scorer, TextEmbedder)
    return lambda: scorer.embed([text for _, text in PAIRS], "document")


def right(kind: str, backend: str) -> np.ndarray:
    if kind == "embedder":
        return np.array([vector(text) for _, text in PAIRS], np.float32)
    shape = sigmoid if backend in APIS else float
    return np.array([shape(score(*pair)) for pair in PAIRS], np.float32)


def edits(change: Callable[[list[Any]], Any]) -> Mishap:
    """The right answer with its list of results changed, wherever it lies."""

    def edit(answer: Any) -> Any:
        if isinstance(answer, list):
            return change(answer)
        key = next(name for name in LISTS if name in answer)
        inner = answer[key]
        return {**answer, key: {"float": change(inner["float"])} if isinstance(inner, dict) else change(inner)}

    return changes(edit)


def without_index(results: list[Any]) -> list[Any]:
    return [{name: value for name, value in entry.items() if name != "index"} for entry in results]


def deep(change: Callable[[float], Any]) -> Callable[[Any], Any]:
    """Every score or number of a vector, changed; an index stays."""

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: inner if name == "index" else walk(inner) for name, inner in value.items()}
        return (
            [walk(inner) for inner in value]
            if isinstance(value, list)
            else change(value)
            if type(value) is float
            else value
        )

    return walk


def sends(content: Callable[[bytes], bytes], status: int = 200, **headers: str) -> Mishap:
    """The right answer's bytes, changed, under these headers."""

    def send(handler: Handler) -> None:
        whole = json.dumps(handler.fake.described("POST", handler.path, handler.body)[1]).encode()
        handler.send_bytes(status, content(whole), {name.replace("_", "-"): value for name, value in headers.items()})

    return send


def drips(handler: Handler) -> None:
    """The answer in chunks, slower than the timeout."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    try:
        for _ in range(100):
            handler.wfile.write(b"1\r\n \r\n")
            handler.wfile.flush()
            time.sleep(0.05)
    except OSError:
        pass
    handler.close_connection = True


def no_content(handler: Handler) -> None:
    handler.send_response(204)
    handler.end_headers()


WRONG: dict[str, tuple[Mishap, str]] = {
    "numbers as strings": (edits(deep(str)), "is not a number|is not a vector"),
    "nested lists": (edits(deep(lambda value: [value])), "is not a number|is not a vector"),
    "null for NaN": (edits(deep(lambda _: None)), "is not a number|is not a vector"),
    "the bare NaN": (edits(deep(lambda _: float("nan"))), "not finite"),
    "one too many": (edits(lambda results: [*results, results[0]]), "4 results for 3 texts|comes twice"),
    "one too few": (edits(lambda results: results[1:]), "2 results for 3 texts"),
    "a web page": (sends(lambda _: b"<html>Sign in</html>", Content_Type="text/html"), r"a web page: is backend.url .*Sign in"),
    "nothing": (says_bytes(b""), "answered 200 with nothing in it"),
    "no content": (no_content, "answered 204 with nothing in it"),
    "broken gzip": (sends(lambda whole: whole, Content_Encoding="gzip"), "can't be unpacked"),
    "half of a gzip": (sends(lambda whole: gzip.compress(whole)[:-30], Content_Encoding="gzip"), "unpacked|not JSON|nothing"),
    "a login page elsewhere": (says(302, Location="https://login.test/sign-in?next=x"), "it sends to https://login.test/sign-in: "),
    "slow chunks": (drips, "did not answer within 2 s"),
    "an error under 200": (says(200, {"error": {"message": "model is loading"}}), "gave a wrong answer: .*model is loading"),
    "a job to wait for": (says(202, {"id": "job-1", "status": "queued"}), "gave a wrong answer: .*queued"),
    "lines of JSON": (sends(lambda whole: whole + b"\n" + whole), "what is not JSON"),
}  # fmt: skip

NUMBERS = ("numbers as strings", "nested lists", "null for NaN", "the bare NaN")


@pytest.mark.parametrize(("kind", "backend"), KINDS)
def test_odd_answers_are_refused_by_what_is_wrong(kind: str, backend: str) -> None:
    with server_of(kind, backend) as server:
        answers = asking(kind, server, timeout=2.0)
        for name, (mishap, problem) in WRONG.items():
            if backend == "openai" and name in NUMBERS:  # it is asked for base64
                continue
            server.mishaps = [mishap]
            with pytest.raises(EvalkitError, match=problem) as caught:
                answers()
            message = str(caught.value)
            assert message.startswith(f"{backend} at {server.url}/"), name
            assert "\n" not in message
            assert "too long" not in message, name


READ: dict[str, Mishap] = {
    "in another order": edits(lambda results: results[::-1] if isinstance(results[0], dict) else results),
    "under another type": sends(lambda whole: whole, Content_Type="text/plain; charset=latin-1"),
    "behind a byte order mark": sends(lambda whole: b"\xef\xbb\xbf" + whole),
    "packed": sends(gzip.compress, Content_Encoding="gzip"),
}


@pytest.mark.parametrize(("kind", "backend"), KINDS)
def test_odd_answers_that_can_be_read(kind: str, backend: str) -> None:
    with server_of(kind, backend) as server:
        answers = asking(kind, server)
        for mishap in READ.values():
            server.mishaps = [mishap]
            np.testing.assert_array_equal(answers(), right(kind, backend))


BY_INDEX = [(kind, name) for kind, name in KINDS if name != "tei" and (kind, name) != ("embedder", "cohere")]
INDICES: dict[str, tuple[Callable[[list[Any]], Any], str]] = {
    "none": (without_index, "it has no 'index'"),
    "twice": (lambda results: [{**results[0], "index": results[1]["index"]}, *results[1:]], "comes twice"),
    "as text": (lambda results: [{**entry, "index": str(entry["index"])} for entry in results], "is not the index"),
    "from 1": (lambda results: [{**entry, "index": entry["index"] + 1} for entry in results], "3 is not the index"),
}


@pytest.mark.parametrize(("kind", "backend"), BY_INDEX)
def test_an_index_decides_and_no_order(kind: str, backend: str) -> None:
    with server_of(kind, backend) as server:
        answers = asking(kind, server)
        for change, problem in INDICES.values():
            server.mishaps = [edits(change)]
            with pytest.raises(EvalkitError, match=problem):
                answers()


@pytest.mark.parametrize("backend", [name for name in EMBEDDERS if name != "openai"])
def test_base64_where_numbers_were_asked_for(backend: str) -> None:
    def pack(results: list[Any]) -> list[Any]:
        text = "AACAPwAAAEA="
        return [{**entry, "embedding": text} if isinstance(entry, dict) else text for entry in results]

    with server_of("embedder", backend) as server:
        answers = asking("embedder", server)
        server.mishaps = [edits(pack)]
        with pytest.raises(EvalkitError, match="is not a vector of numbers"):
            answers()
