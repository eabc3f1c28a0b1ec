"""sentence-transformers' LogitScore folders: on torch, in the library itself and behind a server the same tokens and scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chinese_texts import demo_pairs
from language_servers import language_server
from model_folders import copied, edit_json
from numpy.typing import NDArray
from served_models import served

import evalkit
from evalkit.errors import EvalkitError
from evalkit.models.interfaces import LocalNetwork, PairScorer
from evalkit.models.settings import read_model

PAIRS = [
    *demo_pairs(5),
    ("感冒怎么办？", ""),
    ("", "多喝水"),
    ("what is\n", " (x)\n 1 \n"),
    ("e", "水" * 400),
    ("水 " * 400, "1"),
]
TOLERANCE = 1e-4
ROLE = "{{{{ messages | selectattr('role', 'eq', '{}') | map(attribute='content') | first }}}}"
QUERY, DOCUMENT = ROLE.format("query"), ROLE.format("document")
QWEN = read_model("Qwen3-Reranker-0.6B")
TEMPLATES = {
    "qwen3": QWEN.system_prompt + QWEN.query_prompt + QUERY + QWEN.separator + " " + DOCUMENT + QWEN.prompt,
    # words behind the document that begin with a line break, as mxbai's
    "mxbai": f"<|im_start|>user\nquery: {QUERY}\ndocument: {DOCUMENT}\nYou are an expert. Relevance:<|im_end|>\n"
    "<|im_start|>assistant\n",
    "words alone": f"Query: {QUERY}\nDocument: {DOCUMENT} Relevant?",
    "generation prompt": "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
}


@pytest.fixture(scope="module")
def judge(tiny_qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a folder as sentence-transformers saves it."""

    def write(template: str, *, one_word: bool = False, max_length: int = 200, **settings: Any) -> Path:
        from sentence_transformers import CrossEncoder
        from sentence_transformers.base.modules import Transformer
        from sentence_transformers.cross_encoder.modules import LogitScore

        start = copied(tiny_qwen, tmp_path_factory.mktemp("start"))
        edit_json(start / "tokenizer_config.json", lambda config: config.update(chat_template=template))
        transformer = Transformer(
            str(start),
            transformer_task="text-generation",
            processing_kwargs={"chat_template": {"add_generation_prompt": True}},
        )
        yes, no = (transformer.tokenizer(word)["input_ids"][0] for word in ("yes", "no"))
        folder = tmp_path_factory.mktemp("judge") / "model"
        model = CrossEncoder(modules=[transformer, LogitScore(yes, None if one_word else no)], device="cpu", **settings)
        model.max_seq_length = max_length
        model.save_pretrained(str(folder))
        return folder

    return write


def on_torch(folder: Path) -> tuple[list[list[int]], NDArray[np.float32]]:
    network = evalkit.load_model(str(folder), backend="torch", device="cpu").runnable.scorer
    assert isinstance(network, LocalNetwork)
    encodings = [
        network.encode_pair(network.tokenize([query], "query")[0], network.tokenize([document], "document")[0])
        for query, document in PAIRS
    ]
    scores = np.concatenate([network.run([encoding]) for encoding in encodings])
    return [encoding.token_ids.tolist() for encoding in encodings], scores


def library(folder: Path) -> tuple[list[list[int]], NDArray[np.float32]]:
    """As its authors call it, pair by pair."""
    import torch
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(folder), device="cpu", local_files_only=True, activation_fn=torch.nn.Identity())
    default = model.prompts[model.default_prompt_name] if model.default_prompt_name else None
    ids = [model.preprocess([pair], prompt=default)["input_ids"][0].tolist() for pair in PAIRS]
    return ids, np.array([model.predict([pair])[0] for pair in PAIRS], np.float32)


def through(backend: str, folder: Path) -> NDArray[np.float32]:
    scorer = evalkit.load_model(str(folder), backend=backend, device="cpu").runnable.scorer
    assert isinstance(scorer, PairScorer)
    return scorer.score(PAIRS)


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_a_folder_is_read_and_scored_as_by_the_library(judge: Callable[..., Path], template: str) -> None:
    folder = judge(template)
    ids, scores = library(folder)
    found_ids, found = on_torch(folder)
    assert found_ids == ids
    assert max(map(len, ids)) == 200  # some are cut
    np.testing.assert_allclose(found, scores, atol=TOLERANCE, rtol=0)
    assert np.ptp(scores) > 100 * TOLERANCE
    np.testing.assert_allclose(through("sentence-transformers", folder), scores, atol=TOLERANCE, rtol=0)
    server, own = language_server(folder)
    with server:
        scorer = served("vllm", server.url, str(folder), served_model="m").runnable.scorer
        assert isinstance(scorer, PairScorer)
        np.testing.assert_allclose(scorer.score(PAIRS), scores, atol=TOLERANCE, rtol=0)
    assert all(one in own.read for one in ids)


def test_one_word_and_a_system_prompt(judge: Callable[..., Path]) -> None:
    folder = judge(
        TEMPLATES["generation prompt"], one_word=True, prompts={"judge": "Is it relevant?"}, default_prompt_name="judge"
    )
    ids, scores = library(folder)
    found_ids, found = on_torch(folder)
    assert found_ids == ids
    np.testing.assert_allclose(found, scores, atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(through("sentence-transformers", folder), scores, atol=TOLERANCE, rtol=0)


def test_the_recipe_and_who_states_it(judge: Callable[..., Path]) -> None:
    recipe = evalkit.load_model(str(judge(TEMPLATES["mxbai"])), backend="torch", device="cpu").recipe
    assert recipe is not None
    shown = recipe.fields
    assert (shown["kind"], shown["truncation"], shown["bos"]) == ("llm-reranker", "end", False)
    assert (shown["system_prompt"], shown["query_prompt"]) == ("<|im_start|>", "user\nquery: ")
    assert (shown["separator"], shown["document_prompt"], shown["document_ending"]) == ("\ndocument", ": ", "\n")
    assert (
        shown["prompt"] == "You are an expert. Relevance:<|im_end|>\n<|im_start|>assistant"
    )  # Jinja drops the last break
    assert (shown["positive_word"], shown["negative_word"]) == ("yes", "no")
    assert recipe.origins["prompt"] == "chat_template.jinja"
    assert recipe.origins["positive_word"] == "1_LogitScore/config.json"


REFUSED = {
    "the document first": (f"Document: {DOCUMENT}\nQuery: {QUERY}\n", "puts the document before the query"),
    "stripped": (
        f"Query: {QUERY}\nDocument: " + DOCUMENT.replace(" }}", " | trim }}") + "\n",
        "takes away white space around texts",
    ),
    "twice": (f"{QUERY}\n{QUERY}\n{DOCUMENT}\n", "does not hold query and document once each"),
    "today's date": (f"{{{{ strftime_now('%d %b %Y') }}}} {QUERY}\n{DOCUMENT}\n", "'strftime_now' is undefined"),
    "an error of its own": (
        f"{{% if '1)' in {QUERY.strip('{}')} %}}{{% endif %}}{{{{ 1 / 0 }}}}{QUERY}\n{DOCUMENT}",
        "can't be rendered",
    ),
}


@pytest.mark.parametrize(("template", "word"), REFUSED.values(), ids=REFUSED)
def test_a_template_that_evalkit_would_read_otherwise_is_refused(
    judge: Callable[..., Path], tmp_path: Path, template: str, word: str
) -> None:
    folder = copied(judge(TEMPLATES["qwen3"]), tmp_path)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    with pytest.raises(EvalkitError, match=word):
        _ = evalkit.load_model(str(folder), backend="torch", device="cpu").runnable.scorer


def refusal(folder: Path, backend: str = "torch", **recipe: Any) -> str:
    with pytest.raises(EvalkitError) as caught:
        _ = evalkit.load_model(str(folder), backend=backend, device="cpu", **recipe).runnable.scorer
    return str(caught.value)


def test_files_that_would_be_read_otherwise_are_refused(judge: Callable[..., Path], tmp_path: Path) -> None:
    whole = judge(TEMPLATES["qwen3"])
    edits: dict[str, tuple[str, dict[str, Any], str]] = {
        "lower": ("sentence_bert_config.json", {"do_lower_case": True}, "do_lower_case changes how texts are read"),
        "other": ("sentence_bert_config.json", {"query_length": 7}, "query_length changes how texts are read"),
        "suffix": (
            "sentence_bert_config.json",
            {"processing_kwargs": {"chat_template": {"restore_suffix": False}}},
            "restore_suffix changes how texts are read",
        ),
        "text": (
            "sentence_bert_config.json",
            {"processing_kwargs": {"text": {"add_special_tokens": True}}},
            "processing_kwargs.text changes how texts are read",
        ),
        "token": ("1_LogitScore/config.json", {"true_token_id": 10**6}, "true_token_id=1000000 is no token"),
        "half": ("1_LogitScore/config.json", {"true_token_id": 130}, "which is no word by itself"),
    }
    for name, (file, change, word) in edits.items():
        folder = copied(whole, tmp_path / name)
        edit_json(folder / file, lambda content, change=change: content.update(change))
        assert word in refusal(folder), name


def test_such_a_folder_is_no_other_kind(judge: Callable[..., Path]) -> None:
    folder = judge(TEMPLATES["qwen3"])
    for kind in ("cross-encoder", "embedder"):
        assert "scores by the logits of words (LogitScore" in refusal(folder, kind=kind)


def test_the_library_is_refused_another_recipe(judge: Callable[..., Path], tiny_qwen: Path) -> None:
    folder = judge(TEMPLATES["qwen3"])
    assert "scores by the tokens" in refusal(folder, "sentence-transformers", positive_word="1")
    says = refusal(
        folder, "sentence-transformers", prompt="<|im_end|>", truncation="end", negative_word="no", positive_word="yes"
    )
    assert "within its chat template" in says
    with pytest.raises(EvalkitError, match=r"where their modules\.json has LogitScore"):
        _ = evalkit.load_model("Qwen3-Reranker-0.6B", backend="sentence-transformers", path=str(tiny_qwen)).runnable
