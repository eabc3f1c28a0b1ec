"""Listwise models behind servers: one request per query, with all its candidates, and never a part of a list."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import run_here
from fake_servers import FakeServer, score
from made_tasks import make_task
from task_files import write_jsonl

import evalkit
from evalkit import Model
from evalkit.errors import EvalkitError, UnfitServerError
from evalkit.records import Task
from evalkit.scoring.items import shown_order

BACKENDS = ("cohere", "jina", "tei", "vllm", "infinity-server")
TASK = make_task(
    *(
        ([f"第{query}个问题"], [(f"回答{query}之{row}", int(row < 2)) for row in range(70 - query)])
        for query in range(6)
    )
)  # lists longer than what evalkit asks for of pairs at once


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COHERE", "JINA"):
        monkeypatch.setenv(f"{name}_API_KEY", "k" * 20)


def listwise(query: str, documents: list[str]) -> list[float]:
    """Scores that depend on the list and on the place in it."""
    scores = [score(query, document) for document in documents]
    return [float(np.float32(one - sum(scores) / len(scores) - place / 64)) for place, one in enumerate(scores)]


def pointwise(query: str, documents: list[str]) -> list[float]:
    return [score(query, document) for document in documents]


def asked(body: Any) -> tuple[str, list[str]]:
    return body.get("query", body.get("text_1")), body.get("documents") or body.get("texts") or body["text_2"]


def ranking(backend: str, rescore: Any = listwise, **settings: Any) -> FakeServer:
    def answer(fake: FakeServer, method: str, path: str, body: Any) -> tuple[int, Any]:
        if method == "GET":
            return fake.described(method, path, body)
        scores = rescore(*asked(body))
        name = "score" if backend in ("vllm", "tei") else "relevance_score"
        entries = [{"index": number, name: one} for number, one in enumerate(scores)][::-1]
        return 200, entries if backend == "tei" else {"data" if backend == "vllm" else "results": entries}

    return FakeServer(backend, answer, **settings)


def served(server: FakeServer, model: str = "jina-reranker-v3", recipe: Any = None, **settings: Any) -> Model:
    where = {"url": server.url, "retries": 1, **settings}
    if server.backend == "tei":
        where.setdefault("served_model", server.model)
    return evalkit.load_model(model, backend=server.backend, server=where, cache_dir=None, **(recipe or {}))


def run(model: Model, cache: Any = "off", task: Task = TASK) -> Any:
    return evalkit.evaluate(model, task, cache=cache)


def expected(seed: int = 42) -> list[float]:
    scores = []
    for request in TASK.requests:
        query, documents = request.query.texts[0], sorted(candidate.text for candidate in request.candidates)
        shown = [documents[place] for place in shown_order(query, documents, seed, 0)]
        found = dict(zip(shown, listwise(query, shown), strict=True))
        scores += [found[candidate.text] for candidate in request.candidates]
    return scores


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_request_holds_a_whole_list(backend: str) -> None:
    with ranking(backend, limit=100) as server:
        result = run(served(server))
        assert len(server.posts) == len(TASK.requests)
        assert sorted(len(asked(post.body)[1]) for post in server.posts) == [65, 66, 67, 68, 69, 70]
        for post in server.posts:
            assert "truncate_prompt_tokens" not in post.body  # what vLLM would cut is the whole list's prompt
    assert result.candidates["score"].tolist() == expected()
    assert result.model.kind == "listwise"
    assert result.backend["listwise"] is True
    assert result.backend["outputs"] == "scores of whole lists"
    assert result.config["model"]["order_seed"] == 42
    assert result.config["model"]["permutations"] == 1


def test_two_seeds_differ_and_are_two_results() -> None:
    with ranking("jina") as server:
        first = run(served(server))
        other = run(served(server, recipe={"order_seed": 7}))
    assert other.candidates["score"].tolist() == expected(7) != first.candidates["score"].tolist()
    assert other.deviations["order_seed"] == 7
    assert "order_seed" not in first.deviations
    assert other.experiment != first.experiment


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("jina-reranker-v3.5", {}),
        ("bge-reranker-base", {"listwise": True}),
        ("bge-reranker-base", {"served_model": "jina-reranker-v3"}),
        ("bge-reranker-base", {"served_model": "ByteDance/ListConRanker"}),
        ("local-cross-encoder", {"served_model": "lightonai/LightOn-rerank-LW-0.8B"}),
    ],
)
def test_it_is_on_for_known_models_and_where_the_user_says_so(model: str, settings: dict[str, Any]) -> None:
    with ranking("jina") as server:
        assert run(served(server, model, **settings)).candidates["score"].tolist() == expected()


def test_a_model_of_pairs_stays_one_and_the_probe_refuses_lists() -> None:
    with ranking("jina", pointwise) as server:
        model = served(server, "bge-reranker-base")
        assert model.settings.kind == "cross-encoder"
        assert run(model).model.kind == "cross-encoder"
        assert max(len(asked(post.body)[1]) for post in server.posts) == 32
    with ranking("jina") as server:
        with pytest.raises(UnfitServerError, match=r"ranks whole lists, .* backend\.listwise=true"):
            run(served(server, "bge-reranker-base"))
        with pytest.raises(UnfitServerError, match="ranks whole lists"):  # the user's word against its name
            run(served(server, "bge-reranker-base", served_model="jina-reranker-v3", listwise=False))
        assert not server.posts


@pytest.mark.parametrize(
    ("backend", "settings", "size"),
    [
        ("jina", {"batch_size": 66}, 66),
        ("tei", {}, 32),
        ("tei", {"batch_size": 12}, 12),
        ("vllm", {"batch_size": 5}, 5),
    ],
)
def test_a_list_that_would_be_split_is_refused(backend: str, settings: dict[str, Any], size: int) -> None:
    with ranking(backend) as server:
        with pytest.raises(
            EvalkitError,
            match=rf"has \d+ documents, and a request holds {size} at most .* must see them together.*\(query q\d of made\)",
        ):
            run(served(server, **settings))
        assert not server.posts


def test_a_refused_request_names_the_list() -> None:
    def answer(fake: FakeServer, method: str, path: str, body: Any) -> tuple[int, Any]:
        query, documents = asked(body)
        if "第3个" in query:
            return 422, {"detail": "too many tokens"}
        return 200, {
            "results": [{"index": at, "relevance_score": one} for at, one in enumerate(listwise(query, documents))]
        }

    with FakeServer("jina", answer) as server, pytest.raises(EvalkitError) as caught:
        run(served(server))
    assert "refused is the request of query '第3个问题' with its 67 documents" in str(caught.value)
    assert str(caught.value).endswith("(query q3 of made)")


@pytest.mark.parametrize(
    ("model", "backend", "settings", "said"),
    [
        ("jina-reranker-v3", "jina", {"listwise": False}, "jina-reranker-v3 is a listwise model"),
        ("bge-base-zh-v1.5", "jina", {"listwise": True}, "is of the kind embedder, which ranks no lists"),
        ("text-embedding-3-small", "openai", {"listwise": True}, "has no effect on backend=openai"),
    ],
)
def test_contradictions_are_refused(model: str, backend: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(EvalkitError, match=said):
        evalkit.load_model(model, backend=backend, server={"url": "http://127.0.0.1:9", **settings})


@pytest.mark.parametrize("field", ["max_query_length", "block_size", "max_length"])
def test_a_server_can_not_be_told_how_to_read_a_list(field: str) -> None:
    recipe: Any = {field: 7}
    model = evalkit.load_model("jina-reranker-v3", backend="jina", server={"url": "http://127.0.0.1:9"}, **recipe)
    with pytest.raises(EvalkitError, match=rf"model\.{field}=7: backend=jina can't be told so"):
        _ = model.runnable


@pytest.mark.parametrize(
    "backend", ["onnx", "openvino", "sentence-transformers", "flagembedding", "transformers", "infinity", "openai"]
)
def test_no_backend_of_pairs_runs_a_listwise_model(backend: str) -> None:
    with pytest.raises(EvalkitError, match=r"can't run jina-reranker-v3, whose kind is listwise"):
        evalkit.load_model("jina-reranker-v3", backend=backend)


def test_settings_of_the_order_need_a_listwise_model() -> None:
    with pytest.raises(EvalkitError, match=r"model\.permutations has no effect on bge-reranker-base \(cross-encoder\)"):
        evalkit.load_model("bge-reranker-base", permutations=3)
    with pytest.raises(EvalkitError, match=r"model\.order_seed says nothing to bge-base-zh-v1\.5"):
        evalkit.load_model("bge-base-zh-v1.5", order_seed=3)


def test_refining_lists_is_refused_by_name() -> None:
    for dtype, refine in (("auto", None), ("bf16", "fp32")):
        with pytest.raises(EvalkitError, match=r"has no effect on jina-reranker-v3, which ranks whole lists"):
            evalkit.evaluate(evalkit.load_model("jina-reranker-v3", dtype=dtype), TASK, refine=refine)


def test_what_the_probe_shows_of_lists() -> None:
    with ranking("jina") as server:
        scorer: Any = served(server).runnable.scorer
        assert scorer.probe.findings == ()
        assert len(server.probes) == scorer.probe.requests == 8
        assert max(len(asked(post.body)[1]) for post in server.probes) == 100
    with ranking("jina", lambda _, documents: [0.5] * len(documents)) as server:
        scorer = served(server).runnable.scorer
        assert scorer.probe.findings == (
            "the same score for 4 different texts: figures depend on the order of ties alone",
        )


def relevance(query: str, documents: list[str]) -> list[float]:
    """As a model's scores: what stands in the middle of the list counts for less, and each score is a little off."""
    scores = listwise(query, documents)
    place = np.linspace(-1, 1, len(documents))
    return [float(np.float32(one * (0.7 + 0.3 * off * off))) for one, off in zip(scores, place, strict=True)]


def cut(length: int, rest: Any) -> Any:
    """A server that reads so many documents, and answers for the others with what `rest` makes of their places."""

    def rescore(query: str, documents: list[str]) -> list[float]:
        return relevance(query, documents[:length]) + [rest(place) for place in range(length, len(documents))]

    return rescore


def moved(order: Any) -> Any:
    """A server that gives a document the score of another one: `order` says of which, of so many documents."""

    def rescore(query: str, documents: list[str]) -> list[float]:
        scores = relevance(query, documents)
        return [scores[place] for place in order(len(documents))] if len(documents) > 20 else scores

    return rescore


FAULTS = {
    "reversed": (moved(lambda count: range(count)[::-1]), "scores that do not follow the texts .* in reverse order"),
    "rotated": (moved(lambda count: [*range(1, count), 0]), "scores that do not follow the texts .* in another order"),
    "swapped": (moved(lambda count: [place ^ 1 for place in range(count - count % 2)]), "do not follow the texts"),
    "sorted": (lambda query, documents: sorted(relevance(query, documents))[::-1], "do not follow the texts"),
    "by place": (lambda _, documents: [1.0 - place for place, _ in enumerate(documents)], "do not follow the texts"),
    "of one text": (lambda query, documents: relevance(query, documents[:20]) * 5, "follow the texts"),
    "cut": (cut(32, lambda _: 0.0), "the last 38 of 70 different texts the same score, .* it cuts lists short"),
    "cut late": (cut(66, lambda _: -9.0), "the last 4 of 70 different texts the same score"),
    "cut, by place": (cut(40, lambda place: -float(place)), "do not follow the texts"),
    "cut at the end, by place": (cut(67, lambda place: -float(place)), r"in places \d+ to 70 of 70 .* cuts or splits"),
    "end in another order": (
        moved(lambda count: [*range(count - 20), *np.random.default_rng(3).permutation(range(count - 20, count))]),
        r"the texts in places \d+ to 70 of 70 scores that do not follow",
    ),
    "one score for long lists": (lambda q, ds: relevance(q, ds) if len(ds) < 20 else [0.5] * len(ds), "the same score"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_answers_that_are_not_those_of_a_long_lists_texts_are_refused(fault: str) -> None:
    rescore, said = FAULTS[fault]

    def padded(query: str, documents: list[str]) -> list[float]:
        return (rescore(query, documents) + [0.0] * len(documents))[: len(documents)]

    with ranking("jina", padded) as server:
        with pytest.raises(UnfitServerError, match=said):
            run(served(server))
        assert not server.posts


def in_blocks(query: str, documents: list[str]) -> list[float]:
    starts = range(0, len(documents), 32)
    return [score for start in starts for score in relevance(query, documents[start : start + 32])]


@pytest.mark.parametrize(
    ("rescore", "said"),
    [
        (in_blocks, "the first 64 of 70 texts keep their scores when the last 4 are left out: the server splits lists"),
        (pointwise, "the first 66 of 70 texts keep their scores .* or scores each text alone"),
        (
            lambda query, documents: [-one for one in relevance(query, documents)],
            "70 texts those that answer the query",
        ),
    ],
)
def test_what_a_long_list_shows_is_said_beside_the_figure(rescore: Any, said: str) -> None:
    with ranking("jina", rescore) as server:
        result = run(served(server))
    assert any(re.search(said, text) for _, text in result.remarks), result.remarks


def test_lists_are_probed_as_long_as_the_tasks() -> None:
    short = make_task((["一个问题"], [(f"回答{row}" * 90, int(row < 2)) for row in range(6)]))
    with ranking("jina", relevance) as server:
        assert not [text for _, text in run(served(server)).remarks if "list of" in text]
        lengths = [len(asked(post.body)[1]) for post in server.probes]
        assert lengths.count(70) == 2
        run(served(server), task=short)
        longest = max((asked(post.body)[1] for post in server.probes[len(lengths) :]), key=len)
    assert len(longest) == 24
    assert {len(text) for text in longest} == {6 * 270 // 24}


def test_a_long_list_that_is_refused_is_told_and_the_run_names_its_own() -> None:
    def answer(fake: FakeServer, method: str, path: str, body: Any) -> tuple[int, Any]:
        query, documents = asked(body)
        if len(documents) > 50:
            return 422, {"detail": "too many documents"}
        return 200, {
            "results": [{"index": at, "relevance_score": one} for at, one in enumerate(relevance(query, documents))]
        }

    with FakeServer("jina", answer) as server:
        scorer: Any = served(server).runnable_on(TASK).scorer
        assert any("a list of 70 texts of 40 characters" in finding for finding in scorer.probe.findings)
        with pytest.raises(EvalkitError, match="refused is the request of query"):
            run(served(server))


def test_a_run_that_goes_on_asks_for_lacking_lists_whole(tmp_path: Path) -> None:
    """The server breaks down after three lists; the run after it asks for the rest, and scores are those of an undisturbed run."""
    gone: list[int] = []

    def answer(fake: FakeServer, method: str, path: str, body: Any) -> tuple[int, Any]:
        query, documents = asked(body)
        if len(fake.posts) > 3 and not gone:
            return 403, {"detail": "quota"}
        return 200, {
            "results": [{"index": at, "relevance_score": one} for at, one in enumerate(listwise(query, documents))]
        }

    with FakeServer("jina", answer) as server:
        where = {"url": server.url, "retries": 1, "concurrency": 1}

        def go() -> Any:
            model = evalkit.load_model("jina-reranker-v3", backend="jina", server=where, cache_dir=tmp_path)
            return evalkit.evaluate(model, TASK)

        with pytest.raises(EvalkitError, match="403"):
            go()
        gone.append(1)
        before = len(server.posts)
        result = go()
        assert len(server.posts) - before == len(TASK.requests) - 3
        again = go()
        assert again.timing.items_from_store == again.usage.items
    assert result.candidates["score"].tolist() == again.candidates["score"].tolist() == expected()


def test_on_the_command_line(tmp_path: Path) -> None:
    rows = [
        {
            "query": request.query.texts[0],
            "positive": [one.text for one in request.candidates if one.gain],
            "negative": [one.text for one in request.candidates if not one.gain],
        }
        for request in TASK.requests
    ]
    write_jsonl(tmp_path / "made" / "test.jsonl", rows)
    words = [
        "task=local",
        f"task.path={tmp_path / 'made'}",
        f"cache_dir={tmp_path / 'c'}",
        f"results_dir={tmp_path / 'r'}",
    ]
    with ranking("jina") as server:
        where = ["model=bge-reranker-base", "backend=jina", f"backend.url={server.url}"]
        done = run_here(*words, *where, "backend.listwise=true", "model.permutations=3")
        assert done.code == 0, done.stderr
        assert len(server.posts) == 3 * len(TASK.requests)
    (result,) = evalkit.load_results(tmp_path / "r")
    assert result.deviations["permutations"] == 3
    assert result.deviations["listwise"] is True
    assert "shown in 3 shuffled orders (model.order_seed=42): the scores are their mean" in " ".join(
        done.stdout.split()
    )
