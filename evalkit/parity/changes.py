"""What may go wrong between a card's page and another system, each as a change of the page's own code that can be run."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evalkit.backends import prepare_model
from evalkit.doctor.prompts import wanted_prompts
from evalkit.models.interfaces import Runtime, Scorer
from evalkit.models.settings import ModelSettings
from evalkit.records import Request, Role

if TYPE_CHECKING:
    from evalkit.backends.transformers import CardCrossEncoder, CardEmbedder

    Card = CardCrossEncoder | CardEmbedder

LENGTHS = (32, 64, 128, 256, 384, 512, 1024, 2048, 4096, 8192)


@dataclass(frozen=True)
class CodeChange:
    """A cause, the change in words, and the scorer that works in the changed way; it gets each text through `rewrite`.

    `dtype` is the low precision that the change computes in, where that is the change.
    """

    cause: str
    words: str
    open: Callable[[], Scorer]
    rewrite: Callable[[str], str] = str
    dtype: str = ""

    def applied(self, request: Request) -> Request:
        """The request with its texts rewritten."""
        query = replace(request.query, texts=tuple(map(self.rewrite, request.query.texts)))
        candidates = [replace(candidate, text=self.rewrite(candidate.text)) for candidate in request.candidates]
        return replace(request, query=query, candidates=tuple(candidates))


@dataclass(frozen=True)
class OneText:
    """A PairScorer that gives the network both texts as one, with a space between them."""

    card: CardCrossEncoder

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        prompts = self.card.prompts
        parts = []
        for query, document in pairs:  # one by one: only a few are tried
            text = f"{prompts['query']}{query} {prompts['document']}{document}"
            parts.append(self.card.run([text])[1].logits.view(-1).float().cpu().numpy())
        return np.concatenate(parts)


@dataclass(frozen=True)
class TurnedRound:
    """A PairScorer that takes the document for the query."""

    card: CardCrossEncoder

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        return self.card.score([(document, query) for query, document in pairs])


def changes_of(
    card: Card, settings: ModelSettings, runtime: Runtime, texts: Sequence[tuple[str, ...]]
) -> Iterator[CodeChange]:
    """All changes that can tell something about a model on these `texts` (pairs, or single ones), the likeliest first."""
    pairs = settings.kind == "cross-encoder"
    yield CodeChange(
        "reference", "the card's page as it is", lambda: card
    )  # where another backend was taken for the reference
    yield from _rewritings(card)
    yield from _other_prompts(card, settings)
    yield from _other_lengths(card, texts)
    if pairs:
        yield from _other_pairs(card, settings, runtime)
    yield CodeChange("special tokens", "no special tokens", lambda: replace(card, special_tokens=False))
    if "token_type_ids" in getattr(card.tokenizer, "model_input_names", ()):
        yield CodeChange("special tokens", "no segment ids", lambda: replace(card, segments=False))
    if not pairs:
        yield from _other_vectors(card, settings)
    yield from _other_precisions(card)


def _rewritings(card: Card) -> Iterator[CodeChange]:
    rewritings: dict[str, Callable[[str], str]] = {
        "texts stripped of white space at their ends": str.strip,
        "line breaks as spaces": lambda text: text.replace("\n", " "),
        "all white space as single spaces": lambda text: " ".join(text.split()),
        "texts in lower case": str.lower,
    }
    for words, rewrite in rewritings.items():
        yield CodeChange("stripping" if "space" in words else "case", words, lambda: card, rewrite)


def _other_prompts(card: Card, settings: ModelSettings) -> Iterator[CodeChange]:
    """Prompts left out, put before both, or those that the model or its family wants and the recipe lacks."""
    own = card.prompts["query"], card.prompts["document"]
    query, document = own
    tried: dict[tuple[str, str], str] = {
        ("", ""): "no prompts",
        ("", document): "no prompt before queries",
        (query, ""): "no prompt before documents",
        (query, query): f"{query!r} before documents too",
        (document, document): f"{document!r} before queries too",
        (document, query): "the two prompts exchanged",
        (query.strip(), document.strip()): "prompts without the white space at their ends",
    }
    for prompts in wanted_prompts(settings.model_copy(update={"recipe": None})):
        tried.setdefault((prompts.query, prompts.document), f"{prompts.query!r} and {prompts.document!r} as prompts")
        tried.setdefault((prompts.query, prompts.query), f"{prompts.query!r} before queries and documents")
    for recipe, fields in settings.recipes.items():
        pair = fields.get("query_prompt", query), fields.get("document_prompt", document)
        tried.setdefault(pair, f"the prompts of the recipe {recipe}")
    tried.pop(own, None)
    for (before_queries, before_documents), words in tried.items():
        prompts_by_role: Mapping[Role, str] = {"query": before_queries, "document": before_documents}
        yield CodeChange("prompt", words, partial(replace, card, prompts=prompts_by_role))


def _other_lengths(card: Card, texts: Sequence[tuple[str, ...]]) -> Iterator[CodeChange]:
    """Other lengths that would cut some of the texts in another way than the recipe's does."""
    tokenizer: Any = card.tokenizer
    longest = max(len(tokenizer(*text, truncation=False, verbose=False)["input_ids"]) for text in texts)
    positions = getattr(getattr(card.network, "config", None), "max_position_embeddings", None) or 0
    for length in sorted(LENGTHS, key=lambda length: abs(math.log(length / card.max_length))):
        differs = length != card.max_length and min(length, card.max_length) < longest
        if differs and (length < card.max_length or length <= positions - 2):
            yield CodeChange("truncation", f"texts cut to {length} tokens", partial(replace, card, max_length=length))
    if card.max_length < longest:
        other = copy.copy(tokenizer)
        other.truncation_side = "left" if tokenizer.truncation_side == "right" else "right"
        yield CodeChange("truncation", "texts cut at their beginning", partial(replace, card, tokenizer=other))


def _other_pairs(card: Any, settings: ModelSettings, runtime: Runtime) -> Iterator[CodeChange]:
    def only_second() -> Scorer:
        cut = settings.model_copy(update={"truncation": "only_second"})
        return prepare_model("torch", cut, runtime).scorer

    yield CodeChange("truncation", "the query cut to 3/4, then the document (only_second)", only_second)
    yield CodeChange("special tokens", "query and document as one text", lambda: OneText(card))
    yield CodeChange("pair", "query and document exchanged", lambda: TurnedRound(card))


def _other_vectors(card: Any, settings: ModelSettings) -> Iterator[CodeChange]:
    names = {"cls": "the first token's vector", "mean": "the mean of all", "last": "the last token's vector"}
    for pooling, words in names.items():
        if pooling != settings.pooling:
            yield CodeChange("pooling", words, partial(replace, card, pooling=pooling))
    if settings.similarity == "dot":
        yield CodeChange("normalisation", "vectors of length one", lambda: replace(card, normalize=True))


def _other_precisions(card: Card) -> Iterator[CodeChange]:
    import torch

    dtypes = {"bf16": torch.bfloat16, "fp16": torch.float16}
    own = next(card.network.parameters()).dtype

    def converted(dtype: torch.dtype, *, back: bool) -> Scorer:
        network = copy.deepcopy(card.network).to(dtype)
        return replace(card, network=network.to(own) if back else network)

    for name, dtype in dtypes.items():
        if dtype != own:
            yield CodeChange("dtype", f"weights rounded to {name}", partial(converted, dtype, back=True))
            yield CodeChange("dtype", f"computed in {name}", partial(converted, dtype, back=False), dtype=name)
