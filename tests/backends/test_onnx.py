"""Backend onnx against torch; whose ONNX file runs, and where an exported one lies."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from agreement import (
    E5,
    RECIPES,
    TEXTS,
    expected_e5,
    expected_scores,
    expected_vectors,
    prepared,
    scores,
    vectors,
    write_embedder,
)
from command import files_below, run_here
from model_folders import copied, edit_weights

from evalkit.backends import backends_for, check_backend, prepare_model
from evalkit.errors import EvalkitError
from evalkit.models.interfaces import RunnableModel, Runtime
from evalkit.models.settings import model_settings, read_model

pytest.importorskip("onnxruntime")
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def embedder(tiny_bert_reranker: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_embedder(tiny_bert_reranker, tmp_path_factory.mktemp("models") / "embedder")


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def exported(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*.onnx"))


@pytest.mark.parametrize("architecture", ["XLM-R", "BERT"])
def test_cross_encoders(architecture: str, tiny_reranker: Path, tiny_bert_reranker: Path, cache_dir: Path) -> None:
    folder = tiny_reranker if architecture == "XLM-R" else tiny_bert_reranker
    found = scores(prepared("onnx", folder, cache_dir))
    np.testing.assert_allclose(found, expected_scores(folder), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(("pooling", "similarity"), RECIPES)
def test_embedders(pooling: str, similarity: str, embedder: Path, cache_dir: Path) -> None:
    found = vectors(prepared("onnx", embedder, cache_dir, kind="embedder", pooling=pooling, similarity=similarity))
    np.testing.assert_allclose(found, expected_vectors(embedder, pooling, similarity), atol=TOLERANCE, rtol=0)


def test_e5(e5_small: Path, tmp_path: Path) -> None:
    found = vectors(prepared("onnx", e5_small, tmp_path, **E5), TEXTS[:4])
    np.testing.assert_allclose(found, expected_e5(e5_small), atol=1e-5, rtol=0)


def test_int8_is_close_and_another_precision(
    tiny_bert_reranker: Path, cache_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = prepared("onnx", tiny_bert_reranker, cache_dir, "int8")
    assert model.description["dtype"] == "int8"
    with caplog.at_level(logging.INFO):
        difference = np.abs(scores(model) - expected_scores(tiny_bert_reranker)).max()
    assert 10 * TOLERANCE < difference < 0.3
    assert model.way != prepared("onnx", tiny_bert_reranker, cache_dir).way
    assert not caplog.messages  # advice of the library's own to its developers
    logging.getLogger().warning("heard again")
    assert caplog.messages == ["heard again"]


def test_a_network_is_exported_once(tiny_bert_reranker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = scores(prepared("onnx", tiny_bert_reranker, tmp_path))
    (path,) = exported(tmp_path)
    assert path.is_relative_to(tmp_path / "onnx")
    with monkeypatch.context() as patch:
        patch.delattr(torch.onnx, "export")
        np.testing.assert_array_equal(scores(prepared("onnx", tiny_bert_reranker, tmp_path)), first)
    lock = path.parent.with_name(f"{path.parent.name}.lock")
    kept = [str(file.relative_to(tmp_path / "onnx")) for file in (lock, path)]
    assert files_below(tmp_path / "onnx") == kept  # nothing else is left
    _ = prepared("onnx", tiny_bert_reranker, tmp_path, "int8").scorer
    assert len(exported(tmp_path)) == 2


def test_other_weights_are_exported_anew(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = scores(prepared("onnx", tiny_bert_reranker, cache))
    other = doubled(tiny_bert_reranker, tmp_path)
    np.testing.assert_allclose(scores(prepared("onnx", other, cache)), 2 * first, atol=TOLERANCE)
    assert len(exported(cache)) == 2


def doubled(folder: Path, into: Path) -> Path:
    """A copy whose scores are twice as high."""
    copy = copied(folder, into)
    edit_weights(copy, lambda tensors: {name: 2 * t if "classifier" in name else t for name, t in tensors.items()})
    return copy


def with_own_file(folder: Path, into: Path, cache: Path, source: Path | None = None) -> Path:
    """A copy with an ONNX file of its own, exported from it or from another model."""
    copy = shutil.copytree(folder, into / "with-onnx")
    _ = prepared("onnx", source or folder, cache).scorer
    (path,) = exported(cache)
    (copy / "onnx").mkdir()
    shutil.copy(path, copy / "onnx" / "model.onnx")
    return copy


def test_a_cross_encoder_s_own_file_is_what_runs(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    """Its weights are made twice those of the safetensors beside it, so that its scores tell which of them ran."""
    other = doubled(tiny_bert_reranker, tmp_path)
    folder = with_own_file(tiny_bert_reranker, tmp_path, tmp_path / "made", source=other)
    plain = prepared("onnx", tiny_bert_reranker, tmp_path / "cache")
    own = prepared("onnx", folder, tmp_path / "cache")
    np.testing.assert_allclose(scores(own), 2 * expected_scores(tiny_bert_reranker), atol=TOLERANCE)
    assert not exported(tmp_path / "cache")
    assert plain.description["file"] == "exported"
    assert len(str(own.description["file"])) == 64
    assert file_of(own) != file_of(plain)
    # neither int8 nor torch has to do with it
    low = prepared("onnx", folder, tmp_path / "cache", "int8")
    np.testing.assert_allclose(scores(low), expected_scores(tiny_bert_reranker), atol=0.3)
    np.testing.assert_array_equal(scores(prepared("torch", folder, tmp_path)), expected_scores(tiny_bert_reranker))


def file_of(model: RunnableModel) -> object:
    assert model.way is not None
    backend = model.way["backend"]
    assert isinstance(backend, dict)
    return backend["file"]


def test_an_own_file_that_is_another_one_s_is_another_way(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    folder = with_own_file(tiny_bert_reranker, tmp_path, tmp_path / "made")
    before = prepared("onnx", folder, tmp_path).way
    with (folder / "onnx" / "model.onnx").open("ab") as file:
        file.write(b"\0")
    assert prepared("onnx", folder, tmp_path).way != before


def test_an_embedder_s_own_file_lacks_the_pooling(embedder: Path, tiny_bert_reranker: Path, tmp_path: Path) -> None:
    folder = with_own_file(embedder, tmp_path, tmp_path / "made", source=tiny_bert_reranker)
    model = prepared("onnx", folder, tmp_path / "cache", kind="embedder", pooling="mean")
    np.testing.assert_allclose(vectors(model), expected_vectors(embedder, "mean", "cosine"), atol=TOLERANCE)


# a file that the model's settings name


def named(folder: Path, cache: Path, name: str, dtype: str = "fp32", **fields: Any) -> RunnableModel:
    settings = {"name": "made", "path": str(folder), "onnx_file": name}
    return prepare_model("onnx", model_settings(settings | fields), Runtime(cache_dir=cache, dtype=dtype, threads=2))


def test_a_named_file_is_all_the_weights_there_are(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    """Its weights are twice those that the folder's usual ONNX file has; there are no safetensors at all."""
    other = doubled(tiny_bert_reranker, tmp_path)
    folder = with_own_file(tiny_bert_reranker, tmp_path, tmp_path / "made")
    _ = prepared("onnx", other, tmp_path / "others").scorer
    shutil.copy(exported(tmp_path / "others")[0], folder / "onnx" / "twice.onnx")
    (folder / "model.safetensors").unlink()
    model = named(folder, tmp_path / "cache", "onnx/twice.onnx")
    np.testing.assert_allclose(scores(model), 2 * expected_scores(tiny_bert_reranker), atol=TOLERANCE)
    assert not exported(tmp_path / "cache")
    usual = named(folder, tmp_path / "cache", "onnx/model.onnx")
    np.testing.assert_allclose(scores(usual), expected_scores(tiny_bert_reranker), atol=TOLERANCE)
    assert model.identity.weights_hash != usual.identity.weights_hash
    assert model.way != usual.way
    with pytest.raises(EvalkitError, match=r"has no \*\.safetensors"):
        prepared("onnx", folder, tmp_path)


def test_a_named_file_of_int8_is_run_as_it_is(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    """To the bit what the exported int8 network gives, and not what the fp32 one does."""
    folder = copied(tiny_bert_reranker, tmp_path)
    expected = scores(prepared("onnx", tiny_bert_reranker, tmp_path / "made", "int8"))
    (folder / "onnx").mkdir()
    shutil.copy(exported(tmp_path / "made")[0], folder / "onnx" / "model_int8.onnx")
    model = named(folder, tmp_path / "cache", "onnx/model_int8.onnx")
    np.testing.assert_array_equal(scores(model), expected)
    assert np.abs(expected - expected_scores(tiny_bert_reranker)).max() > 10 * TOLERANCE
    assert model.description["dtype"] == "the file's"
    with pytest.raises(EvalkitError, match=r"dtype=int8: onnx/model_int8\.onnx is run as it is; leave dtype out"):
        named(folder, tmp_path / "cache", "onnx/model_int8.onnx", "int8")


def test_a_named_file_that_is_not_there(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    folder = copied(tiny_bert_reranker, tmp_path)
    for name in ("onnx/model.onnx", "../model/config.json/../../secret.onnx"):
        with pytest.raises(EvalkitError, match="has no such file; its ONNX files: none"):
            named(folder, tmp_path, name)
    (tmp_path / "secret.onnx").touch()
    with pytest.raises(EvalkitError, match="has no such file"):
        named(folder, tmp_path, "../secret.onnx")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model_O3.onnx").touch()
    with pytest.raises(EvalkitError, match=r"its ONNX files: onnx/model_O3\.onnx$"):
        named(folder, tmp_path, "onnx/model.onnx")
    with pytest.raises(EvalkitError, match="only a cross-encoder's is known to hold all that makes a score"):
        named(folder, tmp_path, "onnx/model_O3.onnx", kind="embedder")


def test_bge_reranker_bases_own_file_has_a_name() -> None:
    """Of the same model and recipe, with nothing but the file's name in its place; run by backend=onnx alone."""
    own, plain = read_model("bge-reranker-base-onnx"), read_model("bge-reranker-base")
    assert own == plain.model_copy(update={"name": own.name, "onnx_file": "onnx/model.onnx"})
    assert backends_for(own) == ("onnx",)
    with pytest.raises(EvalkitError) as caught:
        check_backend("torch", own, Runtime())
    assert str(caught.value) == (
        "backend=torch can't run bge-reranker-base-onnx, which is the ONNX file onnx/model.onnx; these can: auto, onnx"
    )


def test_a_run_of_an_own_file_has_a_folder_of_its_own(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    """So that it never stands for a run of the same model's other weights."""
    folder = with_own_file(tiny_bert_reranker, tmp_path, tmp_path / "made")
    done = run_here(
        "task=demo-zh2en", "limit=3", "model=bge-reranker-base-onnx", f"model.path={folder}", f"results_dir={tmp_path / 'results'}",
        f"cache_dir={tmp_path / 'cache'}",
    )  # fmt: skip
    assert done.code == 0, done.stderr
    (path,) = (tmp_path / "results").rglob("EvalkitDemoZh2En.json")
    assert "onnx_file-onnx-model.onnx" in path.parent.name
    assert path.parent.parent.name == "experiments"
    backend = json.loads(path.read_text(encoding="utf-8"))["evalkit"]["backend"]
    assert (backend["name"], len(backend["file"])) == ("onnx", 64)


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", None])
def test_an_own_file_that_is_damaged(content: bytes | None, tiny_bert_reranker: Path, tmp_path: Path) -> None:
    folder = with_own_file(tiny_bert_reranker, tmp_path, tmp_path / "made")
    path = folder / "onnx" / "model.onnx"
    path.write_bytes(path.read_bytes()[:100_000] if content is None else content)
    with pytest.raises(EvalkitError) as caught:
        _ = prepared("onnx", folder, tmp_path).scorer
    assert str(caught.value).startswith(f"{path} can't be loaded: ")
    assert "\n" not in str(caught.value)


def test_an_own_file_of_another_architecture(tiny_reranker: Path, tiny_bert_reranker: Path, tmp_path: Path) -> None:
    folder = with_own_file(tiny_reranker, tmp_path, tmp_path / "made", source=tiny_bert_reranker)
    with pytest.raises(EvalkitError, match=r"model\.onnx wants the input token_type_ids, which made does not have"):
        _ = prepared("onnx", folder, tmp_path).scorer


def test_a_cache_that_cannot_be_written(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EvalkitError, match=r"can't be kept in .*; choose another cache_dir=FOLDER, or backend=torch"):
        _ = prepared("onnx", tiny_bert_reranker, tmp_path / "file").scorer


def test_it_runs_on_the_cpu_alone(tiny_bert_reranker: Path) -> None:
    settings = model_settings({"path": str(tiny_bert_reranker)})
    with pytest.raises(EvalkitError, match=r"device=cuda: backend onnx runs on the CPU; backend=torch runs elsewhere"):
        prepare_model("onnx", settings, Runtime(device="cuda"))


def test_without_its_package(monkeypatch: pytest.MonkeyPatch, tiny_bert_reranker: Path, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    done = run_here(
        "task=demo-zh2en",
        "model=local-cross-encoder",
        f"model.path={tiny_bert_reranker}",
        "backend=onnx",
        f"results_dir={tmp_path}",
    )
    assert done.code == 2
    assert done.stderr == 'evalkit: backend=onnx is not installed: pip install ".[onnx]" in a clone of evalkit\n'


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_precisions_that_it_lacks(dtype: str) -> None:
    with pytest.raises(EvalkitError, match=f"dtype={dtype}: backend onnx runs fp32, int8"):
        check_backend("onnx", read_model("bge-reranker-base"), Runtime(dtype=dtype))
