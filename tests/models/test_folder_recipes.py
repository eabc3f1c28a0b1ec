"""A real folder run by what its files say, each file in turn, and settings of the user's own that say otherwise."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from command import Outcome, run_here
from folder_shapes.layouts import write_classifier
from folder_shapes.networks import spread_weights, write_network
from folder_shapes.spelling import write_spelling
from model_folders import edit_json
from numpy.typing import NDArray
from real_models import write_json
from safetensors.torch import load_file, save_file
from task_files import mteb_parts, write_hub_parts, write_jsonl
from tokenizer_folders import read_by_class, write_qwen3_classifier

import evalkit
from evalkit.results.reading import read_result

ROWS = [
    {
        "query": "手机充电时发烫怎么办？",
        "positive": [
            "摘掉保护壳，换一个功率小一些的充电器。",
            "A phone that gets hot while charging should be unplugged.",
        ],
        "negative": ["银行周末不办理对公业务。", "充电桩的功率有七千瓦和十一千瓦两种。"],
    },
    {
        "query": "What helps against a cold?",
        "positive": ["感冒了要多喝水，注意休息。" * 8],
        "negative": [
            "It is cold outside; take a coat.",
            "感冒药里有抗组胺成分，吃了犯困，不要开车。",
            "大熊猫吃竹子。",
        ],
    },
]
DEMO = Path(evalkit.__file__).parent / "tasks" / "demo" / "zh.jsonl"
TOLERANCE = 1e-4
PACKAGES = {
    "sentence-transformers": "sentence_transformers", "flagembedding": "FlagEmbedding", "langchain": "langchain_huggingface",
    "langchain-bge": "langchain_community",
}  # fmt: skip
PROMPTS = {"query": "query: ", "document": "passage: "}


def linked(folder: Path, into: Path) -> Path:
    """A copy whose files of weights are links, so that it costs nothing; other files may be changed."""

    def copy(source: str, target: str) -> None:
        (os.symlink if source.endswith(".safetensors") else shutil.copy)(source, target)

    return shutil.copytree(folder, into, copy_function=copy)


def say(folder: Path, **settings: Any) -> None:
    write_json(folder / "config_sentence_transformers.json", settings)


def put(folder: Path, *modules: str) -> None:
    """modules.json with these behind the network."""
    named = [("Transformer", ""), *((name, f"{place}_{name}") for place, name in enumerate(modules, start=1))]
    steps = [
        {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{name}"}
        for place, (name, path) in enumerate(named)
    ]
    write_json(folder / "modules.json", steps)


def with_dense(folder: Path) -> None:
    put(folder, "Pooling", "Dense")
    (folder / "2_Dense").mkdir()
    said = {
        "in_features": 384,
        "out_features": 48,
        "bias": True,
        "activation_function": "torch.nn.modules.activation.Tanh",
    }
    write_json(folder / "2_Dense" / "config.json", said)
    draw = torch.Generator().manual_seed(3)
    weights = {"linear.weight": torch.randn(48, 384, generator=draw), "linear.bias": torch.randn(48, generator=draw)}
    save_file(weights, folder / "2_Dense" / "model.safetensors")


def with_dot(folder: Path) -> None:
    put(folder, "Pooling")
    say(folder, similarity_fn_name="dot")


FILES: dict[str, Callable[[Path], None]] = {
    "mean": lambda folder: None,
    "prompts": lambda folder: say(folder, prompts=PROMPTS),
    "length": lambda folder: edit_json(
        folder / "sentence_bert_config.json", lambda said: said.update(max_seq_length=16)
    ),
    "dense": with_dense,
    "dot": with_dot,
    "dimensions": lambda folder: say(folder, truncate_dim=64),
}
SHOWN = {
    "mean": "pooling mean (1_Pooling/config.json)",
    "prompts": "query_prompt 'query: ' (config_sentence_transformers.json), document_prompt 'passage: ' "
    "(config_sentence_transformers.json)",
    "length": "max_length 16 (sentence_bert_config.json)",
    "dense": "modules Pooling + Dense:2_Dense (modules.json)",
    "dot": "similarity dot (config_sentence_transformers.json)",
    "dimensions": "dimensions 64 (config_sentence_transformers.json)",
}


@pytest.fixture(scope="module")
def folders(e5_small: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("folders")
    made = {name: linked(e5_small, place / name / "e5") for name in FILES}
    for name, folder in made.items():
        FILES[name](folder)
    return made


@cache
def expected(folder: Path) -> NDArray[np.float32]:
    """What sentence-transformers makes of the folder by itself, pair by pair."""
    sentence_transformers = pytest.importorskip("sentence_transformers")
    model = sentence_transformers.SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    pairs = [(row["query"], text) for row in ROWS for text in [*row["positive"], *row["negative"]]]
    queries, documents = (list(texts) for texts in zip(*pairs, strict=True))
    similarity = model.similarity_pairwise(model.encode_query(queries), model.encode_document(documents))
    return np.asarray(similarity, np.float32)


def run(place: Path, *words: str) -> Outcome:
    """A run of the small task; its results, one or several, lie below `place`."""
    data = write_jsonl(place / "data.jsonl", ROWS)
    return run_here(
        "task=local", f"task.path={data}", "device=cpu", "offline=true",
        f"results_dir={place / 'results'}", f"cache_dir={place / 'cache'}", *words,
    )  # fmt: skip


def results(place: Path) -> list[Path]:
    return sorted((place / "results").rglob("data.json"))


def scores_of(result: Path) -> NDArray[np.float32]:
    return pd.read_parquet(result.with_name("data.run.parquet"))["score"].to_numpy(np.float32)


@contextmanager
def within(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@pytest.mark.parametrize("files", FILES)
def test_a_folder_s_files_are_its_recipe(files: str, folders: dict[str, Path], tmp_path: Path) -> None:
    """By `model=local-embedder model.path=…` and by `model=./DIR`: one result, what sentence-transformers gives, and said so."""
    folder = folders[files]
    by_path = run(tmp_path, "model=local-embedder", f"model.path={folder}", "backend=torch")
    assert by_path.code == 0, by_path.stderr
    (first,) = results(tmp_path)
    np.testing.assert_allclose(scores_of(first), expected(folder), atol=TOLERANCE * np.abs(expected(folder)).max())
    first.unlink()
    with within(folder.parent):
        by_word = run(tmp_path, "model=./e5", "backend=torch")
    assert by_word.code == 0, by_word.stderr
    assert results(tmp_path) == [first]
    np.testing.assert_allclose(scores_of(first), expected(folder), atol=TOLERANCE * np.abs(expected(folder)).max())
    for done in (by_path, by_word):
        assert SHOWN[files] in done.stderr
    result = read_result(first)
    assert result.recipe["kind"].origin == "modules.json"
    assert set(result.deviations) == {"backend"}, "a folder that is run by its own recipe is no experiment"


def test_the_files_make_a_difference(folders: dict[str, Path]) -> None:
    """Else the agreement above would say nothing."""
    for name in set(FILES) - {"mean"}:
        assert np.abs(expected(folders[name]) - expected(folders["mean"])).max() > 0.01, name


def test_from_python_too(folders: dict[str, Path], tmp_path: Path) -> None:
    task = evalkit.load_task(path=write_jsonl(tmp_path / "data.jsonl", ROWS))
    for name, recipe in ((str(folders["prompts"]), {}), ("auto", {"path": folders["prompts"]})):
        model = evalkit.load_model(name, backend="torch", device="cpu", cache_dir=tmp_path / "cache", **recipe)
        found = evalkit.evaluate(model, task)
        np.testing.assert_allclose(found.candidates["score"], expected(folders["prompts"]), atol=TOLERANCE)
        assert set(found.deviations) == {"backend"}
        assert [found.recipe[f"{role}_prompt"].value for role in PROMPTS] == [*PROMPTS.values()]


def test_what_the_user_says_leads(folders: dict[str, Path], tmp_path: Path) -> None:
    done = run(tmp_path, f"model={folders['length']}", "backend=torch", "model.max_length=512")
    assert "max_length 512 (you)" in done.stderr
    (result,) = results(tmp_path)
    assert read_result(result).deviations == {"backend": "torch", "max_length": 512}
    np.testing.assert_allclose(scores_of(result), expected(folders["mean"]), atol=TOLERANCE)


def test_colbert_weights_are_no_dense_embedder(e5_small: Path, tmp_path: Path) -> None:
    folder = linked(e5_small, tmp_path / "colbert")
    weights = load_file(folder / "model.safetensors") | {"linear.weight": torch.ones(128, 384)}
    (folder / "model.safetensors").unlink()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    edit_json(folder / "config.json", lambda config: config.update(architectures=["HF_ColBERT"]))
    (folder / "modules.json").unlink()
    done = run(tmp_path, "model=local-embedder", f"model.path={folder}", "backend=torch")
    assert done.code == 2
    assert "is a multi-vector model (HF_ColBERT): it compares token by token" in done.stderr.splitlines()[-1]
    assert results(tmp_path) == []


def test_two_files_for_one_folder_are_two_systems(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write_network(folder, "bert")
    group = tmp_path / "configs" / "model"
    group.mkdir(parents=True)
    for pooling in ("mean", "cls"):
        (group / f"mine-{pooling}.yaml").write_text(
            f"defaults: [base, _self_]\nname: mine\nkind: embedder\npath: {folder}\npooling: {pooling}\n",
            encoding="utf-8",
        )
        done = run(tmp_path, "--config-dir", str(group.parent), f"model=mine-{pooling}", "backend=torch")
        assert done.code == 0, done.stderr
    first, second = results(tmp_path)
    assert np.abs(scores_of(first) - scores_of(second)).max() > 0.01


# a tokenizer's files that say different things


def test_a_class_that_makes_other_tokens_changes_no_score(tiny_reranker: Path, tmp_path: Path) -> None:
    """transformers 5 builds another tokenizer than tokenizer.json of it; the file's own is used, and that is reported."""
    folder = linked(tiny_reranker, tmp_path / "by-class")
    read_by_class(folder, "XLMRobertaTokenizer", add_prefix_space=False)
    done = run(tmp_path, "model=local-cross-encoder", f"model.path={folder}", "backend=torch")
    assert done.code == 0, done.stderr
    (result,) = results(tmp_path)
    np.testing.assert_allclose(scores_of(result), scored(tiny_reranker, tmp_path), atol=TOLERANCE)
    if int(version("transformers").partition(".")[0]) >= 5:
        finding = "transformers' XLMRobertaTokenizer makes other tokens than tokenizer.json"
        assert f"by-class: {finding}" in done.stderr
        assert any(found.startswith(finding) for found in read_result(result).findings)


@pytest.mark.parametrize("backend", ["torch", "sentence-transformers"])
@pytest.mark.parametrize("padding", [5, None])
def test_one_padding_id(padding: int | None, backend: str, tmp_path: Path) -> None:
    """A decoder that classifies looks for its last token by the configuration's padding id, whatever its tokenizer's."""
    pytest.importorskip(PACKAGES.get(backend, backend))
    write_qwen3_classifier(tmp_path / "qwen3")
    expected = scored(tmp_path / "qwen3", tmp_path, backend, document_prompt="\n")
    edit_json(tmp_path / "qwen3" / "config.json", lambda config: config.update(pad_token_id=padding))
    found = scored(tmp_path / "qwen3", tmp_path, backend, document_prompt="\n")
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)


# what ended as a bug of evalkit's or in a number that is none


def scored(
    folder: Path, place: Path, backend: str = "torch", name: str = "local-cross-encoder", **recipe: Any
) -> NDArray[np.float32]:
    model = evalkit.load_model(
        name, path=folder, backend=backend, device="cpu", offline=True, cache_dir=place / "cache", **recipe
    )
    task = evalkit.load_task(path=write_jsonl(place / "data.jsonl", ROWS))
    return evalkit.evaluate(model, task).candidates["score"].to_numpy(np.float32)


def refusal(done: Outcome) -> str:
    """The one line of a refused run."""
    assert done.code == 2, done.stderr
    assert "bug in evalkit" not in done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def write_xlnet(folder: Path, head: str) -> Path:
    tokens = write_spelling(folder, "bert")
    edit_json(folder / "tokenizer_config.json", lambda said: said.update(model_max_length=128))
    sizes = {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64, "num_labels": 1, "pad_token_id": 0}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = getattr(transformers, f"XLNet{head}")(transformers.XLNetConfig(vocab_size=tokens, **sizes))
        spread_weights(network)
    network.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("backend", ["torch", "sentence-transformers", "transformers", "openvino", "onnx"])
def test_an_xlnet_embedder(backend: str, tmp_path: Path) -> None:
    """It has no table of positions, and its configuration says that there are -1."""
    pytest.importorskip(PACKAGES.get(backend, backend))
    folder = write_xlnet(tmp_path / "xlnet", "Model")
    np.testing.assert_allclose(scored(folder, tmp_path, backend, "local-embedder"), expected(folder), atol=TOLERANCE)


def test_an_xlnet_reranker_reads_padding(tmp_path: Path) -> None:
    folder = write_xlnet(tmp_path / "xlnet", "ForSequenceClassification")
    for backend in ("torch", "sentence-transformers"):
        says = refusal(run(tmp_path, "model=local-cross-encoder", f"model.path={folder}", f"backend={backend}"))
        assert "xlnet is a xlnet whose score is read at the last position of a batch (summary_type=last)" in says


def test_flagembedding_with_a_transformers_that_it_does_not_know(
    tiny_bert_reranker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers 5.24 has no `modeling_attn_mask_utils`, which FlagEmbedding 1.4 imports."""
    pytest.importorskip("FlagEmbedding")
    for name in [name for name in sys.modules if name.partition(".")[0] == "FlagEmbedding"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "transformers.modeling_attn_mask_utils", None)
    words = ("model=local-cross-encoder", f"model.path={tiny_bert_reranker}", "model.truncation=only_second")
    says = refusal(run(tmp_path, *words, "backend=flagembedding"))
    versions = [f"{name} {version(name)}" for name in ("FlagEmbedding", "transformers")]
    assert f"{versions[0]} fails with the installed {versions[1]} (" in says
    assert "modeling_attn_mask_utils" in says
    assert "backend=torch" in says


@pytest.mark.parametrize("modules", [(), ("Pooling",)])
def test_a_langchain_cross_encoder_with_modules(
    modules: tuple[str, ...], tiny_bert_reranker: Path, tmp_path: Path
) -> None:
    pytest.importorskip("langchain_community")
    folder = linked(tiny_bert_reranker, tmp_path / "reranker")
    put(folder, *modules)
    for module in modules:
        write_json(
            folder / f"1_{module}" / "config.json", {"word_embedding_dimension": 64, "pooling_mode_mean_tokens": True}
        )
    words = ("model=local-cross-encoder", f"model.path={folder}", "backend=langchain")
    if modules:
        assert "reranker is an embedder by its modules.json: it has no scoring head" in refusal(run(tmp_path, *words))
        return
    done = run(tmp_path, *words)
    assert done.code == 0, done.stderr
    (result,) = results(tmp_path)
    plain = scored(tiny_bert_reranker, tmp_path)
    np.testing.assert_allclose(scores_of(result), plain, atol=TOLERANCE)


@pytest.mark.parametrize("backend", ["openvino", "onnx"])
def test_a_small_qwen3_classifier(backend: str, tmp_path: Path) -> None:
    pytest.importorskip(backend)
    folder = tmp_path / "qwen3"
    write_qwen3_classifier(folder)
    said = {"document_prompt": "\n"}
    np.testing.assert_allclose(scored(folder, tmp_path, backend, **said), scored(folder, tmp_path, **said), atol=1e-3)


def test_modernbert_with_mean_pooling_on_openvino(tmp_path: Path) -> None:
    """Padding in the windows of its attention makes numbers that are none."""
    pytest.importorskip("openvino")
    folder = tmp_path / "modernbert"
    write_classifier(folder, "modernbert", classifier_pooling="mean")
    says = refusal(run(tmp_path, "model=local-cross-encoder", f"model.path={folder}", "backend=openvino"))
    assert "backend=openvino can't run modernbert: its output is no number where torch's is one" in says
    assert np.ptp(scored(folder, tmp_path)) > 0.1


# what a folder's files decide of a reference that reads them by itself: mteb


@pytest.fixture(scope="module")
def prompted(e5_small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """multilingual-e5-small as its authors mean it."""
    folder = linked(e5_small, tmp_path_factory.mktemp("models") / "multilingual-e5-small")
    say(folder, prompts=PROMPTS)
    return folder


DATA = [json.loads(line) for line in DEMO.read_text("utf-8").splitlines()[:8]]
FIGURES = ("map_at_1000", "mrr_at_10", "ndcg_at_10", "recall_at_5")


@pytest.fixture(scope="module")
def mteb_says(
    prompted: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """mteb's own evaluation, with its own wrapper around the folder: figures, and scores by query and document."""
    pytest.importorskip("mteb")
    from oracles.mteb_reference import evaluate_folder
    from sentence_transformers import SentenceTransformer

    work = tmp_path_factory.mktemp("mteb")
    folder = write_hub_parts(work / "data", mteb_parts(DATA))
    model = SentenceTransformer(str(prompted), device="cpu", local_files_only=True)
    return evaluate_folder(model, folder, "dev", work)


OFFLINE = (
    *("torch", "openvino", "onnx", "sentence-transformers", "transformers", "flagembedding", "langchain", "langchain-bge"),
)  # fmt: skip


@pytest.mark.parametrize("backend", OFFLINE)
def test_a_real_folder_gives_mtebs_figures(
    backend: str, prompted: Path, mteb_says: tuple[dict[str, float], dict[str, dict[str, float]]], tmp_path: Path
) -> None:
    """Given by its path alone, in either layout of the same data."""
    pytest.importorskip(PACKAGES.get(backend, backend))
    figures, scores = mteb_says
    model = evalkit.load_model(str(prompted), backend=backend, device="cpu", offline=True, cache_dir=tmp_path / "cache")
    layouts = {
        "cmteb": write_jsonl(tmp_path / "rows.jsonl", DATA),
        "mteb": write_hub_parts(tmp_path / "parts", mteb_parts(DATA)),
    }
    for layout, path in layouts.items():
        result = evalkit.evaluate(model, evalkit.load_task(path=path, split="dev"))
        assert {name: result.scores[name] for name in FIGURES} == pytest.approx(
            {name: figures[name] for name in FIGURES}, abs=1e-5
        ), layout
        found = {
            query_id: dict(zip(rows["doc_id"], rows["score"], strict=True))
            for query_id, rows in result.candidates.groupby("query_id")
        }
        assert found == {query_id: pytest.approx(one, abs=1e-4) for query_id, one in scores.items()}, layout
