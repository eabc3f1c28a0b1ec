"""Rerankers that are language models against FlagEmbedding's FlagLLMReranker and mteb's wrapper of Qwen3-Reranker."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chinese_texts import demo_pairs
from made_tasks import make_task
from model_folders import copied, edit_json, edit_weights
from numpy.typing import NDArray
from recipe_models import write_gemma

from evalkit.backends.torch import prepare
from evalkit.configuration.files import read_option
from evalkit.errors import EvalkitError
from evalkit.models.interfaces import LocalNetwork, RunnableModel, Runtime
from evalkit.models.settings import ModelSettings, model_settings
from evalkit.records import Run
from evalkit.scoring.engine import score_task

PAIRS = [*demo_pairs(12), ("感冒怎么办？", ""), ("", "多喝水"), ("what is\n", " (x)\n 1 <|im_end|>"), ("e", "\u0301é")]
TOLERANCE = 1e-4


def settings_of(name: str, folder: Path, **fields: Any) -> ModelSettings:
    return model_settings(read_option("model", name), {"path": str(folder)} | fields)


@cache
def loaded(name: str, folder: Path, dtype: str = "fp32", **fields: Any) -> RunnableModel:
    return prepare(settings_of(name, folder, **fields), Runtime(device="cpu", dtype=dtype))


def run(model: RunnableModel, name: str, *groups: Any) -> Run:
    return score_task(model, settings_of(name, Path()), make_task(*groups))


def score(name: str, folder: Path, pairs: Sequence[tuple[str, str]] = PAIRS, **fields: Any) -> NDArray[np.float32]:
    """Through the engine: one query per pair."""
    groups = [([query], [(document, 1)]) for query, document in pairs]
    return run(loaded(name, folder, **fields), name, *groups).scores


@cache
def flag_reranker(folder: Path) -> Any:
    from FlagEmbedding import FlagLLMReranker

    return FlagLLMReranker(str(folder), use_fp16=False, devices="cpu")


def flag_scores(folder: Path, pairs: Sequence[tuple[str, str]] = PAIRS, **options: Any) -> list[float]:
    scores: list[float] = flag_reranker(folder).compute_score([list(pair) for pair in pairs], **options)
    return scores


GEMMA, QWEN = "bge-reranker-v2-gemma", "Qwen3-Reranker-0.6B"


def test_gemma_is_flagembeddings(tiny_gemma: Path) -> None:
    expected = flag_scores(tiny_gemma)
    assert np.ptp(expected) > 1000 * TOLERANCE
    np.testing.assert_allclose(score(GEMMA, tiny_gemma), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("max_length", [16, 31, 64, 200])
def test_gemma_is_cut_as_flagembedding_cuts(tiny_gemma: Path, max_length: int) -> None:
    found = score(GEMMA, tiny_gemma, max_length=max_length)
    np.testing.assert_allclose(found, flag_scores(tiny_gemma, max_length=max_length), atol=TOLERANCE, rtol=0)


def test_another_prompt_is_flagembeddings(tiny_gemma: Path) -> None:
    prompt = "Are A and B about the same? Answer Yes or No."
    found = score(GEMMA, tiny_gemma, prompt=prompt)
    np.testing.assert_allclose(found, flag_scores(tiny_gemma, prompt=prompt), atol=TOLERANCE, rtol=0)
    assert np.abs(found - score(GEMMA, tiny_gemma)).max() > 100 * TOLERANCE


def test_the_tokenizers_padding_side_does_not_matter(tiny_gemma: Path, tmp_path: Path) -> None:
    write_gemma(tmp_path, padding_side="right")
    expected = flag_scores(tmp_path)
    np.testing.assert_allclose(expected, flag_scores(tiny_gemma), atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(score(GEMMA, tmp_path), expected, atol=TOLERANCE, rtol=0)


def test_a_beginning_that_also_pads_is_left_out(tiny_gemma: Path, tmp_path: Path) -> None:
    """FlagEmbedding's rule."""
    folder = copied(tiny_gemma, tmp_path)
    edit_json(folder / "tokenizer_config.json", lambda config: config.update(pad_token="<bos>"))
    np.testing.assert_allclose(score(GEMMA, folder), flag_scores(folder), atol=TOLERANCE, rtol=0)
    assert np.abs(score(GEMMA, folder) - score(GEMMA, tiny_gemma)).max() > 100 * TOLERANCE


@cache
def mteb_wrapper(folder: Path, max_length: int) -> Any:
    from mteb.models.model_implementations.qwen3_reranker import Qwen3RerankerWrapper

    return Qwen3RerankerWrapper(str(folder), device="cpu", max_length=max_length)


def qwen_scores(folder: Path, instruction: str | None, max_length: int = 8192) -> NDArray[np.float64]:
    """The logits of mteb's probabilities, each text in a batch of its own."""
    wrapper = mteb_wrapper(folder, max_length)
    texts = [wrapper.format_instruction(instruction, query, document) for query, document in PAIRS]
    found = np.array([wrapper.compute_logits(wrapper.process_inputs([text]))[0] for text in texts])
    return np.log(found) - np.log1p(-found)


CARD = "Given a web search query, retrieve relevant passages that answer the query"


@pytest.mark.parametrize(("recipe", "instruction"), [(None, CARD), ("mteb", None)])
@pytest.mark.parametrize("max_length", [8192, 240, 150])
def test_qwen_is_mtebs(tiny_qwen: Path, recipe: str | None, instruction: str | None, max_length: int) -> None:
    expected = qwen_scores(tiny_qwen, instruction, max_length)
    assert np.ptp(expected) > 1000 * TOLERANCE
    found = score(QWEN, tiny_qwen, max_length=max_length, recipe=recipe)
    chances = 1 / (1 + np.exp(-expected))
    rounding = 2.0**-24 / (chances * (1 - chances))  # of a probability in float32, as mteb gives it, in its logit
    assert (np.abs(found - expected) <= TOLERANCE + rounding).all()
    assert rounding.max() < 10 * TOLERANCE


@pytest.mark.parametrize("name", [GEMMA, QWEN])
def test_scores_do_not_depend_on_company(name: str, tiny_gemma: Path, tiny_qwen: Path) -> None:
    network = loaded(name, tiny_gemma if name == GEMMA else tiny_qwen).scorer
    assert isinstance(network, LocalNetwork)
    encodings = [
        network.encode_pair(network.tokenize([query], "query")[0], network.tokenize([document], "document")[0])
        for query, document in PAIRS
    ]
    alone = np.concatenate([network.run([encoding]) for encoding in encodings])
    np.testing.assert_allclose(network.run(encodings[::-1])[::-1], alone, atol=1e-5, rtol=0)


def test_a_query_of_several_texts_scores_by_its_best(tiny_gemma: Path) -> None:
    texts, document = ["感冒怎么办？", "what is a panda?", "头痛"], "多喝水，注意休息。"
    found = run(loaded(GEMMA, tiny_gemma), GEMMA, (texts, [(document, 1)])).scores
    each = flag_scores(tiny_gemma, [(text, document) for text in texts])
    np.testing.assert_allclose(found, [max(each)], atol=TOLERANCE, rtol=0)


def test_tokens_and_truncation_are_counted(tiny_gemma: Path) -> None:
    tokenizer = flag_reranker(tiny_gemma).tokenizer
    counted = run(loaded(GEMMA, tiny_gemma), GEMMA, (["感冒"], [("多喝水", 1), ("水" * 600, 0)]))
    assert counted.tokens is not None
    assert counted.truncated is not None
    assert counted.truncated.tolist() == [False, True]
    prompt = read_option("model", GEMMA)["prompt"]
    parts = ["A: 感冒", "\n", "B: 多喝水", "\n", prompt]
    length = 1 + sum(len(tokenizer(part, add_special_tokens=False)["input_ids"]) for part in parts)
    assert counted.tokens.tolist()[0] == length


@pytest.mark.parametrize(("dtype", "tolerance"), [("bf16", 0.3), ("fp16", 0.05)])
def test_half_precision_differs_little(tiny_gemma: Path, dtype: str, tolerance: float) -> None:
    groups = [([query], [(document, 1)]) for query, document in PAIRS]
    found = run(loaded(GEMMA, tiny_gemma, dtype), GEMMA, *groups).scores
    assert found.dtype == np.float32
    assert 0 < np.abs(found - score(GEMMA, tiny_gemma)).max() < tolerance


def refusal(name: str, folder: Path, **fields: Any) -> str:
    with pytest.raises(EvalkitError) as caught:
        _ = prepare(settings_of(name, folder, **fields), Runtime(device="cpu")).scorer
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_other_kinds_of_model_are_refused(tiny_reranker: Path, e5_small: Path) -> None:
    says = refusal(GEMMA, tiny_reranker, max_length=100)
    assert "is a XLMRobertaForSequenceClassification, which predicts no next token" in says
    assert "predicts no next token" in refusal(GEMMA, e5_small, max_length=100)


def test_a_language_model_is_no_cross_encoder(tiny_gemma: Path) -> None:
    assert "is a GemmaForCausalLM, which has no scoring head" in refusal("local-cross-encoder", tiny_gemma)


def test_lengths_that_cannot_be(tiny_gemma: Path, tiny_qwen: Path) -> None:
    assert "model.max_length=15 is too short for bge-reranker-v2-gemma" in refusal(GEMMA, tiny_gemma, max_length=15)
    assert "whose prompt takes" in refusal(QWEN, tiny_qwen, max_length=60)
    assert "max_length=4090 is too long for bge-reranker-v2-gemma: with its prompt" in refusal(
        GEMMA, tiny_gemma, max_length=4090
    )
    assert "can read: at most 4096 tokens" in refusal(GEMMA, tiny_gemma, max_length=5000)


def test_a_truncation_of_encoders_is_refused(tiny_gemma: Path, tiny_reranker: Path) -> None:
    assert "model.truncation=only_second, end, " in refusal(GEMMA, tiny_gemma, truncation="longest_first")
    assert "takes longest_first or only_second" in refusal("local-cross-encoder", tiny_reranker, truncation="end")


def test_a_word_without_a_token_is_refused(tiny_gemma: Path) -> None:
    assert "no token for the word ''" in refusal(GEMMA, tiny_gemma, positive_word="")


def test_words_that_begin_with_one_token_are_refused(tiny_qwen: Path) -> None:
    assert "'yes' and 'yes' begin with one token" in refusal(QWEN, tiny_qwen, negative_word="yes")


def test_pieces_that_the_tokenizer_joins_are_refused(tiny_qwen: Path) -> None:
    """Half a word as the separator's end, and the other half before each document."""
    says = refusal(QWEN, tiny_qwen, separator="\nwh", document_prompt="at")
    assert "within the prompt than of each alone" in says


def test_a_layer_that_is_missing(tiny_gemma: Path, tmp_path: Path) -> None:
    folder = copied(tiny_gemma, tmp_path)
    edit_weights(folder, lambda tensors: {name: t for name, t in tensors.items() if ".layers.1." not in name})
    assert "of the network's weights (model.layers.1." in refusal(GEMMA, folder)
