"""FlagEmbedding's classes for language models and bge-m3 as a backend, against torch; what they can't do, refused at once."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chinese_texts import demo_pairs
from made_tasks import make_task
from model_folders import copied, edit_json
from numpy.typing import NDArray
from oracles.layerwise_reference import GEMMA, MINICPM, write_layerwise
from real_models import shared_folder
from recipe_models import write_language_tokenizer

from evalkit.backends import backends_for, check_backend, prepare_model
from evalkit.configuration.files import read_option
from evalkit.errors import EvalkitError
from evalkit.models.interfaces import RunnableModel, Runtime
from evalkit.models.settings import ModelSettings, model_settings, read_model
from evalkit.scoring.engine import score_task

pytest.importorskip("FlagEmbedding")
PAIRS = [*demo_pairs(12), ("感冒怎么办？", ""), ("", "多喝水"), ("感冒 感冒 发烧", "感冒</s>感冒 <unk> 发烧发烧 感冒")]
TOLERANCE = 1e-4
GEMMA_RERANKER, M3, QWEN = "bge-reranker-v2-gemma", "bge-m3", "Qwen3-Reranker-0.6B"
SHORT = {"max_length": 512}  # the small model's positions


def settings_of(name: str, folder: Path, **fields: Any) -> ModelSettings:
    return model_settings(read_option("model", name), {"path": str(folder)} | fields)


def prepared(backend: str, settings: ModelSettings, dtype: str = "fp32") -> RunnableModel:
    return prepare_model(backend, settings, Runtime(device="cpu", dtype=dtype))


@cache
def score(backend: str, settings_json: str) -> NDArray[np.float32]:
    """Through the engine: one query per pair."""
    settings = ModelSettings.model_validate_json(settings_json)
    task = make_task(*(([query], [(document, 1)]) for query, document in PAIRS))
    return score_task(prepared(backend, settings), settings, task).scores


def both(name: str, folder: Path, **fields: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    settings = settings_of(name, folder, **fields).model_dump_json()
    return score("flagembedding", settings), score("torch", settings)


@pytest.mark.parametrize(
    "fields", [{}, {"max_length": 31, "prompt": "Are A and B about the same? Yes or No?", "query_prompt": "Frage: "}]
)
def test_a_language_model(tiny_gemma: Path, fields: dict[str, Any]) -> None:
    found, expected = both(GEMMA_RERANKER, tiny_gemma, **fields)
    assert np.ptp(expected) > 1000 * TOLERANCE
    np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)


@pytest.fixture(scope="module")
def small_m3(tiny_m3: Path, tiny_bert_reranker: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a small tokenizer, since the real one takes seconds to load."""
    folder = copied(tiny_m3, tmp_path_factory.mktemp("models"))
    for path in tiny_bert_reranker.glob("*token*"):
        shutil.copy(path, folder / path.name)
    return folder


PROMPTED = {"max_length": 24, "query_prompt": "查：", "document_prompt": "Answer: "}
M3_RECIPES = [("dense", PROMPTED), ("sparse", {}), ("colbert", PROMPTED), ("fused", {"weights": [0.4, 0.2, 0.4]})]


@pytest.mark.parametrize(("which", "fields"), M3_RECIPES)
def test_bge_m3(small_m3: Path, which: str, fields: dict[str, Any]) -> None:
    """Long texts and short ones in a batch, words that both have, prompts before both."""
    found, expected = both(M3, small_m3, score=which, **SHORT | fields)
    assert np.ptp(expected) > 0.05
    np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)


def test_bge_m3_with_its_own_tokenizer(tiny_m3: Path) -> None:
    found, expected = both(M3, tiny_m3, score="fused", **SHORT)
    assert np.ptp(expected) > 0.05
    np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)


def test_what_is_opened_and_recorded(tiny_m3: Path, tiny_gemma: Path) -> None:
    for name, folder, class_name in ((M3, tiny_m3, "BGEM3FlagModel"), (GEMMA_RERANKER, tiny_gemma, "FlagLLMReranker")):
        model = prepared("flagembedding", settings_of(name, folder, **SHORT))
        assert (model.description["name"], model.description["class"]) == ("flagembedding", class_name)
        assert model.identity == prepared("torch", settings_of(name, folder, **SHORT)).identity
    sparse = prepared("flagembedding", settings_of(M3, tiny_m3, score="sparse", **SHORT))
    assert sparse.way != prepared("flagembedding", settings_of(M3, tiny_m3, score="colbert", **SHORT)).way


# refusals, each before any weights load


def refusal(name: str, folder: Path, dtype: str = "fp32", **fields: Any) -> str:
    with pytest.raises(EvalkitError) as caught:
        prepared("flagembedding", settings_of(name, folder, **fields), dtype)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("truncation", "end", "model.truncation='only_second' built in"),
        ("separator", " ", r"model.separator='\n' built in"),
        ("system_prompt", "You judge.", "model.system_prompt='' built in"),
        ("positive_word", "yes", "model.positive_word='Yes' built in"),
        ("negative_word", "No", "model.negative_word=None built in"),
    ],
)
def test_what_flagllmreranker_has_built_in(tiny_gemma: Path, field: str, value: str, problem: str) -> None:
    says = refusal(GEMMA_RERANKER, tiny_gemma, **{field: value})
    assert says.startswith(f"FlagLLMReranker of FlagEmbedding has {problem}, and {GEMMA_RERANKER}'s recipe says ")
    assert says.endswith("; backend=torch")


def test_another_recipe_of_its_kind(tiny_qwen: Path) -> None:
    assert "FlagLLMReranker of FlagEmbedding has model." in refusal(QWEN, tiny_qwen)


def test_low_precision_on_a_cpu(tiny_gemma: Path, tiny_m3: Path) -> None:
    assert "FlagEmbedding computes in fp32 on a CPU" in refusal(GEMMA_RERANKER, tiny_gemma, "fp16")
    assert "FlagLLMReranker of FlagEmbedding runs fp32, fp16" in refusal(GEMMA_RERANKER, tiny_gemma, "bf16")
    assert "FlagEmbedding computes in fp32 on a CPU" in refusal(M3, tiny_m3, "bf16", **SHORT)


@pytest.mark.parametrize("which", ["dense", "fused"])
def test_heads_are_pickles_that_it_reads_whatever_the_score(tiny_m3: Path, which: str) -> None:
    says = refusal(M3, tiny_m3, score=which, allow_pickle=False, **SHORT)
    assert (
        "colbert_linear.pt is a pickle, which can run code when loaded, and FlagEmbedding loads it for any score"
        in says
    )


def test_a_head_that_is_missing_is_not_made_up(small_m3: Path, tmp_path: Path) -> None:
    """FlagEmbedding would take random numbers, and say so to its log alone."""
    folder, name = copied(small_m3, tmp_path), "sparse_linear.pt"
    (folder / name).unlink()
    with pytest.raises(EvalkitError, match=f"has no {name}, the head of the score=fused"):
        _ = prepared("flagembedding", settings_of(M3, folder, score="fused", **SHORT)).scorer


def test_code_beside_the_weights_runs_only_where_it_is_trusted(tiny_gemma: Path, tmp_path: Path) -> None:
    folder = copied(tiny_gemma, tmp_path)
    auto_map = {"AutoModelForCausalLM": "modeling_own.Own", "AutoConfig": "modeling_own.OwnConfig"}
    edit_json(folder / "config.json", lambda config: config.update(auto_map=auto_map, model_type="own"))
    (folder / "modeling_own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nraise RuntimeError('it ran')\n")
    with pytest.raises(EvalkitError):
        _ = prepared("flagembedding", settings_of(GEMMA_RERANKER, folder)).scorer
    assert not (tmp_path / "ran").exists()
    with pytest.raises(EvalkitError, match="it ran"):
        _ = prepared("flagembedding", settings_of(GEMMA_RERANKER, folder, trust_remote_code=True)).scorer
    assert (tmp_path / "ran").exists()


LAYERWISE = ("bge-reranker-v2-minicpm-layerwise", "bge-reranker-v2.5-gemma2-lightweight")


@pytest.mark.parametrize("name", LAYERWISE)
def test_layerwise_rerankers_are_refused_with_the_reason(name: str) -> None:
    model = read_model(name)
    assert "flagembedding" not in backends_for(model)
    with pytest.raises(EvalkitError) as caught:
        check_backend("flagembedding", model, Runtime())
    says = str(caught.value)
    assert says.startswith(
        f"backend=flagembedding can't run {name}, whose kind is layerwise-reranker: FlagEmbedding's networks "
    )
    assert "transformers before 4.48" in says
    assert says.endswith("; these can: auto, torch")
    assert "\n" not in says


def test_that_reason_holds() -> None:
    """Where this fails, FlagEmbedding runs its own networks with the transformers that is here: the refusal can go."""
    from FlagEmbedding import LightWeightFlagLLMReranker
    from FlagEmbedding.inference.reranker.decoder_only.models import modeling_minicpm_reranker as minicpm

    # LayerWiseFlagLLMReranker swallows this, and asks for the same code out of the model's own folder
    with pytest.raises((KeyError, AttributeError)) as caught:
        minicpm.LayerWiseMiniCPMForCausalLM.from_pretrained(shared_folder("tiny-minicpm", written(MINICPM)))
    assert "modeling_minicpm_reranker" in str(caught.traceback[-1].path) or "tied" in str(caught.value)
    folder = shared_folder("tiny-gemma2", written(GEMMA))
    options = {"cutoff_layers": [4], "compress_layers": [2], "compress_ratio": 2}
    reranker = LightWeightFlagLLMReranker(str(folder), use_fp16=False, devices="cpu", **options)
    with pytest.raises(TypeError) as caught_later:
        reranker.compute_score([["感冒", "多喝水"]], max_length=64)
    assert "modeling_gemma2" in str(caught_later.traceback[-1].path)


def written(config: dict[str, Any]) -> Callable[[Path], None]:
    return lambda folder: write_layerwise(folder, config, write_language_tokenizer(folder, bos=True))


def test_nothing_of_it_is_imported_to_refuse() -> None:
    """A model that it can't run costs no second."""
    import subprocess

    code = (
        "import sys\nfrom evalkit.backends import check_backend\nfrom evalkit.errors import EvalkitError\n"
        "from evalkit.models.interfaces import Runtime\nfrom evalkit.models.settings import read_model\n"
        "try:\n    check_backend('flagembedding', read_model('bge-reranker-v2-minicpm-layerwise'), Runtime())\n"
        "except EvalkitError:\n    sys.exit(' '.join({'torch', 'transformers', 'FlagEmbedding'} & set(sys.modules)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", timeout=100)
    assert (done.returncode, done.stderr) == (0, "")
