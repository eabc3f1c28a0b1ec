"""Overrides and configuration files through the real quoting and Hydra: what is taken is what was written."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import strategies as st
from judging import command, fuzzed
from mutations import LEAVES, NASTY, TEXTS, damaged, mutated
from omegaconf import OmegaConf

from evalkit import backends
from evalkit.commands.run_settings import Choice, RunConfiguration, RunnerSettings, run_settings, schema
from evalkit.configuration.files import config_folders
from evalkit.configuration.hydra import Composed, Words, compose_each
from evalkit.configuration.overrides import QUOTED, quote_free_text
from evalkit.errors import EvalkitError
from evalkit.models import settings as models
from evalkit.tasks.settings import TaskSettings, read_settings, suite_settings

KIND = "configurations"
FREE = [
    "task.path",
    "model.path",
    "model.query_prompt",
    "model.document_prompt",
    "results_dir",
    "cache_dir",
    "task.candidates",
]
TASK = {
    "name": "mine",
    "defaults": ["base", "_self_"],
    "path": "data",
    "split": "test",
    "languages": ["cmn-Hans"],
    "top_k": 5,
}
SUITE = {"name": "all", "suite": ["demo-zh2en", "demo-en2zh"], "source": "cmteb"}
MODEL = {"defaults": ["base", "_self_"], "name": "mine", "kind": "cross-encoder", "hub_id": "me/mine", "max_length": 512,
         "truncation": "longest_first", "recipe": "other", "recipes": {"other": {"truncation": "only_second"}}}  # fmt: skip
RUN = {
    "task": {"name": "demo"}, "model": {"name": "bm25"}, "backend": {"name": "auto"}, "protocol": {"name": "cmteb-v1"},
    "runner": {"name": "local", "threads": None}, "limit": 5, "device": "cpu", "dtype": "fp32", "seed": 42, "offline": True,
    "texts": False, "reproduce": False, "cache": "on", "cache_dir": "x", "results_dir": "y",
}  # fmt: skip


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """An empty current folder."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as made:
        os.chdir(made)
        try:
            yield Path(made)
        finally:
            os.chdir(before)


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    composed("task=demo-zh2en", "model=constant")


def composed(*overrides: str, folder: Path | None = None) -> Composed:
    """The settings of the one run, which are taken; Hydra's own flags compose none."""
    found: list[Composed] = []

    def take(one: Composed) -> None:
        run_settings(one)
        found.append(one)

    compose_each(Words(overrides, config_folders(folder)), schema(), take)
    if not found:
        raise EvalkitError("a flag of Hydra's")
    return found[0]


def is_plain(value: str) -> bool:
    return value not in ("", "null") and not re.fullmatch(QUOTED, value, re.DOTALL)


@fuzzed(
    KIND,
    0.4,
    key=st.sampled_from(FREE),
    value=TEXTS | st.lists(st.sampled_from([*NASTY, *"'\"\\${}[](),=#"]), max_size=4).map("".join),
)
def test_quoting(key: str, value: str) -> None:
    """Hydra's grammar and OmegaConf's give back any text."""
    (argument,) = quote_free_text([f"{key}={value}"])
    if not is_plain(value):
        raise EvalkitError("means itself")
    parsed = OverridesParser.create().parse_override(argument)
    assert parsed.get_key_element() == key
    made = OmegaConf.create({"value": parsed.value()})
    assert OmegaConf.to_container(made, resolve=True) == {"value": value}


VALUES = (
    LEAVES.map(str)
    | TEXTS
    | st.sampled_from(
        [
            "[1,2]",
            "{a: 1}",
            "{a",
            "[",
            "${seed}",
            "${oc.env:HOME}",
            "${nothing}",
            "${fp16_on_cuda:1}",
            "'a",
            "1,2",
            "[[[[",
        ]
    )
    | st.integers(0, 2_000).map(lambda depth: "[" * depth + "]" * depth)
)
KEYS = st.sampled_from(schema().keys) | st.sampled_from(schema().keys).flatmap(lambda key: st.sampled_from(
    [f"+{key}", f"++{key}", f"~{key}", f"{key}.x", key[:-1], key.upper(), f"{key}@x", f"hydra.{key}", f"{key}/x"]
)) | TEXTS  # fmt: skip


@fuzzed(KIND, 0.12, pairs=st.lists(st.tuples(KEYS, VALUES), min_size=1, max_size=2))
def test_overrides(pairs: list[tuple[str, str]]) -> None:
    with folder() as place:
        arguments = [f"{key}={value}" for key, value in pairs]
        if any(word.startswith("-") or word.partition("=")[0] in ("run", "doctor", "parity") for word in arguments):
            raise EvalkitError("no override")
        settings = composed("task=local", "model=local-cross-encoder", *arguments)
        taken = settings.values
        for key, value in dict(pairs).items():
            if key in FREE and is_plain(value):
                holder, _, name = key.rpartition(".")
                assert (taken[holder] if holder else taken)[name] == value
            if key in ("seed", "limit") and re.fullmatch(r"-?\d{1,30}", value):
                assert taken[key] == int(value)
        assert not list(place.iterdir())


@fuzzed(
    KIND,
    0.03,
    words=st.lists(
        TEXTS | st.sampled_from(["-m", "--cfg", "job", "--json", "-h", "--config-dir", "list", "="]), max_size=3
    ),
)
def test_words(words: list[str]) -> None:
    """Whatever stands on the command line, a run of nothing."""
    with folder():
        command("run", "task=local", "model=constant", *words)


def plain(value: Any) -> Any:
    """Numbers and lists as they compare."""
    return list(value) if isinstance(value, tuple) else value


def plain_values(value: Any) -> Any:
    """A group's settings as a mapping."""
    return value.model_dump() if isinstance(value, Choice | RunnerSettings) else value


def same(settings: Any, mapping: dict[str, Any]) -> None:
    """What was taken is what was written; a number may have been written as a text."""
    for name, value in settings.model_dump().items():
        written = mapping.get(name, plain(type(settings).model_fields[name].default))
        if isinstance(written, str | int | float) and not isinstance(written, bool):
            assert str(value) == str(written) or float(value) == float(written)


@fuzzed(KIND, 0.15, mapping=mutated({key: value for key, value in TASK.items() if key != "defaults"}) | mutated(SUITE))
def test_mappings_of_tasks(mapping: Any) -> None:
    if not isinstance(mapping, dict):
        raise EvalkitError("no mapping")
    settings = TaskSettings.from_mapping(mapping)
    same(settings, mapping)
    suite_settings(settings)


@fuzzed(KIND, 0.1, fields=mutated(MODEL), overrides=mutated({"max_length": 256, "truncation": "only_second"}))
def test_mappings_of_models(fields: Any, overrides: Any) -> None:
    if not isinstance(fields, dict) or not isinstance(overrides, dict):
        raise EvalkitError("no mapping")
    fields.pop("defaults", None)
    settings = models.model_settings(fields, overrides)
    if settings.recipe is None:
        same(settings, {**fields, **overrides})


@fuzzed(KIND, 0.05, mapping=mutated(RUN))
def test_whole_runs(mapping: Any) -> None:
    RunConfiguration.check(mapping)
    checked = RunConfiguration.model_validate(mapping)
    for name in RunConfiguration.model_fields.keys() & mapping:  # values that are checked need no conversion
        assert plain_values(getattr(checked, name)) == mapping[name]
        assert type(getattr(checked, name)) in (type(mapping[name]), Choice, RunnerSettings)


SERVER = {
    "url": "http://127.0.0.1:1",
    "concurrency": 2,
    "batch_size": 8,
    "timeout": 3.5,
    "retries": 1,
    "served_model": "me",
}


@fuzzed(KIND, 0.05, overrides=mutated(SERVER))
def test_settings_of_servers(overrides: Any) -> None:
    if not isinstance(overrides, dict):
        raise EvalkitError("no mapping")
    found = backends.server_settings("vllm", overrides)
    same(found, {**backends.read_backend("vllm").model_dump(), **overrides})


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """A task's file, wrong in what it says or how."""
    text = yaml.safe_dump(draw(mutated(TASK) | mutated(SUITE)), allow_unicode=True, sort_keys=False).encode(
        "utf-8", "surrogatepass"
    )
    how = draw(st.integers(0, 5))
    if how == 0:
        return draw(damaged(text))
    if how == 1:
        names = draw(
            st.lists(st.sampled_from(["mine", "base", "demo", "../task/mine", "_self_", "\0", "x" * 300]), max_size=3)
        )
        return yaml.safe_dump({**TASK, "defaults": names}).encode()
    if how == 2:
        return draw(
            st.sampled_from(
                [
                    b"a: &a [*a]\n",
                    b"x: " + b"[" * 3000,
                    b"!!python/name:os.system\n",
                    b"\xff\xfe",
                    b"name: 2020-13-45\n",
                ]
            )
        )
    return text


@fuzzed(KIND, 0.07, content=files())
def test_files_of_tasks(content: bytes) -> None:
    with folder() as place:
        (place / "task").mkdir()
        (place / "task" / "mine.yaml").write_bytes(content)
        settings = read_settings("mine", [place])
        if isinstance(written := yaml.safe_load(content), dict):
            assert settings.name == str(written.get("name", settings.name))


@fuzzed(KIND, 0.03, content=files(), group=st.sampled_from(["task", "model", "backend", "runner", "experiment"]))
def test_files_through_hydra(content: bytes, group: str) -> None:
    with folder() as place:
        (place / group).mkdir()
        (place / group / "mine.yaml").write_bytes(content)
        composed("task=local", "model=constant", f"{group}=mine", folder=place)
