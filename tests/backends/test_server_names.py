"""A server that names another model than the one that is meant is refused; where names decide nothing, the result says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_servers import FakeServer
from served_models import fake, served

from evalkit.backends.servers.names import compare_names, last_part
from evalkit.errors import EvalkitError
from evalkit.models.interfaces import RunnableModel
from evalkit.models.settings import ModelSettings

SHA = "2cfc18c9415c912f9d8155881c133215df768a70"


def folder_settings(folder: Path, **settings: Any) -> ModelSettings:
    return ModelSettings(name="auto", kind="cross-encoder", path=str(folder), **settings)


def make_folder(place: Path, base: str | None = None, saved_as: str | None = None) -> Path:
    place.mkdir(parents=True)
    (place / "config.json").write_text(json.dumps({"_name_or_path": saved_as} if saved_as else {}), encoding="utf-8")
    if base:
        (place / "README.md").write_text(f"---\nbase_model:\n- {base}\n---\n# card\n", encoding="utf-8")
    return place


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        (["/data/my-reranker"], "same"),
        (["my-reranker"], "same"),
        (["/data/my-reranker/"], "same"),
        (["C:\\models\\my-reranker"], "same"),
        (["/data/my-reranker", "prod"], "same"),
        (["acme/my-reranker"], "unknown"),  # another content, or this one published
        (["/data/other", "my-reranker"], "unknown"),
        (["/data"], "unknown"),
        (["/repository"], "unknown"),
        (["/opt/ml/model"], "unknown"),
        (["/runs/checkpoint-500"], "unknown"),
        (["BAAI/bge-reranker-base"], "unknown"),  # what it was made from
        (["/data/saved-from"], "unknown"),
        ([], "unknown"),
        (["BAAI/bge-reranker-large"], "other"),
        (["/data/my-reranker-2"], "other"),
        (["prod"], "other"),
        ([f"/cache/models--BAAI--bge-reranker-large/snapshots/{SHA}"], "other"),
    ],
)
def test_names_and_a_folder(tmp_path: Path, said: list[str], verdict: str) -> None:
    folder = make_folder(tmp_path / "my-reranker", "BAAI/bge-reranker-base", "/home/x/saved-from")
    assert compare_names(folder_settings(folder), None, said) == verdict


def test_a_folder_whose_own_name_names_nothing(tmp_path: Path) -> None:
    settings = folder_settings(make_folder(tmp_path / "checkpoint-500"))
    assert compare_names(settings, None, ["/data/checkpoint-500"]) == "unknown"
    assert compare_names(settings, None, ["BAAI/bge-reranker-base"]) == "other"
    assert compare_names(settings, "prod", ["/data/prod"]) == "same"
    assert compare_names(settings, "prod", ["/data/checkpoint-500"]) == "other"


def test_a_snapshot_in_the_hub_s_cache_has_a_hub_id(tmp_path: Path) -> None:
    settings = folder_settings(make_folder(tmp_path / "hub" / "models--BAAI--bge-reranker-base" / "snapshots" / SHA))
    assert compare_names(settings, None, ["BAAI/bge-reranker-base"]) == "same"
    assert compare_names(settings, None, [f"/data/models--BAAI--bge-reranker-base/snapshots/{SHA}"]) == "same"
    assert compare_names(settings, None, ["mirror/bge-reranker-base"]) == "unknown"
    assert compare_names(settings, None, ["BAAI/bge-reranker-large"]) == "other"


def test_a_hub_model_is_known_by_the_last_part() -> None:
    settings = ModelSettings(name="x", kind="cross-encoder", hub_id="BAAI/bge-reranker-base")
    assert compare_names(settings, None, ["/data/bge-reranker-base"]) == "same"
    assert compare_names(settings, None, ["/data"]) == "other"
    assert last_part("bge-m3:latest") == "bge-m3"


def opened(backend: str, server: FakeServer, folder: Path, **settings: Any) -> RunnableModel:
    recipe = {"path": folder, "max_length": 512}
    model = served(backend, server.url, "local-cross-encoder", recipe=recipe, **settings).runnable
    assert model.scorer
    return model


def doubts(model: RunnableModel) -> list[str]:
    return [finding for finding in model.findings or () if "names" in finding or "list" in finding]


def test_tei_s_own_name_for_a_folder_s_model(tiny_bert_reranker: Path) -> None:
    name = tiny_bert_reranker.name
    with fake("tei", model="BAAI/bge-reranker-large") as server:
        with pytest.raises(
            EvalkitError, match=f"runs BAAI/bge-reranker-large, not {name}; .*backend.served_model=BAAI/"
        ):
            opened("tei", server, tiny_bert_reranker)
        assert not server.probes
        assert doubts(opened("tei", server, tiny_bert_reranker, served_model="BAAI/bge-reranker-large")) == []
    with fake("tei", model=f"/data/{name}") as server:
        assert doubts(opened("tei", server, tiny_bert_reranker)) == []
    with fake("tei", model="/data") as server:
        (doubt,) = doubts(opened("tei", server, tiny_bert_reranker))
        assert doubt == f"tei: the server names /data; whether that is {name} can't be known"


@pytest.mark.parametrize("backend", ["vllm", "infinity-server"])
def test_a_server_s_list_of_models(backend: str, tiny_bert_reranker: Path) -> None:
    """vLLM's has what it loaded beside the name that it goes by."""
    name = tiny_bert_reranker.name
    with fake(backend, models=[{"id": "BAAI/bge-reranker-large"}]) as server:
        with pytest.raises(
            EvalkitError, match=f"/models runs BAAI/bge-reranker-large, not {name}; .*=BAAI/bge-reranker-large"
        ):
            opened(backend, server, tiny_bert_reranker)
        with pytest.raises(EvalkitError, match="runs BAAI/bge-reranker-large, not BAAI/bge-reranker-base"):
            _ = served(backend, server.url).runnable.scorer
        assert not server.probes
        assert doubts(opened(backend, server, tiny_bert_reranker, served_model="BAAI/bge-reranker-large")) == []
        (doubt,) = doubts(opened(backend, server, tiny_bert_reranker, served_model="mine"))
        assert doubt.endswith("lists BAAI/bge-reranker-large, and not mine, under which it is asked")
    with fake(backend, models=[{"id": name, "root": f"/data/{name}"}, {"id": "other"}]) as server:
        assert doubts(opened(backend, server, tiny_bert_reranker)) == []
    with fake(backend, models=[{"id": name, "root": "BAAI/bge-reranker-large"}]) as server:
        (doubt,) = doubts(opened(backend, server, tiny_bert_reranker))
        assert doubt.endswith(f"names BAAI/bge-reranker-large; whether that is {name} can't be known")
    with fake(backend, models=None) as server:
        (doubt,) = doubts(opened(backend, server, tiny_bert_reranker))
        assert "the server lists no models at " in doubt


@pytest.mark.parametrize("models", ["x", {"id": "x"}, 3, [], ["x"]])
def test_a_list_of_models_that_is_none(models: Any) -> None:
    with fake("vllm", models=models) as server:
        model = served("vllm", server.url).runnable
        assert model.scorer
        (doubt,) = doubts(model)
        assert doubt.endswith("that it runs BAAI/bge-reranker-base is known from the requests alone")
