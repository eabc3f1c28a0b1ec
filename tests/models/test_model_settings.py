"""Model files and their recipes."""

from __future__ import annotations

from typing import Any

import pytest

from evalkit.configuration import option_names, read_option
from evalkit.errors import EvalkitError
from evalkit.models.settings import model_settings, read_model

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
        ({"pooling": "max"}, "model.pooling='max': Input should be 'cls', 'mean' or 'last'"),
        ({"max_length": 0}, "model.max_length=0: Input should be greater than 0"),
        ({"max_length": "long"}, "model.max_length='long': Input should be a valid integer"),
        ({"name": "m", "recipe": "flag", "recipes": {"flagembedding": {}}}, "no recipe of m 'flag'; did you mean flagembedding?"),
        ({"recipe": "a", "recipes": {"a": {"pooling": "max"}}}, "model.pooling='max'"),
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
    ],
)
def test_an_override_that_would_be_ignored_is_refused(name: str, override: dict[str, object]) -> None:
    with pytest.raises(EvalkitError, match=f"model.{next(iter(override))} says nothing to {name}"):
        model_settings(read_option("model", name), override)
