"""Rerankers that are language models: the score is the logit of a word as the next token."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from evalkit.errors import EvalkitError, WrongWeightsError
from evalkit.models.networks import load_weights, refuse_incomplete
from evalkit.models.settings import ModelSettings
from evalkit.models.weights import read_config


class LanguageModelNetwork(torch.nn.Module):
    """Gives the logit of the positive word behind each input, shape (inputs,), less that of the negative one, if any.

    Inputs are padded on the left, so that one position is the last of all of them; the logits of no other are computed.
    """

    def __init__(self, model: torch.nn.Module, positive: int, negative: int | None) -> None:
        super().__init__()
        self.model = model
        self.positive = positive
        self.negative = negative

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: torch.Tensor) -> torch.Tensor:
        logits = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=(attention_mask.cumsum(1) - 1).clamp(min=0),  # padding moves no token
            use_cache=False,
            logits_to_keep=1,
        ).logits[:, -1]
        score: torch.Tensor = logits[:, self.positive].float()
        return score if self.negative is None else score - logits[:, self.negative].float()


def load_language_model(settings: ModelSettings, folder: Path, tokenizer: Any) -> LanguageModelNetwork:
    """Load the weights in their own precision.

    Raises EvalkitError where the model is no language model, its weights are not complete, or a word has no token.
    """
    _refuse_other_kinds(settings, read_config(folder))
    positive = _token_of(settings, tokenizer, settings.positive_word)
    negative = None if settings.negative_word is None else _token_of(settings, tokenizer, settings.negative_word)
    model, report = load_weights(AutoModelForCausalLM, settings, folder)
    refuse_incomplete(settings, folder, report)
    if "logits_to_keep" not in inspect.signature(model.forward).parameters:
        raise EvalkitError(
            f"{settings.name} is a {type(model).__name__}, which can't give the last token's logits alone"
        )
    return LanguageModelNetwork(model, positive, negative).eval()


def _refuse_other_kinds(settings: ModelSettings, config: dict[str, Any]) -> None:
    architectures = [str(name) for name in config.get("architectures") or []]
    if architectures and not any(name.endswith("ForCausalLM") for name in architectures):
        raise WrongWeightsError(
            f"{settings.name} is a {', '.join(architectures)}, which predicts no next token: as an {settings.kind} it would score "
            "at random. If it has a scoring head, it is a cross-encoder; else an embedder"
        )


def _token_of(settings: ModelSettings, tokenizer: Any, word: str) -> int:
    """The first token of the word, as FlagEmbedding takes it."""
    ids: list[int] = tokenizer(word, add_special_tokens=False)["input_ids"]
    if not ids or ids[0] == tokenizer.unk_token_id:
        raise EvalkitError(f"{settings.name}: its tokenizer has no token for the word {word!r}")
    return ids[0]
