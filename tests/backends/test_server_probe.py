"""What a handful of requests show of a server before it scores: each way of being wrong on a server that has it."""

from __future__ import annotations

import base64
import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import run_here
from fake_servers import ANSWERS, FakeServer, is_probe, read, score, sigmoid, vector
from made_tasks import make_task
from mishaps import says
from served_models import fake, served
from tokenizers import Tokenizer

import evalkit
from evalkit.backends.servers.probing import DOCUMENTS
from evalkit.doctor.checks import judge_evidence
from evalkit.doctor.examination import examine
from evalkit.doctor.records import Opinion
from evalkit.errors import EvalkitError, UnfitServerError
from evalkit.models.interfaces import PairScorer, ServerProbe
from evalkit.results.result import Result
from evalkit.scoring import engine

BGE = "bge-base-zh-v1.5"
PLAIN = make_task(
    (["感冒了应该吃什么药"], [("多喝水", 1), ("感冒药一天三次", 1), ("渡轮七点开", 0)]),
    (["如何办理护照"], [("出入境管理局", 1), ("今天天气很好", 0), ("护照两寸照片", 1)]),
)
Rescore = Callable[[str, list[str]], list[float]]


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COHERE", "JINA", "OPENAI"):
        monkeypatch.setenv(f"{name}_API_KEY", "k" * 20)


def reranking(backend: str, rescore: Rescore) -> FakeServer:
    """A server at jina's or vllm's address whose scores of a list are what `rescore` makes of the query and the documents."""

    def answer(_: FakeServer, method: str, path: str, body: Any) -> tuple[int, Any]:
        query, documents = (
            body[name] for name in (("text_1", "text_2") if backend == "vllm" else ("query", "documents"))
        )
        key, name = ("data", "score") if backend == "vllm" else ("results", "relevance_score")
        scores = rescore(query, documents)
        return 200, {key: [{"index": number, name: value} for number, value in enumerate(scores)]}

    return FakeServer(backend, answer)


def embedding(vectors: Callable[[list[str], dict[str, Any]], list[list[float]]]) -> FakeServer:
    def answer(_: FakeServer, method: str, path: str, body: Any) -> tuple[int, Any]:
        entries = [{"index": number, "embedding": one} for number, one in enumerate(vectors(body["input"], body))]
        return 200, {"data": entries, "model": body["model"], "usage": {}}

    return FakeServer("openai", answer, own_fields=("input_type",))


def probe(server: FakeServer, model: str = "bge-reranker-base", **settings: Any) -> ServerProbe:
    scorer: Any = served(server.backend, server.url, model, **settings).runnable.scorer
    found: ServerProbe = scorer.probe
    return found


def pointwise(shape: Callable[[float], float] = float) -> Rescore:
    return lambda query, documents: [shape(score(query, document)) for document in documents]


@pytest.mark.parametrize("backend", ANSWERS)
def test_an_honest_server_is_asked_a_handful_and_nothing_is_found(backend: str) -> None:
    kind, model = ("embedding", BGE) if backend == "openai" else ("reranker", "bge-reranker-base")
    with fake(backend, kind=kind) as server:
        found = probe(server, model)
        assert found.findings == ()
        assert found.requests == len(server.probes) <= 15
        assert not server.posts
    assert any(one.startswith("a text of more than 512 tokens is answered as") for one in found.seen)


LISTWISE: dict[str, Rescore] = {
    "less the list's mean": lambda query, documents: list(
        np.array([sigmoid(score(query, one)) for one in documents])
        - np.mean([sigmoid(score(query, one)) for one in documents])
    ),
    "softmax over the list": lambda query, documents: list(
        np.exp([score(query, one) for one in documents]) / np.exp([score(query, one) for one in documents]).sum()
    ),
    "less for what comes later": lambda query, documents: [
        sigmoid(score(query, one)) * 0.9**place for place, one in enumerate(documents)
    ],
    "rank alone": lambda query, documents: list(
        1.0 - np.argsort(np.argsort([-score(query, one) for one in documents])) / len(documents)
    ),
}


@pytest.mark.parametrize("backend", ["jina", "vllm"])
@pytest.mark.parametrize("rescore", LISTWISE.values(), ids=LISTWISE)
@pytest.mark.parametrize("batch_size", [1, 32])
def test_a_model_that_ranks_lists_is_refused(backend: str, rescore: Rescore, batch_size: int) -> None:
    """Even one by one, where it would be scored as if it ranked single documents."""
    with reranking(backend, rescore) as server:
        with pytest.raises(
            UnfitServerError, match=r"depends on what else a request holds .* ranks whole lists"
        ) as caught:
            probe(server, batch_size=batch_size)
        assert str(caught.value).startswith(f"{backend} at {server.url} runs BAAI/bge-reranker-base")
        assert not server.posts


def test_rounding_is_no_list() -> None:
    """As in bf16, whose last digits depend on the shape of a batch."""

    def rounded(query: str, documents: list[str]) -> list[float]:
        return [score(query, one) * (1 + 0.01 * (len(documents) % 2)) for one in documents]

    with reranking("vllm", rounded) as server:
        assert probe(server).findings == ()


def test_a_server_that_takes_one_document_at_a_time_is_asked_so() -> None:
    def one(query: str, documents: list[str]) -> list[float]:
        return pointwise()(query, documents)

    with reranking("vllm", one) as server:
        answer = server.answer
        server.answer = lambda fake, *request: (
            (413, {"error": "batch size 4 > 1"}) if len(request[2]["text_2"]) > 1 else answer(fake, *request)
        )
        assert probe(server, batch_size=1).findings == ()


def findings(server: FakeServer, model: str = "bge-reranker-base", **settings: Any) -> str:
    return "\n".join(probe(server, model, **settings).findings)


def test_answers_that_do_not_repeat_are_reported() -> None:
    noise = random.Random(1)
    with reranking(
        "vllm", lambda query, documents: [score(query, one) + noise.gauss(0, 0.05) for one in documents]
    ) as server:
        assert "the same request twice gives scores up to 0." in findings(server)
    with embedding(
        lambda texts, _: [[value + noise.gauss(0, 0.01) for value in vector(text)] for text in texts]
    ) as server:
        assert "the same request twice gives vectors up to 0.0" in findings(server, BGE)


def long_score(query: str, document: str) -> float:
    """A logit of the whole document."""
    return score(query, document) + zlib.crc32(document.encode()) % 100 / 10


@pytest.mark.parametrize(
    ("rescore", "finding"),
    [
        (
            lambda query, documents: [long_score(query, one) for one in documents],
            "but a longer text is answered otherwise than another with the same beginning",
        ),
        (
            lambda query, documents: [score(query, read(one, 100)) for one in documents],
            "but a longer text is answered as its first about 128 tokens",
        ),
        (
            lambda query, documents: [score(query, read(one, 256 - 25)) for one in documents],
            "but a longer text is answered as its first about 256 tokens",
        ),
        (
            lambda query, documents: [score(query, read(one, 360)) for one in documents],
            "but a longer text is answered as its first about 384 tokens",
        ),
        (
            lambda query, documents: [score(query, read(one, 430)) for one in documents],
            "but a longer text is answered as its first about 448 tokens",
        ),
    ],
)
def test_a_server_that_does_not_cut_where_it_should_is_reported(rescore: Rescore, finding: str) -> None:
    with reranking("vllm", rescore) as server:
        assert f"max_length is 512, {finding}" in findings(server)


def test_probabilities_that_are_all_alike_do_not_show_where_a_text_is_cut() -> None:
    with reranking(
        "vllm", lambda query, documents: [0.9999 if len(one) > 600 else sigmoid(score(query, one)) for one in documents]
    ) as server:
        assert "whether texts are cut there can't be known" in findings(server)


Shuffle = Callable[[list[float]], list[float]]
FULL_REQUESTS: dict[str, Shuffle] = {
    "sorted by score": lambda scores: sorted(scores, reverse=True) if len(scores) > 8 else scores,
    "the second eight before the first": lambda scores: [*scores[8:16], *scores[:8], *scores[16:]],
    "less the list's lowest": lambda scores: [one - min(scores) if len(scores) > 8 else one for one in scores],
    "the last of more than sixteen is forgotten": lambda scores: [*scores[:16], *[scores[0]] * (len(scores) - 16)],
}


@pytest.mark.parametrize("wrong", FULL_REQUESTS.values(), ids=FULL_REQUESTS)
def test_what_goes_wrong_in_full_requests_alone_is_refused(wrong: Shuffle) -> None:
    with reranking("vllm", lambda query, documents: wrong(pointwise()(query, documents))) as server:
        with pytest.raises(UnfitServerError, match=r"get other scores in a request of 32 texts than in one of (16|4)"):
            probe(server)
        assert probe(server, batch_size=8).findings == ()
    with embedding(
        lambda texts, _: [vector(texts[number]) for number in map(int, wrong([*range(len(texts))]))]
    ) as server:
        if wrong([*range(32)]) != [*range(32)]:
            with pytest.raises(UnfitServerError, match="get other vectors in a request of 32 texts"):
                probe(server, BGE)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("<e", "little-endian float32"),
        ("<d", "little-endian float32"),
        (">f", "little-endian float32"),
        ("<f", "base64"),
    ],
)
def test_vectors_that_are_packed_otherwise_are_refused(kind: str, said: str) -> None:
    """As other numbers, or in another order: as float32 they are finite, and of some length."""

    def answer(_: FakeServer, method: str, path: str, body: Any) -> tuple[int, Any]:
        rows = [[value / 4 for value in vector(text)] for text in body["input"]]
        if body["encoding_format"] == "base64":
            packed = [struct.pack(f"{kind[0]}{len(row)}{kind[1]}", *reversed(row)) for row in rows]
            answers: list[Any] = [base64.b64encode(one).decode() for one in packed]
        else:
            answers = rows
        return 200, {"data": [{"index": number, "embedding": one} for number, one in enumerate(answers)]}

    with FakeServer("openai", answer) as server, pytest.raises(EvalkitError, match=said):
        probe(server, BGE)


def refusing(backend: str, refuses: Callable[[str], bool], status: int = 400, **settings: Any) -> FakeServer:
    """A server that refuses requests with such a text."""

    def answer(fake: FakeServer, method: str, path: str, body: Any) -> tuple[int, Any]:
        texts = body.get("text_2") or body.get("input")
        if any(map(refuses, texts)):
            return status, {"message": "invalid input"}
        return fake.described(method, path, body)

    return FakeServer(backend, answer, **settings)


def is_blank(text: str) -> bool:
    return not text.strip()


@pytest.mark.parametrize("model", ["bge-reranker-base", BGE])
def test_a_server_that_refuses_blank_or_long_texts_is_reported_and_used(model: str) -> None:
    with refusing("vllm", is_blank) as server:
        assert "a blank text is not answered as asked" in findings(server, model)
    with refusing("vllm", lambda text: len(text) > 600, 422) as server:
        assert "a text of more than 512 tokens is not cut but refused; backend.max_characters=N" in findings(
            server, model
        )
        assert findings(server, model, max_characters=500) == ""


@pytest.mark.parametrize("value", [None, "NaN", []])
def test_a_blank_text_that_gets_no_number_is_reported(value: Any) -> None:
    def rescore(query: str, documents: list[str]) -> list[Any]:
        return [score(query, one) if one else value for one in documents]

    with reranking("vllm", rescore) as server:
        assert "a blank text is not answered as asked" in findings(server, retries=0)


def test_blank_texts_that_are_left_out_are_reported() -> None:
    with reranking("jina", lambda query, documents: [sigmoid(score(query, one)) for one in documents if one]) as server:
        assert "a blank text is not answered as asked" in findings(server, retries=0)


@pytest.mark.parametrize(
    ("backend", "shape", "finding"),
    [
        ("vllm", sigmoid, "all within 0 and 1, though raw scores were asked for"),
        ("jina", float, "these are no probabilities, which this backend is meant to give"),
        ("jina", lambda value: round(sigmoid(value), 1), "scores are 0 or 1, or as good as that: saturated"),
        ("jina", lambda _: 1.0, "the same answer to 4 different texts"),
        ("vllm", lambda _: 0.25, "the same answer to 4 different texts"),
    ],
)
def test_scores_that_are_not_what_they_are_meant_to_be_are_reported(
    backend: str, shape: Callable[[float], float], finding: str
) -> None:
    with reranking(backend, pointwise(shape)) as server:
        assert finding in findings(server)


def test_scores_that_do_not_depend_on_the_query_are_reported() -> None:
    with reranking("vllm", lambda _, documents: [float(len(document) % 37) for document in documents]) as server:
        assert "for another query: is the query read?" in findings(server)


def test_the_command_says_in_one_line_that_a_server_ranks_lists() -> None:
    with reranking("jina", LISTWISE["less the list's mean"]) as server:
        done = run_here(
            "task=demo-zh", "limit=3", "model=bge-reranker-base", "backend=jina", f"backend.url={server.url}"
        )
        assert not server.posts
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith(
        f"evalkit: jina at {server.url} runs BAAI/bge-reranker-base, and the score of"
    )
    assert "Traceback" not in done.stderr


def test_a_server_of_vectors_that_do_not_belong_to_their_texts_is_refused_or_reported() -> None:
    wrong: dict[str, Callable[[list[str], Any], list[Any]]] = {
        "its vectors are of 6 and of 8 numbers": lambda texts, _: [
            vector(one)[: 8 if texts[1:] else 6] for one in texts
        ],
        "a text's vector depends on what else a request holds": lambda texts, _: [
            list(np.add(vector(one), len(texts))) for one in texts
        ],
    }
    for words, vectors in wrong.items():
        with embedding(vectors) as server, pytest.raises(UnfitServerError, match=words):
            probe(server, BGE)
    with embedding(lambda texts, _: [vector("one") for _ in texts]) as server:
        assert "the same answer to 4 different texts" in findings(server, BGE)


def test_prompts_that_a_server_puts_before_texts_itself_are_reported() -> None:
    prompt = "为这个句子生成表示以用于检索相关文章："
    with embedding(lambda texts, _: [vector(text.removeprefix(prompt)) for text in texts]) as server:
        assert f"a query gets the same vector with the prompt {prompt!r} and without" in findings(server, BGE)
    own = {"role_field": "input_type", "query_role": "query", "document_role": "passage"}

    def by_role(texts: list[str], body: dict[str, Any]) -> list[list[float]]:
        return [vector(body["input_type"] + text) for text in texts]

    with embedding(by_role) as server:
        assert "the server itself tells queries from documents" in findings(server, BGE, **own)
        assert findings(server, BGE, recipe={"query_prompt": ""}, **own) == ""


def test_a_tokenizer_at_hand_says_where_a_text_ends(tiny_bert_reranker: Path) -> None:
    tokenizer = Tokenizer.from_file(str(tiny_bert_reranker / "tokenizer.json"))
    tokenizer.no_padding()
    otherwise, shorter = "is answered otherwise than the same cut to 128 tokens", "is answered as its first"

    def cutting(length: int) -> Rescore:
        def rescore(query: str, documents: list[str]) -> list[float]:
            tokenizer.enable_truncation(length)
            kept = [tokenizer.encode(query, document).ids for document in documents]
            return [zlib.crc32(str(ids).encode()) / 2**30 for ids in kept]

        return rescore

    for length, words in (
        (128, ""),
        (129, otherwise),
        (512, otherwise),
        (90, shorter),
        (100, shorter),
        (115, "the last 8 tokens"),
    ):
        with reranking("vllm", cutting(length)) as server:
            recipe = {"path": tiny_bert_reranker, "max_length": 128}
            said = findings(server, "local-cross-encoder", served_model="mine", recipe=recipe)
            assert words in said if words else said == "", length


def test_what_was_found_stands_in_the_result_also_where_all_is_stored(tmp_path: Path) -> None:
    def run(server: FakeServer) -> Result:
        model = evalkit.load_model("bge-reranker-base", backend="vllm", server={"url": server.url}, cache_dir=tmp_path)
        return evalkit.evaluate(model, PLAIN)

    with reranking("vllm", pointwise(sigmoid)) as server:
        first = run(server)
        asked = len(server.requests)
        second = run(server)
        assert len(server.requests) == asked
    assert second.timing.items_from_store == second.usage.items
    (finding,) = first.findings
    assert finding.startswith("vllm: the probe's scores go from")
    assert second.findings == first.findings


def test_the_probe_is_no_item_of_a_run(tmp_path: Path) -> None:
    with fake("vllm") as server:
        model = evalkit.load_model("bge-reranker-base", backend="vllm", server={"url": server.url}, cache_dir=tmp_path)
        result = evalkit.evaluate(model, PLAIN)
        assert sum(len(request.body["text_2"]) for request in server.posts) == result.usage.items == 6
        assert len(server.probes) == 16  # the last one asks whether the model is still the same


def test_a_probe_is_tried_again_as_any_request_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evalkit.backends.servers.client.FIRST_WAIT", 0.02)
    with fake("vllm") as server:
        server.answer = lambda fake, *request: (
            fake.described(*request) if len(fake.probes) % 2 == 0 else (503, {"error": "busy"})
        )
        found = probe(server)
        assert (found.findings, found.requests, len(server.probes)) == ((), 15, 30)


MODELS = {"bge-reranker-base": "vllm", BGE: "openai"}


def other_model(fake: FakeServer, method: str, path: str, body: Any) -> tuple[int, Any]:
    """Another model by the same name: it reads texts backwards."""
    turned = {
        name: [text[::-1] for text in value] if isinstance(value, list) else value for name, value in body.items()
    }
    return fake.described(method, path, turned)


@pytest.mark.parametrize("name", MODELS)
def test_a_server_that_changes_its_model_between_two_runs(name: str, tmp_path: Path) -> None:
    """Its answers are not mixed with those of before, nor where a run that makes them anew dies on the way."""
    half, rest = (replace(PLAIN, requests=PLAIN.requests[start : start + 1]) for start in (0, 1))
    with fake(MODELS[name]) as server:

        def scores(task: Any, cache: Any = "on") -> Any:
            own = {"url": server.url, "batch_size": 1, "concurrency": 1, "retries": 0}
            model = evalkit.load_model(name, backend=MODELS[name], server=own, cache_dir=tmp_path)
            return evalkit.evaluate(model, task, cache=cache).candidates["score"].tolist()

        before = scores(half)
        server.answer = other_model
        assert scores(half) == before  # nothing is asked
        with pytest.raises(EvalkitError, match=r"runs another model under the same name, .* cache=refresh"):
            scores(rest)
        after = scores(PLAIN, "off")
        answered = len(server.posts)

        def dies(fake: FakeServer, method: str, path: str, body: Any) -> tuple[int, Any]:
            if is_probe(body) or len(server.posts) <= answered + 2:
                return other_model(fake, method, path, body)
            return 401, {"message": "gone"}

        server.answer = dies
        with pytest.raises(EvalkitError, match="answered 401"):
            scores(PLAIN, "refresh")
        server.answer = other_model
        assert scores(PLAIN) == after
        assert scores(half) == after[:3] != before


@pytest.mark.parametrize("name", MODELS)
def test_a_server_that_changes_its_model_during_a_run(name: str, tmp_path: Path) -> None:
    """Its scores are of two models: they are not used, neither now nor from the store."""
    with fake(MODELS[name]) as server:

        def scores() -> Any:
            own = {"url": server.url, "batch_size": 1, "concurrency": 1, "retries": 0}
            model = evalkit.load_model(name, backend=MODELS[name], server=own, cache_dir=tmp_path)
            return evalkit.evaluate(model, PLAIN).candidates["score"].tolist()

        def changing(fake: FakeServer, *request: Any) -> tuple[int, Any]:
            return (other_model if len(fake.posts) > 2 else FakeServer.described)(fake, *request)

        server.answer = changing
        with pytest.raises(EvalkitError, match=r"its model changed on the way\. The scores .* are not used"):
            scores()
        asked = len(server.posts)
        after = scores()
        assert len(server.posts) == 2 * asked, "all is asked for again"
    with fake(MODELS[name]) as server:
        server.answer = other_model
        assert evalkit.evaluate(
            evalkit.load_model(name, backend=MODELS[name], server={"url": server.url}), PLAIN, cache="off"
        ).candidates["score"].tolist() == pytest.approx(after)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("status", [400, 403])
def test_a_run_that_could_not_ask_at_its_end_is_compared_by_the_next(name: str, status: int, tmp_path: Path) -> None:
    """Which finds all its scores in the store, some of them another model's."""
    with fake(MODELS[name]) as server:

        def scores() -> Any:
            own = {"url": server.url, "batch_size": 1, "concurrency": 1, "retries": 0}
            model = evalkit.load_model(name, backend=MODELS[name], server=own, cache_dir=tmp_path)
            return evalkit.evaluate(model, PLAIN).candidates["score"].tolist()

        items = 6 if name == "bge-reranker-base" else 8

        def changing(fake: FakeServer, method: str, path: str, body: Any) -> tuple[int, Any]:
            if len(fake.posts) >= items and is_probe(body):
                return status, {"message": "restarting"}
            return (other_model if len(fake.posts) > items - 2 else FakeServer.described)(fake, method, path, body)

        server.answer = changing
        with pytest.raises(EvalkitError, match=f"answered {status}"):
            scores()
        server.answer = other_model
        with pytest.raises(EvalkitError, match="runs another model under the same name"):
            scores()
        server.answer = FakeServer.described
        scores()  # the first model is back: a change and a change back can't be seen
        asked = len(server.requests)
        scores()
        assert len(server.requests) == asked, "it was compared, and nothing is asked any more"


def test_a_server_that_changes_its_model_between_two_runs_of_one_object(tmp_path: Path) -> None:
    """As in a notebook: what is stored of the first model stays."""
    half = replace(PLAIN, requests=PLAIN.requests[:1])
    with fake("vllm") as server:
        own = {"url": server.url, "retries": 0}
        model = evalkit.load_model("bge-reranker-base", backend="vllm", server=own, cache_dir=tmp_path)
        before = evalkit.evaluate(model, half).candidates["score"].tolist()
        server.answer = other_model
        for _ in range(2):
            with pytest.raises(EvalkitError, match="runs another model under the same name"):
                evalkit.evaluate(model, PLAIN)
        assert evalkit.evaluate(model, half).candidates["score"].tolist() == before
        server.answer = FakeServer.described
        assert evalkit.evaluate(model, PLAIN).candidates["score"].tolist()[:3] == before


COARSE: dict[str, Callable[[float], float]] = {
    "bf16": lambda value: float(torch.tensor(value).to(torch.bfloat16)),
    "fp16": lambda value: float(np.float16(value)),
    "probabilities of four digits": lambda value: round(sigmoid(value), 4),
    "probabilities in bf16": lambda value: float(torch.tensor(sigmoid(value)).to(torch.bfloat16)),
}


@pytest.mark.parametrize("shape", COARSE.values(), ids=COARSE)
def test_an_honest_server_that_computes_coarsely_is_not_blamed(shape: Callable[[float], float]) -> None:
    """Its scores hardly change with the last words of a long text."""

    def rescore(query: str, documents: list[str]) -> list[float]:
        words = [read(one).split() for one in documents]
        means = [sum(zlib.crc32(word.encode()) % 1000 for word in one) / max(len(one), 1) / 250 for one in words]
        return [shape(mean - 2 + 0.2 * len(set(query) & set(one))) for mean, one in zip(means, documents, strict=True)]

    with reranking("vllm", rescore) as server:
        assert "is answered as its first" not in findings(server)


def test_full_requests_are_judged_by_their_own_range() -> None:
    """A server whose scores of them are larger, and so rounded more coarsely, than those of the probe's four documents."""

    def rescore(query: str, documents: list[str]) -> list[float]:
        scale = 1 + 0.004 * (len(documents) % 3)
        return [(20 if "第1" in one else 1) * scale * score(query, one) / 4 for one in documents]

    with reranking("vllm", rescore) as server:
        probe(server)


@pytest.mark.parametrize("status", [401, 404, 503])
def test_what_no_task_need_hold_refuses_no_run(status: int) -> None:
    with refusing("vllm", lambda text: is_blank(text) or len(text) > 1_200, status) as server:
        said = findings(server, retries=0)
        assert "a blank text is not answered as asked" in said
        assert "is not cut but refused" in said


@pytest.mark.parametrize(
    ("before", "now", "same"),
    [
        ([0.9997, 0.0003, 0.5], [0.993, 0.0003, 0.5], False),  # logits of 8 and 5
        ([0.9997, 0.0003, 0.5], [0.9997, 0.007, 0.5], False),
        ([0.9997, 0.0003, 0.5], [0.9995, 0.0005, 0.501], True),  # fp16's steps
        ([1.0, 0.0, 0.5], [1.0, 0.0, 0.5], True),
        ([8.0, -8.0, 0.1], [8.02, -8.02, 0.1], True),
        ([8.0, -8.0, 0.1], [8.0, -8.0, 1.0], False),
    ],
)
def test_probabilities_of_another_model_are_told_by_their_logits(
    before: list[float], now: list[float], same: bool
) -> None:
    assert engine._same_model(np.array(before, np.float32), np.array(now, np.float32)) is same


def test_vectors_of_another_length_are_another_model(tmp_path: Path) -> None:
    with embedding(lambda texts, _: [vector(text)[:4] for text in texts]) as server:
        model = {"backend": "openai", "server": {"url": server.url}, "cache_dir": tmp_path}
        half = replace(PLAIN, requests=PLAIN.requests[:1])
        evalkit.evaluate(evalkit.load_model(BGE, **model), half)
        server.answer = FakeServer.answer
        with pytest.raises(EvalkitError, match="another model under the same name"):
            evalkit.evaluate(evalkit.load_model(BGE, **model), PLAIN)


BLANK = make_task(
    (["感冒了应该吃什么药"], [("多喝水", 1), ("感冒药一天三次", 1)]),
    (["如何办理护照"], [("出入境管理局", 1), (" \n ", 0), ("护照" * 400, 0)]),
)


@pytest.mark.parametrize(("model", "backend"), [("bge-reranker-base", "vllm"), (BGE, "openai")])
@pytest.mark.parametrize("batch_size", [1, 32])
def test_a_text_that_is_refused_is_named(model: str, backend: str, batch_size: int) -> None:
    def message(server: FakeServer) -> str:
        own = {"url": server.url, "batch_size": batch_size, "concurrency": 1}
        with pytest.raises(EvalkitError) as caught:
            evalkit.evaluate(evalkit.load_model(model, backend=backend, server=own), BLANK, cache="off")
        return str(caught.value)

    request = BLANK.requests[1]
    blank, long = request.candidates[1:]
    pair = f"query {request.query.query_id}, " if backend == "vllm" else ""
    with refusing(backend, is_blank) as server:
        said = message(server)
    assert 'answered 400: \'{"message": "invalid input"}\'' in said
    assert "which is blank" in said
    assert said.endswith(f"({pair}document {blank.doc_id} of {BLANK.name})")
    with refusing(backend, lambda text: len(text) > 600, 500) as server:
        said = message(server)
    assert "which has 8" in said
    assert "too long: " not in said
    assert (" characters, the longest of " in said) == (batch_size > 1)
    assert said.endswith(f"({pair}document {long.doc_id} of {BLANK.name})")


def test_a_request_that_is_refused_for_its_size_names_no_text() -> None:
    with refusing("vllm", lambda _: False) as server:
        server.mishaps = [says(413, {"error": "batch size 3 > 2", "error_type": "Validation"})]
        scorer = served("vllm", server.url).runnable.scorer
        assert isinstance(scorer, PairScorer)
        with pytest.raises(EvalkitError, match=r"the longest of its 3 is not refused: .* may do$"):
            scorer.score([("q", DOCUMENTS[0][:5]), ("q", "b"), ("q", "c")])


@pytest.mark.parametrize(
    ("model", "backend"), [("bge-reranker-base", "vllm"), (BGE, "openai"), ("bge-reranker-base", "tei")]
)
@pytest.mark.parametrize("batch_size", [1, 32])
def test_a_server_that_fails_at_all_blames_no_text(model: str, backend: str, batch_size: int) -> None:
    """As after an error of its GPU: what it answered when it was probed fails too."""
    with fake(backend, **({"model": "BAAI/bge-reranker-base"} if backend == "tei" else {})) as server:
        own = {"url": server.url, "batch_size": batch_size, "concurrency": 1}
        loaded = evalkit.load_model(model, backend=backend, server=own)
        assert loaded.runnable.scorer
        error = 500, {"message": "CUDA error: device-side assert triggered"}
        server.answer = lambda fake, *request: error if fake.posts else fake.described(*request)
        with pytest.raises(EvalkitError, match=r"no text of the task is the cause$") as caught:
            evalkit.evaluate(loaded, BLANK, cache="off")
    assert 'answered 500: \'{"message": "CUDA error: device-side assert triggered"}\'; its log says why' in str(
        caught.value
    )
    assert "refused is" not in str(caught.value)


def test_a_server_that_dies_after_a_refusal_blames_no_text() -> None:
    with refusing("vllm", lambda text: len(text) > 600, 500) as server:
        scorer = served("vllm", server.url, retries=0).runnable.scorer
        assert isinstance(scorer, PairScorer)
        described = server.answer
        server.answer = lambda fake, *request: described(fake, *request) if len(fake.posts) < 2 else (503, {})
        with pytest.raises(EvalkitError, match="answered 500") as caught:
            scorer.score([("q", "护" * 700), ("q", "b")])
    assert "refused is" not in str(caught.value)


def examined(server: FakeServer) -> dict[str, Opinion]:
    model = served(server.backend, server.url)
    return {check.name: opinion for check, opinion in judge_evidence(examine(model, PLAIN, seconds=5))}


def test_doctor_shows_the_same_probe() -> None:
    with fake("vllm") as server:
        sound = examined(server)
    assert sound["server"].verdict == "ok"
    assert "the same request twice gives the same answer; " in sound["server"].seen
    assert sound["server"].seen.endswith("(15 requests)")
    assert sound["weights"] == Opinion("skipped", "a server has them: not seen from here")
    with reranking("vllm", pointwise(sigmoid)) as server:
        found = examined(server)["server"]
    assert found.verdict == "warning"
    assert "all within 0 and 1, though raw scores were asked for" in found.seen


@pytest.mark.parametrize("rescore", LISTWISE.values(), ids=LISTWISE)
def test_doctor_finds_a_server_that_ranks_lists_at_fault(rescore: Rescore) -> None:
    with reranking("jina", rescore) as server:
        found = examined(server)
    assert found["server"].verdict == "fault"
    assert "ranks whole lists" in found["server"].seen
    assert {opinion.verdict for name, opinion in found.items() if name != "server"} == {"skipped"}


# --- the model that answers are said to be of

SERVED = {"bge-reranker-base": "BAAI/bge-reranker-base", BGE: "BAAI/bge-base-zh-v1.5"}


def answering_as(backend: str, said: Any) -> FakeServer:
    """An honest server whose answers name that model."""

    def answer(fake: FakeServer, method: str, path: str, body: Any) -> tuple[int, Any]:
        status, content = ANSWERS[backend](fake, method, path, body)
        return status, {**content, "model": said}

    return FakeServer(backend, answer)


@pytest.mark.parametrize(
    ("backend", "model"),
    [("vllm", "bge-reranker-base"), ("jina", "bge-reranker-base"), ("vllm", BGE), ("openai", BGE)],
)
@pytest.mark.parametrize("said", ["intfloat/e5-large", "BAAI/bge-reranker-large", "/models/gte-base", "m"])
def test_answers_of_another_model_are_a_finding(backend: str, model: str, said: str) -> None:
    with answering_as(backend, said) as server:
        found = probe(server, model)
    finding = f"the server says that it answered with {said!r}, asked was {SERVED[model]!r}"
    assert found.findings == (finding,)
    assert finding in found.seen


@pytest.mark.parametrize(
    "said",
    ["BAAI/bge-reranker-base", "baai/BGE-Reranker-Base", "bge-reranker-base", "mirror/bge-reranker-base", "/data/bge-reranker-base",
     "BAAI/bge-reranker-base@2cfc18c9", "bge-reranker-base-2024", "bge-reranker-base:latest", "/opt/ml/model", "/data", "", None, 7,
     "/cache/models--BAAI--bge-reranker-base/snapshots/2cfc18c9415c912f9d8155881c133215df768a70", ["x"]],
)  # fmt: skip
def test_another_spelling_of_a_model_is_no_other(said: Any) -> None:
    with answering_as("vllm", said) as server:
        assert probe(server).findings == ()


def test_an_alias_and_the_model_behind_it_are_one() -> None:
    for said, findings in (("prod", 0), ("BAAI/bge-reranker-base", 0), ("BAAI/bge-reranker-large", 1)):
        with answering_as("vllm", said) as server:
            assert len(probe(server, served_model="prod").findings) == findings
