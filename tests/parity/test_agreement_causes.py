"""Each cause is found on a system that has it, by what it does to scores; where there is none, none is named."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_folders import copied, edit_json
from real_models import write_random
from recipe_models import write_language_tokenizer
from transformers import BertConfig, BertForSequenceClassification
from wrong_systems import (
    TASK,
    TOLERANCE,
    Noisy,
    OnlyIds,
    PaddingRead,
    PutThrough,
    Rewritten,
    RoleBlind,
    SortedAnswers,
    card_model,
    diagnosed,
    through_torch,
    write_encoder,
)

from evalkit.evaluation.evaluate import Model
from evalkit.parity.causes import Difference
from evalkit.parity.records import Diagnosis

PROMPTS = {"query_prompt": "query: ", "document_prompt": "passage: "}


@pytest.fixture(scope="module")
def reranker(tiny_bert_reranker: Path) -> Model:
    return card_model(tiny_bert_reranker)


@pytest.fixture(scope="module")
def prompted(tiny_bert_reranker: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = write_encoder(tiny_bert_reranker, tmp_path_factory.mktemp("models") / "e5-made")
    return card_model(folder, kind="embedder", pooling="mean", **PROMPTS)


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier whose tokenizer sees white space and upper case, as BERT's and XLM-R's do not."""
    folder = tmp_path_factory.mktemp("models") / "byte-level"
    tokens = write_language_tokenizer(folder, bos=False, padding_side="right")
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    config = BertConfig(vocab_size=tokens, num_labels=1, **sizes)
    write_random(BertForSequenceClassification, config, folder, 0, "classifier.weight")
    return folder


def named(diagnosis: Diagnosis, explains: str = "all") -> tuple[str, str]:
    assert diagnosis.found is not None, diagnosis.trials
    assert diagnosis.found.explains == explains
    return diagnosis.found.cause, diagnosis.found.change


@pytest.mark.parametrize(
    ("fields", "change"),
    [
        ({"max_length": 64}, "texts cut to 64 tokens"),
        ({"max_length": 256}, "texts cut to 256 tokens"),
        ({"truncation": "only_second"}, "the query cut to 3/4, then the document (only_second)"),
    ],
)
def test_truncation(fields: dict[str, Any], change: str, reranker: Model) -> None:
    assert named(diagnosed(reranker, through_torch(reranker, **fields))) == ("truncation", change)


def test_text_cut_at_its_beginning(reranker: Model, tiny_bert_reranker: Path, tmp_path: Path) -> None:
    folder = copied(tiny_bert_reranker, tmp_path)
    edit_json(folder / "tokenizer_config.json", lambda config: config.update(truncation_side="left"))
    wrong = through_torch(reranker, path=str(folder))
    assert named(diagnosed(reranker, wrong)) == ("truncation", "texts cut at their beginning")


def test_no_segment_ids(reranker: Model) -> None:
    def join(tokenizer: Any, query: str, document: str) -> list[int]:
        return list(tokenizer(query, document, truncation=True, max_length=128)["input_ids"])

    wrong = OnlyIds(reranker.runnable.scorer, join)
    assert named(diagnosed(reranker, wrong)) == ("special tokens", "no segment ids")


def test_no_special_tokens(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    """Without segment ids too, which would tell the two texts apart all the same."""
    folder = copied(tiny_bert_reranker, tmp_path)
    names = ["input_ids", "attention_mask"]
    edit_json(folder / "tokenizer_config.json", lambda config: config.update(model_input_names=names))
    card = card_model(folder)

    def join(tokenizer: Any, query: str, document: str) -> list[int]:
        first, second = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (query, document))
        return [*first, *second]

    requests = tuple(replace(request, candidates=request.candidates[:2]) for request in TASK.requests[:2])
    wrong = OnlyIds(card.runnable.scorer, join)
    found = diagnosed(card, wrong, replace(TASK, requests=requests))
    assert named(found) == ("special tokens", "no special tokens")


@pytest.mark.parametrize(
    ("function", "change"),
    [
        (lambda scores: 1 / (1 + np.exp(-scores)), "sigmoid of the score"),
        (lambda scores: scores * 3, None),
    ],
)
def test_activation(function: Any, change: str | None, reranker: Model) -> None:
    found = diagnosed(reranker, PutThrough(reranker.runnable.scorer, function))
    if change is None:
        assert found.found is None
        assert all(trial.explains == "no" for trial in found.trials)
    else:
        assert named(found) == ("activation", change)


def test_softmax_over_the_candidates(reranker: Model) -> None:
    """Of one query alone, whose candidates come to the scorer together."""
    wrong = PutThrough(reranker.runnable.scorer, lambda scores: np.exp(scores) / np.exp(scores).sum())
    found = diagnosed(reranker, wrong, replace(TASK, requests=TASK.requests[:1]))
    assert named(found) == ("activation", "softmax over the query's candidates")


def test_two_causes_at_once(reranker: Model) -> None:
    short = replace(reranker.runnable.scorer, max_length=64)
    wrong = PutThrough(short, lambda scores: 1 / (1 + np.exp(-scores)))
    assert named(diagnosed(reranker, wrong)) == (
        "truncation and activation",
        "texts cut to 64 tokens, then a sigmoid",
    )


@pytest.mark.parametrize(
    ("rewrite", "cause", "change"),
    [
        (str.strip, "stripping", "texts stripped of white space at their ends"),
        (str.lower, "case", "texts in lower case"),
    ],
)
def test_texts_changed(rewrite: Any, cause: str, change: str, byte_level: Path) -> None:
    card = card_model(byte_level, document_prompt=" | ")  # its template puts nothing between the texts
    assert named(diagnosed(card, Rewritten(card.runnable.scorer, rewrite))) == (cause, change)


@pytest.mark.parametrize(
    ("fields", "change"),
    [
        ({"query_prompt": "", "document_prompt": ""}, "no prompts"),
        ({"query_prompt": ""}, "no prompt before queries"),
        ({"document_prompt": ""}, "no prompt before documents"),
        ({"document_prompt": "query: "}, "'query: ' before documents too"),
        ({"query_prompt": "passage: "}, "'passage: ' before queries too"),
    ],
)
def test_prompts(fields: dict[str, str], change: str, prompted: Model) -> None:
    assert named(diagnosed(prompted, through_torch(prompted, **fields))) == ("prompt", change)


def test_a_system_that_does_not_tell_queries_from_documents(prompted: Model) -> None:
    wrong = RoleBlind(prompted.runnable.scorer, "query")
    assert named(diagnosed(prompted, wrong)) == ("prompt", "'query: ' before documents too")


def test_a_prompt_that_the_recipe_lacks(prompted: Model) -> None:
    bare = card_model(str(prompted.settings.path), kind="embedder", pooling="mean")
    wrong = through_torch(bare, **PROMPTS)
    assert named(diagnosed(bare, wrong)) == ("prompt", "'query: ' and 'passage: ' as prompts")


@pytest.mark.parametrize(
    ("pooling", "change"), [("cls", "the first token's vector"), ("last", "the last token's vector")]
)
def test_pooling(pooling: str, change: str, prompted: Model) -> None:
    assert named(diagnosed(prompted, through_torch(prompted, pooling=pooling))) == ("pooling", change)


def test_normalisation(prompted: Model) -> None:
    card = card_model(str(prompted.settings.path), kind="embedder", pooling="cls", similarity="dot")
    wrong = through_torch(card, similarity="cosine")
    assert named(diagnosed(card, wrong)) == ("normalisation", "vectors of length one")


def test_low_precision(reranker: Model) -> None:
    found = diagnosed(reranker, through_torch(reranker, dtype="bf16"))
    assert found.found is not None
    assert (found.found.cause, found.found.change) == ("dtype", "computed in bf16")


def test_rounded_weights(reranker: Model) -> None:
    scorer = reranker.runnable.scorer
    network = copy.deepcopy(scorer.network).half().float()
    wrong = replace(scorer, network=network)
    assert named(diagnosed(reranker, wrong)) == ("dtype", "weights rounded to fp16")


@pytest.mark.parametrize(
    ("wrong", "change"),
    [
        (SortedAnswers, "asked for one pair at a time"),
        (PaddingRead, "asked for one pair at a time"),
    ],
)
def test_batch_composition(wrong: Any, change: str, reranker: Model) -> None:
    found = diagnosed(reranker, wrong(reranker.runnable.scorer))
    assert named(found) == ("batch composition", change)


def test_noise_is_no_cause(reranker: Model) -> None:
    """Too large to be a low precision's."""
    found = diagnosed(reranker, Noisy(reranker.runnable.scorer, 1.0))
    assert found.found is None
    assert found.trials
    assert all(trial.explains == "no" for trial in found.trials)


def test_most_of_a_difference(reranker: Model) -> None:
    wrong = Noisy(replace(reranker.runnable.scorer, max_length=64), 0.002)
    assert named(diagnosed(reranker, wrong), "most") == ("truncation", "texts cut to 64 tokens")


def test_a_cause_behind_probabilities(reranker: Model) -> None:
    """A server that cuts, and has probabilities alone to give: the line is fitted anew for each change."""
    short = replace(reranker.runnable.scorer, max_length=64)
    wrong = PutThrough(short, lambda scores: 1 / (1 + np.exp(-scores)))
    assert named(diagnosed(reranker, wrong, probabilities=True)) == ("truncation", "texts cut to 64 tokens")


@pytest.mark.parametrize("told", [1, 2, 3])
def test_a_line_through_few_probabilities_explains_nothing(told: int) -> None:
    """A line of two numbers goes through any two points: what has no logit but for these is no system with a cause."""

    def saturated(scores: Any) -> Any:
        return np.where(np.arange(len(scores)) < told, 0.3 + 0.1 * np.arange(len(scores)), 1.0)

    scores = np.linspace(-4, 5, 10)
    difference = Difference(TASK, scores[::-1], saturated(scores), scores, TOLERANCE, probabilities=True)
    assert difference.explains(difference.rest(scores)) == "no"
    assert difference.rest(scores) > 0.1


def test_a_line_that_falls_explains_nothing() -> None:
    scores = np.linspace(-4, 5, 10)
    difference = Difference(
        TASK, scores[[1, 0, *range(2, 10)]], 1 / (1 + np.exp(scores)), scores, TOLERANCE, probabilities=True
    )
    assert difference.explains(difference.rest(scores)) == "no"
