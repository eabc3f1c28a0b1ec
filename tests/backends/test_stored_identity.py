"""Stored scores and conversions are served to the very model that they are of: changed files, consent, older versions."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agreement import write_embedder
from command import run_here
from model_folders import copied, edit_json
from task_files import write_jsonl

import evalkit
from evalkit.evaluation import runs
from evalkit.models.identity import hash_files
from evalkit.results.reading import read_result
from evalkit.results.result import Result
from evalkit.scoring.store import StoredOutput, item_key, open_store

NEEDED = {"onnx": "onnxruntime", "openvino": "openvino", "sentence-transformers": "sentence_transformers"}
# the architecture's own network, which gives the negative of every score
CODE = """
from transformers import BertForSequenceClassification


class Negative(BertForSequenceClassification):
    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = -output.logits
        return output
"""


def scored(backend: str, folder: Path, kept: Path, **options: Any) -> Result:
    chosen = {"cache": options.pop("cache", "on")}
    model = evalkit.load_model(
        options.pop("model", "local-cross-encoder"),
        backend=backend,
        device="cpu",
        path=folder,
        cache_dir=kept,
        **options,
    )
    return evalkit.evaluate(model, evalkit.load_task("demo-zh2en", limit=2), **chosen)


def stored(result: Result) -> float:
    """The share of its scores that came from the store."""
    return result.timing.items_from_store / result.usage.items


def lower_cased_no_more(folder: Path) -> None:
    """Another reading of the same texts by the same weights."""
    edit_json(folder / "tokenizer.json", lambda content: content["normalizer"].update(lowercase=False))


@pytest.mark.parametrize("backend", ["torch", "openvino", "onnx", "sentence-transformers"])
def test_a_changed_file_takes_nothing_from_the_store(backend: str, tiny_bert_reranker: Path, tmp_path: Path) -> None:
    pytest.importorskip(NEEDED.get(backend, backend))
    folder, cache = copied(tiny_bert_reranker, tmp_path), tmp_path / "cache"
    first = scored(backend, folder, cache)
    assert stored(first) == 0
    (folder / "README.md").write_text("other words")
    (folder / "optimizer.pt").write_bytes(b"state")
    again = scored(backend, folder, cache)
    assert (stored(again), again.model) == (1, first.model)
    moved = scored(backend, shutil.copytree(folder, tmp_path / "elsewhere"), cache)
    assert (stored(moved), moved.model.revision) == (1, first.model.revision)
    lower_cased_no_more(folder)
    changed = scored(backend, folder, cache)
    assert (stored(changed), changed.model.hub_id) == (0, first.model.hub_id)
    assert changed.model.revision != first.model.revision
    assert changed.model.weights_hash == first.model.weights_hash
    assert changed.candidates["score"].tolist() != first.candidates["score"].tolist()


def test_a_library_s_parts_in_folders_of_their_own_count(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    folder, cache = write_embedder(tiny_bert_reranker, tmp_path / "model"), tmp_path / "cache"
    pooling = folder / "1_Pooling" / "config.json"
    parts = {"Transformer": "", "Pooling": pooling.parent.name}
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{name}"}
        for number, (name, path) in enumerate(parts.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    pooling.parent.mkdir()
    name = {"model": "mteb", "name": "intfloat/multilingual-e5-small"}
    found = []
    for mode in ("mean", "cls"):
        pooling.write_text(json.dumps({"word_embedding_dimension": 64, "pooling_mode": mode}))
        found.append(scored("mteb", folder, cache, **name))
    assert stored(found[1]) == 0
    assert found[0].model.revision != found[1].model.revision
    assert found[0].candidates["score"].tolist() != found[1].candidates["score"].tolist()
    assert stored(scored("mteb", folder, cache, **name)) == 1


def test_mteb_s_tokenizer_counts(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    folder, cache = copied(tiny_bert_reranker, tmp_path), tmp_path / "cache"
    name = {"model": "mteb", "name": "cross-encoder/ms-marco-MiniLM-L12-v2"}
    first = scored("mteb", folder, cache, **name)
    lower_cased_no_more(folder)
    changed = scored("mteb", folder, cache, **name)
    assert stored(changed) == 0
    assert changed.candidates["score"].tolist() != first.candidates["score"].tolist()


@pytest.mark.parametrize(("backend", "cache"), [("torch", "on"), ("openvino", "refresh"), ("onnx", "refresh")])
def test_a_folder_s_code_is_not_stood_in_for(
    backend: str, cache: str, tiny_bert_reranker: Path, tmp_path: Path
) -> None:
    """Not by the scores that the same weights had without it, nor by the network that was converted without it."""
    pytest.importorskip(NEEDED.get(backend, backend))
    folder, kept = copied(tiny_bert_reranker, tmp_path), tmp_path / "cache"
    (folder / "modeling_negative.py").write_text(CODE)
    auto = {"AutoModelForSequenceClassification": "modeling_negative.Negative"}
    edit_json(folder / "config.json", lambda config: config.update(auto_map=auto))
    plain = scored(backend, folder, kept)
    trusted = scored(backend, folder, kept, trust_remote_code=True, cache=cache)
    np.testing.assert_allclose(trusted.candidates["score"], -plain.candidates["score"], atol=1e-4)
    assert trusted.model.revision != plain.model.revision
    assert stored(scored(backend, folder, kept)) == 1


def test_a_replaced_pickle_is_scored_again(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    """Though a stray file of safetensors lies beside it, and stays."""
    import torch
    from safetensors.torch import load_file

    folder, cache = copied(tiny_bert_reranker, tmp_path), tmp_path / "cache"
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "stray.safetensors")
    found = []
    for factor in (1, 2):
        head = {name: tensor * factor for name, tensor in weights.items() if name.startswith("classifier.")}
        torch.save({name: tensor.clone() for name, tensor in (weights | head).items()}, folder / "pytorch_model.bin")
        found.append(scored("torch", folder, cache, allow_pickle=True).candidates["score"].to_numpy())
    np.testing.assert_allclose(found[1], 2 * found[0], atol=1e-4)


def run(folder: Path, place: Path) -> str:
    runs._latest.clear()  # as another process
    done = run_here(
        "task=local", f"task.path={place / 'data.jsonl'}", "model=local-cross-encoder", f"model.path={folder}", "backend=torch",
        f"results_dir={place / 'results'}", f"cache_dir={place / 'cache'}",
    )  # fmt: skip
    assert done.code == 0, done.stderr
    return done.stderr


def test_two_results_where_the_tokenizer_changed(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "data.jsonl", [{"query": "What?", "positive": ["An Apple"], "negative": ["A Bank"]}])
    folder = copied(tiny_bert_reranker, tmp_path)
    run(folder, tmp_path)
    lower_cased_no_more(folder)
    said = run(folder, tmp_path)
    assert len(list((tmp_path / "results" / "local__model").iterdir())) == 2
    assert "an earlier evalkit" not in said


def test_what_an_earlier_evalkit_left_is_read_and_never_mixed(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "data.jsonl", [{"query": "What?", "positive": ["An Apple"], "negative": ["A Bank"]}])
    folder = copied(tiny_bert_reranker, tmp_path)
    run(folder, tmp_path)
    (now,) = (tmp_path / "results" / "local__model").iterdir()
    older = hash_files(folder, [folder / "model.safetensors"])
    shutil.copytree(now, now.with_name(older[:12]))
    way = {"model": "local/model", "weights_hash": older, "configuration": "c" * 64, "backend": {"name": "torch"}}
    with closing(open_store(tmp_path / "cache", way)) as store:
        store.write({item_key("What?", "An Apple"): StoredOutput(np.float32([1]), 1, False)})
    for left, says in (
        ((), f"results in {now.with_name(older[:12])} and scores in the store"),
        (("results",), "scores in the store"),
        (("results", "cache"), ""),
    ):
        if "results" in left:
            shutil.rmtree(now.with_name(older[:12]), ignore_errors=True)
        if "cache" in left:
            shutil.rmtree(tmp_path / "cache")
        said = [line for line in run(folder, tmp_path).splitlines() if "earlier" in line]
        if says:
            (line,) = said
            assert line.startswith(f"model: an earlier evalkit left {says}, which are not used: ")
        else:
            assert not said
    result = read_result(next(now.rglob("data.json")))
    assert result.model.weights_hash == older
    assert result.model.revision == now.name != older[:12]
    assert result.timing.items_from_store == 0
