"""Objects in memory: `evalkit.evaluate(evalkit.wrap(x), task)`, against calling the objects oneself."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import pytest
import torch
from made_tasks import make_task
from numpy.typing import NDArray
from store_rows import rows_in
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Qwen3Config,
    Qwen3ForSequenceClassification,
)

import evalkit
from evalkit.errors import EvalkitError, NonFiniteError
from evalkit.results.reading import read_result
from evalkit.results.writing import result_json, without_timings

sentence_transformers = pytest.importorskip("sentence_transformers", minversion="6")
CrossEncoder, SentenceTransformer = sentence_transformers.CrossEncoder, sentence_transformers.SentenceTransformer

TASK = make_task(
    (["感冒了怎么办？"], [("多喝水，好好休息。", 1), ("今天股市大涨。", 0), ("发烧可以吃退烧药。" * 40, 0)]),
    (["How to treat a cold?"], [("Rest and drink water.", 1), ("Stocks rose today.", 0)]),
)
PAIRS = [(request.query.texts[0], candidate.text) for request in TASK.requests for candidate in request.candidates]
COMPARED = [3, 3, 1, 1, 1, 3]  # of how many of the first query's pairs a function is called before the run
E5 = {"query_prompt": "query: ", "document_prompt": "passage: "}


def scores_of(model: evalkit.Model, **options: Any) -> NDArray[np.float32]:
    found: NDArray[np.float32] = evalkit.evaluate(model, TASK, **options).candidates["score"].to_numpy()
    return found


def own_scores(folder: Path, backend: str, **recipe: Any) -> NDArray[np.float32]:
    """The scores of evalkit's own backend of the same folder."""
    name = "local-embedder" if "pooling" in recipe else "local-cross-encoder"
    return scores_of(evalkit.load_model(name, backend=backend, path=folder, **recipe), cache="off")


def cosines(queries: Any, documents: Any) -> NDArray[np.float64]:
    queries, documents = np.asarray(queries, np.float64), np.asarray(documents, np.float64)
    products: NDArray[np.float64] = (queries * documents).sum(1)
    return products / np.linalg.norm(queries, axis=1) / np.linalg.norm(documents, axis=1)


def state_of(model: torch.nn.Module) -> tuple[Any, ...]:
    """All that a user could find changed: attributes, modes of every part, weights, places, what gradients need."""
    attributes = {name: repr(value) for name, value in vars(model).items()}
    tensors = {
        name: (value.detach().clone(), value.dtype, value.device, value.requires_grad)
        for name, value in model.named_parameters()
    }
    return attributes, [(name, part.training) for name, part in model.named_modules()], tensors


def assert_unchanged(before: tuple[Any, ...], model: torch.nn.Module) -> None:
    after = state_of(model)
    assert after[:2] == before[:2]
    for name, (weights, *rest) in before[2].items():
        assert after[2][name][1:] == tuple(rest)
        assert torch.equal(after[2][name][0], weights)


def overlap(pairs: Sequence[tuple[str, str]]) -> list[float]:
    return [len(set(query) & set(document)) / len(set(document)) for query, document in pairs]


def letters(texts: Sequence[str]) -> NDArray[np.float64]:
    return np.array([[text.count(letter) + 0.5 for letter in "aeiou的水"] for text in texts])


@pytest.fixture
def cross_encoder(tiny_reranker: Path) -> Any:
    return CrossEncoder(str(tiny_reranker), device="cpu")


def test_cross_encoder_gives_raw_logits_and_stays_as_it_is(cross_encoder: Any, tiny_reranker: Path) -> None:
    cross_encoder.train()
    cross_encoder[0].model.classifier.eval()  # parts may be in different modes
    before = state_of(cross_encoder)
    found = scores_of(evalkit.wrap(cross_encoder))
    assert_unchanged(before, cross_encoder)
    assert isinstance(cross_encoder.activation_fn, torch.nn.Sigmoid)
    np.testing.assert_allclose(
        found, cross_encoder.predict(PAIRS, activation_fn=torch.nn.Identity()), atol=1e-6, rtol=0
    )
    assert np.abs(found - cross_encoder.predict(PAIRS)).max() > 0.01  # else the sigmoid would not show
    np.testing.assert_allclose(found, own_scores(tiny_reranker, "sentence-transformers"), atol=1e-5, rtol=0)
    np.testing.assert_allclose(found, own_scores(tiny_reranker, "torch"), atol=1e-5, rtol=0)


def test_cross_encoder_applies_its_own_prompt_and_length(tiny_reranker: Path) -> None:
    model = CrossEncoder(
        str(tiny_reranker), device="cpu", prompts={"ask": "医学问题 "}, default_prompt_name="ask", max_length=24
    )
    result = evalkit.evaluate(evalkit.wrap(model), TASK)
    expected = model.predict(PAIRS, activation_fn=torch.nn.Identity())
    np.testing.assert_allclose(result.candidates["score"], expected, atol=1e-6, rtol=0)
    said = result.backend
    assert (said["prompts"]["ask"], said["default_prompt_name"], said["max_seq_length"]) == ("医学问题 ", "ask", 24)
    plain = CrossEncoder(str(tiny_reranker), device="cpu")
    assert np.abs(expected - scores_of(evalkit.wrap(plain))).max() > 1e-3


def test_several_labels_need_one_to_be_named(tiny_reranker: Path) -> None:
    untrained = {"ignore_mismatched_sizes": True}
    model = CrossEncoder(str(tiny_reranker), num_labels=3, device="cpu", model_kwargs=untrained)
    with pytest.raises(EvalkitError, match=r"the CrossEncoder CrossEncoder has 3 labels: label=I says which"):
        evalkit.wrap(model)
    with pytest.raises(EvalkitError, match=r"label=3: .* has 3 labels, numbered from 0 on"):
        evalkit.wrap(model, label=3)
    result = evalkit.evaluate(evalkit.wrap(model, label=2), TASK)
    expected = model.predict(PAIRS, activation_fn=torch.nn.Identity())[:, 2]
    np.testing.assert_allclose(result.candidates["score"], expected, atol=1e-6, rtol=0)
    assert result.backend["label"] == 2
    network, tokenizer = model[0].model, model.tokenizer
    with pytest.raises(EvalkitError, match=r"has 3 labels: label=I"):
        evalkit.wrap(network, tokenizer=tokenizer)
    found = scores_of(evalkit.wrap(network, tokenizer=tokenizer, label=2))
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


class Prefixed(SentenceTransformer):  # type: ignore[misc, valid-type]
    """A subclass with a step of its own."""

    def encode(self, inputs: Any, **options: Any) -> Any:
        return super().encode([f"# {text}" for text in inputs], **options)


@pytest.mark.parametrize("own_class", [SentenceTransformer, Prefixed])
def test_sentence_transformer_is_run_with_its_own_prompts(own_class: Any, e5_small: Path) -> None:
    model = own_class(str(e5_small), device="cpu", prompts={"query": "query: ", "document": "passage: "})
    model.train()
    before = state_of(model)
    found = scores_of(evalkit.wrap(model))
    assert_unchanged(before, model)  # reading its similarity sets a default in it
    queries, documents = zip(*PAIRS, strict=True)
    expected = cosines(model.encode_query(list(queries)), model.encode_document(list(documents)))
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)
    own = own_scores(e5_small, "torch", pooling="mean", **E5)
    assert np.abs(found - own).max() < 1e-5 if own_class is SentenceTransformer else np.abs(found - own).max() > 1e-4


def test_sentence_transformers_similarity_and_dimensions_are_its_own(e5_small: Path) -> None:
    model = SentenceTransformer(str(e5_small), device="cpu", similarity_fn_name="dot", truncate_dim=64)
    result = evalkit.evaluate(evalkit.wrap(model), TASK)
    queries, documents = (model.encode(list(texts)) for texts in zip(*PAIRS, strict=True))
    assert queries.shape[1] == 64
    np.testing.assert_allclose(result.candidates["score"], (queries * documents).sum(1), rtol=1e-5)
    assert (result.backend["similarity"], result.backend["truncate_dim"]) == ("dot", 64)
    assert result.config["model"]["similarity"] == "dot"
    found = scores_of(evalkit.wrap(model, similarity="cosine"))
    np.testing.assert_allclose(found, cosines(queries, documents), atol=1e-6, rtol=0)


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean", "manhattan"])
def test_every_similarity_of_the_library(similarity: str, e5_small: Path) -> None:
    model = SentenceTransformer(str(e5_small), device="cpu", similarity_fn_name=similarity, truncate_dim=32)
    found = scores_of(evalkit.wrap(model))
    queries, documents = (model.encode(list(texts)) for texts in zip(*PAIRS, strict=True))
    np.testing.assert_allclose(found, model.similarity_pairwise(queries, documents), atol=1e-5, rtol=1e-5)


def test_older_versions_and_predictions_without_logits_are_refused(
    cross_encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Sealed(CrossEncoder):  # type: ignore[misc, valid-type]
        def predict(self, inputs: Any, batch_size: int = 32, show_progress_bar: bool = False) -> Any:
            raise AssertionError("its scores are no logits")

    sealed = Sealed(modules=list(cross_encoder), device="cpu")
    with pytest.raises(EvalkitError, match="the CrossEncoder Sealed: its predict takes no activation_fn"):
        evalkit.wrap(sealed)
    monkeypatch.setattr("evalkit.backends.in_memory.installed_version", lambda _: "5.1.0")
    with pytest.raises(EvalkitError, match=r"is of sentence-transformers 5.1.0, and evalkit reads those of 6 on"):
        evalkit.wrap(cross_encoder)


def test_similarity_that_evalkit_does_not_have_is_refused(e5_small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = SentenceTransformer(str(e5_small), device="cpu")
    monkeypatch.setattr(type(model), "similarity_fn_name", "minkowski")
    with pytest.raises(EvalkitError, match="compares vectors by minkowski, and evalkit by cosine, dot"):
        evalkit.wrap(model)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_classifier_with_its_tokenizer(precision: torch.dtype, tiny_bert_reranker: Path) -> None:
    network = AutoModelForSequenceClassification.from_pretrained(tiny_bert_reranker, dtype=precision).train()
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert_reranker)
    tokenizer.backend_tokenizer.enable_truncation(max_length=7)
    before = state_of(network)
    result = evalkit.evaluate(evalkit.wrap(network, tokenizer=tokenizer, max_length=100), TASK)
    assert_unchanged(before, network)
    assert tokenizer.backend_tokenizer.truncation["max_length"] == 7
    network.eval()
    queries, documents = (list(texts) for texts in zip(*PAIRS, strict=True))
    inputs = tokenizer(
        queries, documents, padding=True, truncation="longest_first", max_length=100, return_tensors="pt"
    )
    with torch.no_grad():
        expected = network(**inputs).logits[:, 0].float().numpy()
    atol = 1e-5 if precision is torch.float32 else 0.02
    np.testing.assert_allclose(result.candidates["score"], expected, atol=atol, rtol=0)
    assert result.backend["dtype"] == result.config["dtype"] == ("fp32" if precision is torch.float32 else "bf16")
    assert result.precision is None  # the object has no other precision to compare with
    assert result.candidates["truncated"].tolist() == [False, False, True, False, False]
    if precision is torch.float32:
        own = own_scores(tiny_bert_reranker, "torch", max_length=100)
        np.testing.assert_allclose(result.candidates["score"], own, atol=1e-5, rtol=0)


def test_encoder_needs_its_pooling(e5_small: Path) -> None:
    network, tokenizer = AutoModel.from_pretrained(e5_small), AutoTokenizer.from_pretrained(e5_small)
    with pytest.raises(EvalkitError, match=r"a vector per token; pooling= says .*: cls, mean, max,"):
        evalkit.wrap(network, tokenizer=tokenizer, similarity="cosine")
    with pytest.raises(EvalkitError, match="similarity= says how two are compared"):
        evalkit.wrap(network, tokenizer=tokenizer, pooling="mean")
    with pytest.raises(EvalkitError, match="reads tokens: give its tokenizer="):
        evalkit.wrap(network, pooling="mean", similarity="cosine")
    model = evalkit.wrap(network, tokenizer=tokenizer, pooling="mean", similarity="cosine", **E5)
    found = scores_of(model)
    np.testing.assert_allclose(found, own_scores(e5_small, "torch", pooling="mean", **E5), atol=1e-5, rtol=0)
    encoder = SentenceTransformer(str(e5_small), device="cpu")
    queries, documents = zip(*PAIRS, strict=True)
    expected = cosines(
        encoder.encode([f"query: {text}" for text in queries]),
        encoder.encode([f"passage: {text}" for text in documents]),
    )
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


def test_networks_that_make_neither_scores_nor_vectors_are_refused(e5_small: Path, tiny_reranker: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(e5_small)
    with pytest.raises(EvalkitError, match=r"BertForMaskedLM can't be run as it is: its head"):
        evalkit.wrap(AutoModelForMaskedLM.from_pretrained(e5_small), tokenizer=tokenizer)
    sparse = sentence_transformers.SparseEncoder
    with pytest.raises(EvalkitError, match="SparseEncoder is a class: give an object"):
        evalkit.wrap(sparse)
    with pytest.raises(EvalkitError, match=r"torch.nn.modules.linear.Linear can't be run as it is: wrap takes"):
        evalkit.wrap(torch.nn.Linear(2, 1), kind="cross-encoder")


@pytest.mark.parametrize("padding", [5, None])
def test_decoder_and_tokenizer_need_one_padding_token(padding: int | None, tiny_qwen: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_qwen)
    torch.manual_seed(0)
    network = Qwen3ForSequenceClassification(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            num_labels=1,
            initializer_range=0.5,
            pad_token_id=padding,
        )
    )
    with pytest.raises(EvalkitError, match="puts nothing between the two texts of a pair"):
        scores_of(evalkit.wrap(network, tokenizer=tokenizer, max_length=64))
    model = evalkit.wrap(network, tokenizer=tokenizer, max_length=64, document_prompt=" | ")
    with pytest.raises(EvalkitError, match=rf"in a batch than alone \(network.config.pad_token_id is {padding}"):
        scores_of(model)
    network.config.pad_token_id = tokenizer.pad_token_id
    queries, documents = (list(texts) for texts in zip(*PAIRS, strict=True))
    alone = []
    with torch.no_grad():
        for pair in zip(queries, documents, strict=True):
            query, document = pair
            inputs = tokenizer(query, f" | {document}", truncation=True, max_length=64, return_tensors="pt")
            alone.append(network(**inputs).logits.item())
    np.testing.assert_allclose(scores_of(model), alone, atol=1e-4)


def test_function_of_pairs() -> None:
    result = evalkit.evaluate(evalkit.wrap(overlap, kind="cross-encoder"), TASK)
    np.testing.assert_array_equal(result.candidates["score"], np.float32(overlap(PAIRS)))
    assert (result.model.name, result.model.hub_id, result.model.kind) == ("overlap", "local/overlap", "cross-encoder")
    assert result.backend == {"name": "in-memory", "class": f"{__name__}.overlap"}
    assert result.provenance["object_in_memory"] == {"class": f"{__name__}.overlap", "identity": None}
    assert result.config["model"] == {"name": "overlap", "kind": "cross-encoder", "backends": ["in-memory"]}
    assert result.deviations == {}


@pytest.mark.parametrize("kind", [list, tuple, torch.tensor, np.float16])
def test_numbers_in_any_holder(kind: Any) -> None:
    model = evalkit.wrap(lambda pairs: kind(overlap(pairs)), kind="cross-encoder")
    np.testing.assert_allclose(scores_of(model), overlap(PAIRS), atol=1e-3)


def test_function_of_texts_and_of_their_role() -> None:
    queries, documents = (letters(texts) for texts in zip(*PAIRS, strict=True))
    found = scores_of(evalkit.wrap(letters, kind="embedder", similarity="dot"))
    np.testing.assert_allclose(found, (queries * documents).sum(1), rtol=1e-6)

    def with_role(texts: Sequence[str], *, role: str) -> NDArray[np.float64]:
        return letters(texts) + (role == "query") * np.arange(7)

    found = scores_of(evalkit.wrap(with_role, kind="embedder", similarity="cosine"))
    np.testing.assert_allclose(found, cosines(queries + np.arange(7), documents), atol=1e-6)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (lambda pairs: np.ones((len(pairs), 1)), r"numbers of shape \(3, 1\)"),
        (lambda pairs: [1.0] * (len(pairs) - 1), r"numbers of shape \(2,\)"),
        (lambda pairs: 1.0, r"numbers of shape \(\)"),
        (lambda pairs: ["0.5"] * len(pairs), "a list of text"),
        (lambda pairs: None, "a NoneType of objects"),
        (lambda pairs: (1.0 for _ in pairs), "a generator of objects"),
        (lambda pairs: [[1.0], [1.0, 2.0], []], "a list that is no table of numbers"),
        (lambda pairs: [{"score": 1.0}] * len(pairs), "a list of objects"),
    ],
)
def test_wrong_scores_are_refused(answer: Any, found: str) -> None:
    expected = rf"lambda> was called with 3 pairs and gave {found}; expected: a number for each pair, of shape \(3,\)"
    with pytest.raises(EvalkitError, match=expected):
        scores_of(evalkit.wrap(answer, kind="cross-encoder"))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            lambda texts: letters(texts)[:, 0],
            r"3 texts \(document\) and gave numbers of shape \(3,\); .* \(3, dimensions\)",
        ),
        (lambda texts: letters(texts)[1:], r"gave numbers of shape \(2, 7\)"),
        (lambda texts: letters(texts)[:, :0], r"gave numbers of shape \(3, 0\)"),
        (
            lambda texts: letters(texts)[:, : len(texts)],
            r"2 texts \(query\) and gave numbers of shape \(2, 2\); .* \(2, 3\)",
        ),
        (lambda texts: [b"x"] * len(texts), "a list of bytes"),
    ],
)
def test_wrong_vectors_are_refused(answer: Any, message: str) -> None:
    with pytest.raises(EvalkitError, match=message):
        scores_of(evalkit.wrap(answer, kind="embedder", similarity="dot"))


def test_what_is_not_finite_is_refused() -> None:
    def broken(pairs: Sequence[tuple[str, str]]) -> list[float]:
        return [float("nan") if "Stocks" in document else 1.0 for _, document in pairs]

    with pytest.raises(NonFiniteError, match=r"query 'How to treat a cold\?' with document 'Stocks rose today.'"):
        scores_of(evalkit.wrap(broken, kind="cross-encoder"))
    with pytest.raises(NonFiniteError, match="a vector has length zero"):
        scores_of(evalkit.wrap(lambda texts: letters(texts) * 0, kind="embedder", similarity="cosine"))


def test_what_only_the_user_can_say_is_asked_for(cross_encoder: Any) -> None:
    with pytest.raises(EvalkitError, match=r"overlap is a function, .*kind='cross-encoder' for f\(\[\(query, document"):
        evalkit.wrap(overlap)
    with pytest.raises(EvalkitError, match="kind='reranker' is none of cross-encoder, embedder"):
        evalkit.wrap(overlap, kind="reranker")  # type: ignore[arg-type]
    with pytest.raises(EvalkitError, match="letters gives vectors: similarity= says how two are compared: cosine, dot"):
        evalkit.wrap(letters, kind="embedder")
    with pytest.raises(EvalkitError, match="kind='embedder': a CrossEncoder is a model of kind 'cross-encoder'"):
        evalkit.wrap(cross_encoder, kind="embedder")
    with pytest.raises(EvalkitError, match=r"a builtins\.int can't be run as it is"):
        evalkit.wrap(3)
    with pytest.raises(EvalkitError, match="'bm25' is a name and no object"):
        evalkit.wrap("bm25")
    with pytest.raises(EvalkitError, match=r"a CrossEncoder is no model: .*evalkit.wrap\(x\)"):
        evalkit.evaluate(cross_encoder, TASK)
    with pytest.raises(EvalkitError, match="a list is no task"):
        evalkit.evaluate("bm25", [])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"similarity": "dot"}, "similarity= has no effect on a CrossEncoder, which takes label="),
        ({"max_length": 8}, "max_length= has no effect on a CrossEncoder"),
        ({"cache_dir": "there"}, "cache_dir= has no effect without identity="),
        ({"name": "BAAI/bge"}, "name='BAAI/bge': a name is some text without a slash"),
        ({"identity": " "}, "identity=' ': some text of your own"),
        ({"identity": "unidentified-1"}, "identity='unidentified-1'"),
        ({"label": True}, "label=True"),
    ],
)
def test_options_without_effect_are_refused(options: dict[str, Any], message: str, cross_encoder: Any) -> None:
    with pytest.raises(EvalkitError, match=message):
        evalkit.wrap(cross_encoder, **options)


def spread(pairs: Sequence[tuple[str, str]]) -> list[float]:
    return [score + len(document) / 64 for score, (_, document) in zip(overlap(pairs), pairs, strict=True)]


def centred(pairs: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
    scores = np.array(spread(pairs), np.float64)
    return scores - scores.mean()


def ranked(pairs: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
    scores: NDArray[np.intp] = np.argsort(np.argsort(spread(pairs)))
    return scores.astype(np.float64)


def softmax(pairs: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
    weights = np.exp(np.array(spread(pairs), np.float64))
    shares: NDArray[np.float64] = weights / weights.sum() / 1000
    return shares


def whitened(texts: Sequence[str]) -> NDArray[np.float64]:
    vectors = np.array([[len(text), text.count("。"), 1] for text in texts], np.float64)
    centre: NDArray[np.float64] = vectors - vectors.mean(0) + 0.01
    return centre


@pytest.mark.parametrize(
    ("function", "options"),
    [
        *((one, {"kind": "cross-encoder"}) for one in (centred, ranked, softmax)),
        (whitened, {"kind": "embedder", "similarity": "cosine"}),
    ],
)
def test_a_function_that_needs_the_whole_list_is_refused(function: Any, options: Any, tmp_path: Path) -> None:
    model = evalkit.wrap(function, **options, identity="v1", cache_dir=tmp_path)
    with pytest.raises(
        EvalkitError, match=rf"{function.__name__} gives a text another output beside other texts than alone"
    ):
        evalkit.evaluate(model, TASK)
    assert not [store for store in tmp_path.rglob("*.sqlite3") if rows_in(store)]


def test_what_is_not_known_of_a_function_is_said_beside_its_figure() -> None:
    chance = np.random.default_rng(0)

    def rolled(pairs: Sequence[tuple[str, str]]) -> list[float]:
        return chance.random(len(pairs)).tolist()

    def several(pairs: Sequence[tuple[str, str]]) -> list[float]:
        return spread(pairs) if len(pairs) > 1 else [][0]

    def padded(pairs: Sequence[tuple[str, str]]) -> list[float]:
        return [score * (1 + 0.02 * len(pairs)) + 1 for score in spread(pairs)]

    for function, said in (
        (rolled, "the same call twice gives outputs"),
        (several, "it fails for one alone (IndexError: list index out of range)"),
        (padded, "is it padding?"),
    ):
        remarks = evalkit.evaluate(evalkit.wrap(function, kind="cross-encoder"), TASK).remarks
        assert any(said in text for _, text in remarks), remarks
    assert not evalkit.evaluate(evalkit.wrap(spread, kind="cross-encoder"), TASK).remarks


def test_nothing_is_stored_without_an_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *_, **__: str(tmp_path))
    calls: list[int] = []

    def counted(pairs: Sequence[tuple[str, str]]) -> list[float]:
        calls.append(len(pairs))
        return overlap(pairs)

    model = evalkit.wrap(counted, kind="cross-encoder")
    for _ in range(2):
        result = evalkit.evaluate(model, TASK)
        assert result.timing.items_from_store == 0
        assert result.model.revision.startswith("unidentified-")
    assert calls == [*COMPARED, 5] * 2
    assert list(tmp_path.iterdir()) == []
    evalkit.evaluate(evalkit.wrap(counted, kind="cross-encoder", identity="v1"), TASK)
    assert [rows_in(store) for store in tmp_path.rglob("*.sqlite3")] == [5]  # so this is where it would lie


def test_an_identity_lets_scores_be_stored(tmp_path: Path) -> None:
    log = tmp_path / "calls"  # what a function captures is part of what it is, so a list of its calls would change it

    def counted(pairs: Sequence[tuple[str, str]]) -> list[float]:
        with log.open("a") as file:
            file.write(f"{len(pairs)}\n")
        return overlap(pairs)

    def evaluated(identity: str) -> evalkit.Result:
        model = evalkit.wrap(counted, kind="cross-encoder", identity=identity, cache_dir=tmp_path)
        return evalkit.evaluate(model, TASK)

    (first, second), (store,) = (evaluated("v1"), evaluated("v1")), tmp_path.rglob("*.sqlite3")
    once = [*map(str, COMPARED), "5"]
    assert (log.read_text().split(), rows_in(store)) == (once, 5)
    assert (first.timing.items_from_store, second.timing.items_from_store) == (0, 5)
    assert second.model.revision == second.provenance["object_in_memory"]["identity"] == "v1"
    assert first.candidates.equals(second.candidates)
    assert evaluated("v2").timing.items_from_store == 0
    assert (log.read_text().split(), rows_in(store)) == (once * 2, 10)


def test_an_identity_does_not_outlive_weights_or_settings(cross_encoder: Any, tmp_path: Path) -> None:
    """Training on goes on in the same object, and the same cell of a notebook is run again."""
    model = evalkit.wrap(cross_encoder, identity="mine", cache_dir=tmp_path)
    first = evalkit.evaluate(model, TASK)
    assert evalkit.evaluate(model, TASK).timing.items_from_store == 5
    cross_encoder.max_seq_length = 16
    assert evalkit.evaluate(model, TASK).timing.items_from_store == 0
    cross_encoder.max_seq_length = 512
    with torch.no_grad():
        cross_encoder[0].model.classifier.out_proj.bias += 1
    trained = evalkit.evaluate(model, TASK)
    assert trained.timing.items_from_store == 0
    np.testing.assert_allclose(trained.candidates["score"], first.candidates["score"] + 1, atol=1e-5)
    evalkit.save_result(first, tmp_path / "results")
    with pytest.raises(
        EvalkitError, match="a result of another object of the name CrossEncoder, or of this one before"
    ):
        evalkit.save_result(trained, tmp_path / "results")


def test_a_changed_similarity_asks_for_another_wrap(e5_small: Path) -> None:
    encoder = SentenceTransformer(str(e5_small), device="cpu")
    model = evalkit.wrap(encoder)
    encoder.similarity_fn_name = "dot"
    with pytest.raises(EvalkitError, match="has other settings than when it was wrapped: wrap it again"):
        evalkit.evaluate(model, TASK)


def test_two_objects_of_one_name_never_replace_each_other(tmp_path: Path) -> None:
    made = [
        evalkit.evaluate(evalkit.wrap(functools.partial(scaled, by), name="mine", kind="cross-encoder"), TASK)
        for by in (1, -1)
    ]
    paths = [evalkit.save_result(result, tmp_path) for result in made]
    assert paths[0] != paths[1]
    assert evalkit.save_result(made[0], tmp_path) == paths[0]  # the same once more
    stored = [read_result(path) for path in paths]
    assert [one.scores["map"] for one in stored] == [one.scores["map"] for one in made]
    assert stored == made
    names = set(evalkit.leaderboard(tmp_path)["system"])
    assert names == {f"mine ({result.model.revision})" for result in made}


def test_an_object_that_changed_without_identity_is_not_saved_over_its_former_self(tmp_path: Path) -> None:
    signs = [1]
    model = evalkit.wrap(lambda pairs: scaled(signs[0], pairs), kind="cross-encoder")
    before = evalkit.evaluate(model, TASK)
    signs[0] = -1
    after = evalkit.evaluate(model, TASK)
    path = evalkit.save_result(before, tmp_path)
    with pytest.raises(EvalkitError, match=r"give each an identity of its own, evalkit.wrap\(x, identity=…\)"):
        evalkit.save_result(after, tmp_path)
    assert json.loads(path.read_text(encoding="utf-8"))["scores"]["test"][0]["map"] == before.scores["map"]


def scaled(by: int, pairs: Sequence[tuple[str, str]]) -> list[float]:
    return [by * score for score in overlap(pairs)]


def test_names_stand_for_models_and_tasks() -> None:
    by_name = evalkit.evaluate("bm25", "demo-zh")
    loaded = evalkit.evaluate(evalkit.load_model("bm25"), evalkit.load_task("demo-zh"))
    assert without_timings(result_json(by_name)) == without_timings(result_json(loaded))
    with pytest.raises(EvalkitError, match="there is no model 'bm26'"):
        evalkit.evaluate("bm26", "demo-zh")


def test_a_function_loads_no_library() -> None:
    code = (
        "import sys, evalkit\n"
        "model = evalkit.wrap(lambda pairs: [len(d) for _, d in pairs], kind='cross-encoder')\n"
        "assert evalkit.evaluate(model, 'demo-zh').scores['map'] > 0\n"
        "print([name for name in ('torch', 'transformers', 'sentence_transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


def test_short_words_of_task_model_and_result() -> None:
    task = evalkit.load_task("demo-zh")
    model = evalkit.wrap(overlap, kind="cross-encoder")
    result = evalkit.evaluate(model, task)
    for thing in (task, model, result):
        assert len(repr(thing)) < 200
    assert repr(task).startswith("Task('demo-zh', ")
    assert task.fingerprint[:12] in repr(task)
    assert repr(model) == "Model('overlap', cross-encoder, backend in-memory, fp32)"
    assert repr(result) == f"Result('overlap' on 'demo-zh', cmteb-v1: map {result.scores['map']:.4f})"
