"""Converted networks: made by one process at a time, whole or not at all, whatever a killed one left."""

from __future__ import annotations

import itertools
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agreement import prepared, write_embedder
from command import files_below
from model_folders import edit_json
from processor import HAS_NNCF
from transformers import BertForSequenceClassification

from evalkit.backends import conversions, openvino, prepare_model
from evalkit.backends.conversions import UNFINISHED, conversion_folder, keep_conversion, kept_conversions
from evalkit.models.inputs import load_inputs
from evalkit.models.interfaces import LocalNetwork, Runtime
from evalkit.models.networks import CrossEncoderNetwork, load_network
from evalkit.models.settings import ModelSettings, model_settings
from evalkit.models.weights import find_model


def test_what_a_killed_process_left_is_taken_away(tmp_path: Path) -> None:
    folder = tmp_path / "openvino" / "network"
    left = folder.with_name(folder.name + UNFINISHED)
    left.mkdir(parents=True)
    (left / "half").touch()
    keep_conversion(folder, lambda empty: (empty / "whole").touch())
    assert files_below(tmp_path) == ["openvino/network.lock", "openvino/network/whole"]
    assert kept_conversions(tmp_path) == [folder]


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "openvino" / "network"

    def write(empty: Path) -> None:
        (empty / "half").touch()
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        keep_conversion(folder, write)
    assert kept_conversions(tmp_path) == []


def test_several_at_once_make_one(tmp_path: Path) -> None:
    made: list[int] = []

    def write(empty: Path) -> None:
        made.append(1)
        time.sleep(0.1)
        (empty / "whole").touch()

    threads = [threading.Thread(target=keep_conversion, args=(tmp_path / "onnx" / "n", write)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]
    assert files_below(tmp_path) == ["onnx/n.lock", "onnx/n/whole"]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system gives a process all processors")
@pytest.mark.parametrize("backend", ["openvino", "onnx"])
def test_threads_are_as_many_as_the_process_may_have(backend: str, tiny_bert_reranker: Path, tmp_path: Path) -> None:
    """A batch system or a container may give it fewer processors than the machine has."""
    settings = model_settings({"name": "made", "path": str(tiny_bert_reranker)})
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        network = prepare_model(backend, settings, Runtime(device="cpu", cache_dir=tmp_path)).scorer
    finally:
        os.sched_setaffinity(0, allowed)
    assert isinstance(network, LocalNetwork)
    assert network.parallel == 1


# every field of a recipe stands in one of the two; the values are combined with each other
IN_GRAPH: dict[str, tuple[Any, ...]] = {
    "kind": ("embedder", "cross-encoder"),
    "pooling": ("mean", "cls", "cls+mean", "mean+cls"),
    "pool_prompt": (True, False),
    "similarity": ("cosine", "dot"),
    "modules": (
        (),
        ("Pooling",),
        ("Pooling", "Normalize"),
        ("Pooling", "Dense:2_Dense", "Normalize"),
        ("Normalize", "Pooling"),
        ("WeightedLayerPooling:1_Weighted", "Pooling"),
    ),
    "label": (None, 0, 1),
}
# a field that is none of the graph's, with two values of which neither may change it
OUTSIDE: dict[str, tuple[Any, Any]] = {
    "name": ("made", "other"),
    "parameters": (None, 1.0),
    "max_length": (None, 64),
    "truncation": ("longest_first", "only_second"),
    "query_prompt": ("", "query: "),
    "document_prompt": ("", "passage: "),
    "lower_case": (False, True),
    "dimensions": (None, 16),
    "backends": ((), ("torch",)),
    "recipe": (None, "own"),
    "recipes": ({}, {"own": {}}),
    "allow_pickle": (False, True),
    "needs_remote_code": (False, True),
}
# no converted network's: of other kinds of model, or where a model is from
ELSEWHERE = {
    *("hub_id", "revision", "path", "object"),  # the identity says what is there
    "onnx_file",  # run as it is, and part of the identity
    "unverified_loader",  # for mteb's loaders alone
    "trust_remote_code",  # part of the identity where the folder names code
    *("system_prompt", "separator", "prompt", "positive_word", "negative_word"),
    *("document_ending", "bos", "strip", "temperature"),
    *("cutoff_layers", "compress_ratio", "compress_layers", "score", "weights"),
    *("order_seed", "permutations", "max_query_length", "block_size"),  # of listwise models
    *(
        "query_length",
        "document_length",
        "query_expansion",
        "skiplist",
        "skiplist_roles",
        "interaction",
    ),  # multi-vector
}


def test_every_field_of_a_recipe_is_known_to_be_in_the_graph_or_not() -> None:
    """A field that is new stands in none of the three lists yet; one in the graph must be part of `graph_name`."""
    known = [*IN_GRAPH, *OUTSIDE, *ELSEWHERE]
    assert sorted(known) == sorted(ModelSettings.model_fields)


@pytest.fixture(scope="module")
def folders(tiny_bert_reranker: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A classifier of two labels, and an encoder, by kind."""
    place = tmp_path_factory.mktemp("models")
    embedder = write_embedder(tiny_bert_reranker, place / "embedder")
    classifier = write_embedder(tiny_bert_reranker, place / "classifier")
    BertForSequenceClassification.from_pretrained(
        tiny_bert_reranker, num_labels=2, ignore_mismatched_sizes=True
    ).save_pretrained(classifier)
    return {"embedder": embedder, "cross-encoder": classifier}


def graph_of(settings: ModelSettings, folder: Path) -> str:
    """What decides a graph, off the network and the inputs themselves."""
    network = load_network(settings, folder)
    inputs = sorted(load_inputs(settings, folder).example())
    if isinstance(network, CrossEncoderNetwork):
        return repr((network, network.label, inputs))
    return repr((network, network.modes, network.normalize, network.layers, inputs))


def recipes_of(kind: str) -> list[dict[str, Any]]:
    """Every combination that can be run: a classifier pools nothing, and says which of its labels counts."""
    names = [name for name in IN_GRAPH if name != "kind"]
    found = [dict(zip(names, values, strict=True)) for values in itertools.product(*(IN_GRAPH[name] for name in names))]
    classifier = {"pooling": "mean", "pool_prompt": True, "similarity": "cosine"}
    return [
        one
        for one in found
        if (one["label"] is None and (kind == "embedder" or one["modules"]))
        or (kind == "cross-encoder" and one["label"] is not None and one == one | classifier | {"modules": ()})
    ]


@pytest.mark.parametrize("kind", IN_GRAPH["kind"])
def test_recipes_with_different_graphs_share_no_conversion(kind: str, folders: dict[str, Path], tmp_path: Path) -> None:
    """The identity is that of the folder, so that it is the rest of the name that tells them apart."""
    files = find_model(
        model_settings({"name": "made", "kind": kind, "path": str(folders[kind])}), offline=True, cache_dir=tmp_path
    )
    runtime = Runtime(cache_dir=tmp_path)
    graphs: dict[str, set[str]] = {}
    for recipe in recipes_of(kind):
        settings = ModelSettings(**{"name": "made", "kind": kind, "path": str(files.folder)} | recipe)
        name = conversion_folder("onnx", settings, files, runtime).name
        folder = folders["cross-encoder" if settings.label is not None else "embedder"]
        graphs.setdefault(name, set()).add(graph_of(settings, folder))
    assert {name for name, found in graphs.items() if len(found) > 1} == set()
    assert len(set().union(*graphs.values())) >= 20


@pytest.mark.parametrize("field", OUTSIDE)
def test_what_is_not_in_the_graph_shares_the_conversion(field: str, folders: dict[str, Path], tmp_path: Path) -> None:
    for kind, folder in folders.items():
        own = {"name": "made", "kind": kind, "path": str(folder), "label": 1 if kind == "cross-encoder" else None}
        recipes = [ModelSettings(**{**own, field: value}) for value in OUTSIDE[field]]
        assert len({graph_of(settings, folder) for settings in recipes}) == 1
        files = find_model(recipes[0], offline=True, cache_dir=tmp_path)
        names = {conversion_folder("onnx", one, files, Runtime(cache_dir=tmp_path)).name for one in recipes}
        assert len(names) == 1


# of what is not in the graph, what changes the inputs that int8 is calibrated on, by kind
IN_CALIBRATION = {
    "embedder": {"max_length", "query_prompt", "document_prompt"},
    "cross-encoder": {"max_length", "query_prompt", "document_prompt"},
}


@pytest.mark.skipif(not HAS_NNCF, reason="nncf is not installed")
@pytest.mark.parametrize("kind", IN_CALIBRATION)
def test_an_int8_network_is_of_the_inputs_that_it_was_calibrated_on(
    kind: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    """Else the first recipe of a graph would decide the others' scores."""
    own = {"name": "made", "kind": kind, "path": str(folders[kind]), "label": 1 if kind == "cross-encoder" else None}
    files = find_model(ModelSettings(**own), offline=True, cache_dir=tmp_path)

    def of(settings: ModelSettings) -> tuple[str, str]:
        calibration = openvino.calibration_inputs(settings, load_inputs(settings, files.folder))
        fed = repr([{name: array.tolist() for name, array in arrays.items()} for arrays in calibration])
        return openvino.quantized_folder(settings, files, Runtime(cache_dir=tmp_path), calibration).name, fed

    for field, values in OUTSIDE.items():
        found = {of(ModelSettings(**{**own, field: value})) for value in values}
        assert len(found) == len({name for name, _ in found}) == len({fed for _, fed in found})
        assert (len(found) == 2) == (field in IN_CALIBRATION[kind]), field


def test_a_conversion_is_of_its_files_precision_and_versions(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = model_settings({"name": "made", "kind": "embedder", "path": str(folders["embedder"])})

    def name(precision: str = "fp32") -> str:
        files = find_model(settings, offline=True, cache_dir=tmp_path)
        return conversion_folder("onnx", settings, files, Runtime(cache_dir=tmp_path), precision).name

    names = [name(), name("int8")]
    for package in ("onnxruntime", "onnx", "torch", "transformers"):
        with monkeypatch.context() as patch:
            versions = {package: "0.0.1"}
            patch.setattr(conversions, "package_version", lambda asked, v=versions: v.get(asked, "1"))
            names.append(name())
    # the padding id, which the network shares
    edit_json(folders["embedder"] / "tokenizer_config.json", lambda config: config.update(pad_token="[UNK]"))
    names.append(name())
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_the_first_token_behind_a_prompt_is_computed(backend: str, folders: dict[str, Path], tmp_path: Path) -> None:
    """Where the prompt is not pooled, the vector is that of a later token than the first."""
    fields = {"kind": "embedder", "pooling": "cls", "pool_prompt": False, "query_prompt": "a question of mine: "}
    found = []
    for name in ("torch", backend):
        network = prepared(name, folders["embedder"], tmp_path, **fields).scorer
        assert isinstance(network, LocalNetwork)
        texts = network.tokenize(["感冒了应该吃什么药？", "How old?"], "query")
        found.append(network.run([network.encode_text(text) for text in texts]))
    assert np.abs(found[0]).max() > 0.1
    np.testing.assert_allclose(found[1], found[0], atol=1e-4)


def test_a_conversion_that_is_looked_up_is_used(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    """So that pruning by age spares it."""
    settings = model_settings({"name": "made", "path": str(tiny_bert_reranker), "kind": "cross-encoder"})
    files = find_model(settings, offline=True, cache_dir=tmp_path)
    folder = conversion_folder("onnx", settings, files, Runtime(cache_dir=tmp_path))
    assert not folder.exists()
    folder.mkdir(parents=True)
    os.utime(folder, (1, 1))
    assert conversion_folder("onnx", settings, files, Runtime(cache_dir=tmp_path)) == folder
    assert folder.stat().st_mtime > 1
