"""dtype=int8 on backend openvino: quantised by NNCF, as close to fp32 as int8 can be, the same each time, and in silence."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agreement import expected_scores, expected_vectors, prepared, scores, vectors, write_embedder
from command import files_below, run_here
from model_folders import copied, edit_weights

from evalkit.backends.checked_conversion import INT8_TOLERANCE, refuse_coarse
from evalkit.backends.openvino import CALIBRATION_TEXTS, calibration_pairs
from evalkit.errors import EvalkitError
from evalkit.models.interfaces import LocalNetwork
from evalkit.models.settings import model_settings

nncf = pytest.importorskip("nncf")
SETTINGS = model_settings({"name": "made", "path": "made"})


@pytest.fixture(scope="module")
def made(tiny_bert_reranker: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the small model's networks in fp32 and int8."""
    cache = tmp_path_factory.mktemp("made")
    _ = prepared("openvino", tiny_bert_reranker, cache, "int8").scorer
    return cache


@pytest.fixture
def cache(made: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(made, tmp_path / "cache")


@pytest.fixture
def fp32_cache(cache: Path) -> Path:
    """A copy with the network in fp32 alone."""
    (folder,) = (cache / "openvino").glob("*-int8")
    shutil.rmtree(folder)
    return cache


def test_it_is_close_and_another_precision(
    tiny_bert_reranker: Path, fp32_cache: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    model = prepared("openvino", tiny_bert_reranker, fp32_cache, "int8")
    assert model.description["dtype"] == "int8"
    assert model.description["quantizer"] == f"nncf {nncf.__version__}"
    full = prepared("openvino", tiny_bert_reranker, fp32_cache)
    assert model.way != full.way
    assert "quantizer" not in full.description
    before = logging.getLoggerClass()
    with caplog.at_level(logging.INFO):
        found = scores(model)
    difference = np.abs(found - expected_scores(tiny_bert_reranker)).max()
    assert 1e-3 < difference < 0.3
    # NNCF's remarks and progress stay off the standard output, and a user's own loggers are as before
    assert capfd.readouterr().out == ""
    started, lost = caplog.messages
    assert started == "quantising made to int8, on 120 inputs: this is done once"
    assert 0 < float(lost.removeprefix("in int8 made loses ").removesuffix(" % of the variance of its outputs")) < 5
    assert logging.getLoggerClass() is before


def test_it_is_made_once_and_the_same_each_time(
    tiny_bert_reranker: Path, made: Path, fp32_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit, by two conversions in two caches, and by one that is kept."""
    first = scores(prepared("openvino", tiny_bert_reranker, fp32_cache, "int8"))
    (kept,), (anew,) = (list((cache / "openvino").rglob("*-int8/model.bin")) for cache in (made, fp32_cache))
    assert kept.parent.name == anew.parent.name
    assert kept.read_bytes() == anew.read_bytes()
    assert len(list((fp32_cache / "openvino").glob("*-fp32"))) == 1  # it was made of that one, which was there
    monkeypatch.delattr(nncf, "quantize")
    np.testing.assert_array_equal(scores(prepared("openvino", tiny_bert_reranker, made, "int8")), first)


def test_embedders(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    embedder = write_embedder(tiny_bert_reranker, tmp_path / "embedder")
    model = prepared("openvino", embedder, tmp_path / "cache", "int8", kind="embedder", pooling="cls")
    found, expected = vectors(model), expected_vectors(embedder, "cls", "cosine")
    assert np.abs(found @ found.T - expected @ expected.T).max() < 0.05
    assert np.abs(found - expected).max() > 1e-4
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_padding_has_no_effect(tiny_bert_reranker: Path, made: Path) -> None:
    """Ranges are fixed beforehand: what else is in a batch moves a score by little more than rounding in fp32 makes of it."""
    network = prepared("openvino", tiny_bert_reranker, made, "int8").scorer
    assert isinstance(network, LocalNetwork)
    query, *documents = network.tokenize(["感冒", *(f"多喝水{'很' * n}" for n in range(0, 200, 20))], "document")
    pairs = [network.encode_pair(query, document) for document in documents]
    alone = np.array([network.run([pair])[0] for pair in pairs])
    assert np.ptp(alone) > 0.3
    np.testing.assert_allclose(network.run(pairs), alone, atol=0.01)


PROGRAM = """
import socket, sys
asked = []
NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.bind")
sys.addaudithook(lambda event, arguments: asked.append(event) if event in NETWORK else None)
sys.path[:0] = sys.argv[3:]
from pathlib import Path
from agreement import prepared
_ = prepared("openvino", Path(sys.argv[1]), Path(sys.argv[2]), "int8").scorer
assert "nncf" in sys.modules and "pytest" not in sys.modules  # under pytest NNCF reports nothing by itself
sys.exit(f"it asks the network: {asked}" if asked else 0)
"""


def test_nncf_reports_to_nobody(tiny_bert_reranker: Path, fp32_cache: Path, tmp_path: Path) -> None:
    """No connection is tried, nothing is written into the home folder, and nothing to the standard output."""
    home = tmp_path / "home"
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NNCF", "XDG"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tiny_bert_reranker), str(fp32_cache), *sys.path],
        capture_output=True,
        encoding="utf-8",
        timeout=400,
        cwd=tmp_path,
        env={**kept, "HOME": str(home), "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert files_below(home) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "home"]


def test_without_nncf(tiny_bert_reranker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    done = run_here(
        *("task=demo-zh2en", "model=local-cross-encoder", f"model.path={tiny_bert_reranker}", "backend=openvino"),
        *("dtype=int8", f"results_dir={tmp_path / 'results'}", f"cache_dir={tmp_path / 'cache'}"),
    )
    assert done.code == 2
    says = 'dtype=int8 on backend=openvino needs an extra: pip install ".[int8]" in a clone of evalkit; backend=onnx has int8'
    assert done.stderr.splitlines()[-1].startswith(f"evalkit: {says}"), done.stderr
    assert not list((tmp_path / "results").rglob("*.json"))
    assert prepared("openvino", tiny_bert_reranker, tmp_path).description["dtype"] == "fp32"  # which does not need it


def test_what_nncf_can_not_quantise_is_said(
    tiny_bert_reranker: Path, fp32_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("Node\nof an unknown type")

    monkeypatch.setattr(nncf, "quantize", fail)
    with pytest.raises(EvalkitError, match="can't quantise made to int8: Node of an unknown type; dtype=fp32, or"):
        _ = prepared("openvino", tiny_bert_reranker, fp32_cache, "int8").scorer
    assert not list((fp32_cache / "openvino").glob("*-int8"))


def test_a_network_that_int8_breaks_is_not_kept(
    tiny_bert_reranker: Path, fp32_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one with half of its scores' differences gone would be: here that of other weights."""
    other = copied(tiny_bert_reranker, tmp_path)
    edit_weights(other, lambda tensors: {name: t / 3 if "classifier" in name else t for name, t in tensors.items()})
    _ = prepared("openvino", other, tmp_path / "other").scorer
    (network,) = (tmp_path / "other" / "openvino").rglob("model.xml")
    import openvino

    monkeypatch.setattr(nncf, "quantize", lambda *_, **__: openvino.Core().read_model(network))
    with pytest.raises(EvalkitError, match=r"can't run made in int8: rounded to 8 bits it loses \d+% of what tells"):
        _ = prepared("openvino", tiny_bert_reranker, fp32_cache, "int8").scorer
    assert not list((fp32_cache / "openvino").glob("*-int8"))


RIGHT = [np.float32([1.0]), np.float32([-1.0]), np.float32([3.0]), np.float32([-3.0])]  # their squares sum up to 20


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (RIGHT, None),
        ([one + 0.5 for one in RIGHT], None),  # 1 of 20
        ([one * 0.4 for one in RIGHT], "loses 36% of what tells inputs apart"),
        ([one * 0 for one in RIGHT], "loses 100% of what tells inputs apart"),
        ([*RIGHT[:3], np.float32([np.nan])], "gives what is no number"),
        ([*RIGHT[:3], np.float32([np.inf])], "gives what is no number"),
    ],
)
def test_what_is_too_coarse(found: list[Any], says: str | None) -> None:
    assert 0.05 < INT8_TOLERANCE < 0.36
    if says is None:
        refuse_coarse("openvino", SETTINGS, RIGHT, found)
        return
    with pytest.raises(EvalkitError, match=f"made in int8: rounded to 8 bits it {says}"):
        refuse_coarse("openvino", SETTINGS, RIGHT, found)


def test_vectors_are_compared_by_what_tells_them_apart() -> None:
    """Not by their length: those of one model may all have one large part in common."""
    generator = np.random.default_rng(0)
    tokens = [generator.normal(size=(1, length, 4)).astype(np.float32) + 100 for length in (3, 5, 9)]
    noise = [generator.normal(size=one.shape).astype(np.float32) for one in tokens]
    refuse_coarse("openvino", SETTINGS, tokens, [one + 0.1 * more for one, more in zip(tokens, noise, strict=True)])
    with pytest.raises(EvalkitError, match="what tells inputs apart"):
        refuse_coarse("openvino", SETTINGS, tokens, [one + more for one, more in zip(tokens, noise, strict=True)])


def test_texts_for_calibration_are_the_project_s_own() -> None:
    rows = [json.loads(line) for line in CALIBRATION_TEXTS.read_text(encoding="utf-8").splitlines()]
    pairs = calibration_pairs()
    assert len(set(pairs)) == len(pairs) == 2 * len(rows) >= 100
    said = {text for row in rows for text in (row["query"], row["passage"])}
    assert len(said) == 2 * len(rows)
    demo = Path(__file__).parent.parent.parent / "evalkit" / "tasks" / "demo"
    assert not [
        text
        for path in demo.glob("*.jsonl")
        for line in path.read_text(encoding="utf-8").splitlines()
        for row in [json.loads(line)]
        for text in (row["query"], *row["positive"], *row["negative"])
        if text in said
    ], "a figure on the demo is not one on what its network was calibrated on"
    assert min(len(document) for _, document in pairs) < 5
    assert max(len(document) for _, document in pairs) > 500
    assert "MIT" in CALIBRATION_TEXTS.with_name("README.md").read_text(encoding="utf-8")
