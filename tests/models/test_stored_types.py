"""Weights that are stored in another type than config.json says are run as they are stored, and that is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_tasks import make_task
from model_folders import copied, edit_json, edit_weights, pickle_weights
from numpy.typing import NDArray

import evalkit

TASK = make_task(
    (["感冒了怎么办？"], [("多喝水，好好休息。", 1), ("今天股市大涨。", 0), ("发烧可以吃退烧药。" * 20, 0)])
)


def run(folder: Path, model: str = "local-cross-encoder", **options: Any) -> evalkit.Result:
    chosen = {"backend": "torch", "device": "cpu", **options}
    return evalkit.evaluate(evalkit.load_model(model, path=folder, **chosen), TASK, cache="off")


def scores(result: evalkit.Result) -> NDArray[np.float32]:
    found: NDArray[np.float32] = result.candidates["score"].to_numpy()
    return found


def said(result: evalkit.Result) -> list[str]:
    return [text for _, text in result.remarks if "weights are stored in" in text]


def named(folder: Path, dtype: str | None, key: str = "dtype") -> Path:
    def change(config: dict[str, Any]) -> None:
        for name in ("dtype", "torch_dtype"):
            config.pop(name, None)
        if dtype is not None:
            config[key] = dtype

    edit_json(folder / "config.json", change)
    return folder


@pytest.mark.parametrize(("dtype", "key"), [("bfloat16", "dtype"), ("float16", "torch_dtype")])
@pytest.mark.parametrize("backend", ["torch", "sentence-transformers", "transformers"])
def test_fp32_weights_are_not_rounded(
    tiny_bert_reranker: Path, tmp_path: Path, dtype: str, key: str, backend: str
) -> None:
    right = run(named(copied(tiny_bert_reranker, tmp_path / "a"), "float32"), backend=backend)
    found = run(named(copied(tiny_bert_reranker, tmp_path / "b"), dtype, key), backend=backend)
    np.testing.assert_array_equal(scores(found), scores(right))
    (text,) = said(found)
    assert f"stored in float32 and config.json says {dtype}" in text
    assert not said(right)


def test_a_language_model_and_a_listwise_one_are_not_rounded(tiny_qwen: Path, tiny_lists: Path, tmp_path: Path) -> None:
    for name, folder in (("Qwen3-Reranker-0.6B", tiny_qwen), ("jina-reranker-v3", tiny_lists)):
        right = run(named(copied(folder, tmp_path / name / "a"), "float32"), name)
        found = run(named(copied(folder, tmp_path / name / "b"), "bfloat16"), name)
        np.testing.assert_array_equal(scores(found), scores(right))
        assert len(said(found)) == 1
        assert not said(right)


def test_a_few_wider_weights_are_not_rounded(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    """As of a head that was trained in fp32 on a body in bf16; config.json may say nothing."""

    def halve(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: one if "classifier" in name else one.bfloat16() for name, one in tensors.items()}

    found = {}
    for dtype in ("bfloat16", None, "float32"):
        folder = copied(tiny_bert_reranker, tmp_path / str(dtype))
        edit_weights(folder, halve)
        found[dtype] = run(named(folder, dtype))
    for dtype in ("bfloat16", None):
        np.testing.assert_array_equal(scores(found[dtype]), scores(found["float32"]))
        assert len(said(found[dtype])) == 1
    assert not said(found["float32"])


def test_pickled_weights_are_not_rounded(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    right = run(named(copied(tiny_bert_reranker, tmp_path / "a"), "float32"))
    folder = named(copied(tiny_bert_reranker, tmp_path / "b"), "bfloat16")
    pickle_weights(folder)
    np.testing.assert_allclose(scores(run(folder, allow_pickle=True)), scores(right), rtol=1e-6)


def test_weights_as_config_says_are_nothing_to_tell_of(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    folder = named(copied(tiny_bert_reranker, tmp_path), "bfloat16")
    edit_weights(folder, lambda tensors: {name: one.bfloat16() for name, one in tensors.items()})
    assert not said(run(folder))


def test_flagembedding_rounds_and_that_is_said(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    found = run(
        named(copied(tiny_bert_reranker, tmp_path), "bfloat16"), backend="flagembedding", truncation="only_second"
    )
    assert len(said(found)) == 1
    assert any("it has rounded its weights to bfloat16" in text for _, text in found.remarks)
