"""Libraries that load a tokenizer of their own are given tokenizer.json's tokens, and the tokenizer's padding id."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agreement import prepared, spare_cache, write_embedder
from made_tasks import make_task
from model_folders import copied, edit_json
from tokenizer_folders import read_by_class, write_qwen3_classifier

from evalkit.backends import complete_settings, prepare_model
from evalkit.models.interfaces import Runtime
from evalkit.models.settings import model_settings
from evalkit.scoring.engine import score_task

TASK = make_task(
    (["What is the PANDA's Fever?"], [("The BANK of CHINA", 1), ("How Cold IS the Water", 0), ("熊猫 APPLE 2024", 0)]),
    (["DOCTOR"], [("Doctor, " * 30, 1), ("a", 0), ("Ünïcödé WATER?", 0)]),
)
TRUNCATIONS = {
    "transformers": "longest_first",
    "sentence-transformers": "longest_first",
    "langchain": "longest_first",
    "flagembedding": "only_second",
}
POOLING = {"word_embedding_dimension": 64, "pooling_mode_mean_tokens": True}


def scores(backend: str, folder: Path, **fields: Any) -> Any:
    settings = model_settings({"name": "made"} | fields)
    return score_task(prepared(backend, folder, spare_cache(), **fields), settings, TASK).scores


def library(backend: str) -> str:
    """The backend, where its library is installed."""
    packages = {
        "flagembedding": "FlagEmbedding",
        "langchain": "langchain_huggingface",
        "langchain-bge": "langchain_community",
    }
    pytest.importorskip(packages.get(backend, backend.replace("-", "_")))
    return backend


def write_modules(folder: Path) -> None:
    steps = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{name}"}
        for number, (name, path) in enumerate({"Transformer": "", "Pooling": "1_Pooling"}.items())
    ]
    (folder / "modules.json").write_text(json.dumps(steps), encoding="utf-8")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(POOLING), encoding="utf-8")


@pytest.mark.parametrize("backend", TRUNCATIONS)
def test_rerankers_read_tokenizer_json(backend: str, tiny_bert_reranker: Path, tmp_path: Path) -> None:
    """It writes small letters, and the settings say otherwise."""
    recipe = {"truncation": TRUNCATIONS[library(backend)]}
    expected = scores("torch", tiny_bert_reranker, **recipe)
    folder = copied(tiny_bert_reranker, tmp_path)
    read_by_class(folder, "BertTokenizer", do_lower_case=False)
    np.testing.assert_array_equal(scores("torch", folder, **recipe), expected)
    np.testing.assert_allclose(scores(backend, folder, **recipe), expected, atol=1e-4)


@pytest.mark.parametrize("backend", [*TRUNCATIONS, "langchain-bge"])
def test_embedders_read_tokenizer_json(backend: str, tiny_bert_reranker: Path, tmp_path: Path) -> None:
    library(backend)
    recipe = {"kind": "embedder", "pooling": "mean"}
    folder = write_embedder(tiny_bert_reranker, tmp_path / "model")
    write_modules(folder)
    expected = scores("torch", folder, **recipe)
    read_by_class(folder, "BertTokenizer", do_lower_case=False)
    np.testing.assert_allclose(scores(backend, folder, **recipe), expected, atol=1e-5)


@pytest.mark.parametrize("backend", [*TRUNCATIONS, "torch"])
@pytest.mark.parametrize("padding", [5, None])
def test_a_decoders_scores_do_not_depend_on_the_batch(padding: int | None, backend: str, tmp_path: Path) -> None:
    """It looks for the last token by config.pad_token_id. Each pair alone holds no padding."""
    if backend != "torch":
        library(backend)
    folder = tmp_path / "model"
    write_qwen3_classifier(folder)
    edit_json(folder / "config.json", lambda config: config.update(pad_token_id=padding))
    recipe = {"document_prompt": "\n", "max_length": 128, "truncation": TRUNCATIONS.get(backend, "longest_first")}
    settings = model_settings({"name": "made"} | recipe)
    model = prepared(backend, folder, spare_cache(), **recipe)
    together = score_task(model, settings, TASK).scores
    alone = [
        score_task(model, settings, make_task((request.query.texts, [(candidate.text, 1)]))).scores[0]
        for request in TASK.requests
        for candidate in request.candidates
    ]
    assert np.ptp(together) > 0.5
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_mtebs_loaders_run_as_they_are_and_other_tokens_are_reported(
    tiny_bert_reranker: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fields = {"name": "cross-encoder/ms-marco-MiniLM-L6-v2", "path": str(copied(tiny_bert_reranker, tmp_path))}

    def run() -> list[str]:
        settings = complete_settings(model_settings({"name": "mteb", "backends": ["mteb"]}, fields), "mteb")
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="evalkit"):
            assert prepare_model("mteb", settings, Runtime(device="cpu")).scorer
        return [record.message for record in caplog.records if "other tokens" in record.message]

    assert run() == []
    read_by_class(Path(fields["path"]), "BertTokenizer", do_lower_case=False)
    (said,) = run()
    assert said.startswith(f"{fields['name']}: transformers' BertTokenizer makes other tokens than tokenizer.json (")
    assert said.endswith("; mteb's loader is run as it is")
