"""Stored scores and conversions are served to the very model that they are of: changed files, consent, older versions."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agreement import write_embedder
from command import run_here
from model_folders import copied, edit_json
from task_files import write_jsonl

import evalkit
from evalkit.backends import prepare_model
from evalkit.backends.conversions import kept_conversions
from evalkit.cluster.worker import Description, Worker
from evalkit.errors import EvalkitError
from evalkit.evaluation import runs
from evalkit.models import identity, networks
from evalkit.models.identity import hash_files
from evalkit.models.interfaces import RunnableModel, Runtime
from evalkit.models.settings import model_settings
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


def waiting(backend: str, folder: Path, kept: Path, **options: Any) -> RunnableModel:
    """A model whose files are found and hashed, and whose weights are not loaded yet."""
    name = options.pop("model", "local-cross-encoder")
    model = evalkit.load_model(name, backend=backend, device="cpu", path=folder, cache_dir=kept, **options)
    return model.runnable


MTEB = {"model": "mteb", "name": "cross-encoder/ms-marco-MiniLM-L12-v2"}


@pytest.mark.parametrize("backend", ["torch", "openvino", "onnx", "sentence-transformers", "transformers", "mteb"])
def test_files_that_change_before_they_are_loaded_are_refused(
    backend: str, tiny_bert_reranker: Path, tmp_path: Path
) -> None:
    pytest.importorskip(NEEDED.get(backend, "torch" if backend == "transformers" else backend))
    folder, cache = copied(tiny_bert_reranker, tmp_path), tmp_path / "cache"
    model = waiting(backend, folder, cache, **(MTEB if backend == "mteb" else {}))
    lower_cased_no_more(folder)
    with pytest.raises(EvalkitError) as caught:
        _ = model.scorer
    assert str(caught.value).startswith(f"{folder / 'tokenizer.json'} changed since the files of ")
    assert str(caught.value).endswith("run again (in Python: load the model again)")
    assert kept_conversions(cache) == []
    _ = waiting(backend, folder, cache, **(MTEB if backend == "mteb" else {})).scorer


def test_files_that_come_and_go_are_changes(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    folder, cache = copied(tiny_bert_reranker, tmp_path), tmp_path / "cache"
    model = waiting("torch", folder, cache)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(EvalkitError, match=r"adapter_config\.json is new since the files of "):
        _ = model.scorer
    (folder / "adapter_config.json").unlink()
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    model = waiting("torch", folder, cache)
    (folder / "tokenizer_config.json").rename(tmp_path / "away")
    with pytest.raises(EvalkitError, match=r"tokenizer_config\.json is gone since the files of "):
        _ = model.scorer


@pytest.mark.parametrize("large", [1, 2**30], ids=["large", "small"])
def test_files_of_the_same_content_are_no_change(
    large: int, tiny_bert_reranker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copied anew, or with another time; and a README says nothing."""
    monkeypatch.setattr(identity, "LARGE", large)
    folder, cache = copied(tiny_bert_reranker, tmp_path), tmp_path / "cache"
    model = waiting("torch", folder, cache)
    shutil.rmtree(folder)
    shutil.copytree(tiny_bert_reranker, folder)
    os.utime(folder / "config.json", (1, 1))
    (folder / "README.md").write_text("other words")
    _ = model.scorer


@pytest.mark.parametrize("large", [1, 2**30], ids=["large", "small"])
def test_content_of_the_same_size_is_a_change(
    large: int, tiny_bert_reranker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "LARGE", large)
    folder = copied(tiny_bert_reranker, tmp_path)
    weights = folder / "model.safetensors"
    model = waiting("torch", folder, tmp_path / "cache")
    content, before = bytearray(weights.read_bytes()), weights.stat()
    content[-1] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(EvalkitError, match=r"model\.safetensors changed since"):
        _ = model.scorer


@pytest.mark.parametrize("backend", ["torch", "openvino", "onnx"])
def test_files_that_change_while_they_are_loaded_are_refused(
    backend: str, tiny_bert_reranker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing that was converted from them is kept under the name of the others."""
    pytest.importorskip(NEEDED.get(backend, backend))
    folder, cache = copied(tiny_bert_reranker, tmp_path), tmp_path / "cache"
    load, changes = networks.load_weights, [lambda: lower_cased_no_more(folder)]

    def change_and_load(*arguments: Any, **options: Any) -> Any:
        while changes:
            changes.pop()()
        return load(*arguments, **options)

    monkeypatch.setattr(networks, "load_weights", change_and_load)
    with pytest.raises(EvalkitError, match=r"tokenizer\.json changed since"):
        _ = waiting(backend, folder, cache).scorer
    assert not changes
    assert kept_conversions(cache) == []


def test_a_model_that_is_loaded_stays_what_it_is(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    """Its weights are in memory, and its scores go under their name."""
    folder = copied(tiny_bert_reranker, tmp_path)
    model = evalkit.load_model(
        "local-cross-encoder", backend="torch", device="cpu", path=folder, cache_dir=tmp_path / "cache"
    )
    task = evalkit.load_task("demo-zh2en", limit=2)
    first = evalkit.evaluate(model, task)
    lower_cased_no_more(folder)
    again = evalkit.evaluate(model, task, cache="refresh")
    assert again.model == first.model
    assert again.candidates["score"].tolist() == first.candidates["score"].tolist()


def test_a_sweep_loads_a_model_anew_where_its_files_changed(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "data.jsonl", [{"query": "What?", "positive": ["An Apple"], "negative": ["A Bank"]}])
    folder = copied(tiny_bert_reranker, tmp_path)
    run(folder, tmp_path)
    (first,) = runs._latest
    run(folder, tmp_path, another_process=False)
    assert runs._latest[0] is first
    lower_cased_no_more(folder)
    run(folder, tmp_path, another_process=False)
    assert runs._latest[0] is not first
    results = [read_result(path) for path in (tmp_path / "results").rglob("data.json")]
    assert len({result.model.revision for result in results}) == 2
    assert len({tuple(result.candidates["score"]) for result in results}) == 2


def test_an_actor_finds_anew_what_it_holds(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    folder = copied(tiny_bert_reranker, tmp_path)
    settings = model_settings({"name": "made", "path": str(folder)})
    prepare = partial(prepare_model, "torch", settings, Runtime(device="cpu", cache_dir=tmp_path / "cache"))
    worker = Worker()
    first = worker.describe("key", prepare, load=True)
    held = worker._held
    assert worker.describe("key", prepare, load=True) == first
    assert worker._held is held
    lower_cased_no_more(folder)
    changed = worker.describe("key", prepare, load=True)
    assert isinstance(first, Description)
    assert isinstance(changed, Description)
    assert changed.identity != first.identity


def run(folder: Path, place: Path, *, another_process: bool = True) -> str:
    if another_process:
        runs._latest.clear()
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
