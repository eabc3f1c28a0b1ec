"""Weights that would load, and score at random or not at all, are refused with the reason."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_tasks import make_task, scored
from model_folders import Tensors, copied, edit_json, edit_weights, pickle_weights
from transformers import AutoModel, BertConfig, BertForSequenceClassification

from evalkit.backends.torch import prepare
from evalkit.errors import EvalkitError
from evalkit.models.interfaces import LocalNetwork, Runtime, Scorer
from evalkit.models.settings import model_settings


def opened(folder: Path, **fields: Any) -> Scorer:
    return prepare(model_settings({"name": "made", "path": str(folder)} | fields), Runtime(device="cpu")).scorer


def refusal(folder: Path, **fields: Any) -> str:
    """The one line that says why this folder is not loaded."""
    with pytest.raises(EvalkitError) as caught:
        opened(folder, **fields)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def folder(tiny_bert_reranker: Path, tmp_path: Path) -> Path:
    """A reranker to damage."""
    return copied(tiny_bert_reranker, tmp_path)


def test_an_embedder_is_no_cross_encoder(e5_small: Path) -> None:
    assert refusal(e5_small) == (
        "made is a BertModel, which has no scoring head: as a cross-encoder it would score at random. "
        "If it is an embedder: model=local-embedder (or kind: embedder)"
    )


def test_a_reranker_is_no_embedder(tiny_reranker: Path) -> None:
    assert "XLMRobertaForSequenceClassification: as an embedder its scoring head would be dropped" in refusal(
        tiny_reranker, kind="embedder"
    )


def without(*prefixes: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if not name.startswith(prefixes)}


def test_a_head_that_is_missing(folder: Path) -> None:
    edit_weights(folder, without("classifier."))
    assert "the scoring head (classifier.bias, classifier.weight) is missing from the weights" in refusal(folder)


def test_a_head_of_two_layers_that_is_missing(tiny_reranker: Path, tmp_path: Path) -> None:
    other = copied(tiny_reranker, tmp_path)
    edit_weights(other, without("classifier."))
    assert "the scoring head (classifier.dense.bias, classifier.dense.weight, classifier.out_proj.bias…)" in refusal(
        other
    )


def test_an_embedder_that_calls_itself_a_classifier(folder: Path) -> None:
    """Weights saved without a head, under a config.json that still names one."""
    AutoModel.from_pretrained(folder).save_pretrained(folder / "plain")
    shutil.copy(folder / "plain" / "model.safetensors", folder / "model.safetensors")
    assert "the scoring head" in refusal(folder)


def test_a_layer_that_is_missing(folder: Path) -> None:
    edit_weights(folder, without("bert.encoder.layer.1."))
    assert "16 of the network's weights (bert.encoder.layer.1." in refusal(folder)
    edit_json(folder / "config.json", lambda config: config.pop("architectures"))
    assert "16 of the network's weights (encoder.layer.1." in refusal(folder, kind="embedder")


def test_a_pooler_matters_to_a_classifier_alone(folder: Path) -> None:
    edit_weights(folder, without("bert.pooler."))
    assert "bert.pooler.dense.bias" in refusal(folder)
    edit_json(folder / "config.json", lambda config: config.pop("architectures"))
    assert "no part of the network takes 2 of its weights (classifier.bias" in refusal(folder, kind="embedder")
    edit_weights(folder, without("classifier."))
    assert isinstance(opened(folder, kind="embedder"), LocalNetwork)


LABEL = "model.label=NUMBER says which label's logit that is"


@pytest.mark.parametrize("labels", [2, 3])
def test_several_labels(folder: Path, labels: int) -> None:
    """transformers does not write the number down where it is two."""
    config = BertConfig(vocab_size=30_000, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, num_labels=labels)
    BertForSequenceClassification(config).save_pretrained(folder)
    assert refusal(folder) == f"made has {labels} labels; a cross-encoder for reranking has one score: " + LABEL


def shrink(config: dict[str, Any]) -> None:
    config["intermediate_size"] = 64


CONFIG_EDITS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another shape": (shrink, "another shape than config.json says: bert.encoder.layer.0.intermediate.dense.bias, "),
    "no model type": (dict.clear, "model_type"),
    "unknown model type": (lambda config: config.update(model_type="nonsense"), "nonsense"),
    "code of its own": (
        lambda config: config.update(model_type="own", auto_map={"AutoConfig": "own.Config"}),
        "; if you trust its author: model.trust_remote_code=true",
    ),
    "a word for a number": (lambda config: config.update(num_hidden_layers="two"), "can't be loaded: "),
}  # fmt: skip


@pytest.mark.parametrize("edit", CONFIG_EDITS)
def test_a_configuration_that_does_not_fit(folder: Path, edit: str) -> None:
    change, says = CONFIG_EDITS[edit]
    edit_json(folder / "config.json", change)
    assert says in refusal(folder)


def test_a_configuration_that_is_missing(folder: Path) -> None:
    (folder / "config.json").unlink()
    assert "has no config.json" in refusal(folder)


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", None])
def test_damaged_weights(folder: Path, content: bytes | None) -> None:
    """An empty file, a pointer that git-lfs left, half a download."""
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content is None else content)
    assert f"{folder}: the weights can't be loaded: " in refusal(folder)


def test_weights_of_nan_stop_the_run(folder: Path) -> None:
    def spoil(tensors: Tensors) -> Tensors:
        tensors["bert.embeddings.word_embeddings.weight"][5:] = torch.nan
        return tensors

    edit_weights(folder, spoil)
    task = make_task((["感冒"], [("", 0), ("苹果", 1)]), ([""], [("发烧" * 30, 1)]))
    with pytest.raises(EvalkitError) as caught:
        scored(opened(folder), task)
    assert "the model's output is not a finite number for query " in str(caught.value)
    assert " with document '" in str(caught.value)


def test_pickled_weights_load_where_they_are_allowed(folder: Path, tiny_bert_reranker: Path) -> None:
    pickle_weights(folder)
    assert "model.allow_pickle=true" in refusal(folder)
    task = make_task((["感冒"], [("多喝水", 1), ("苹果", 0)]))
    scores = [scored(opened(place, allow_pickle=True), task).scores for place in (folder, tiny_bert_reranker)]
    np.testing.assert_allclose(*scores, atol=1e-5)


def test_a_pickle_that_is_none(folder: Path) -> None:
    pickle_weights(folder)
    (folder / "pytorch_model.bin").write_bytes(b"not a pickle")
    assert "the weights can't be loaded" in refusal(folder, allow_pickle=True)


@pytest.mark.parametrize(
    ("missing", "says"),
    [(["tokenizer.json"], "tokenizer"), (["tokenizer.json", "tokenizer_config.json"], "tokenizer")],
)
def test_a_tokenizer_that_is_missing(folder: Path, missing: list[str], says: str) -> None:
    for name in missing:
        (folder / name).unlink()
    assert says in refusal(folder)


def test_a_tokenizer_that_is_damaged(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"model": ')
    assert f"{folder}: the tokenizer can't be loaded: " in refusal(folder)


def test_a_tokenizer_without_padding(folder: Path) -> None:
    edit_json(folder / "tokenizer_config.json", lambda config: config.pop("pad_token"))
    assert "no padding token; name one as pad_token in tokenizer_config.json" in refusal(folder)
