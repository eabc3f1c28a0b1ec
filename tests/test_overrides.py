"""Free text in overrides comes through Hydra's grammar and OmegaConf's interpolations unchanged."""

from __future__ import annotations

import re
from typing import Any

import hydra
import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from evalkit.commands.run_settings import schema
from evalkit.configuration.files import configs_dir
from evalkit.configuration.hydra import register
from evalkit.configuration.overrides import NULL, QUOTED, quote_free_text

AWKWARD = [
    "",
    " ",
    " 两端 ",
    "/数据/检索 集 [v1] {x} (y)/a=b#c",
    "it's",
    '"',
    "'",
    "\\",
    "a\\",
    "a\\\\",
    "\\'",
    "'a' and 'b'",
    "a,b,,c",
    "${oc.env:HOME}",
    "\\${x}",
    "\\\\${x}'",
    "$",
    "${",
    "}",
    "NULL",
    "Null",
    "true",
    "1e5",
    "~x",
    "+",
    "a\tb\nc",
    "为这个句子生成表示以用于检索相关文章：",
    "C:\\资料\\",
    "🍎\u2028",
    "sweep(1)",
    "[1,2]",
    "{a: 1}",
]
PIECES = st.sampled_from(["'", '"', "\\", "${", "}", ",", "=", "#", " ", "[", "(", "中", "null", "a"])
TEXTS = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\0")),
    st.lists(PIECES, max_size=8).map("".join),
    st.sampled_from(AWKWARD),
)


def parsed(overrides: list[str]) -> Any:
    """The prompt as a run would read it: Hydra parses, OmegaConf resolves."""
    config = OmegaConf.create({"model": {"query_prompt": "", "path": None}})
    for override in OverridesParser.create().parse_overrides(overrides):
        OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
    content: Any = OmegaConf.to_container(config, resolve=True)
    return content["model"]["query_prompt"]


def is_left_alone(text: str) -> bool:
    return text == NULL or re.fullmatch(QUOTED, text, re.DOTALL) is not None


@given(TEXTS)
@settings(max_examples=1000, deadline=None)
def test_any_text_arrives_unchanged(text: str) -> None:
    assume(not is_left_alone(text))
    assert parsed(quote_free_text([f"model.query_prompt={text}"])) == text


@given(st.lists(TEXTS, min_size=1, max_size=3))
@settings(max_examples=500, deadline=None)
def test_commas_separate_texts_in_a_multirun(texts: list[str]) -> None:
    assume(not any("," in text or is_left_alone(text) for text in texts))
    # a quote that opens in one text and closes in another holds the comma between them
    assume(len(texts) == 1 or not any(text.startswith(("'", '"')) for text in texts))
    (override,) = quote_free_text([f"model.query_prompt={','.join(texts)}"], multirun=True)
    (jobs,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides([override]), max_batch_size=None)
    assert [parsed(list(job)) for job in jobs] == texts


@given(TEXTS)
@settings(max_examples=25, deadline=None)
def test_hydra_composes_the_text(text: str) -> None:
    assume(not is_left_alone(text))
    register(schema())
    overrides = ["model=local-embedder", *quote_free_text([f"model.document_prompt={text}", f"task.path={text}"])]
    with hydra.initialize_config_dir(str(configs_dir()), version_base="1.3"):
        content: Any = OmegaConf.to_container(hydra.compose("config", overrides=overrides), resolve=True)
    assert (content["model"]["document_prompt"], content["task"]["path"]) == (text, text)


@pytest.mark.parametrize(
    ("given_value", "expected"),
    [
        ("'query: '", "query: "),
        ('"query: "', "query: "),
        ("''", ""),
        ("'it\\'s'", "it's"),
        ("'a,b'", "a,b"),
        ("'null'", "null"),
        ("null", None),
    ],
)
def test_quotes_of_the_user_keep_their_meaning(given_value: str, expected: str | None) -> None:
    assert parsed(quote_free_text([f"model.query_prompt={given_value}"])) == expected


@pytest.mark.parametrize(
    ("given_value", "expected"),
    [
        ("'a,b',c", ["a,b", "c"]),
        ("'a','b'", ["a", "b"]),
        ("null,/x y", [None, "/x y"]),
        ("'query: '", ["query: "]),
        ("a,", ["a", ""]),
    ],
)
def test_quotes_in_a_multirun(given_value: str, expected: list[str | None]) -> None:
    overrides = OverridesParser.create().parse_overrides(
        quote_free_text([f"x.query_prompt={given_value}"], multirun=True)
    )
    (jobs,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
    found = [OverridesParser.create().parse_override(job[0]).value() for job in jobs]
    assert found == expected


@pytest.mark.parametrize(
    "argument", ["limit=5", "task=local", "-m", "--config-dir=/a b/path=x", "~task.path", "model.pooling=mean"]
)
def test_other_arguments_stay(argument: str) -> None:
    assert quote_free_text([argument]) == [argument]


@pytest.mark.parametrize(
    "key", ["task.path", "+task.path", "++model.path", "results_dir", "cache_dir", "model.document_prompt"]
)
def test_keys_of_free_text(key: str) -> None:
    (argument,) = quote_free_text([f"{key}=a b=c#d"])
    override = OverridesParser.create().parse_override(argument)
    assert override.key_or_group == key.lstrip("+")
    assert override.value() == "a b=c#d"


@pytest.mark.parametrize("text", ["a\\\n", "\\\n", "\\\\\n'"])
def test_a_backslash_before_a_line_break_at_the_end(text: str) -> None:
    assert parsed(quote_free_text([f"model.query_prompt={text}"])) == text
