"""bge-m3's scores against FlagEmbedding's BGEM3FlagModel."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chinese_texts import demo_pairs
from made_tasks import make_task
from model_folders import copied
from numpy.typing import NDArray

from evalkit.backends.torch import prepare
from evalkit.configuration.files import read_option
from evalkit.errors import EvalkitError
from evalkit.models.bge_m3 import M3_HEADS, load_m3
from evalkit.models.interfaces import LocalNetwork, RunnableModel, Runtime
from evalkit.models.settings import ModelSettings, model_settings
from evalkit.models.tokenizers import load_tokenizer
from evalkit.records import Run
from evalkit.scoring.engine import score_task

PAIRS = [*demo_pairs(10), ("感冒怎么办？", ""), ("", "多喝水"), ("感冒 感冒 发烧", "感冒</s>感冒 <unk> 发烧发烧 感冒")]
TOLERANCE = 1e-4
NAMES = {"dense": "dense", "sparse": "sparse", "colbert": "colbert", "fused": "colbert+sparse+dense"}
README = [0.4, 0.2, 0.4]  # dense, sparse, colbert


def settings_of(folder: Path, **fields: Any) -> ModelSettings:
    return model_settings(read_option("model", "bge-m3"), {"path": str(folder), "max_length": 512} | fields)


@lru_cache(maxsize=2)
def loaded(settings: str, dtype: str = "fp32") -> RunnableModel:
    """By the settings' JSON."""
    return prepare(ModelSettings.model_validate_json(settings), Runtime(device="cpu", dtype=dtype))


def run(folder: Path, *groups: Any, dtype: str = "fp32", **fields: Any) -> Run:
    settings = settings_of(folder, **fields)
    return score_task(loaded(settings.model_dump_json(), dtype), settings, make_task(*groups))


def score(folder: Path, pairs: Sequence[tuple[str, str]] = PAIRS, **fields: Any) -> NDArray[np.float32]:
    """Through the engine: one query per pair."""
    return run(folder, *(([query], [(document, 1)]) for query, document in pairs), **fields).scores


@cache
def flag_model(folder: Path) -> Any:
    from FlagEmbedding import BGEM3FlagModel

    return BGEM3FlagModel(str(folder), use_fp16=False, devices="cpu")


@cache
def flag_scores(
    folder: Path, max_length: int = 512, weights: tuple[float, ...] | None = None
) -> dict[str, list[float]]:
    """One pair at a time: the padding of a batch would count as tokens of similarity 0."""
    scores: dict[str, list[float]] = flag_model(folder).compute_score(
        PAIRS,
        batch_size=1,
        max_query_length=max_length,
        max_passage_length=max_length,
        weights_for_different_modes=None if weights is None else list(weights),
    )
    return scores


@pytest.mark.parametrize("which", NAMES)
@pytest.mark.parametrize("max_length", [512, 24])
def test_scores_are_flagembeddings(tiny_m3: Path, which: str, max_length: int) -> None:
    expected = flag_scores(tiny_m3, max_length)[NAMES[which]]
    assert np.ptp(expected) > 0.05
    found = score(tiny_m3, score=which, max_length=max_length)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("weights", [README, [1, 2, 0], [0, 0, 3]])
def test_weights_are_flagembeddings(tiny_m3: Path, weights: list[float]) -> None:
    expected = flag_scores(tiny_m3, weights=tuple(weights))[NAMES["fused"]]
    found = score(tiny_m3, score="fused", weights=weights)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)


def test_the_recipes_are_the_scores_by_name(tiny_m3: Path) -> None:
    for name in ("sparse", "colbert", "fused"):
        np.testing.assert_array_equal(score(tiny_m3, recipe=name), score(tiny_m3, score=name))
    np.testing.assert_array_equal(score(tiny_m3, recipe="fused-readme"), score(tiny_m3, score="fused", weights=README))
    np.testing.assert_array_equal(score(tiny_m3), score(tiny_m3, score="dense"))


def test_a_query_of_several_texts_scores_by_its_best(tiny_m3: Path) -> None:
    texts = [query for query, _ in PAIRS[:4]]
    each = score(tiny_m3, [(text, PAIRS[0][1]) for text in texts], score="fused")
    found = run(tiny_m3, (texts, [(PAIRS[0][1], 1)]), score="fused").scores
    np.testing.assert_allclose(found, [each.max()], atol=1e-6)


def test_scores_do_not_depend_on_company(tiny_m3: Path) -> None:
    network = loaded(settings_of(tiny_m3, score="fused").model_dump_json()).scorer
    assert isinstance(network, LocalNetwork)
    encodings = [
        network.encode_pair(network.tokenize([query], "query")[0], network.tokenize([document], "document")[0])
        for query, document in PAIRS
    ]
    alone = np.concatenate([network.run([encoding]) for encoding in encodings])
    np.testing.assert_allclose(network.run(encodings[::-1])[::-1], alone, atol=1e-5, rtol=0)
    with pytest.raises(TypeError, match="does not encode single texts"):
        network.encode_text(network.tokenize(["感冒"], "document")[0])


def test_few_queries_are_remembered(tiny_m3: Path) -> None:
    settings = settings_of(tiny_m3, score="fused")
    network = load_m3(
        settings, settings.model_copy(update={"kind": "embedder"}), tiny_m3, load_tokenizer(settings, tiny_m3)
    )
    network.remembered_tokens = 40
    ids = torch.arange(10, 20)
    inputs = torch.cat([ids, ids])[None]
    types = torch.tensor([[0] * 10 + [1] * 10])
    with torch.inference_mode():
        first = network(inputs, torch.ones_like(inputs), types)
        for shift in range(1, 8):
            network(inputs + shift, torch.ones_like(inputs), types)
        assert sum(map(len, network._queries)) <= 40
        torch.testing.assert_close(network(inputs, torch.ones_like(inputs), types), first, rtol=0, atol=0)


def test_tokens_and_truncation_are_counted(tiny_m3: Path) -> None:
    tokenizer = flag_model(tiny_m3).tokenizer
    counted = run(tiny_m3, (["感冒"], [("多喝水", 1), ("水 " * 600, 0)]), score="colbert")
    assert counted.tokens is not None
    assert counted.truncated is not None
    query, document = (len(tokenizer(text)["input_ids"]) for text in ("感冒", "多喝水"))
    assert counted.tokens.tolist() == [query + document, query + 512]
    assert counted.truncated.tolist() == [False, True]


@pytest.mark.parametrize(("dtype", "tolerance"), [("bf16", 0.05), ("fp16", 0.01)])
def test_half_precision_differs_little(tiny_m3: Path, dtype: str, tolerance: float) -> None:
    groups = [([query], [(document, 1)]) for query, document in PAIRS]
    found = run(tiny_m3, *groups, dtype=dtype, score="fused").scores
    assert found.dtype == np.float32
    assert 0 < np.abs(found - score(tiny_m3, score="fused")).max() < tolerance


def refusal(folder: Path, **fields: Any) -> str:
    with pytest.raises(EvalkitError) as caught:
        _ = prepare(settings_of(folder, **fields), Runtime(device="cpu")).scorer
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", M3_HEADS)
def test_a_head_that_is_missing_or_damaged(tiny_m3: Path, tmp_path: Path, name: str) -> None:
    folder = copied(tiny_m3, tmp_path)
    torch.save(torch.nn.Linear(32, 1).state_dict(), folder / name)
    assert f"{name} is a head of 32 inputs and 1 outputs, for vectors of 64 dimensions" in refusal(
        folder, score="fused"
    )
    (folder / name).write_bytes(b"nothing")
    assert f"{name} can't be loaded" in refusal(folder, score="fused")
    (folder / name).unlink()
    assert f"has no {name}" in refusal(folder, score="fused")
    _ = prepare(settings_of(folder), Runtime(device="cpu")).scorer  # the dense score needs none


def test_heads_are_pickles_that_need_consent(tiny_m3: Path) -> None:
    says = refusal(tiny_m3, score="sparse", allow_pickle=False)
    assert "is a pickle, which can run code when loaded" in says
    assert "model.allow_pickle=true" in says


def test_another_head_is_another_model(tiny_m3: Path, tmp_path: Path) -> None:
    folder = copied(tiny_m3, tmp_path)
    before = prepare(settings_of(folder), Runtime(device="cpu")).identity.weights_hash
    torch.save(torch.nn.Linear(64, 1).state_dict(), folder / "sparse_linear.pt")
    assert prepare(settings_of(folder), Runtime(device="cpu")).identity.weights_hash != before


def test_what_cannot_be(tiny_m3: Path, tiny_reranker: Path) -> None:
    assert "model.weights are all 0" in refusal(tiny_m3, score="fused", weights=[0, 0, 0])
    assert "XLMRobertaForSequenceClassification: as an embedder" in refusal(tiny_reranker)
    with pytest.raises(EvalkitError, match=r"model\.weights\.1=-1"):
        settings_of(tiny_m3, weights=[1, -1, 1])
