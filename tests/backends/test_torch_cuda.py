"""Backend torch on an NVIDIA GPU, against the same network on the processor in fp32. Skipped where there is none."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chinese_texts import LONG_DOCUMENT, demo_pairs
from made_tasks import make_task
from numpy.typing import NDArray
from real_models import shared_folder, write_xlmr_reranker

import evalkit
from evalkit.backends import prepare_model
from evalkit.backends import torch as torch_backend
from evalkit.configuration.files import read_option
from evalkit.errors import EvalkitError
from evalkit.models.interfaces import Runtime
from evalkit.models.settings import model_settings
from evalkit.records import Run
from evalkit.results.result import Result
from evalkit.scoring.engine import score_task

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU")

PAIRS = [*demo_pairs(40), ("a <pad> in the text", "is <pad> seen"), ("感冒怎么办？", "")]
# of a score of some units: the spacing of fp16 and bf16 numbers, through twelve layers
TOLERANCES = {"fp32": 1e-3, "fp16": 2e-2, "bf16": 2e-1}


@pytest.fixture(scope="module")
def full_reranker() -> Path:
    return shared_folder("full-reranker", write_xlmr_reranker)


@pytest.fixture(autouse=True)
def _all_of_the_memory() -> Iterator[None]:
    gc.collect()  # the networks of tests before
    torch.cuda.empty_cache()
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


def run(
    folder: Path, device: str, dtype: str = "fp32", backend: str = "torch", pairs: Any = PAIRS, **fields: Any
) -> Run:
    settings = model_settings({"name": "made", "path": str(folder)} | fields)
    model = prepare_model(backend, settings, Runtime(device=device, dtype=dtype))
    return score_task(model, settings, make_task(*(([query], [(document, 1)]) for query, document in pairs)))


def scores(*arguments: Any, **options: Any) -> NDArray[np.float32]:
    return run(*arguments, **options).scores


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_scores_are_the_processors(dtype: str, full_reranker: Path) -> None:
    expected = scores(full_reranker, "cpu")
    found = run(full_reranker, "cuda", dtype)
    assert np.ptp(expected) > 1
    np.testing.assert_allclose(found.scores, expected, atol=TOLERANCES[dtype], rtol=0)
    assert (found.usage.padding_tokens == 0) == (dtype != "fp32")  # low precision is computed without padding


@pytest.mark.parametrize("architecture", ["XLM-R", "BERT"])
@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_batches_without_padding_score_as_padded_ones(
    architecture: str, dtype: str, tiny_reranker: Path, tiny_bert_reranker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_reranker if architecture == "XLM-R" else tiny_bert_reranker
    packed = scores(folder, "cuda", dtype)
    monkeypatch.setattr(torch_backend, "_runs_packed", lambda *_: False)
    padded = run(folder, "cuda", dtype)
    assert padded.usage.padding_tokens > 0
    np.testing.assert_allclose(packed, padded.scores, atol=TOLERANCES[dtype], rtol=0)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("fp32", 1e-5), ("fp16", 1e-3), ("bf16", 1e-2)])
def test_similarities_are_the_processors(pooling: str, dtype: str, tolerance: float, e5_small: Path) -> None:
    expected = scores(e5_small, "cpu", kind="embedder", pooling=pooling)
    found = scores(e5_small, "cuda", dtype, kind="embedder", pooling=pooling)
    np.testing.assert_allclose(found, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("name", ["bge-reranker-v2-gemma", "Qwen3-Reranker-0.6B"])
def test_language_models(name: str, tiny_gemma: Path, tiny_qwen: Path) -> None:
    folder = tiny_gemma if "gemma" in name else tiny_qwen
    fields = read_option("model", name) | {"path": str(folder)}
    np.testing.assert_allclose(scores(folder, "cuda", **fields), scores(folder, "cpu", **fields), atol=1e-4, rtol=0)


@pytest.mark.parametrize("score", ["dense", "sparse", "colbert", "fused"])
def test_bge_m3(score: str, tiny_m3: Path) -> None:
    fields = read_option("model", "bge-m3") | {"path": str(tiny_m3), "score": score, "max_length": 512}
    np.testing.assert_allclose(scores(tiny_m3, "cuda", **fields), scores(tiny_m3, "cpu", **fields), atol=1e-4, rtol=0)
    low = scores(tiny_m3, "cuda", "fp16", **fields)
    np.testing.assert_allclose(low, scores(tiny_m3, "cpu", **fields), atol=2e-2, rtol=0)


def test_auto_takes_the_gpu(tiny_reranker: Path) -> None:
    settings = model_settings({"name": "made", "path": str(tiny_reranker)})
    chosen = prepare_model("auto", settings, Runtime(dtype="fp16"))
    assert chosen.description == {
        "name": "torch",
        "device": torch.cuda.get_device_name(),
        "dtype": "fp16",
        "padding": "none",
        "why": "the device is cuda",
    }


def test_a_run_in_low_precision_tells_what_it_costs(e5_small: Path) -> None:
    def result(device: str, dtype: str) -> Result:
        model = evalkit.load_model(
            "local-embedder",
            path=str(e5_small),
            pooling="mean",
            query_prompt="query: ",
            document_prompt="passage: ",
            device=device,
            dtype=dtype,
        )
        return evalkit.evaluate(model, evalkit.load_task("demo-zh"), cache="off")

    low, full = result("cuda", "fp16"), result("cpu", "fp32")
    check = low.precision
    assert check is not None
    assert check.pairs >= 200
    assert check.largest_difference < 1e-3
    assert low.scores["map"] == pytest.approx(full.scores["map"], abs=5e-3)


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_memory_that_runs_out_halves_the_batches(
    dtype: str, full_reranker: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pairs = [(query, LONG_DOCUMENT) for query, _ in PAIRS] * 2
    expected = scores(full_reranker, "cuda", dtype, pairs=pairs)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    # the weights, and less than the batch of all pairs wants
    torch.cuda.set_per_process_memory_fraction((1.6e9 if dtype == "fp32" else 0.8e9) / total)
    with caplog.at_level(logging.WARNING, "evalkit"):
        found = scores(full_reranker, "cuda", dtype, pairs=pairs)
    assert "going on with half as many" in caplog.text
    np.testing.assert_allclose(found, expected, atol=TOLERANCES[dtype], rtol=0)


def test_one_input_that_does_not_fit_is_named(full_reranker: Path) -> None:
    settings = model_settings({"name": "made", "path": str(full_reranker)})
    model = prepare_model("torch", settings, Runtime(device="cuda"))
    _ = model.scorer
    torch.cuda.set_per_process_memory_fraction(1e-6)  # what is there stays, and nothing comes
    with pytest.raises(EvalkitError, match=r"out of memory with one input alone, .*512 tokens"):
        score_task(model, settings, make_task((["感冒"], [(LONG_DOCUMENT, 1)])))


def test_weights_that_do_not_fit_are_told(full_reranker: Path) -> None:
    torch.cuda.set_per_process_memory_fraction(1e-3)
    with pytest.raises(EvalkitError, match=r"the weights of made do not fit into the memory of .*: .*device=cpu"):
        scores(full_reranker, "cuda")
