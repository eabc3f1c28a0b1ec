"""Rerankers behind a server: what is sent, and that each score comes back to its pair."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fake_servers import score, sigmoid
from served_models import PAIRS, fake, served
from server_schemas import request_problems, response_problems

import evalkit
from evalkit.errors import EvalkitError
from evalkit.models.interfaces import PairScorer, PairStream

LOGITS = ("tei", "infinity-server", "vllm")
PROBABILITIES = ("cohere", "jina", "voyage", "dashscope", "siliconflow", "mixedbread")
EXPECTED = np.array([score(query, document) for query, document in PAIRS], np.float32)


KEYS = {
    "cohere": "COHERE_API_KEY", "jina": "JINA_API_KEY", "voyage": "VOYAGE_API_KEY", "dashscope": "DASHSCOPE_API_KEY",
    "siliconflow": "SILICONFLOW_API_KEY", "mixedbread": "MXBAI_API_KEY",
}  # fmt: skip


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for number, variable in enumerate(KEYS.values()):
        monkeypatch.setenv(variable, f"key-{number}")


@pytest.mark.parametrize("backend", LOGITS)
def test_scores_are_the_servers_logits_each_at_its_pair(backend: str) -> None:
    with fake(backend) as server:
        scorer = served(backend, server.url, batch_size=3).runnable.scorer
        assert isinstance(scorer, PairScorer)
        np.testing.assert_array_equal(scorer.score(PAIRS), EXPECTED)
        assert len({request.path for request in server.posts}) == 1


@pytest.mark.parametrize("backend", PROBABILITIES)
def test_probabilities_are_taken_as_they_are_and_said_to_be(backend: str) -> None:
    with fake(backend) as server:
        model = served(backend, server.url).runnable
        assert isinstance(model.scorer, PairScorer)
        found = model.scorer.score(PAIRS)
        np.testing.assert_array_equal(found, np.array([sigmoid(value) for value in EXPECTED.tolist()], np.float32))
        assert (np.argsort(found, kind="stable") == np.argsort(EXPECTED, kind="stable")).all()
    assert model.description["outputs"] == "probabilities"
    assert "role_field" not in model.description


@pytest.mark.parametrize("backend", LOGITS)
def test_raw_scores_are_said_to_be(backend: str) -> None:
    with fake(backend) as server:
        assert served(backend, server.url).runnable.description["outputs"] == "raw scores"


SENT = {
    "tei": ("/predict", {"inputs": [["问", "答一"], ["问", "答二"]], "raw_scores": True, "truncate": True}),
    "infinity-server": (
        "/rerank",
        {"model": "BAAI/bge-reranker-base", "query": "问", "documents": ["答一", "答二"], "top_n": 2, "raw_scores": True,
         "return_documents": False},
    ),
    "vllm": (
        "/score",
        {"model": "BAAI/bge-reranker-base", "text_1": "问", "text_2": ["答一", "答二"], "truncate_prompt_tokens": 512,
         "use_activation": False},
    ),
    "cohere": (
        "/v2/rerank",
        {"model": "BAAI/bge-reranker-base", "query": "问", "documents": ["答一", "答二"], "top_n": 2, "max_tokens_per_doc": 512},
    ),
    "jina": (
        "/v1/rerank",
        {"model": "BAAI/bge-reranker-base", "query": "问", "documents": ["答一", "答二"], "top_n": 2, "return_documents": False,
         "truncation": True},
    ),
    "voyage": (
        "/v1/rerank",
        {"model": "BAAI/bge-reranker-base", "query": "问", "documents": ["答一", "答二"], "top_k": 2, "return_documents": False,
         "truncation": True},
    ),
    "dashscope": (
        "/v1/reranks",
        {"model": "BAAI/bge-reranker-base", "query": "问", "documents": ["答一", "答二"], "top_n": 2},
    ),
    "siliconflow": (
        "/v1/rerank",
        {"model": "BAAI/bge-reranker-base", "query": "问", "documents": ["答一", "答二"], "top_n": 2, "return_documents": False},
    ),
    "mixedbread": (
        "/v1/reranking",
        {"model": "BAAI/bge-reranker-base", "query": "问", "input": ["答一", "答二"], "top_k": 2, "return_input": False},
    ),
}  # fmt: skip


@pytest.mark.parametrize("backend", SENT)
def test_the_exact_request(backend: str) -> None:
    with fake(backend) as server:
        scorer = served(backend, server.url).runnable.scorer
        assert isinstance(scorer, PairScorer)
        scorer.score([("问", "答一"), ("问", "答二")])
        (request,) = server.posts
    assert (request.path, request.body) == SENT[backend]
    assert request.headers["content-type"] == "application/json"
    key = f"Bearer key-{[*KEYS].index(backend)}" if backend in KEYS else None
    assert request.headers.get("authorization") == key


def test_the_batch_limit_that_tei_states_is_kept() -> None:
    with fake("tei", limit=5) as server:
        scorer = served("tei", server.url).runnable.scorer
        assert isinstance(scorer, PairScorer)
        scorer.score(PAIRS)
        assert sorted(len(request.body["inputs"]) for request in server.posts) == [1, 5, 5, 5, 5]


def change(body: dict[str, Any], name: str, value: object) -> dict[str, Any]:
    return {key: item for key, item in {**body, name: value}.items() if item is not None}


WISH = {"tei": "truncate", "infinity-server": "raw_scores", "vllm": "truncate_prompt_tokens", "cohere": "max_tokens_per_doc",
        "jina": "truncation", "voyage": "truncation", "dashscope": "top_n", "siliconflow": "return_documents",
        "mixedbread": "return_input"}  # fmt: skip
TEXTS_IN = {"tei": "inputs", "vllm": "text_2", "mixedbread": "input"}


@pytest.mark.parametrize("backend", SENT)
def test_the_schemas_tell_right_from_wrong(backend: str) -> None:
    """Else that every request of these tests fits them would say nothing."""
    path, good = SENT[backend]
    assert not request_problems(backend, path, good)
    texts = TEXTS_IN.get(backend, "documents")
    for bad in (
        change(good, WISH[backend] + "s", True),
        change(good, WISH[backend], "yes"),
        change(good, texts, None),
        change(good, texts, [["a", 1]]),
        change(good, texts, 1),
    ):
        assert request_problems(backend, path, bad), bad
    for answer in ([[{"label": "L"}]], {"results": [{"index": 0}]}, {"data": [{"score": 1.0}]}, 1, None):
        assert response_problems(backend, path, 200, answer), answer
    if backend == "tei":
        assert response_problems("tei", "/predict", 422, {"error": "x", "error_type": "Strange"})
        assert not response_problems("tei", "/predict", 422, {"error": "x", "error_type": "Tokenizer"})


@pytest.mark.parametrize("backend", [name for name in SENT if name != "tei"])
def test_pairs_of_one_query_go_together(backend: str) -> None:
    mixed = [PAIRS[number] for number in np.random.default_rng(1).permutation(len(PAIRS))]
    with fake(backend) as server:
        scorer = served(backend, server.url, batch_size=5).runnable.scorer
        assert isinstance(scorer, PairScorer)
        found = scorer.score(mixed)
        sizes = sorted(len(request.body[TEXTS_IN.get(backend, "documents")]) for request in server.posts)
    assert sizes == [2, 2, 2, 5, 5, 5]
    shape = sigmoid if backend in PROBABILITIES else float
    np.testing.assert_array_equal(found, np.array([shape(score(*pair)) for pair in mixed], np.float32))


@pytest.mark.parametrize(("backend", "characters"), [("dashscope", 30_000), ("voyage", 100_000)])
def test_a_request_keeps_to_the_tokens_that_an_api_takes(backend: str, characters: int) -> None:
    """A token has a character or more; the query's count once per document, and a document too long for that goes alone."""
    query = "问" * (characters // 30)
    pairs = [
        (query, f"{number}" + "答" * length) for number, length in enumerate((9, 99, characters, characters // 2, 9))
    ]
    pairs += [(query, f"{number}") for number in range(40)]
    with fake(backend) as server:
        scorer = served(backend, server.url).runnable.scorer
        assert isinstance(scorer, PairScorer)
        scorer.score(pairs)
        sent = [request.body["documents"] for request in server.posts]
    assert sorted(text for texts in sent for text in texts) == sorted(text for _, text in pairs)
    sizes = [sum(len(query) + len(text) for text in texts) for texts in sent]
    assert all(size <= characters for size, texts in zip(sizes, sent, strict=True) if len(texts) > 1)
    assert len(sent) < len(pairs) / 3


def test_dashscope_takes_no_more_than_500_documents() -> None:
    with fake("dashscope") as server:
        scorer = served("dashscope", server.url, batch_size=5_000).runnable.scorer
        assert isinstance(scorer, PairScorer)
        scorer.score([("问", f"答{number}") for number in range(1_100)])
        assert sorted(len(request.body["documents"]) for request in server.posts) == [100, 500, 500]


@pytest.mark.parametrize(
    ("backend", "name"),
    [
        ("cohere", "bge-reranker-base"),
        ("jina", "bge-reranker-base"),
        ("voyage", "bge-reranker-base"),
        ("dashscope", "bge-reranker-base"),
        ("siliconflow", "BAAI/bge-reranker-base"),
        ("mixedbread", "BAAI/bge-reranker-base"),
    ],
)
def test_an_api_is_asked_by_its_own_name_for_the_model(backend: str, name: str) -> None:
    """By the part behind the maker where it sells its own models, by the Hub id where it serves others'."""
    assert evalkit.load_model("bge-reranker-base", backend=backend).runnable.description["served_model"] == name


@pytest.mark.parametrize("backend", SENT)
def test_several_requests_are_in_flight_and_no_more_than_allowed(backend: str) -> None:
    with fake(backend, delay=0.05) as server:
        scorer = served(backend, server.url, batch_size=2, concurrency=3).runnable.scorer
        assert isinstance(scorer, PairScorer)
        scorer.score(PAIRS)
        assert server.most_at_once == 3


def test_answers_come_one_by_one_and_closing_ends_the_work() -> None:
    with fake("vllm", delay=0.05) as server:
        scorer = served("vllm", server.url, batch_size=1, concurrency=2).runnable.scorer
        assert isinstance(scorer, PairStream)
        parts = scorer.score_parts(PAIRS)
        first = next(parts)
        parts.close()
        assert first.positions.shape == first.outputs.shape == (1,)
        assert first.seconds > 0
        assert len(server.posts) < len(PAIRS)


def test_prompts_stand_before_the_texts_and_long_texts_are_cut() -> None:
    recipe = {"query_prompt": "问题：", "document_prompt": "文档："}
    with fake("vllm") as server:
        scorer = served("vllm", server.url, max_characters=5, recipe=recipe).runnable.scorer
        assert isinstance(scorer, PairScorer)
        scorer.score([("感冒了吗", "多喝水吧")])
        assert server.posts[-1].body["text_1"] == "问题：感冒"
        assert server.posts[-1].body["text_2"] == ["文档：多喝"]


def test_any_text_arrives() -> None:
    """Zero bytes, quotes, and what is no character at all."""
    pairs = [("\0\"\\ '", "a\ud800b"), ("", "\n\t🀄")]
    with fake("vllm") as server:
        scorer = served("vllm", server.url).runnable.scorer
        assert isinstance(scorer, PairScorer)
        found = scorer.score(pairs)
    np.testing.assert_array_equal(found, np.array([score(*pair) for pair in pairs], np.float32))


@pytest.mark.parametrize(
    ("ending", "path"), [("", "/v1/rerank"), ("/", "/v1/rerank"), ("/v1", "/v1/rerank"), ("/x", "/x/v1/rerank")]
)
def test_an_address_may_name_the_version(ending: str, path: str) -> None:
    with fake("jina") as server:
        model = served("jina", server.url + ending).runnable
        if ending == "/x":
            with pytest.raises(EvalkitError, match="/x/v1/rerank answered 404"):
                _ = model.scorer
        else:
            assert isinstance(model.scorer, PairScorer)
            model.scorer.score(PAIRS[:1])
            assert server.posts[0].path == path
        assert {request.path for request in server.requests} == {path}


def test_the_way_is_the_model_and_the_place_only_of_servers_that_do_not_tell() -> None:
    """The same scores wherever a server is that says what it runs, and however fast it is asked; other ones of another model."""
    with fake("tei") as server, fake("tei") as other:
        way = served("tei", server.url).runnable.way
        assert way == served("tei", other.url, concurrency=2, batch_size=4, timeout=9).runnable.way
        assert way is not None
        assert way["backend"] == {
            "name": "tei", "served_model": "BAAI/bge-reranker-base", "outputs": "raw scores", "truncation": "at 512 tokens",
            "dtype": "float32", "revision": "2cfc18c9415c912f9d8155881c133215df768a70", "version": "1.9.3",
        }  # fmt: skip
        for info in ({"model_dtype": "float16"}, {"model_sha": "f" * 40}, {"version": "1.5.0"}):
            other.info = info
            assert served("tei", other.url).runnable.way != way
        assert served("tei", server.url, max_characters=9).runnable.way != way
        assert server.url not in str(way)
    ways = [served("vllm", f"http://127.0.0.1:{port}").runnable.way for port in (1, 1, 2)]
    assert ways[0] == ways[1] != ways[2]
    assert (
        served("vllm", "http://127.0.0.1:1").runnable.way
        != served("vllm", "http://127.0.0.1:1", served_model="x").runnable.way
    )


def test_who_was_asked() -> None:
    with fake("tei") as server:
        identity = served("tei", server.url).runnable.identity
    assert (identity.name, identity.hub_id) == ("bge-reranker-base", "BAAI/bge-reranker-base")
    assert identity.revision == "2cfc18c9415c912f9d8155881c133215df768a70"
    assert identity.weights_hash == ""
    own = served("vllm", "http://127.0.0.1:1", "local-cross-encoder", served_model="mine").runnable.identity
    assert (own.name, own.hub_id, own.revision) == ("mine", "local/mine", "")
    named = served(
        "vllm", "http://127.0.0.1:1", "local-cross-encoder", served_model="BAAI/bge-reranker-v2-m3"
    ).runnable.identity
    assert (named.name, named.hub_id) == ("bge-reranker-v2-m3", "BAAI/bge-reranker-v2-m3")
