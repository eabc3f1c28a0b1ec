"""Every way in which servers misbehave, for each server: what is tried again, what is refused at once, and what is put right."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from fake_servers import FakeServer, Mishap, score, sigmoid
from mishaps import breaks_off, changes, reset, says, says_bytes, sleeps
from numpy.typing import NDArray
from served_models import fake, served

from evalkit.errors import EvalkitError
from evalkit.models.interfaces import PairScorer

# two texts that tie, and an order that no score gives
PAIRS = [
    ("感冒了应该吃什么药", text) for text in ("多喝水", "同样的文档", "感冒药一天三次", "同样的文档", "应该吃什么")
]


class Way(NamedTuple):
    """Where a server's answer holds its results, and what it calls a score."""

    results: str | None
    score: str
    shape: Callable[[float], float] = float

    def edit(self, change: Callable[[list[Any]], list[Any]]) -> Mishap:
        """The right answer with other results."""
        key = self.results
        return changes(lambda answer: change(answer) if key is None else {**answer, key: change(answer[key])})

    def rescore(self, value: object) -> Mishap:
        """The right answer with another score in its second result."""

        def change(results: list[Any]) -> list[Any]:
            entry = results[1]
            other = [{**entry[0], self.score: value}] if isinstance(entry, list) else {**entry, self.score: value}
            return [results[0], other, *results[2:]]

        return self.edit(change)


WAYS = {
    "tei": Way(None, "score"),
    "vllm": Way("data", "score"),
    "infinity-server": Way("results", "relevance_score"),
    "cohere": Way("results", "relevance_score", sigmoid),
    "jina": Way("results", "relevance_score", sigmoid),
    "voyage": Way("data", "relevance_score", sigmoid),
    "dashscope": Way("results", "relevance_score", sigmoid),
    "siliconflow": Way("results", "relevance_score", sigmoid),
    "mixedbread": Way("data", "score", sigmoid),
}
BY_INDEX = [name for name in WAYS if name != "tei"]  # TEI's predictions come in the order of the question


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COHERE", "JINA", "VOYAGE", "DASHSCOPE", "SILICONFLOW", "MXBAI"):
        monkeypatch.setenv(f"{name}_API_KEY", "k" * 20)


@pytest.fixture(params=WAYS)
def server(request: pytest.FixtureRequest) -> Iterator[FakeServer]:
    with fake(request.param) as running:
        yield running


def scores(server: FakeServer, **settings: Any) -> NDArray[np.float32]:
    scorer = served(server.backend, server.url, **settings).runnable.scorer
    assert isinstance(scorer, PairScorer)
    return scorer.score(PAIRS)


def expected(server: FakeServer) -> NDArray[np.float32]:
    shape = WAYS[server.backend].shape
    return np.array([shape(score(*pair)) for pair in PAIRS], np.float32)


def refusal(server: FakeServer, retries: int = 3) -> str:
    """The one line of an error, after a single request; one that is refused for its texts is asked once more with one of them."""
    with pytest.raises(EvalkitError) as caught:
        scores(server, retries=retries)
    message = str(caught.value)
    assert message.startswith(f"{server.backend} at {server.url}/")
    assert "\n" not in message
    first, *more = server.posts
    assert len(more) <= (1 if re.search("answered (400|413|422|500)", message) else 0)
    assert all(len(texts(one.body)) == 1 < len(texts(first.body)) for one in more)
    return message


def texts(body: Any) -> list[Any]:
    return next(body[name] for name in ("inputs", "text_2", "documents", "input") if name in body)


PASSING: dict[str, Mishap] = {
    "429": says(429, {"error": "Model is overloaded", "error_type": "overloaded"}),
    "429 with Retry-After": says(429, {"message": "rate limit"}, Retry_After="0.2"),
    "502": says(502, "<html>Bad Gateway</html>"),
    "503": says(503, {"message": "loading"}),
    "504": says(504),
    "overloaded by another status": says(424, {"error": "Model is overloaded", "error_type": "Overloaded"}),
    "a reset connection": reset,
    "half an answer": breaks_off,
    "a slow answer": sleeps(0.8),
}


@pytest.mark.parametrize("mishap", PASSING.values(), ids=PASSING)
def test_what_passes_is_tried_again(server: FakeServer, mishap: Mishap) -> None:
    server.mishaps = [mishap]
    np.testing.assert_array_equal(scores(server, timeout=0.4), expected(server))
    assert len(server.posts) == 2
    assert server.posts[0].body == server.posts[1].body


LASTING: dict[str, tuple[Mishap, str]] = {
    "413": (says(413, {"error": "batch size 64 > 32", "error_type": "Validation"}), "a smaller backend.batch_size"),
    "422": (says(422, {"error": "too long", "error_type": "tokenizer"}), "backend.max_characters=N"),
    "422 of FastAPI": (says(422, {"detail": [{"loc": ["body", "query"], "msg": "Field required"}]}), "Field required"),
    "500": (says(500, {"message": "internal error"}), "answered 500"),
}
WRONG: dict[str, tuple[Mishap, str]] = {
    "truncated JSON": (says_bytes(b'{"results": [{"index": 0, "rel'), "answered with what is not JSON"),
    "a web page": (says_bytes(b"<html>Welcome to nginx</html>"), "Welcome to nginx"),
    "nothing": (says_bytes(b""), "answered 200 with nothing in it"),
    "another object": (says(200, {"status": "ok"}), "gave a wrong answer: "),
}


@pytest.mark.parametrize(("mishap", "problem"), LASTING.values(), ids=LASTING)
def test_what_does_not_pass_is_refused_at_once(server: FakeServer, mishap: Mishap, problem: str) -> None:
    server.mishaps = [mishap]
    assert problem in refusal(server)


@pytest.mark.parametrize(("mishap", "problem"), WRONG.values(), ids=WRONG)
def test_a_wrong_answer_is_asked_for_again(server: FakeServer, mishap: Mishap, problem: str) -> None:
    """As often as any other failed try; what stays wrong is refused."""
    server.mishaps = [mishap]
    assert problem in refusal(server, retries=0)
    server.mishaps = [mishap]
    np.testing.assert_array_equal(scores(server, retries=1), expected(server))
    assert len(server.posts) == 3


@pytest.mark.parametrize("order", ["reversed", "by index", "shuffled"])
def test_results_in_any_order(server: FakeServer, order: str) -> None:
    """With ties among them, which the servers give in reverse."""
    if server.backend in BY_INDEX:
        orders: dict[str, Callable[[list[Any]], list[Any]]] = {
            "reversed": lambda results: results[::-1],
            "by index": lambda results: sorted(results, key=lambda entry: entry["index"]),
            "shuffled": lambda results: [results[place] for place in (3, 0, 4, 2, 1)],
        }
        server.mishaps = [WAYS[server.backend].edit(orders[order])]
    np.testing.assert_array_equal(scores(server), expected(server))


@pytest.mark.parametrize("value", [math.nan, math.inf, "0.5", None, True, [1.0], 1e39])
def test_a_score_that_is_no_finite_number(server: FakeServer, value: object) -> None:
    server.mishaps = [WAYS[server.backend].rescore(value)]
    message = refusal(server, retries=0)
    assert "gave a wrong answer: " in message
    assert "is not a number" in message or "a number is not finite" in message


@pytest.mark.parametrize("change", [lambda results: results[:-1], lambda results: [*results, results[0]], lambda _: []])
def test_too_few_or_too_many_results(server: FakeServer, change: Callable[[list[Any]], list[Any]]) -> None:
    server.mishaps = [WAYS[server.backend].edit(change)]
    assert re.search(r"gave a wrong answer: (\d results for 5 texts|index \d comes twice)", refusal(server, retries=0))


@pytest.mark.parametrize(
    ("index", "problem"),
    [
        (0, "comes twice"),
        (5, "5 is not the index of one of 5 texts"),
        (-1, "-1 is not"),
        ("1", "'1' is not"),
        (1.0, "is not"),
    ],
)
@pytest.mark.parametrize("backend", BY_INDEX)
def test_an_index_that_is_wrong(backend: str, index: object, problem: str) -> None:
    def change(results: list[Any]) -> list[Any]:
        return [{**results[0], "index": 0}, {**results[1], "index": index}, *results[2:]]

    with fake(backend, mishaps=[WAYS[backend].edit(change)]) as server:
        assert problem in refusal(server, retries=0)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(server: FakeServer, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor within one host: a key goes where the user sends it, and nowhere else."""
    monkeypatch.setenv(f"{server.backend.partition('-')[0].upper()}_API_KEY", "sk-very-secret")
    with fake(server.backend) as other:
        server.mishaps = [says(status, Location=f"{other.url}/elsewhere")]
        message = refusal(server)
        assert f"it sends to {other.url}/elsewhere: give that as backend.url if you trust it" in message
        assert "secret" not in message
        assert not other.posts


@pytest.mark.parametrize("headers", [{}, {"Location": "http://["}])
def test_a_redirect_to_nowhere(server: FakeServer, headers: dict[str, str]) -> None:
    server.mishaps = [says(302, **headers)]
    assert "it names no other address" in refusal(server)


def test_an_answer_that_is_nested_too_deep(server: FakeServer) -> None:
    server.mishaps = [lambda handler: handler.send_bytes(200, b"[" * 100_000)]
    assert "what is not JSON" in refusal(server, retries=0)
