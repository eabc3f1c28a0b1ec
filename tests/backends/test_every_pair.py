"""Every model with every backend: what can't be is said in one line, before any weights load."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from evalkit.backends import (
    AUTO,
    backends_for,
    check_backend,
    is_installed,
    prepare_model,
    read_backend,
    server_settings,
)
from evalkit.configuration.files import option_names
from evalkit.errors import EvalkitError
from evalkit.models.interfaces import RunnableModel, Runtime
from evalkit.models.settings import ModelSettings, read_model

MODELS = [name for name in option_names("model") if read_model(name).kind != "auto"]  # whose kind its files say
BACKENDS = [name for name in option_names("backend") if name not in ("base", "server", AUTO)]
FROM_A_FOLDER = ("cross-encoder", "llm-reranker", "layerwise-reranker", "listwise", "embedder", "bge-m3")
NO_WEIGHTS = b"whatever loads this as weights fails"


def check(backend: str, model: ModelSettings) -> str:
    """What is said against it, if anything."""
    try:
        check_backend(backend, model, Runtime())
    except EvalkitError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_can_not_be_is_refused_with_what_can(backend: str) -> None:
    for name in MODELS:
        model = read_model(name)
        says = check(backend, model)
        if backend in backends_for(model):
            assert not says or "is not installed" in says or "backend.url" in says, (name, says)
            continue
        assert says.startswith(f"backend={backend} can't run {name}, "), (name, says)
        assert says.endswith(f"; these can: {', '.join((AUTO, *backends_for(model)))}")
        assert "\n" not in says


HEAVY = """
import json, sys
sys.path[:0] = json.loads(sys.argv[1])
import test_every_pair as every
for backend in every.BACKENDS:
    every.test_what_can_not_be_is_refused_with_what_can(backend)
sys.exit(" ".join(sorted({"torch", "transformers", "mteb", "openvino", "onnxruntime", "FlagEmbedding"} & set(sys.modules))) or 0)
"""


def test_nothing_heavy_is_imported_to_say_so() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HEAVY, json.dumps([str(Path(__file__).parent), str(Path(__file__).parents[2])])],
        capture_output=True, encoding="utf-8", timeout=100,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder whose weights can't be loaded: in a file of any kind that a backend may look for."""
    folder = tmp_path_factory.mktemp("models") / "stub"
    for name in ("model.safetensors", "pytorch_model.bin", "onnx/model.onnx"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(NO_WEIGHTS)
    (folder / "config.json").write_text("{}")
    return folder


@pytest.mark.parametrize("backend", [name for name in BACKENDS if not read_backend(name).registry])
def test_what_can_be_is_prepared_without_its_weights(
    backend: str, stub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or refused for its recipe, and not for weights that nobody should have looked at."""
    if not is_installed(read_backend(backend)):
        pytest.skip("its package is not here")
    server = None
    if read_backend(backend).server:
        server = server_settings(backend, {"url": "http://127.0.0.1:1", "retries": 0})
        monkeypatch.setenv(f"{backend.upper()}_API_KEY", "k" * 20)
    runtime = Runtime(device=None if server else "cpu", offline=True, cache_dir=tmp_path, server=server)
    prepared = []
    for name in MODELS:
        model = read_model(name)
        if check(backend, model):
            continue
        if model.kind in FROM_A_FOLDER and not model.backends:
            model = model.model_copy(update={"path": str(stub)})
        try:
            found = prepare_model(backend, model, runtime)
        except EvalkitError as error:
            says = str(error)
            assert "\n" not in says, name
            assert "can't be loaded" not in says, (name, says)
            assert backend == "tei" or "model." in says or "recipe" in says, (name, says)
        else:
            assert isinstance(found, RunnableModel)
            assert found.findings is None, (
                name
            )  # those of the scorer, which is made of the weights when it is first asked for
            prepared.append(name)
    assert prepared or backend in ("tei", "run")  # TEI says itself what it runs; a run needs its file
    assert list(tmp_path.iterdir()) == []
