"""infinity in this process, against transformers' own code."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chinese_texts import LONG_DOCUMENT, demo_pairs
from command import run_here, run_program
from model_folders import copied, edit_json, edit_weights
from numpy.typing import NDArray
from tokenizer_folders import read_by_class
from tokenizers import Tokenizer, pre_tokenizers
from transformers_reference import assert_same_ranking, reference_scores, reference_vectors, run_scores

import evalkit
from evalkit.backends import prepare_model
from evalkit.errors import ConsentError, EvalkitError
from evalkit.models.consent import guarded
from evalkit.models.interfaces import PairScorer, PairStream, RunnableModel, Runtime, TextEmbedder, TextStream
from evalkit.models.settings import model_settings

PAIRS = demo_pairs(24)
SHORT = PAIRS[:-3]
E5 = {"kind": "embedder", "pooling": "mean", "query_prompt": "query: ", "document_prompt": "passage: "}


def prepared(folder: Path, **fields: Any) -> RunnableModel:
    settings = model_settings({"name": "made", "path": str(folder)} | fields)
    return prepare_model("infinity", settings, Runtime(device="cpu"))


@cache
def model(folder: Path, kind: str = "cross-encoder") -> RunnableModel:
    return prepared(folder, **(E5 if kind == "embedder" else {}))


def scores(found: RunnableModel, pairs: list[tuple[str, str]]) -> NDArray[np.float32]:
    scorer = found.scorer
    assert isinstance(scorer, PairScorer)
    assert isinstance(scorer, PairStream)
    return scorer.score(pairs)


@pytest.mark.parametrize("architecture", ["XLM-R", "BERT"])
def test_cross_encoders(architecture: str, tiny_reranker: Path, tiny_bert_reranker: Path) -> None:
    """Raw logits, texts beyond 512 tokens among them."""
    folder = tiny_reranker if architecture == "XLM-R" else tiny_bert_reranker
    assert_same_ranking(scores(model(folder), PAIRS), reference_scores(folder, PAIRS))


def test_the_order_is_that_of_the_pairs(tiny_bert_reranker: Path) -> None:
    """infinity sorts by length, then by score: queries that come again, a pair twice, more documents than one request takes."""
    pairs = [("cold", f"{text[:40]} {number}") for number in range(13) for _, text in SHORT]
    pairs += [("panda", "bank"), pairs[3], pairs[3], ("panda", "china"), pairs[1]]
    assert sum(query == "cold" for query, _ in pairs) > 256
    found = scores(model(tiny_bert_reranker), pairs)
    assert_same_ranking(found, reference_scores(tiny_bert_reranker, pairs))
    assert scores(model(tiny_bert_reranker), pairs).tobytes() == found.tobytes()
    assert scores(model(tiny_bert_reranker), []).shape == (0,)


@pytest.mark.parametrize("kind", ["cross-encoder", "embedder"])
def test_tokenizer_json_leads(kind: str, tiny_bert_reranker: Path, tmp_path: Path) -> None:
    """It writes small letters; by its settings, transformers 4 would make its tokenizer keep the large ones."""
    folder = copied(tiny_bert_reranker, tmp_path)
    if kind == "embedder":
        edit_json(folder / "config.json", lambda config: config.update(architectures=["BertModel"]))
        heads = ("classifier.bias", "classifier.weight")
        edit_weights(folder, lambda tensors: {name: one for name, one in tensors.items() if name not in heads})
    recipe = {"kind": kind, **({"pooling": "mean"} if kind == "embedder" else {})}
    texts = ["The BANK of CHINA", "How Cold IS the Water", "熊猫 APPLE 2024"]

    def answers() -> NDArray[np.float32]:
        scorer = prepared(folder, **recipe).scorer
        if isinstance(scorer, TextEmbedder):
            return scorer.embed(texts, "document")
        assert isinstance(scorer, PairScorer)
        return scorer.score([("DOCTOR", text) for text in texts])

    expected = answers()
    read_by_class(folder, "BertTokenizer", do_lower_case=False)
    np.testing.assert_allclose(answers(), expected, atol=1e-5)


def test_prompts_and_white_space(tiny_bert_reranker: Path) -> None:
    pairs = [(" 感冒 \n", "\u3000多喝水\t"), ("", "  "), ("感\n冒", "a  b"), *PAIRS[:9]]
    expected = reference_scores(tiny_bert_reranker, [(f"问：{query}", f"答： {text}") for query, text in pairs])
    found = prepared(tiny_bert_reranker, query_prompt="问：", document_prompt="答： ")
    assert_same_ranking(scores(found, pairs), expected)


def test_a_length_of_its_own(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    folder = copied(tiny_bert_reranker, tmp_path)
    edit_json(folder / "tokenizer_config.json", lambda config: config.update(model_max_length=48))
    assert_same_ranking(scores(prepared(folder, max_length="48"), PAIRS), reference_scores(folder, PAIRS, 48))


def test_e5(e5_small: Path) -> None:
    """Real weights, a prompt for each role, and a text that is cut."""
    texts = [text for _, text in SHORT[:8]]
    embedder = model(e5_small, "embedder").scorer
    assert isinstance(embedder, TextEmbedder)
    assert isinstance(embedder, TextStream)
    for role, prompt in (("query", "query: "), ("document", "passage: ")):
        expected = reference_vectors(e5_small, [prompt + text for text in texts])
        found = embedder.embed(texts, role)
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)
        assert_same_ranking(found @ found[0], expected @ expected[0])
    found, expected = embedder.embed([LONG_DOCUMENT], "query"), reference_vectors(e5_small, ["query: " + LONG_DOCUMENT])
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("pooling", ["cls", "mean", "last"])
def test_poolings(pooling: str, tiny_bert_reranker: Path, tmp_path: Path) -> None:
    """As the folder says; without `modules.json` the mean."""
    from agreement import write_embedder

    folder = write_embedder(tiny_bert_reranker, tmp_path / "embedder")
    (folder / "1_Pooling").mkdir()
    mode = {"cls": "cls_token", "mean": "mean_tokens", "last": "lasttoken"}[pooling]
    modes = {"word_embedding_dimension": 64, "pooling_mode_mean_tokens": False, f"pooling_mode_{mode}": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes), encoding="utf-8")
    if pooling != "mean":
        names = {"Transformer": "", "Pooling": "1_Pooling"}
        steps = [
            {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{name}"}
            for at, (name, path) in enumerate(names.items())
        ]
        (folder / "modules.json").write_text(json.dumps(steps), encoding="utf-8")
    texts = [text for _, text in PAIRS[-9:]]
    settings = model_settings({"name": "made", "path": str(folder), "kind": "embedder", "pooling": pooling})
    torchs = prepare_model("torch", settings, Runtime(device="cpu")).scorer
    encoded = [torchs.encode_text(text) for text in torchs.tokenize(texts, "document")]
    expected = torchs.run(encoded)
    found = prepared(folder, kind="embedder", pooling=pooling).scorer.embed(texts, "document")
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


def test_an_engine_that_is_left_and_asked_again(tiny_bert_reranker: Path) -> None:
    scorer = model(tiny_bert_reranker).scorer
    assert isinstance(scorer, PairStream)
    pairs = [(query, text) for query in ("cold", "panda") for _, text in SHORT]
    parts = scorer.score_parts(pairs)
    first = next(parts)
    assert first.positions.tolist() == list(range(len(SHORT)))
    assert first.seconds > 0
    parts.close()
    assert_same_ranking(scorer.score(pairs), reference_scores(tiny_bert_reranker, pairs))


def test_where_an_event_loop_runs(tiny_bert_reranker: Path) -> None:
    """As in a notebook."""

    async def cell() -> NDArray[np.float32]:
        return scores(model(tiny_bert_reranker), PAIRS[:5])

    np.testing.assert_array_equal(asyncio.run(cell()), scores(model(tiny_bert_reranker), PAIRS[:5]))


def test_a_network_that_fails(tiny_bert_reranker: Path) -> None:
    """Its thread dies and infinity never answers: that is told, not waited for."""
    found = prepared(tiny_bert_reranker)
    embeddings = found.scorer.engine._model_replicas[0].model.bert.embeddings
    embeddings.word_embeddings = torch.nn.Embedding(300, 64)  # fewer than there are tokens, which a folder may not have
    assert np.isfinite(scores(found, [("a", "b")])).all()
    with pytest.raises(EvalkitError, match="infinity failed: index out of range in self; does backend=torch run"):
        scores(found, [("a", "b"), ("a", "感冒")])
    assert np.isfinite(scores(found, [("a", "b")])).all()


def test_bf16(tiny_bert_reranker: Path) -> None:
    settings = model_settings({"name": "made", "path": str(tiny_bert_reranker)})
    found = scores(prepare_model("infinity", settings, Runtime(device="cpu", dtype="bf16")), PAIRS)
    assert 1e-3 < np.abs(found - reference_scores(tiny_bert_reranker, PAIRS)).max() < 0.3


def test_what_is_recorded(tiny_bert_reranker: Path) -> None:
    found = model(tiny_bert_reranker)
    assert found.description == {
        "name": "infinity", "device": "cpu", "dtype": "fp32", "class": "AsyncEmbeddingEngine", "version": "0.0.78",
    }  # fmt: skip
    assert found.way is not None
    assert found.way["backend"] == found.description


# what infinity can't do, refused before weights load


def refusal(folder: Path, **fields: Any) -> str:
    """What is said of a folder whose weights can't be loaded."""
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(EvalkitError) as caught:
        _ = prepared(folder, **fields).scorer
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (
            {"truncation": "only_second"},
            "backend=infinity cuts long pairs by longest_first, and made's recipe says only_s",
        ),
        ({"max_length": "64"}, "made's tokenizer says 512, but the recipe 64 tokens: make them agree"),
    ],
)
def test_rerankers_that_it_refuses(fields: dict[str, Any], told: str, tiny_bert_reranker: Path, tmp_path: Path) -> None:
    assert told in refusal(copied(tiny_bert_reranker, tmp_path), **fields)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"pooling": "cls"}, "1_Pooling/config.json says pooling=mean, and the recipe says cls"),
        ({"similarity": "dot"}, "backend=infinity gives every vector the length one, and made's recipe says dot"),
        ({"max_length": "64"}, "made's sentence_bert_config.json says 512, but the recipe 64 tokens"),
    ],
)
def test_embedders_that_it_refuses(fields: dict[str, Any], told: str, e5_small: Path, tmp_path: Path) -> None:
    assert told in refusal(copied(e5_small, tmp_path), **(E5 | fields))


def test_a_folder_that_names_no_class(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    """infinity takes it for an embedder."""
    folder = copied(tiny_bert_reranker, tmp_path)
    edit_json(folder / "config.json", lambda config: config.pop("architectures"))
    assert "must name the model's class under architectures" in refusal(folder)


def test_a_tokenizer_without_a_limit(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    """infinity would hand the network more tokens than it can read."""
    folder = copied(tiny_bert_reranker, tmp_path)
    edit_json(folder / "tokenizer_config.json", lambda config: config.pop("model_max_length"))
    assert "made's tokenizer sets no limit, but the recipe 512 tokens" in refusal(folder)


def test_a_tokenizer_that_tells_white_space(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    folder = copied(tiny_bert_reranker, tmp_path)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.normalizer = None
    tokenizer.pre_tokenizer = pre_tokenizers.Split("甲", "isolated")
    tokenizer.save(str(folder / "tokenizer.json"))
    assert refusal(folder) == (
        "infinity takes away white space around texts, which made's tokenizer tells apart; backend=torch"
    )


@pytest.mark.parametrize("trusted", [False, True])
def test_code_that_modules_json_names(trusted: bool, e5_small: Path, tmp_path: Path) -> None:
    """sentence-transformers 3 runs it unasked."""
    folder, mark = copied(e5_small, tmp_path), tmp_path / "mark"
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    modules[0]["type"] = "modeling_x.Transformer"
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    code = "from pathlib import Path\nfrom sentence_transformers.models import Transformer\n"
    (folder / "modeling_x.py").write_text(f"{code}Path({str(mark)!r}).touch()\n", encoding="utf-8")
    from sentence_transformers import SentenceTransformer

    with pytest.raises(EvalkitError, match=r"names modeling_x\.Transformer, a module of Python code of its own"):
        _ = prepared(folder, trust_remote_code=trusted, **E5).scorer
    assert not mark.exists()  # evalkit has no place for it; the guard holds where it is not asked
    guard = guarded([folder], code=trusted, pickles=False, model="made")
    if trusted:
        with guard:
            SentenceTransformer(str(folder), device="cpu")
    else:
        with (
            pytest.raises(ConsentError, match=r"made would run .*modeling_x\.py, .*: model\.trust_remote_code=true$"),
            guard,
        ):
            SentenceTransformer(str(folder), device="cpu")
    assert mark.exists() == trusted


def test_small_letters(e5_small: Path, tmp_path: Path) -> None:
    folder = copied(e5_small, tmp_path)
    edit_json(folder / "sentence_bert_config.json", lambda config: config.update(do_lower_case=True))
    assert "sentence_bert_config.json says lower_case=True, and the recipe says False" in refusal(folder, **E5)


def test_a_folder_by_its_files_alone(e5_small: Path, tmp_path: Path) -> None:
    """Pooling, length and prompts are read from it; torch's scores of it are compared with mteb's own elsewhere."""
    folder = copied(e5_small, tmp_path)
    said = {"prompts": {"query": "query: ", "document": "passage: "}}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(said), encoding="utf-8")
    task = evalkit.load_task("demo-zh", limit=4)
    prompted, torchs, bare = (
        evalkit.evaluate(
            evalkit.load_model(str(path), backend=backend, device="cpu", cache_dir=tmp_path / "cache"), task
        ).candidates["score"]
        for path, backend in ((folder, "infinity"), (folder, "torch"), (e5_small, "infinity"))
    )
    np.testing.assert_allclose(prompted, torchs, atol=1e-4)
    assert np.abs(prompted - bare).max() > 1e-3


# the command line


def test_from_the_command_line(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    """As a program of its own, which ends, says nothing of infinity's own and leaves nothing behind but its results."""
    done = run_program(
        tmp_path,
        "task=demo-zh",
        "limit=5",
        "model=local-cross-encoder",
        f"model.path={tiny_bert_reranker}",
        "backend=infinity",
    )
    assert done.code == 0, done.stderr
    assert done.rows[0][:2] == ["tiny-bert-reranker", "demo-zh"]
    assert "INFO" not in done.stderr
    assert "infinity" not in done.stderr.lower()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "results"]
    pairs, found = run_scores(tmp_path / "results", "demo-zh")
    assert_same_ranking(found, reference_scores(tiny_bert_reranker, pairs))


def test_it_is_listed() -> None:
    done = run_here("list", "backends")
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("infinity ")]
    assert "cross-encoder" in line


QUIET = """
import logging, os, sys, torch
from evalkit import load_model
handler = logging.StreamHandler()
logging.getLogger().handlers, before = [handler], torch.backends.cuda.matmul.allow_tf32
scorer = load_model("local-cross-encoder", path=sys.argv[1], backend="infinity").runnable.scorer
assert scorer.score([("a", "b")]).shape == (1,)
assert logging.getLogger().handlers == [handler], logging.getLogger().handlers
assert logging.getLogger().level == logging.WARNING
assert torch.backends.cuda.matmul.allow_tf32 == before
assert not {"DO_NOT_TRACK", "INFINITY_HOME"} & set(os.environ)
assert not os.listdir("."), os.listdir(".")
"""


def test_it_changes_nothing_else(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    """Importing infinity makes a folder, takes over the root logger, and has CUDA compute in TF32."""
    done = subprocess.run(
        [sys.executable, "-c", QUIET, tiny_bert_reranker],
        cwd=tmp_path,
        timeout=200,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
