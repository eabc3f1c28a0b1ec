"""Backends that hand the model to another library, against torch, which is compared with transformers itself."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from agreement import (
    E5,
    RECIPES,
    TEXTS,
    expected_scores,
    expected_vectors,
    prepared,
    scores,
    spare_cache,
    write_embedder,
)
from chinese_texts import LONG_DOCUMENT, LONG_QUERY
from command import run_here
from made_tasks import make_task
from model_folders import copied, edit_json, edit_weights
from numpy.typing import NDArray

from evalkit.backends import backends_for, check_backend
from evalkit.backends.libraries import within_memory
from evalkit.errors import EvalkitError
from evalkit.models.interfaces import RunnableModel, Runtime, TextEmbedder
from evalkit.models.settings import model_settings, read_model
from evalkit.scoring.engine import score_task

TOLERANCE = 1e-4
PACKAGES = {
    "sentence-transformers": "sentence_transformers",
    "flagembedding": "FlagEmbedding",
    "langchain": "langchain_huggingface",
    "langchain-bge": "langchain_community",
}
BACKENDS = list(PACKAGES)
RERANKERS = {
    "sentence-transformers": "longest_first",
    "langchain": "longest_first",
    "flagembedding": "only_second",
}
for package in PACKAGES.values():
    pytest.importorskip(package)


@pytest.fixture(scope="module")
def embedder(tiny_bert_reranker: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_embedder(tiny_bert_reranker, tmp_path_factory.mktemp("models") / "embedder")


def write_modules(folder: Path, pooling: str, *others: str, **config: Any) -> Path:
    """What a folder says of itself to sentence-transformers."""
    names = {"Transformer": "", "Pooling": "1_Pooling", **{name: f"2_{name}" for name in others}}
    steps = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{name}"}
        for number, (name, path) in enumerate(names.items())
    ]
    (folder / "modules.json").write_text(json.dumps(steps), encoding="utf-8")
    for path in filter(None, names.values()):
        (folder / path).mkdir(exist_ok=True)
    content = {"word_embedding_dimension": 64, f"pooling_mode_{pooling}": True, **config}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def embedded(model: RunnableModel, texts: list[str], role: Any = "document") -> NDArray[np.float32]:
    scorer = model.scorer
    assert isinstance(scorer, TextEmbedder)
    return scorer.embed(texts, role)


PROMPTED = {"query_prompt": "问题：", "document_prompt": "Answer: ", "max_length": "48"}


@cache
def reranker(backend: str, folder: Path, truncation: str) -> RunnableModel:
    """One for all tests that change nothing of it: the real tokenizer takes seconds to load."""
    return prepared(backend, folder, spare_cache(), truncation=truncation)


@cache
def torch_scores(folder: Path, truncation: str, prompted: bool = False) -> NDArray[np.float32]:
    if prompted:
        return scores(prepared("torch", folder, spare_cache(), truncation=truncation, **PROMPTED))
    return scores(reranker("torch", folder, truncation))


@pytest.mark.parametrize("backend", RERANKERS)
@pytest.mark.parametrize("architecture", ["XLM-R", "BERT"])
def test_cross_encoders(
    backend: str, architecture: str, tiny_reranker: Path, tiny_bert_reranker: Path, tmp_path: Path
) -> None:
    """Raw logits, long queries and documents among them; prompts before both and a length of its own."""
    folder = tiny_reranker if architecture == "XLM-R" else tiny_bert_reranker
    truncation = RERANKERS[backend]
    expected = torch_scores(folder, truncation)
    assert np.ptp(expected) > 1
    found = scores(reranker(backend, folder, truncation))
    np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)
    found = scores(prepared(backend, tiny_bert_reranker, tmp_path, truncation=truncation, **PROMPTED))
    np.testing.assert_allclose(found, torch_scores(tiny_bert_reranker, truncation, True), atol=TOLERANCE, rtol=0)


def test_the_two_truncations_differ_here(tiny_reranker: Path) -> None:
    """Else the agreement above would say nothing of them."""
    difference = torch_scores(tiny_reranker, "only_second") - torch_scores(tiny_reranker, "longest_first")
    assert np.abs(difference).max() > 0.1


RARE = make_task(
    *(
        (
            [query],
            [
                (document, 1)
                for document in ("的𠮷🍎x", "internationalisation" * 300, "tab\there", "", "https://a.b/c.png")
            ],
        )
        for query in ("龘靐齉 的𠮷", "Ａ１ ﬁne ①", " 两  行\n换 ", "")
    )
)


@cache
def rare_scores(backend: str, folder: Path, truncation: str) -> NDArray[np.float32]:
    settings = model_settings({"name": "made", "truncation": truncation})
    return score_task(reranker(backend, folder, truncation), settings, RARE).scores


@pytest.mark.parametrize("backend", RERANKERS)
def test_rare_characters_and_white_space(backend: str, tiny_reranker: Path) -> None:
    """Characters without a token of their own, half words at the cut, full-width letters, line breaks, nothing at all."""
    truncation = RERANKERS[backend]
    found, expected = (rare_scores(name, tiny_reranker, truncation) for name in (backend, "torch"))
    np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(("pooling", "similarity"), RECIPES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_embedders(backend: str, pooling: str, similarity: str, embedder: Path, tmp_path: Path) -> None:
    folder = copied(embedder, tmp_path)
    if "langchain" in backend:  # it goes by what the folder says
        write_modules(folder, {"cls": "cls_token", "mean": "mean_tokens", "last": "lasttoken"}[pooling])
    if backend == "flagembedding" and pooling == "last":
        with pytest.raises(EvalkitError, match="has no place for pooling=last of made's recipe; backend=torch"):
            prepared(backend, folder, tmp_path, kind="embedder", pooling=pooling)
        return
    model = prepared(backend, folder, tmp_path, kind="embedder", pooling=pooling, similarity=similarity)
    expected = expected_vectors(embedder, pooling, similarity)
    np.testing.assert_allclose(embedded(model, list(TEXTS)), expected, atol=TOLERANCE, rtol=0)


E5_TASK = make_task(
    (["感冒了怎么办？", "How to treat a cold?"], [(TEXTS[0], 1), (TEXTS[1], 0), (LONG_DOCUMENT, 0)]),
    ([LONG_QUERY], [(TEXTS[2], 1), (LONG_DOCUMENT, 0)]),
)


@cache
def e5_scores(backend: str, folder: Path) -> NDArray[np.float32]:
    model = prepared(backend, folder, spare_cache(), **E5)
    return score_task(model, model_settings(E5 | {"name": "made"}), E5_TASK).scores


@pytest.mark.parametrize("backend", BACKENDS)
def test_e5(backend: str, e5_small: Path) -> None:
    """Real weights, both prompts, a query of two texts, and texts that are cut."""
    expected = e5_scores("torch", e5_small)
    assert np.ptp(expected) > 0.02
    np.testing.assert_allclose(e5_scores(backend, e5_small), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_batch_changes_nothing(backend: str, embedder: Path, tmp_path: Path) -> None:
    """Alone or behind long texts, and more texts than one batch takes."""
    model = prepared(backend, embedder, tmp_path, kind="embedder", pooling="mean")
    texts = [f"{text} {number}" for number in range(6) for text in TEXTS]
    together = embedded(model, texts)
    assert len(texts) > 64
    for place in (0, 7, len(texts) - 1):
        np.testing.assert_allclose(embedded(model, [texts[place]])[0], together[place], atol=1e-5)


def test_bge_embeddings_get_the_recipes_prompt(embedder: Path, tmp_path: Path) -> None:
    """The class puts one of its own where the folder's name holds `-zh`."""
    folder = shutil.copytree(embedder, tmp_path / "bge-tiny-zh")
    recipe = {"kind": "embedder", "pooling": "mean", "query_prompt": "查：", "document_prompt": "文："}
    for role, prompt in (("query", "查："), ("document", "文：")):
        found = embedded(prepared("langchain-bge", folder, tmp_path, **recipe), ["感冒\n发烧"], role)
        plain = prepared("sentence-transformers", folder, tmp_path, kind="embedder", pooling="mean")
        np.testing.assert_allclose(found, embedded(plain, [prompt + "感冒\n发烧"]), atol=1e-5)


def test_what_is_recorded(tiny_reranker: Path, tmp_path: Path) -> None:
    """The library and its version, and everything that can change a score, tell ways of scoring apart."""
    models = {name: prepared(name, tiny_reranker, tmp_path, truncation=RERANKERS[name]) for name in RERANKERS}
    for name, class_name in zip(RERANKERS, ("CrossEncoder", "HuggingFaceCrossEncoder", "FlagReranker"), strict=True):
        description = models[name].description
        assert (description["name"], description["class"]) == (name, class_name)
        assert str(description["version"])[0].isdigit()
        assert models[name].way["backend"] == description
        assert models[name].identity == prepared("torch", tiny_reranker, tmp_path).identity
    ways = [json.dumps(model.way, sort_keys=True) for model in models.values()]
    assert len(set(ways)) == 3
    assert models["langchain"].way != prepared("langchain", tiny_reranker, tmp_path, max_length="64").way


def test_low_precision(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    expected = expected_scores(tiny_bert_reranker)
    for backend in ("sentence-transformers", "langchain"):
        found = scores(prepared(backend, tiny_bert_reranker, tmp_path, "bf16"))
        assert 10 * TOLERANCE < np.abs(found - expected).max() < 0.2


def test_a_checkpoint_of_low_precision_runs_in_fp32(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    folder = copied(tiny_bert_reranker, tmp_path)
    edit_weights(folder, lambda tensors: {name: tensor.bfloat16() for name, tensor in tensors.items()})
    edit_json(folder / "config.json", lambda config: config.update(dtype="bfloat16"))
    for backend, truncation in RERANKERS.items():
        expected = scores(prepared("torch", folder, tmp_path, truncation=truncation))
        found = scores(prepared(backend, folder, tmp_path, truncation=truncation))
        np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)


# refusals, each before any weights load: `prepared` loads none


def refusal(backend: str, folder: Path, tmp_path: Path, dtype: str = "fp32", **fields: Any) -> str:
    with pytest.raises(EvalkitError) as caught:
        prepared(backend, folder, tmp_path, dtype, **fields)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("backend", RERANKERS)
def test_truncations_that_it_lacks(backend: str, tiny_reranker: Path, tmp_path: Path) -> None:
    other = {"longest_first": "only_second", "only_second": "longest_first"}[RERANKERS[backend]]
    says = refusal(backend, tiny_reranker, tmp_path, truncation=other)
    assert f"backend={backend} cuts long pairs by {RERANKERS[backend]}, and made's recipe says {other}: " in says
    assert f"model.truncation={RERANKERS[backend]}" in says


def test_a_recipe_that_does_is_named(tmp_path: Path) -> None:
    from evalkit.backends import prepare_model

    with pytest.raises(
        EvalkitError, match=r"recipe says longest_first: model.recipe=flagembedding, or model.truncation="
    ):
        prepare_model("flagembedding", read_model("bge-reranker-base"), Runtime(offline=True))


def test_flagembedding_has_no_low_precision_on_a_cpu(tiny_reranker: Path, embedder: Path, tmp_path: Path) -> None:
    says = refusal("flagembedding", tiny_reranker, tmp_path, "fp16", truncation="only_second")
    assert says == "dtype=fp16: FlagEmbedding computes in fp32 on a CPU; dtype=fp32, or backend=torch"
    says = refusal("flagembedding", tiny_reranker, tmp_path, "bf16", truncation="only_second")
    assert says == "dtype=bf16: FlagReranker of FlagEmbedding runs fp32, fp16"
    assert "dtype=bf16: FlagEmbedding computes" in refusal("flagembedding", embedder, tmp_path, "bf16", kind="embedder")


@pytest.mark.parametrize("backend", BACKENDS)
def test_it_is_told_of_its_own_kinds_alone(backend: str) -> None:
    assert backend not in backends_for(read_model("bm25"))
    with pytest.raises(EvalkitError, match=f"backend={backend} can't run bm25, whose kind is lexical"):
        check_backend(backend, read_model("bm25"), Runtime())


def test_langchain_bge_embeds_alone() -> None:
    with pytest.raises(EvalkitError, match="backend=langchain-bge can't run bge-reranker-base"):
        check_backend("langchain-bge", read_model("bge-reranker-base"), Runtime())


@pytest.mark.parametrize("backend", ["langchain", "langchain-bge"])
def test_what_the_folder_says_of_itself(backend: str, embedder: Path, tmp_path: Path) -> None:
    def differs(**fields: Any) -> str:
        return refusal(backend, folder, tmp_path, kind="embedder", **fields).partition(": make them agree")[0]

    folder = copied(embedder, tmp_path)
    assert differs(pooling="cls").endswith("says pooling=mean, and the recipe says cls")
    write_modules(folder, "cls_token", "Normalize", include_prompt=False)
    assert differs(pooling="mean").endswith("1_Pooling/config.json says pooling=cls, and the recipe says mean")
    assert differs(pooling="cls").endswith("1_Pooling/config.json says pool_prompt=False, and the recipe says True")
    assert differs(pooling="cls", pool_prompt=False, similarity="dot").endswith(
        "modules.json says modules=('Pooling', 'Normalize'), and the recipe says ()"
    )
    (folder / "1_Pooling" / "config.json").unlink()
    assert "1_Pooling/config.json is missing" in refusal(backend, folder, tmp_path, kind="embedder")
    (folder / "modules.json").write_text("[1", encoding="utf-8")
    assert "modules.json is not JSON" in refusal(backend, folder, tmp_path, kind="embedder")
    (folder / "modules.json").write_text("{}", encoding="utf-8")
    assert "modules.json must hold a list" in refusal(backend, folder, tmp_path, kind="embedder")


@pytest.mark.parametrize("backend", ["langchain", "langchain-bge"])
def test_a_part_that_the_recipe_leaves_out(backend: str, embedder: Path, tmp_path: Path) -> None:
    folder = write_modules(copied(embedder, tmp_path), "cls_token", "Dense")
    says = refusal(backend, folder, tmp_path, kind="embedder", pooling="cls")
    assert "modules.json says modules=('Pooling', 'Dense:2_Dense'), and the recipe says ()" in says


@pytest.mark.parametrize("backend", ["langchain", "langchain-bge"])
def test_a_tokenizer_that_tells_line_breaks(backend: str, embedder: Path, tmp_path: Path) -> None:
    folder = copied(embedder, tmp_path)
    replace = {"type": "Replace", "pattern": {"String": "\n"}, "content": "换"}
    edit_json(folder / "tokenizer.json", lambda content: content.update(normalizer=replace))
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(EvalkitError, match="writes line breaks as spaces, which made's tokenizer tells apart"):
        _ = prepared(backend, folder, tmp_path, kind="embedder", pooling="mean").scorer


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_torch_refuses(backend: str, tiny_bert_reranker: Path, embedder: Path, tmp_path: Path) -> None:
    """A head that is missing, which transformers would make up; a reranker as an embedder; a length beyond the positions."""
    folder = copied(tiny_bert_reranker, tmp_path)
    if backend in RERANKERS:
        edit_weights(folder, lambda tensors: {name: t for name, t in tensors.items() if "classifier" not in name})
        with pytest.raises(EvalkitError, match="the scoring head"):
            _ = prepared(backend, folder, tmp_path, truncation=RERANKERS[backend]).scorer
    with pytest.raises(EvalkitError, match="its scoring head would be dropped"):
        _ = prepared(backend, folder, tmp_path, kind="embedder", pooling="mean").scorer
    with pytest.raises(EvalkitError, match=r"model.max_length=513 is more than made can read"):
        _ = prepared(backend, embedder, tmp_path, kind="embedder", pooling="mean", max_length="513").scorer


def test_memory_that_runs_out() -> None:
    """The batch is halved until it fits; a single text that does not is told."""
    sizes: list[int] = []

    def call(batch_size: int) -> NDArray[np.float32]:
        sizes.append(batch_size)
        if batch_size > 8:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return np.zeros(1, np.float32)

    assert within_memory(call, 32).tolist() == [0]
    assert sizes == [32, 16, 8]

    def never(batch_size: int) -> NDArray[np.float32]:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 9 GiB")

    with pytest.raises(EvalkitError, match=r"one text alone does not fit into memory .*lower model.max_length"):
        within_memory(never, 4)

    def other(batch_size: int) -> NDArray[np.float32]:
        raise ValueError("something else")

    with pytest.raises(ValueError, match="something else"):
        within_memory(other, 4)


# the command line


@pytest.mark.parametrize("backend", RERANKERS)
def test_from_the_command_line(backend: str, tiny_bert_reranker: Path, tmp_path: Path) -> None:
    arguments = ["task=demo-zh", "limit=5", "model=local-cross-encoder", f"model.path={tiny_bert_reranker}",
                 f"model.truncation={RERANKERS[backend]}", f"cache_dir={tmp_path / 'cache'}"]  # fmt: skip
    blocks = {}
    for name in (backend, "torch"):
        done = run_here(*arguments, f"backend={name}", f"results_dir={tmp_path / name}")
        assert done.code == 0, done.stderr
        assert not re.search(r"%\|| tokenizer |Warning", done.stderr)  # bars and remarks of the library's own
        (path,) = (tmp_path / name).rglob("EvalkitDemoZh.json")
        blocks[name] = json.loads(path.read_text(encoding="utf-8"))
    assert blocks[backend]["evalkit"]["backend"]["name"] == backend
    assert blocks[backend]["scores"] == blocks["torch"]["scores"]
    again = run_here(*arguments, f"backend={backend}", f"results_dir={tmp_path / 'again'}")
    assert again.code == 0
    (path,) = (tmp_path / "again").rglob("EvalkitDemoZh.json")
    block = json.loads(path.read_text(encoding="utf-8"))["evalkit"]
    assert block["timing"]["items_from_store"] == block["usage"]["items"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_its_package(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, PACKAGES[backend], None)
    with pytest.raises(EvalkitError) as caught:
        check_backend(backend, read_model("multilingual-e5-small"), Runtime())
    assert str(caught.value) == f'backend={backend} is not installed: pip install ".[{backend}]" in a clone of evalkit'


LAZY = """
import sys
from evalkit.commands.main import run_command_line
code = run_command_line(sys.argv[1:])
loaded = {"sentence_transformers", "FlagEmbedding", "langchain_core", "langchain_community", "mteb"} & set(sys.modules)
sys.exit(f"{code} {loaded}" if code or loaded else 0)
"""


@pytest.mark.parametrize(
    "arguments", [["list"], ["task=demo-zh", "limit=2", "model=local-cross-encoder", "backend=torch"]]
)
def test_nothing_is_imported_unasked(arguments: list[str], tiny_bert_reranker: Path, tmp_path: Path) -> None:
    if len(arguments) > 1:
        arguments = [*arguments, f"model.path={tiny_bert_reranker}", f"results_dir={tmp_path}", "cache=off"]
    done = subprocess.run(
        [sys.executable, "-c", LAZY, *arguments], capture_output=True, encoding="utf-8", timeout=200, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
