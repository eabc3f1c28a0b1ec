"""Servers that are overloaded, slow, broken or wrong: what is tried again, what is not, and what the user is told."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from email.utils import formatdate
from typing import Any

import numpy as np
import pytest
from fake_servers import FakeServer, Handler
from mishaps import says, sleeps
from served_models import PAIRS, fake, served

from evalkit.backends import read_backend
from evalkit.backends.servers.client import PassingError, insist
from evalkit.errors import EvalkitError
from evalkit.models.interfaces import PairScorer, PairStream

KEY = "sk-very-secret-0123456789"


def scores(backend: str, server: FakeServer, **settings: Any) -> np.ndarray:
    scorer = served(backend, server.url, **settings).runnable.scorer
    assert isinstance(scorer, PairScorer)
    return scorer.score(PAIRS[:6])


def refusal(backend: str, server: FakeServer, **settings: Any) -> str:
    with pytest.raises(EvalkitError) as caught:
        scores(backend, server, **settings)
    message = str(caught.value)
    assert "\n" not in message
    assert server.url in message
    assert message.startswith(backend)
    return message


@pytest.fixture
def vllm() -> Iterator[FakeServer]:
    with fake("vllm") as server:
        yield server


def test_a_slow_answer_is_given_up(vllm: FakeServer) -> None:
    vllm.mishaps = [sleeps(3.0)]
    started = time.perf_counter()
    assert "did not answer within 0.2 s (backend.timeout," in refusal("vllm", vllm, timeout=0.2, retries=0)
    assert time.perf_counter() - started < 3.0


def test_an_answer_that_drips_is_given_up_too(vllm: FakeServer) -> None:
    """Each byte comes in time, the whole does not."""

    def drip(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        try:
            for _ in range(100):
                handler.wfile.write(b" ")
                handler.wfile.flush()
                time.sleep(0.05)
        except OSError:
            handler.close_connection = True

    vllm.mishaps = [drip]
    assert "did not answer within 0.3 s " in refusal("vllm", vllm, timeout=0.3, retries=0)


@pytest.mark.parametrize("date", [False, True])
def test_a_server_that_asks_to_wait_is_waited_for(vllm: FakeServer, date: bool) -> None:
    asked = formatdate(time.time() + 3, usegmt=True) if date else "1.5"
    vllm.mishaps = [says(429, Retry_After=asked)]
    started = time.perf_counter()
    scores("vllm", vllm)
    assert 1.4 < time.perf_counter() - started < 15


def test_a_server_that_asks_for_too_much_is_not_waited_for(vllm: FakeServer) -> None:
    vllm.mishaps = [says(429, Retry_After="86400")]
    assert "it asks to be left alone for 86400 seconds" in refusal("vllm", vllm)
    assert len(vllm.posts) == 1


@pytest.mark.parametrize("asked", ["soon", "-5", "nan", "inf", "Wed, 99 Foo 2020"])
def test_nonsense_in_retry_after_is_ignored(vllm: FakeServer, asked: str) -> None:
    vllm.mishaps = [says(429, Retry_After=asked)]
    started = time.perf_counter()
    scores("vllm", vllm)
    assert time.perf_counter() - started < 5


def test_tries_are_bounded(vllm: FakeServer) -> None:
    vllm.mishaps = [says(503, {"error": "Bad day"})] * 9
    message = refusal("vllm", vllm, retries=2)
    assert (
        '/score answered 503: \'{"error": "Bad day"}\'; tried 3 times (backend.retries). Mend it and run the same again'
        in message
    )
    assert len(vllm.posts) == 3


def busy(asked: float) -> Callable[[], Awaitable[None]]:
    async def fail() -> None:
        raise PassingError("busy", asked)

    return fail


def test_the_time_of_all_tries_is_bounded() -> None:
    """A wait that would end behind the bound is not begun."""
    heard: list[float] = []
    with pytest.raises(PassingError, match="busy"):
        asyncio.run(insist(busy(1.0), 4, lambda _, seconds: heard.append(seconds), longest=0.5))
    assert heard == []


def test_waits_grow_and_differ() -> None:
    """What is asked for and a random part, whose bound doubles; without a server, since it would take minutes."""
    waits: list[list[float]] = [[], []]
    for heard in waits:
        with pytest.raises(PassingError, match="busy"):
            asyncio.run(insist(busy(10.0), 8, lambda _, seconds, heard=heard: heard.append(seconds), sleep=_no_sleep))
        bounds = [min(0.5 * 2**number, 30.0) for number in range(8)]
        assert all(10.0 <= wait <= 10.0 + bound for wait, bound in zip(heard, bounds, strict=True))
    assert waits[0] != waits[1]
    assert max(waits[0] + waits[1]) > 12.0


async def _no_sleep(_: float) -> None:
    return None


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 413, 422, 424, 500, 501])
def test_what_does_not_pass_is_not_tried_again(vllm: FakeServer, status: int) -> None:
    vllm.mishaps = [says(status, {"message": "that is how it is"})]
    message = refusal("vllm", vllm, retries=5)
    assert f'answered {status}: \'{{"message": "that is how it is"}}\'' in message
    assert [request.body for request in vllm.posts].count(vllm.posts[0].body) == 1
    sizes = [len(request.body["text_2"]) for request in vllm.posts]
    assert sizes == ([6, 1] if status in (400, 413, 422, 500) else [6])  # is it the longest text?


@pytest.mark.parametrize(
    ("status", "content", "advice"),
    [
        (413, {"error": "batch size 64 > 32", "error_type": "Validation"}, "a smaller backend.batch_size"),
        (422, {"error": "batch size 64 > 32", "error_type": "validation"}, "a smaller backend.batch_size"),
        (422, {"error": "too long", "error_type": "Tokenizer"}, "backend.max_characters=N"),
        (404, {"detail": "Not Found"}, "backend.url"),
        (401, {"detail": "Unauthorized"}, "there is none in the environment variable VLLM_API_KEY"),
    ],
)
def test_advice(vllm: FakeServer, status: int, content: Any, advice: str) -> None:
    vllm.mishaps = [says(status, content)]
    assert advice in refusal("vllm", vllm)


def test_where_a_redirect_leads_is_told_without_what_may_be_a_secret(vllm: FakeServer) -> None:
    with fake("vllm") as other:
        vllm.mishaps = [says(307, Location=other.url.replace("//", "//user:secret@") + "/score?token=secret")]
        message = refusal("vllm", vllm)
        assert f"it sends to {other.url}/score: give that" in message
        assert "secret" not in message


@pytest.mark.parametrize(
    "place",
    ["http://user%3Asecret%40h/x", "http://u:80/secret@h/x", "http://h;t=secret/x", "http://h/x?secret"],
)
def test_a_redirect_s_odd_address_is_not_told(vllm: FakeServer, place: str) -> None:
    vllm.mishaps = [says(302, Location=place)]
    assert "secret" not in refusal("vllm", vllm)


def test_secrets_of_addresses_in_what_a_server_says_are_not_told(vllm: FakeServer) -> None:
    for padding in (0, 270, 285):
        vllm.mishaps = [says(400, {"message": "x" * padding + " http://u:secret@db.test/?t=secret"})]
        assert "secret" not in refusal("vllm", vllm)


def test_nobody_is_there() -> None:
    with fake("vllm") as server:
        pass
    assert "can't be reached, or broke off" in refusal("vllm", server, retries=1)


def test_vectors_that_change_their_length_are_refused() -> None:
    with fake("openai") as server:
        server.mishaps = [says(200, {"data": [{"index": 0, "embedding": [1.0, 2.0]}]})]
        embedder: Any = served("openai", server.url, "bge-base-zh-v1.5", batch_size=1, concurrency=1).runnable.scorer
        with pytest.raises(EvalkitError, match="the server's vectors have 8 numbers, those before 2"):
            embedder.embed(["一", "二"], "document")


def test_a_key_is_never_told(
    vllm: FakeServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even where the server repeats it, in a text that is cut off in the middle of it."""
    monkeypatch.setenv("VLLM_API_KEY", f"  {KEY}\n")
    logging.getLogger("evalkit").propagate = True
    with caplog.at_level(logging.DEBUG):
        model = served("vllm", vllm.url).runnable
        assert KEY not in repr(model)
        assert KEY not in repr(model.scorer)
        for padding in (0, 270, 285):
            vllm.mishaps = [says(400, {"message": "x" * padding + f" Bearer {KEY}"})]
            message = refusal("vllm", vllm)
            assert KEY[:6] not in message
        vllm.mishaps = [says(503, {"message": KEY}, Retry_After="3.1")]
        scores("vllm", vllm)
        assert vllm.posts[-1].headers["authorization"] == f"Bearer {KEY}"
    assert "trying again in" in caplog.text
    assert KEY not in caplog.text


@pytest.mark.parametrize("key", ["line\nbreak", "schlüssel", "tab\tin"])
def test_what_can_not_be_a_key(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("VLLM_API_KEY", key)
    with pytest.raises(EvalkitError, match="the environment variable VLLM_API_KEY holds what can't be a key") as caught:
        _ = served("vllm", "http://127.0.0.1:1").runnable
    assert key not in str(caught.value)


@pytest.mark.parametrize("backend", ["cohere", "jina", "openai", "voyage", "dashscope", "siliconflow", "mixedbread"])
def test_a_service_that_is_paid_for_wants_a_key_before_anything_is_sent(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = str(read_backend(backend).key_variable)
    assert variable == f"{'MXBAI' if backend == 'mixedbread' else backend.upper()}_API_KEY"
    monkeypatch.delenv(variable, raising=False)
    import evalkit

    embeds = "embedder" in read_backend(backend).kinds
    model = evalkit.load_model("bge-base-zh-v1.5" if embeds else "bge-reranker-base", backend=backend)
    with pytest.raises(EvalkitError, match=f"backend={backend} needs a key: .*{variable}"):
        _ = model.runnable


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://user:secret@127.0.0.1:1", "holds more than an address"),
        ("http://secret@127.0.0.1:1", "holds more than an address"),
        ("http://127.0.0.1:1/?api_key=secret", "holds more than an address"),
        ("http://user%3Asecret@127.0.0.1", "holds more than an address"),
        ("http://u:p%40secret@127.0.0.1", "holds more than an address"),
        ("http://user%3Asecret%40127.0.0.1:1", "holds more than an address"),
        ("http://user:80/secret@127.0.0.1", "holds more than an address"),
        ("http://127.0.0.1;t=secret", "holds more than an address"),
        ("http://127.0.0.1:1/#secret", "holds more than an address"),
        ("127.0.0.1:1", "is not an address"),
        ("ftp://127.0.0.1", "is not an address"),
        ("http://127.0.0.1:secret", "is not an address"),
        ("http://:80", "is not an address"),
        ("", "needs the address of its server"),
    ],
)
def test_wrong_addresses_are_refused_before_anything_loads(url: str, problem: str) -> None:
    with pytest.raises(EvalkitError, match=problem) as caught:
        served("tei", url)
    assert "secret" not in str(caught.value)


TEI_INFO = [
    ({"model_id": "BAAI/bge-reranker-large", "served_model_name": "BAAI/bge-reranker-large"}, {},
     "runs BAAI/bge-reranker-large, not BAAI/bge-reranker-base"),
    ({}, {"served_model": "mine"}, "runs BAAI/bge-reranker-base, not mine"),
    ({"model_type": {"embedding": {"pooling": "cls"}}}, {}, "as embedding; a cross-encoder needs reranker"),
    ({"max_input_length": 8192}, {}, "cuts at 8192 tokens, and bge-reranker-base is meant to read 512"),
    ({"max_client_batch_size": "many"}, {}, "does not answer as TEI does (max_client_batch_size:"),
]  # fmt: skip


@pytest.mark.parametrize(("info", "settings", "problem"), TEI_INFO)
def test_tei_says_what_it_runs_and_that_must_be_the_model(info: Any, settings: Any, problem: str) -> None:
    with fake("tei", info=info) as server:
        server.answer = lambda fake, method, path, body: (200, {**_plain_info(), **info})
        assert problem in refusal("tei", server, **settings)
        assert not server.posts


def _plain_info() -> dict[str, Any]:
    return {
        "model_id": "BAAI/bge-reranker-base",
        "model_dtype": "float16",
        "model_type": {"reranker": {"id2label": {"0": "L"}, "label2id": {"L": 0}}},
        "max_input_length": 512,
        "max_client_batch_size": 32,
    }


@pytest.mark.parametrize("name", ["/data/bge-reranker-base", "someone/bge-reranker-base"])
def test_tei_may_have_loaded_a_folder_of_that_name(name: str) -> None:
    with fake("tei", model=name) as server:
        assert len(scores("tei", server)) == 6


def test_tei_must_pool_as_the_recipe_says() -> None:
    with fake("tei", model="moka-ai/m3e-base", kind="embedding") as server:
        with pytest.raises(EvalkitError, match="pools cls, and m3e-base is meant to be pooled mean"):
            _ = served("tei", server.url, "m3e-base").runnable
        server.info = {"model_type": {"embedding": {"pooling": "mean"}}}
        _ = served("tei", server.url, "m3e-base").runnable


def test_what_a_server_can_not_be_told_is_refused() -> None:
    url = "http://127.0.0.1:1"
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("infinity-server", {"max_length": 256}, "model.max_length=256: backend=infinity-server can't be told so"),
        ("jina", {"max_length": 256}, "model.max_length=256: backend=jina can't be told so"),
        *(
            (name, {"max_length": 256}, f"model.max_length=256: backend={name} can't be told so")
            for name in ("voyage", "dashscope", "siliconflow", "mixedbread")
        ),
        ("vllm", {"truncation": "only_second"}, "model.truncation=only_second: backend=vllm can't be told so"),
    ]
    for backend, recipe, problem in cases:
        with pytest.raises(EvalkitError, match=problem):
            _ = served(backend, url, recipe=recipe).runnable
    for backend in ("openai", "vllm", "cohere", "infinity-server"):
        with pytest.raises(EvalkitError, match=f"model.pooling=cls: backend={backend} can't be told so"):
            _ = served(backend, url, "multilingual-e5-small", recipe={"pooling": "cls"}).runnable
    with pytest.raises(EvalkitError, match=r"backend\.role_field says nothing to bge-reranker-base"):
        _ = served("vllm", url, role_field="task").runnable
    with pytest.raises(EvalkitError, match="needs the name that the server knows the model by"):
        _ = served("vllm", url, "local-cross-encoder").runnable


def test_work_ends_when_the_caller_goes_away(vllm: FakeServer) -> None:
    """As on Ctrl-C: no thread is left, and no request is sent any more."""
    before = threading.active_count()
    vllm.delay = 0.05
    scorer = served("vllm", vllm.url, batch_size=1, concurrency=2).runnable.scorer
    assert isinstance(scorer, PairStream)
    parts = scorer.score_parts(PAIRS)
    next(parts)
    with pytest.raises(KeyboardInterrupt):
        parts.throw(KeyboardInterrupt())
    time.sleep(0.5)  # a request that was under way when its caller left may be read by the server a moment later
    sent = len(vllm.posts)
    assert sent < 8
    time.sleep(0.5)
    assert len(vllm.posts) == sent
    assert threading.active_count() <= before + 2  # the fake server's own, for connections that it has not seen closed
