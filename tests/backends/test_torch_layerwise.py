"""Layerwise rerankers against FlagEmbedding's networks, inputs and pooling."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chinese_texts import demo_pairs
from made_tasks import make_task
from model_folders import copied, edit_json, edit_weights
from numpy.typing import NDArray
from oracles.layerwise_reference import GEMMA, MINICPM, scores, write_layerwise
from real_models import shared_folder
from recipe_models import write_language_tokenizer

from evalkit.backends.torch import prepare
from evalkit.configuration.files import read_option
from evalkit.errors import EvalkitError
from evalkit.models.interfaces import LocalNetwork, RunnableModel, Runtime
from evalkit.models.settings import ModelSettings, model_settings
from evalkit.scoring.engine import score_task

PAIRS = [*demo_pairs(10), ("感冒怎么办？", ""), ("", "多喝水")]
TOLERANCE = 1e-4
LIGHTWEIGHT, LAYERWISE = "bge-reranker-v2.5-gemma2-lightweight", "bge-reranker-v2-minicpm-layerwise"


@pytest.fixture(scope="module")
def tokenizer_folder() -> Path:
    return shared_folder("language-tokenizer", lambda folder: _ignored(write_language_tokenizer(folder, bos=True)))


def _ignored(_: int) -> None:
    return None


def written(config: dict[str, Any]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        write_layerwise(folder, config, write_language_tokenizer(folder, bos=True))

    return write


@pytest.fixture(scope="module")
def minicpm() -> Path:
    return shared_folder("tiny-minicpm", written(MINICPM))


@pytest.fixture(scope="module")
def gemma() -> Path:
    return shared_folder("tiny-gemma2", written(GEMMA))


def settings_of(name: str, folder: Path, **fields: Any) -> ModelSettings:
    return model_settings(read_option("model", name), {"path": str(folder)} | fields)


@lru_cache(maxsize=2)
def loaded(settings: str, dtype: str = "fp32") -> RunnableModel:
    """By the settings' JSON."""
    return prepare(ModelSettings.model_validate_json(settings), Runtime(device="cpu", dtype=dtype))


def score(name: str, folder: Path, dtype: str = "fp32", **fields: Any) -> NDArray[np.float32]:
    """Through the engine: one query per pair."""
    settings = settings_of(name, folder, **fields)
    task = make_task(*(([query], [(document, 1)]) for query, document in PAIRS))
    return score_task(loaded(settings.model_dump_json(), dtype), settings, task).scores


@pytest.mark.parametrize("cutoff", [2, 4, 5])
@pytest.mark.parametrize("max_length", [512, 40])
def test_minicpm_is_flagembeddings(minicpm: Path, tokenizer_folder: Path, cutoff: int, max_length: int) -> None:
    prompt = read_option("model", LAYERWISE)["prompt"]
    expected = scores(minicpm, tokenizer_folder, PAIRS, prompt, max_length, cutoff_layers=[cutoff])
    assert np.ptp(expected) > 0.5
    found = score(LAYERWISE, minicpm, cutoff_layers=[cutoff], max_length=max_length)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    ("cutoff", "ratio", "layers"), [(5, 2, [2, 4]), (4, 4, [1, 5]), (6, 2, [3]), (3, 1, [2]), (2, 8, [2])]
)
@pytest.mark.parametrize("max_length", [512, 40])
def test_lightweight_is_flagembeddings(
    gemma: Path, tokenizer_folder: Path, cutoff: int, ratio: int, layers: list[int], max_length: int
) -> None:
    prompt = read_option("model", LIGHTWEIGHT)["prompt"]
    options = {"cutoff_layers": [cutoff], "compress_ratio": ratio}
    expected = scores(gemma, tokenizer_folder, PAIRS, prompt, max_length, **options, compress_layer=layers)
    assert np.ptp(expected) > 0.5
    found = score(LIGHTWEIGHT, gemma, **options, compress_layers=layers, max_length=max_length)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)


def test_compression_changes_scores(gemma: Path) -> None:
    one, two = (
        score(LIGHTWEIGHT, gemma, cutoff_layers=[5], compress_ratio=ratio, compress_layers=[2, 4]) for ratio in (1, 2)
    )
    assert np.abs(one - two).max() > 100 * TOLERANCE


@pytest.mark.parametrize("name", [LIGHTWEIGHT, LAYERWISE])
def test_scores_do_not_depend_on_company(name: str, gemma: Path, minicpm: Path) -> None:
    fields = {"compress_layers": [2]} if name == LIGHTWEIGHT else {}
    settings = settings_of(name, gemma if name == LIGHTWEIGHT else minicpm, cutoff_layers=[4], **fields)
    network = loaded(settings.model_dump_json()).scorer
    assert isinstance(network, LocalNetwork)
    encodings = [
        network.encode_pair(network.tokenize([query], "query")[0], network.tokenize([document], "document")[0])
        for query, document in PAIRS
    ]
    alone = np.concatenate([network.run([encoding]) for encoding in encodings])
    np.testing.assert_allclose(network.run(encodings[::-1])[::-1], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", [LIGHTWEIGHT, LAYERWISE])
def test_half_precision_differs_little(name: str, gemma: Path, minicpm: Path) -> None:
    folder = gemma if name == LIGHTWEIGHT else minicpm
    found, expected = (score(name, folder, dtype, cutoff_layers=[4]) for dtype in ("bf16", "fp32"))
    assert found.dtype == np.float32
    assert 0 < np.abs(found - expected).max() < 0.5


def refusal(name: str, folder: Path, **fields: Any) -> str:
    with pytest.raises(EvalkitError) as caught:
        _ = prepare(settings_of(name, folder, **fields), Runtime(device="cpu")).scorer
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_layers_without_a_head(minicpm: Path) -> None:
    assert "scores behind one of the layers 2 to 5" in refusal(LAYERWISE, minicpm)  # the model's own 28
    assert "model.cutoff_layers=[1]" in refusal(LAYERWISE, minicpm, cutoff_layers=[1])
    assert "model.cutoff_layers=[2, 3]" in refusal(LAYERWISE, minicpm, cutoff_layers=[2, 3])


def test_without_a_choice_the_last_layer_scores(minicpm: Path) -> None:
    np.testing.assert_array_equal(
        score(LAYERWISE, minicpm, cutoff_layers=[]), score(LAYERWISE, minicpm, cutoff_layers=[5])
    )


def test_only_known_architectures_run(tiny_gemma: Path, minicpm: Path, gemma: Path, tmp_path: Path) -> None:
    assert "is a GemmaForCausalLM, not one of LayerWiseMiniCPMForCausalLM" in refusal(LAYERWISE, tiny_gemma)
    folder = copied(minicpm, tmp_path)
    edit_json(folder / "config.json", lambda config: config.update(head_type="raw"))
    assert "only MiniCPM with a scalar head per layer" in refusal(LAYERWISE, folder, cutoff_layers=[3])
    folder = copied(gemma, tmp_path / "other")
    edit_json(folder / "config.json", lambda config: config.update(layer_wise=False))
    assert "has no heads behind its layers" in refusal(LIGHTWEIGHT, folder, cutoff_layers=[3])
    edit_json(folder / "config.json", lambda config: config.update(layer_wise=True, num_hidden_layers="six"))
    assert "config.json: " in refusal(LIGHTWEIGHT, folder, cutoff_layers=[3])


def test_a_head_or_a_layer_that_is_missing(minicpm: Path, tmp_path: Path) -> None:
    folder = copied(minicpm, tmp_path)
    edit_weights(folder, lambda tensors: {name: t for name, t in tensors.items() if "lm_head.1." not in name})
    assert "the scoring head (lm_head.1.linear_head.weight) is missing" in refusal(LAYERWISE, folder, cutoff_layers=[3])
    edit_weights(folder, lambda tensors: {name: t for name, t in tensors.items() if ".layers.1." not in name})
    assert "of the network's weights" in refusal(LAYERWISE, folder, cutoff_layers=[4])


def test_code_beside_the_weights_never_runs(minicpm: Path, tmp_path: Path) -> None:
    """Nor is it needed."""
    folder = copied(minicpm, tmp_path)
    code = "raise RuntimeError('it ran')"
    (folder / "configuration_minicpm_reranker.py").write_text(code)
    for trusted in (False, True):
        settings = {"cutoff_layers": [3], "trust_remote_code": trusted}
        _ = prepare(settings_of(LAYERWISE, folder, **settings), Runtime(device="cpu")).scorer
