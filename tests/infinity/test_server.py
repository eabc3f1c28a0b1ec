"""A real infinity server, asked by evalkit as its users do, against transformers' own code and the server's own description."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chinese_texts import demo_pairs
from command import run_here
from infinity_server import InfinityServer
from jsonschema import Draft202012Validator
from transformers_reference import assert_same_ranking, reference_scores, reference_vectors, run_scores

import evalkit
from evalkit.backends.infinity_server import EMBED, RERANK
from evalkit.errors import EvalkitError
from evalkit.models.interfaces import PairScorer

PAIRS = demo_pairs(12)
TEXTS = ["passage: " + document for _, document in PAIRS]


def test_a_reranker_through_the_command(server: InfinityServer, tiny_reranker: Path, tmp_path: Path) -> None:
    done = run_here(
        "task=demo-zh", "limit=12", "model=local-cross-encoder", f"model.path={tiny_reranker}", "backend=infinity-server",
        f"backend.url={server.url}", "backend.served_model=reranker", f"results_dir={tmp_path}", "cache=off",
    )  # fmt: skip
    assert done.code == 0, done.stderr
    pairs, scores = run_scores(tmp_path, "demo-zh")
    assert len(pairs) == 120
    assert_same_ranking(scores, reference_scores(tiny_reranker, pairs))


def test_an_embedder_through_the_command(server: InfinityServer, e5_small: Path, tmp_path: Path) -> None:
    done = run_here(
        "task=demo-zh", "limit=4", "model=local-embedder", f"model.path={e5_small}", "model.pooling=mean",
        "model.query_prompt=query: ", "model.document_prompt=passage: ", "backend=infinity-server",
        f"backend.url={server.url}", "backend.served_model=e5", f"results_dir={tmp_path}", "cache=off",
    )  # fmt: skip
    assert done.code == 0, done.stderr
    pairs, scores = run_scores(tmp_path, "demo-zh")
    queries = {query: reference_vectors(e5_small, [f"query: {query}"])[0] for query in {query for query, _ in pairs}}
    documents = reference_vectors(e5_small, [f"passage: {text}" for _, text in pairs])
    expected = [queries[query] @ document for (query, _), document in zip(pairs, documents, strict=True)]
    assert_same_ranking(scores, np.array(expected))


def test_long_texts_and_small_requests(server: InfinityServer, tiny_reranker: Path) -> None:
    model = evalkit.load_model(
        "local-cross-encoder", path=str(tiny_reranker), backend="infinity-server",
        server={"url": server.url, "served_model": "reranker", "batch_size": 3},
    )  # fmt: skip
    scorer = model.runnable.scorer
    assert isinstance(scorer, PairScorer)
    assert_same_ranking(scorer.score(PAIRS), reference_scores(tiny_reranker, PAIRS))


def test_a_model_that_it_does_not_serve(server: InfinityServer, tiny_reranker: Path) -> None:
    model = evalkit.load_model(
        "local-cross-encoder", path=str(tiny_reranker), backend="infinity-server",
        server={"url": server.url, "served_model": "other"},
    )  # fmt: skip
    with pytest.raises(EvalkitError, match=r"/rerank answered 400: .*Invalid model"):
        _ = model.runnable.scorer  # its probe asks first


# the server's own description


def schema(description: Any, path: str, answer: bool) -> dict[str, Any]:
    """The JSON schema of a request to `path`, or of its answer."""
    operation = description["paths"][path]["post"]
    part = operation["responses"]["200"] if answer else operation["requestBody"]
    found = part["content"]["application/json"]["schema"]
    while "$ref" in found:
        found = description["components"]["schemas"][found["$ref"].rpartition("/")[2]]
    if "oneOf" in found:  # told apart by their modality, which is text unless a request says otherwise
        kinds = [description["components"]["schemas"][one["$ref"].rpartition("/")[2]] for one in found["oneOf"]]
        (found,) = [kind for kind in kinds if kind["properties"]["modality"]["default"] == "text"]
    return {**found, "components": description["components"]}


@pytest.mark.parametrize(("name", "codec"), [("reranker", RERANK), ("e5", EMBED)])
def test_requests_and_answers_are_as_described(
    name: str, codec: Any, server: InfinityServer, tiny_reranker: Path, e5_small: Path
) -> None:
    description = server.ask("/openapi.json")
    questions = list(codec.questions(name, PAIRS, 7) if name == "reranker" else codec.questions(name, TEXTS, 7, {}))
    outputs: list[Any] = [None] * len(PAIRS)
    for question in questions:
        wanted = schema(description, question.path, answer=False)
        Draft202012Validator(wanted).validate(question.body)
        assert set(question.body) <= set(wanted["properties"])  # a misspelt wish would be ignored
        answer = server.ask(question.path, question.body)
        Draft202012Validator(schema(description, question.path, answer=True)).validate(answer)
        for position, output in zip(question.positions, question.read(answer), strict=True):
            outputs[position] = output
    if name == "reranker":
        assert_same_ranking(np.array(outputs), reference_scores(tiny_reranker, PAIRS))
    else:
        np.testing.assert_allclose(np.array(outputs), reference_vectors(e5_small, TEXTS), atol=1e-5, rtol=0)


def test_a_wrong_request_is_not_as_described(server: InfinityServer) -> None:
    """Else the test above would say nothing."""
    description = server.ask("/openapi.json")
    rerank = Draft202012Validator(schema(description, "/rerank", answer=False))
    assert not rerank.is_valid({"query": "a", "documents": "b", "model": "reranker"})
    assert not rerank.is_valid({"query": "a", "documents": ["b"], "raw_scores": "maybe"})
    assert not Draft202012Validator(schema(description, "/embeddings", answer=False)).is_valid({"input": 3})
