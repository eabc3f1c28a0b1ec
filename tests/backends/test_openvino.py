"""Backend openvino against torch, which is compared with transformers itself."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import openvino
import pytest
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
from processor import HAS_BF16

from evalkit.backends import check_backend, prepare_model
from evalkit.errors import EvalkitError
from evalkit.models.interfaces import LocalNetwork, Runtime
from evalkit.models.settings import model_settings, read_model

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def embedder(tiny_bert_reranker: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_embedder(tiny_bert_reranker, tmp_path_factory.mktemp("models") / "embedder")


@pytest.mark.parametrize("architecture", ["XLM-R", "BERT"])
def test_cross_encoders(architecture: str, tiny_reranker: Path, tiny_bert_reranker: Path, tmp_path: Path) -> None:
    folder = tiny_reranker if architecture == "XLM-R" else tiny_bert_reranker
    expected = expected_scores(folder)
    assert np.ptp(expected) > 1
    np.testing.assert_allclose(scores(prepared("openvino", folder, tmp_path)), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(("pooling", "similarity"), RECIPES)
def test_embedders(pooling: str, similarity: str, embedder: Path, tmp_path: Path) -> None:
    model = prepared("openvino", embedder, tmp_path, kind="embedder", pooling=pooling, similarity=similarity)
    found = vectors(model)
    np.testing.assert_allclose(found, expected_vectors(embedder, pooling, similarity), atol=TOLERANCE, rtol=0)
    lengths = np.linalg.norm(found, axis=1)
    assert np.allclose(lengths, 1, atol=1e-5) == (similarity == "cosine")


def test_e5(e5_small: Path, tmp_path: Path) -> None:
    found = vectors(prepared("openvino", e5_small, tmp_path, **E5), TEXTS[:4])
    np.testing.assert_allclose(found, expected_e5(e5_small), atol=1e-5, rtol=0)


def test_bf16_is_close_and_another_precision_or_refused(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    if not HAS_BF16:
        with pytest.raises(EvalkitError, match=r"dtype=bf16: this processor has no bf16 arithmetic.*dtype=fp32, or"):
            prepared("openvino", tiny_bert_reranker, tmp_path, "bf16")
        return
    model = prepared("openvino", tiny_bert_reranker, tmp_path, "bf16")
    assert model.description["dtype"] == "bf16"
    difference = np.abs(scores(model) - expected_scores(tiny_bert_reranker)).max()
    assert 10 * TOLERANCE < difference < 0.15
    assert model.way != prepared("openvino", tiny_bert_reranker, tmp_path).way


def test_threads_run_batches_of_their_own(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    """As many as `parallel` says, at once, each with its own batch's outputs."""
    network = prepared("openvino", tiny_bert_reranker, tmp_path).scorer
    assert isinstance(network, LocalNetwork)
    assert network.parallel == 2
    query, *documents = network.tokenize(["感冒", *(f"多喝水{'很' * n}" for n in range(40))], "document")
    encodings = [network.encode_pair(query, document) for document in documents]
    alone = np.array([network.run([encoding])[0] for encoding in encodings])
    found = np.zeros(len(encodings), np.float32)

    def run(first: int) -> None:
        for _ in range(3):
            for place in range(first, len(encodings), 4):
                found[place] = network.run([encodings[place]])[0]

    threads = [threading.Thread(target=run, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_allclose(found, alone, atol=1e-6)


def test_it_runs_on_the_cpu_alone(tiny_bert_reranker: Path) -> None:
    settings = model_settings({"path": str(tiny_bert_reranker)})
    with pytest.raises(
        EvalkitError, match=r"device=cuda: backend openvino runs on the CPU; backend=torch runs elsewhere"
    ):
        prepare_model("openvino", settings, Runtime(device="cuda"))


def test_without_its_package(monkeypatch: pytest.MonkeyPatch, tiny_bert_reranker: Path, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    done = run_here(
        "task=demo-zh2en",
        "model=local-cross-encoder",
        f"model.path={tiny_bert_reranker}",
        "backend=openvino",
        f"results_dir={tmp_path}",
    )
    assert done.code == 2
    says = 'evalkit: backend=openvino is not installed: pip install ".[openvino]" in a clone of evalkit\n'
    assert done.stderr == says


def test_a_precision_that_it_lacks() -> None:
    with pytest.raises(EvalkitError, match="dtype=fp16: backend openvino runs fp32, bf16, int8"):
        check_backend("openvino", read_model("bge-reranker-base"), Runtime(dtype="fp16"))


def converted(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*.xml"))


def test_a_network_is_converted_once(tiny_bert_reranker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = scores(prepared("openvino", tiny_bert_reranker, tmp_path))
    (path,) = converted(tmp_path)
    with monkeypatch.context() as patch:
        patch.delattr(openvino, "convert_model")
        np.testing.assert_array_equal(scores(prepared("openvino", tiny_bert_reranker, tmp_path)), first)
    left = [name for name in files_below(tmp_path) if name.startswith("openvino/")]
    assert left == sorted(  # nothing is left of the conversion
        str(file.relative_to(tmp_path))
        for file in (path, path.with_suffix(".bin"), path.parent.with_name(f"{path.parent.name}.lock"))
    )


def test_other_weights_and_recipes_are_converted_anew(tiny_bert_reranker: Path, embedder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = scores(prepared("openvino", tiny_bert_reranker, cache))
    other = copied(tiny_bert_reranker, tmp_path)
    edit_weights(other, lambda tensors: {name: 2 * t if "classifier" in name else t for name, t in tensors.items()})
    np.testing.assert_allclose(scores(prepared("openvino", other, cache)), 2 * first, atol=TOLERANCE)
    assert len(converted(cache)) == 2
    for pooling, similarity in RECIPES:
        _ = prepared("openvino", embedder, cache, kind="embedder", pooling=pooling, similarity=similarity).scorer
    assert len(converted(cache)) == 2 + len(RECIPES)


def test_another_architecture_or_code_of_the_same_weights_is_converted_anew(
    tiny_bert_reranker: Path, tmp_path: Path
) -> None:
    cache, folder = tmp_path / "cache", copied(tiny_bert_reranker, tmp_path)
    for number, change in enumerate(("", "config.json", "modeling_own.py")):
        if change:
            path = folder / change
            path.write_text((path.read_text("utf-8") if path.exists() else "") + "\n", "utf-8")
        _ = prepared("openvino", folder, cache).scorer
        assert len(converted(cache)) == number + 1


def test_a_cache_that_cannot_be_written_costs_a_conversion_each_time(
    tiny_bert_reranker: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "file"
    cache.write_text("not a folder")
    expected = scores(prepared("openvino", tiny_bert_reranker, tmp_path / "cache"))
    with caplog.at_level("WARNING", "evalkit"):
        np.testing.assert_array_equal(scores(prepared("openvino", tiny_bert_reranker, cache)), expected)
    assert caplog.messages == [f"the converted network can't be kept in {cache / 'openvino'}: Not a directory"]


def test_a_damaged_conversion_is_named(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    _ = prepared("openvino", tiny_bert_reranker, tmp_path).scorer
    (path,) = converted(tmp_path)
    path.write_text(path.read_text()[:1000])
    with pytest.raises(EvalkitError, match=f"{path} can't be loaded: .*; delete its folder"):
        _ = prepared("openvino", tiny_bert_reranker, tmp_path).scorer


def test_openvino_s_telemetry_is_off() -> None:
    """It forks a process while other threads compute, which can hang BLAS, and tells others what is run."""
    program = "import evalkit.backends.openvino; from openvino.tools.ovc import telemetry_utils; print(telemetry_utils.tm.__name__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip().endswith("telemetry_stub"), done.stdout + done.stderr


def test_a_network_that_is_converted_already_starts_without_transformers_own(
    tiny_reranker: Path, tmp_path: Path
) -> None:
    """Importing the code of transformers' networks takes seconds, which no run spends that needs none of them."""
    program = f"""
import sys
from pathlib import Path
from evalkit.backends import prepare_model
from evalkit.models.interfaces import Runtime
from evalkit.models.settings import model_settings
settings = model_settings({{"name": "made", "path": {str(tiny_reranker)!r}, "max_length": 64}})
prepare_model("openvino", settings, Runtime(dtype="fp32", cache_dir=Path({str(tmp_path)!r}))).scorer
print("transformers.modeling_utils" in sys.modules)
"""
    said = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300) for _ in range(2)
    ]
    assert [done.stdout.strip() for done in said] == ["True", "False"], said[1].stderr
