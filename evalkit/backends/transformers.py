"""Hugging Face transformers, as the model cards' pages call it: the reference of `evalkit parity`.

The tokenizer gets whole texts and pads plain batches in the order given; nothing is sorted, joined or kept. None of this is shared
with evalkit's own plan and inputs, so that what the two agree on is no error of one of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from evalkit.backends.libraries import CheckedModel, library_model, refuse_parts, refuse_truncation, within_memory
from evalkit.models.interfaces import RunnableModel, Runtime
from evalkit.models.networks import load_weights
from evalkit.models.settings import ModelSettings
from evalkit.models.tokenizers import load_tokenizer, share_padding
from evalkit.records import Role

NAME = "transformers"
BATCH_SIZE = 32


class CallTokenizer(Protocol):
    """What a card's page calls `tokenizer(…)` with: lists of texts, and for pairs as many second ones."""

    def __call__(self, *texts: list[str], **options: Any) -> Mapping[str, torch.Tensor]: ...


@dataclass(frozen=True)
class CardModel:
    """A network with its tokenizer and what the page says to them.

    `special_tokens` and `segments` (token type ids, where the tokenizer gives them) are on the page; others leave them out.
    """

    network: torch.nn.Module
    tokenizer: CallTokenizer
    prompts: Mapping[Role, str]
    max_length: int
    special_tokens: bool = True
    segments: bool = True

    def run(self, *texts: list[str]) -> tuple[Mapping[str, torch.Tensor], Any]:
        """Return the tokenizer's output for one batch, and the network's."""
        inputs = self.tokenizer(
            *texts,
            padding=True,
            truncation=True,
            max_length=self.max_length,
            return_tensors="pt",
            add_special_tokens=self.special_tokens,
        )
        device = next(self.network.parameters()).device
        inputs = {
            name: tensor.to(device) for name, tensor in inputs.items() if self.segments or name != "token_type_ids"
        }
        with torch.inference_mode():
            return inputs, self.network(**inputs, return_dict=True)


@dataclass(frozen=True)
class CardCrossEncoder(CardModel):
    """A PairScorer: `model(**inputs, return_dict=True).logits.view(-1).float()`."""

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        queries = [self.prompts["query"] + query for query, _ in pairs]
        documents = [self.prompts["document"] + document for _, document in pairs]

        def call(size: int) -> NDArray[np.float32]:
            parts = []
            for start in range(0, len(pairs), size):
                _, output = self.run(queries[start : start + size], documents[start : start + size])
                parts.append(output.logits.view(-1).float().cpu().numpy())
            return np.concatenate(parts)

        return within_memory(call, BATCH_SIZE)


@dataclass(frozen=True)
class CardEmbedder(CardModel):
    """A TextEmbedder: the model's output pooled as its card says, then `normalize(p=2, dim=1)` for the cosine."""

    pooling: str = "cls"
    normalize: bool = True

    def embed(self, texts: Sequence[str], role: Role) -> NDArray[np.float32]:
        prompted = [self.prompts[role] + text for text in texts]

        def call(size: int) -> NDArray[np.float32]:
            parts = []
            for start in range(0, len(prompted), size):
                inputs, output = self.run(prompted[start : start + size])
                vectors = POOLINGS[self.pooling](output[0].float(), inputs["attention_mask"])
                if self.normalize:
                    vectors = torch.nn.functional.normalize(vectors, p=2, dim=1)
                parts.append(vectors.cpu().numpy())
            return np.concatenate(parts)

        return within_memory(call, BATCH_SIZE)


def cls_pool(hidden: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    """Return the first token's vector, as on BGE's page: `model_output[0][:, 0]`."""
    return hidden[:, 0]


def average_pool(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean of the tokens' vectors, as on e5's page."""
    hidden = hidden.masked_fill(~mask[..., None].bool(), 0.0)
    return hidden.sum(dim=1) / mask.sum(dim=1)[..., None]


def last_token_pool(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the last token's vector, as on Qwen3-Embedding's page, for either side of padding."""
    if mask[:, -1].sum() == mask.shape[0]:
        return hidden[:, -1]
    return hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(dim=1) - 1]


POOLINGS = {"cls": cls_pool, "mean": average_pool, "last": last_token_pool}


def prepare(settings: ModelSettings, runtime: Runtime) -> RunnableModel:
    """Find the model. Raises EvalkitError for pairs that are to be cut in another way than the page cuts them."""
    refuse_truncation(settings, NAME, "longest_first", "model.truncation=longest_first, or backend=torch")
    refuse_parts(settings, NAME)
    pairs = settings.kind == "cross-encoder"
    class_name = "AutoModelForSequenceClassification" if pairs else "AutoModel"
    return library_model(settings, runtime, open_card_model, name=NAME, package=NAME, class_name=class_name)


def open_card_model(model: CheckedModel) -> CardCrossEncoder | CardEmbedder:
    """Load the tokenizer and the network as the page does, without its progress bars."""
    from transformers import AutoModel, AutoModelForSequenceClassification

    settings = model.settings
    pairs = settings.kind == "cross-encoder"
    network, _ = load_weights(AutoModelForSequenceClassification if pairs else AutoModel, settings, model.folder)
    network.eval().to(device=model.device, dtype=model.dtype)
    prompts: dict[Role, str] = {"query": settings.query_prompt, "document": settings.document_prompt}
    tokenizer = load_tokenizer(settings, model.folder)
    share_padding(network, tokenizer)
    parts = network, tokenizer, prompts, model.inputs.max_length
    if pairs:
        return CardCrossEncoder(*parts)
    return CardEmbedder(*parts, pooling=settings.pooling, normalize=settings.similarity == "cosine")
