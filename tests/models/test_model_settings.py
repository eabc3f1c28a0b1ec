"""Model files and their recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evalkit.configuration.files import option_names, read_option
from evalkit.errors import EvalkitError
from evalkit.models.settings import model_settings, read_model
from evalkit.models.weights import ModelFiles, way_of_scoring
from evalkit.records import ModelIdentity

ZH_PROMPT = "为这个句子生成表示以用于检索相关文章："


@pytest.mark.parametrize("name", [name for name in option_names("model") if name != "base"])
def test_every_model_file_reads(name: str) -> None:
    settings = read_model(name)
    assert settings.name == name
    for recipe in settings.recipes:
        assert model_settings(settings.model_dump() | {"recipe": recipe}) != settings


def test_the_chosen_recipe_is_in_force() -> None:
    base = read_model("bge-reranker-base")
    assert (base.kind, base.truncation, base.max_length) == ("cross-encoder", "longest_first", 512)
    assert base.revision == "2cfc18c9415c912f9d8155881c133215df768a70"
    today = model_settings(base.model_dump() | {"recipe": "flagembedding"})
    assert today.truncation == "only_second"
    assert today.model_dump(exclude={"recipe", "truncation"}) == base.model_dump(exclude={"recipe", "truncation"})


def test_the_card_recipes_of_embedders() -> None:
    bge = read_model("bge-base-zh-v1.5")
    assert (bge.kind, bge.pooling, bge.similarity, bge.query_prompt, bge.document_prompt) == (
        "embedder", "cls", "cosine", ZH_PROMPT, "",
    )  # fmt: skip
    e5 = read_model("multilingual-e5-small")
    assert (e5.pooling, e5.query_prompt, e5.document_prompt) == ("mean", "query: ", "passage: ")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"poolling": "mean"}, "model.poolling"),
        ({"pooling": "middle"}, "model.pooling='middle': Value error, one of cls, mean, max"),
        ({"max_length": 0}, "model.max_length=0: Input should be greater than 0"),
        ({"max_length": "long"}, "model.max_length='long': Input should be a valid integer"),
        ({"name": "m", "recipe": "flag", "recipes": {"flagembedding": {}}}, "no recipe of m 'flag'; did you mean flagembedding?"),
        ({"recipe": "a", "recipes": {"a": {"pooling": "middle"}}}, "model.pooling='middle'"),
    ],
)  # fmt: skip
def test_wrong_fields(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(EvalkitError) as caught:
        model_settings(fields)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_model_offers_the_nearest() -> None:
    with pytest.raises(EvalkitError, match=r"did you mean .*bge-reranker-base"):
        read_model("bge-reranker-bse")


def test_an_override_beats_the_recipe_which_beats_the_file() -> None:
    own = read_option("model", "multilingual-e5-small")
    both = model_settings(own, {"recipe": "query-both-sides"})
    assert (both.query_prompt, both.document_prompt) == ("query: ", "query: ")
    mine = model_settings(own, {"recipe": "query-both-sides", "document_prompt": "mine: "})
    assert (mine.query_prompt, mine.document_prompt) == ("query: ", "mine: ")


@pytest.mark.parametrize(
    ("name", "override"),
    [
        ("bm25", {"path": "x"}),
        ("multilingual-e5-small-q4", {"max_length": 4}),
        ("bge-reranker-base", {"pooling": "mean"}),
        ("bge-base-zh-v1.5", {"truncation": "only_second"}),
        ("bge-m3", {"pooling": "mean"}),
        ("bge-reranker-v2-gemma", {"cutoff_layers": [8]}),
        ("bge-reranker-v2-minicpm-layerwise", {"positive_word": "yes"}),
    ],
)
def test_an_override_that_would_be_ignored_is_refused(name: str, override: dict[str, object]) -> None:
    with pytest.raises(EvalkitError, match=f"model.{next(iter(override))} says nothing to {name}"):
        model_settings(read_option("model", name), override)


@pytest.mark.parametrize(
    ("name", "override"),
    [
        ("bge-m3", {"score": "colbert"}),
        ("bge-m3", {"weights": [1, 2, 3]}),
        ("bge-reranker-v2-gemma", {"prompt": "?"}),
        ("Qwen3-Reranker-0.6B", {"negative_word": None}),
        ("bge-reranker-v2.5-gemma2-lightweight", {"cutoff_layers": [25]}),
        ("bge-reranker-v2.5-gemma2-lightweight", {"compress_ratio": 4}),
    ],
)
def test_scores_of_another_recipe_are_stored_apart(name: str, override: dict[str, object], tmp_path: Path) -> None:
    files = ModelFiles(tmp_path, ModelIdentity(name, name, "made", "made", "hash"), "digest")
    own = read_option("model", name)
    ways = [way_of_scoring(model_settings(own, chosen), files, {}) for chosen in ({}, override)]
    assert ways[0] != ways[1]


def test_the_recipes_of_rerankers_that_are_language_models() -> None:
    gemma, layerwise = read_model("bge-reranker-v2-gemma"), read_model("bge-reranker-v2-minicpm-layerwise")
    light, qwen = read_model("bge-reranker-v2.5-gemma2-lightweight"), read_model("Qwen3-Reranker-0.6B")
    for model in (gemma, layerwise, light):
        assert (model.query_prompt, model.document_prompt, model.separator) == ("A: ", "B: ", "\n")
        assert (model.truncation, model.max_length) == ("only_second", 512)
    assert gemma.prompt == layerwise.prompt == (
        "Given a query A and a passage B, determine whether the passage contains an answer to the query by providing a "
        "prediction of either 'Yes' or 'No'."
    )  # fmt: skip
    assert light.prompt == "Predict whether passage B contains an answer to query A."
    assert (gemma.positive_word, gemma.negative_word) == ("Yes", None)
    assert (layerwise.cutoff_layers, layerwise.compress_ratio) == ((28,), 1)
    assert (light.cutoff_layers, light.compress_ratio, light.compress_layers) == ((28,), 2, (24, 40))
    assert (qwen.positive_word, qwen.negative_word, qwen.truncation) == ("yes", "no", "end")
    m3 = read_option("model", "bge-m3")
    assert model_settings(m3, {"recipe": "fused"}).weights == (1, 1, 1)
    assert model_settings(m3, {"recipe": "fused-readme"}).weights == (0.4, 0.2, 0.4)
    assert model_settings(m3).makes_vectors
    assert not model_settings(m3, {"recipe": "sparse"}).makes_vectors
