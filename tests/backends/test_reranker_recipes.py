"""Recipes of rerankers that are language models against the steps of their authors' own code, one pair at a time."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chinese_texts import demo_pairs
from hypothesis import given, settings
from hypothesis import strategies as st
from language_servers import language_server
from model_folders import copied
from numpy.typing import NDArray
from real_models import write_json
from served_models import served
from transformers import AutoModelForCausalLM, AutoTokenizer

import evalkit
from evalkit.configuration.files import read_option
from evalkit.errors import EvalkitError
from evalkit.models.interfaces import LocalNetwork, PairScorer
from evalkit.models.prompted import PromptedInputs
from evalkit.models.settings import ModelSettings, model_settings

# what a tokenizer may join with its neighbours: marks, line breaks, spaces, combining characters, special tokens
PIECES = [
    *("感冒", "发烧怎么办", "？", "\n", " \n", "panda", " doctor", "2024"),
    *("(", ">:", ")\n", "e", "\u0301", "<|im_end|>", "\t", "\u3000"),
]
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=30).map("".join)
PAIRS = [
    *demo_pairs(6),
    ("感冒怎么办？", ""),
    ("", "多喝水"),
    (" what is\n", "\n (x)\n 1 <|im_end|> \n"),
    ("e", "\u0301é"),
    ("水 " * 80, "多喝水"),
    ("感冒", "多喝水，" * 80),
]
# Qwen3's chat template, as far as turns of the system and the user go
CHAT_TEMPLATE = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
JUDGE = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. Note that the answer can only "
    'be "yes" or "no".'
)
INSTRUCTIONS = {
    "qwen-eval": "Given the user query, retrieval the relevant passages",
    "qwen-web": "Given a Chinese search query, retrieve web passages that answer the question",
    "qwen-medical": "Given a Chinese community medical question, retrieve replies that best answer the question",
}
QWEN = ("Qwen3-Reranker-0.6B", "Qwen3-Reranker-4B", "Qwen3-Reranker-8B")
MXBAI = ("mxbai-rerank-base-v2", "mxbai-rerank-large-v2")
CTXL = "ctxl-rerank-v2-instruct-multilingual-1b"
ZERANK = ("zerank-1-small", "zerank-1", "zerank-2")


@cache
def tokenizer_of(folder: Path) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def chat_ids(folder: Path, system: str, user: str, *, generation_prompt: bool) -> list[int]:
    turns = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    tokenizer = tokenizer_of(folder)
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=generation_prompt)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def qwen_eval_ids(folder: Path, query: str, document: str, max_length: int, instruction: str) -> list[int]:
    """QwenLM/Qwen3-Embedding, evaluation/qwen3_reranker_model.py: the chat's ids, cut, and the suffix behind them."""
    user = f"<Instruct>: {instruction}\n\n<Query>: {query}\n\n<Document>: {document}"
    suffix = tokenizer_of(folder).encode(
        "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n", add_special_tokens=False
    )
    return [*chat_ids(folder, JUDGE, user, generation_prompt=False)[:max_length], *suffix]


def mxbai_ids(folder: Path, query: str, document: str, max_length: int) -> list[int]:
    """mixedbread-ai/mxbai-rerank, mxbai_rerank_v2.py: every piece on its own; what is left after the query is the document's."""
    tokenizer = tokenizer_of(folder)

    def ids(text: str, most: int | None = None) -> list[int]:
        found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return found[:most]

    first = ids(f"query: {query}", max_length * 3 // 4)
    second = [*ids("\n"), *ids(f"document: {document}", max_length)]
    task = (
        "You are a search relevance expert who evaluates how well documents match search queries. For each query-document pair, "
        "carefully analyze the semantic relationship between them, then provide your binary relevance judgment (0 for not "
        "relevant, 1 for relevant).\nRelevance:"
    )
    return [
        *ids(
            "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        ),
        *first,
        *second[: max_length - len(first)],
        *ids("\n"),
        *ids(task),
        *ids("<|im_end|>\n<|im_start|>assistant\n"),
    ]


def zerank_ids(folder: Path, query: str, document: str) -> list[int]:
    """zeroentropy's modeling_zeranker.py, of texts that are not cut."""
    return chat_ids(folder, query.strip(), document.strip(), generation_prompt=True)


def ctxl_ids(folder: Path, query: str, document: str) -> list[int]:
    """ContextualAI's card, of texts that are not cut."""
    text = "Check whether a given document contains information helpful to answer the query.\n"
    ids: list[int] = tokenizer_of(folder)(f"{text}<Document> {document}\n<Query> {query} ??")["input_ids"]
    return ids


def last_logits(folder: Path, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = network(folder)(input_ids=torch.tensor([ids])).logits[0, -1]
    return logits


@cache
def network(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def word(folder: Path, text: str) -> int:
    found: int = tokenizer_of(folder)(text, add_special_tokens=False)["input_ids"][0]
    return found


@cache
def recipe(name: str, **fields: Any) -> ModelSettings:
    return model_settings(read_option("model", name), fields)


@cache
def inputs(name: str, folder: Path, **fields: Any) -> PromptedInputs:
    return PromptedInputs.create(AutoTokenizer.from_pretrained(folder), recipe(name, **fields), 10_000)


def ids_of(builder: PromptedInputs | LocalNetwork, query: str, document: str) -> list[int]:
    pieces = builder.tokenize([query], "query")[0], builder.tokenize([document], "document")[0]
    ids: list[int] = builder.encode_pair(*pieces).token_ids.tolist()
    return ids


def scores(name: str, folder: Path, **fields: Any) -> tuple[list[list[int]], NDArray[np.float32]]:
    """The token ids of PAIRS and their scores, in one padded batch."""
    model = evalkit.load_model(name, backend="torch", device="cpu", dtype="fp32", path=folder, **fields)
    scorer = model.runnable.scorer
    assert isinstance(scorer, LocalNetwork)
    encodings = [
        scorer.encode_pair(scorer.tokenize([query], "query")[0], scorer.tokenize([document], "document")[0])
        for query, document in PAIRS
    ]
    return [encoding.token_ids.tolist() for encoding in encodings], scorer.run(encodings)


@given(query=TEXTS, document=TEXTS, max_length=st.integers(90, 200))
@settings(max_examples=100, deadline=None)
def test_qwen_eval_makes_the_ids_of_its_source(tiny_qwen: Path, query: str, document: str, max_length: int) -> None:
    builder = inputs(QWEN[0], tiny_qwen, recipe="qwen-eval", max_length=max_length)
    expected = qwen_eval_ids(tiny_qwen, query, document, max_length, INSTRUCTIONS["qwen-eval"])
    assert ids_of(builder, query, document) == expected


@pytest.mark.parametrize(
    ("name", "variant", "max_length"),
    [
        *((name, "qwen-eval", 8192) for name in QWEN),
        *((QWEN[0], variant, 8192) for variant in list(INSTRUCTIONS)[1:]),
        (QWEN[1], "qwen-eval", 150),
    ],
)
def test_qwen_eval_scores_as_its_source(tiny_qwen: Path, name: str, variant: str, max_length: int) -> None:
    """The source's score is p(yes) / (p(yes) + p(no)); evalkit's is its logit."""
    found, logits = scores(name, tiny_qwen, recipe=variant, max_length=max_length)
    expected = [qwen_eval_ids(tiny_qwen, *pair, max_length, INSTRUCTIONS[variant]) for pair in PAIRS]
    assert found == expected
    chances = []
    for ids in expected:
        probabilities = last_logits(tiny_qwen, ids).double().softmax(-1)
        yes, no = (float(probabilities[word(tiny_qwen, text)]) for text in ("yes", "no"))
        chances.append(yes / (yes + no))
    assert np.ptp(chances) > 0.01
    np.testing.assert_allclose(1 / (1 + np.exp(-logits.astype(float))), chances, atol=1e-5, rtol=0)


def test_qwen_eval_ends_the_users_turn_twice_where_nothing_was_cut(tiny_qwen: Path) -> None:
    end = word(tiny_qwen, "<|im_end|>")
    whole, cut = (
        ids_of(inputs(QWEN[0], tiny_qwen, recipe="qwen-eval", max_length=length), "a", "b " * 50)
        for length in (8192, 100)
    )
    assert (whole.count(end), cut.count(end)) == (3, 2)


@given(query=TEXTS, document=TEXTS, max_length=st.integers(20, 90))
@settings(max_examples=100, deadline=None)
def test_mxbai_makes_the_ids_of_its_source(tiny_qwen2: Path, query: str, document: str, max_length: int) -> None:
    builder = inputs(MXBAI[0], tiny_qwen2, max_length=max_length)
    assert ids_of(builder, query, document) == mxbai_ids(tiny_qwen2, query, document, max_length)


@pytest.mark.parametrize("name", MXBAI)
@pytest.mark.parametrize("max_length", [8192, 64])
def test_mxbai_scores_as_its_source(tiny_qwen2: Path, name: str, max_length: int) -> None:
    found, ours = scores(name, tiny_qwen2, max_length=max_length)
    expected = [mxbai_ids(tiny_qwen2, *pair, max_length) for pair in PAIRS]
    assert found == expected
    one, zero = word(tiny_qwen2, "1"), word(tiny_qwen2, "0")
    logits = [last_logits(tiny_qwen2, ids) for ids in expected]
    theirs = [float(row[one] - row[zero]) for row in logits]
    assert np.ptp(theirs) > 0.01
    np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=0)


@given(query=TEXTS, document=TEXTS)
@settings(max_examples=100, deadline=None)
def test_zerank_makes_the_ids_of_its_source(tiny_qwen: Path, query: str, document: str) -> None:
    assert ids_of(inputs(ZERANK[0], tiny_qwen), query, document) == zerank_ids(tiny_qwen, query, document)


@given(query=TEXTS, document=TEXTS)
@settings(max_examples=100, deadline=None)
def test_ctxl_makes_the_ids_of_its_card(tiny_qwen: Path, query: str, document: str) -> None:
    assert ids_of(inputs(CTXL, tiny_qwen), query, document) == ctxl_ids(tiny_qwen, query, document)


def test_ctxl_scores_as_its_card_and_behind_a_server_that_gives_logits(tiny_qwen: Path) -> None:
    found, ours = scores(CTXL, tiny_qwen)
    expected = [ctxl_ids(tiny_qwen, *pair) for pair in PAIRS]
    assert found == expected
    theirs = [float(last_logits(tiny_qwen, ids)[word(tiny_qwen, "!")]) for ids in expected]
    assert np.ptp(theirs) > 0.01
    np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=0)
    server, _ = language_server(tiny_qwen, mode="raw_logits")
    with server:
        model = served("vllm", server.url, CTXL, recipe={"path": str(tiny_qwen)}, served_model="m")
        scorer = model.runnable.scorer
        assert isinstance(scorer, PairScorer)
        np.testing.assert_allclose(scorer.score(PAIRS), theirs, atol=1e-4, rtol=0)
    server, _ = language_server(tiny_qwen)
    with server, pytest.raises(EvalkitError, match="is the logit of one word, '!'"):
        _ = served("vllm", server.url, CTXL, recipe={"path": str(tiny_qwen)}, served_model="m").runnable.scorer


def test_of_ctxls_texts_the_document_gives_way_and_no_ending_is_lost(tiny_qwen: Path) -> None:
    builder = inputs(CTXL, tiny_qwen, max_length=256)
    tokenizer = tokenizer_of(tiny_qwen)
    between = tokenizer("\n")["input_ids"]
    behind = tokenizer("<Query> 感冒 ??")["input_ids"]
    whole = ctxl_ids(tiny_qwen, "感冒", "多喝水，" * 300)
    ids = ids_of(builder, "感冒", "多喝水，" * 300)
    kept = 256 - len(between) - len(behind)
    assert ids == [*whole[:kept], *between, *behind]
    both = ids_of(builder, "感冒了怎么办？" * 200, "多喝水，" * 300)
    assert len(both) == 256
    assert both[-len(tokenizer(" ??")["input_ids"]) :] == tokenizer(" ??")["input_ids"]
    assert both[:20] == whole[:20]


@pytest.mark.parametrize("name", ZERANK)
def test_zerank_scores_as_its_source(tiny_qwen: Path, name: str) -> None:
    found, ours = scores(name, tiny_qwen)
    expected = [zerank_ids(tiny_qwen, *pair) for pair in PAIRS]
    assert found == expected
    yes = word(tiny_qwen, "Yes")
    theirs = [float(last_logits(tiny_qwen, ids)[yes]) / 5 for ids in expected]
    assert np.ptp(theirs) > 0.01
    np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=0)


def test_a_document_that_is_too_long_leaves_zerank_its_prompt(tiny_qwen: Path) -> None:
    builder = inputs(ZERANK[0], tiny_qwen, max_length=64)
    ids = ids_of(builder, "感冒", "多喝水，" * 300)
    whole = zerank_ids(tiny_qwen, "感冒", "多喝水，" * 300)
    tail = tokenizer_of(tiny_qwen)("<|im_end|>\n<|im_start|>assistant\n", add_special_tokens=False)["input_ids"]
    assert ids == [*whole[: 64 - len(tail)], *tail]


def test_files_for_sentence_transformers_beside_a_named_model_change_nothing(tiny_qwen: Path, tmp_path: Path) -> None:
    """As zerank-2's folder has them at its pinned revision: without the division."""
    folder = copied(tiny_qwen, tmp_path)
    rows = [
        ("", "base.modules.transformer.Transformer"),
        ("1_LogitScore", "cross_encoder.modules.logit_score.LogitScore"),
    ]
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.{name}"}
        for number, (path, name) in enumerate(rows)
    ]
    write_json(folder / "modules.json", modules)
    (folder / "1_LogitScore").mkdir()
    yes = {"true_token_id": word(tiny_qwen, "Yes"), "false_token_id": None}
    write_json(folder / "1_LogitScore" / "config.json", yes)
    found, ours = scores("zerank-2", folder)
    expected, theirs = scores("zerank-2", tiny_qwen)
    assert found == expected
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (
            {"truncation": "only_second", "document_ending": "!"},
            "model.document_ending says nothing with model.truncation=only_second",
        ),
        ({"truncation": "longest_first"}, "only_second, end, end_before_prompt, texts_only_second"),
        ({"temperature": 0}, "temperature"),
        ({"recipe": "qwen-eval", "max_length": 9_995}, "too long"),
        ({"truncation": "texts_only_second", "max_length": 9_990}, "too long"),
    ],
)
def test_what_a_recipe_can_not_mean_is_refused(tiny_qwen: Path, fields: dict[str, Any], says: str) -> None:
    with pytest.raises(EvalkitError, match=says):
        inputs(QWEN[0], tiny_qwen, **fields)


@pytest.mark.parametrize(
    ("name", "fixture", "mode", "fields"),
    [
        (QWEN[1], "tiny_qwen", "raw_logprobs", {"recipe": "qwen-eval", "max_length": 200}),
        (MXBAI[0], "tiny_qwen2", "raw_logprobs", {"max_length": 64}),
        (ZERANK[2], "tiny_qwen", "raw_logits", {"max_length": 100}),
    ],
)
def test_a_recipe_is_the_same_behind_a_server(
    name: str, fixture: str, mode: str, fields: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    """Its tokens, its words and the number that it divides by."""
    folder = request.getfixturevalue(fixture)
    ids, expected = scores(name, folder, **fields)
    server, own = language_server(folder, mode=mode)
    with server:
        model = served("vllm", server.url, name, recipe={"path": str(folder), **fields}, served_model="m")
        scorer = model.runnable.scorer
        assert isinstance(scorer, PairScorer)
        found = scorer.score(PAIRS)
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)
    assert all(one in own.read for one in ids)


@pytest.mark.parametrize("fields", [{"strip": True}, {"temperature": 2.0}, {"document_ending": "x"}])
def test_what_flagembedding_can_not_be_told_is_refused(tiny_gemma: Path, fields: dict[str, Any]) -> None:
    model = evalkit.load_model(
        "bge-reranker-v2-gemma", backend="flagembedding", device="cpu", path=tiny_gemma, **fields
    )
    with pytest.raises(EvalkitError, match=next(iter(fields))):
        _ = model.runnable.scorer


@pytest.mark.parametrize("kind", ["end_before_prompt", "texts_only_second", "end"])
def test_a_cross_encoder_has_no_prompts_to_cut_around(tiny_bert_reranker: Path, kind: str) -> None:
    model = evalkit.load_model(
        "local-cross-encoder", path=tiny_bert_reranker, backend="torch", device="cpu", truncation=kind
    )
    with pytest.raises(
        EvalkitError, match=f"model.truncation={kind}: a cross-encoder takes longest_first or only_second"
    ):
        _ = model.runnable.scorer
