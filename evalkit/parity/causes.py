"""Why a backend differs: the reference is run in changed ways on the pairs that differ most, until one gives its scores.

A change is something that may go wrong between a card's page and another system, as a change of the page's own code that can be
run.
"""

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
from evalkit.errors import EvalkitError
from evalkit.evaluation.evaluate import Model
from evalkit.interruption import check
from evalkit.models.interfaces import LocalNetwork, PairScorer, RunnableModel, Runtime, Scorer, TextEmbedder
from evalkit.models.settings import ModelSettings
from evalkit.parity.comparing import fit_probabilities, logits_of, sigmoid, softmax_per_query
from evalkit.parity.records import Comparison, Diagnosis, Explains, Floats, Trial
from evalkit.records import Request, Role, Task
from evalkit.scoring.engine import score_task

if TYPE_CHECKING:
    from evalkit.backends.transformers import CardCrossEncoder, CardEmbedder

    Card = CardCrossEncoder | CardEmbedder

MOST_PAIRS = 32
MOST_ALONE = 16
SMALL_REST = 0.1
"""What may be left of a difference for a change to explain most of it."""
SMALL_PART = 1 / 3
"""What may be left where a change brings all within the tolerance, which may be wide."""
SAME_SIZE = 3.0
"""Mean differences within this factor of each other are of one size."""
SIDED = 0.9
"""Differences whose mean is this part of their mean size, or more, all lie on one side."""
LENGTHS = (32, 64, 128, 256, 384, 512, 1024, 2048, 4096, 8192)


@dataclass(frozen=True)
class Difference:
    """The pairs that differ most, one request each: the reference's scores of them, and what the backend gave.

    `softmaxed` are the reference's as shares among all candidates of the query.
    """

    sample: Task
    expected: Floats
    found: Floats
    softmaxed: Floats
    tolerance: float
    probabilities: bool

    @property
    def before(self) -> float:
        """The largest difference, as it is."""
        return self.rest(self.expected)

    def rest(self, scores: Floats) -> float:
        """Return the largest difference between these scores and the backend's."""
        return float(self._apart(scores).max(initial=0.0))

    def mean_rest(self, scores: Floats) -> float:
        """Return the mean difference between these scores and the backend's."""
        apart = self._apart(scores)
        return float(apart.mean()) if len(apart) else 0.0

    @property
    def one_sided(self) -> bool:
        """Whether scores are mostly too high, or mostly too low, as roundings are not."""
        if self.probabilities:
            return False
        signed = self.found - self.expected
        return bool(abs(signed.mean()) > SIDED * np.abs(signed).mean())

    def _apart(self, scores: Floats) -> Floats:
        if not self.probabilities:
            return np.abs(scores - self.found)
        mapped, slack, _ = fit_probabilities(scores, self.found)
        apart = np.abs(mapped - scores) - slack
        return np.maximum(apart[np.isfinite(apart)], 0.0)

    def explains(self, rest: float) -> Explains:
        """Return how much a change explains that leaves so much."""
        if rest <= self.tolerance and rest < SMALL_PART * self.before:
            return "all"
        return "most" if rest < SMALL_REST * self.before else "no"


def find_difference(
    task: Task, comparison: Comparison, reference: NDArray[np.floating], other: NDArray[np.floating]
) -> Difference:
    """Return the pairs of the task that differ most, the largest difference first."""
    size = np.nan_to_num(comparison.differences, nan=-1.0)
    numbers = np.argsort(-size, kind="stable")[:MOST_PAIRS]
    requests = [
        replace(request, candidates=(candidate,)) for request in task.requests for candidate in request.candidates
    ]
    sizes = [len(request.candidates) for request in task.requests]
    return Difference(
        sample=replace(task, requests=tuple(requests[number] for number in numbers.tolist())),
        expected=reference[numbers].astype(np.float64),
        found=other[numbers].astype(np.float64),
        softmaxed=softmax_per_query(reference, sizes)[numbers],
        tolerance=comparison.tolerance,
        probabilities=comparison.affine is not None,
    )


def find_cause(difference: Difference, card: Model | None, backend: Model) -> Diagnosis:
    """Try what can be tried: the scores put through functions, the backend asked again, and the card's code changed.

    `card` is the model on the backend `transformers`; None where that can't run it, and its code can't be changed.
    """
    trials = [*_activations(difference), *_batches(difference, backend)]
    if card is not None:
        trials += _changed(difference, card)
    return Diagnosis(len(difference.found), difference.before, tuple(trials), _best(trials))


def _best(trials: list[Trial]) -> Trial | None:
    """Return the first that explains all, else the one that leaves least of the difference, else a precision that makes as much."""
    for degree in ("all", "most", "size"):
        found = [trial for trial in trials if trial.explains == degree]
        if found:
            return found[0] if degree == "all" else min(found, key=lambda trial: trial.remaining or 0.0)
    return None


def _activations(difference: Difference) -> Iterator[Trial]:
    """Try functions of the reference's own scores."""
    if difference.probabilities:
        return
    scores = difference.expected
    functions = {"sigmoid of the score": sigmoid(scores), "softmax over the query's candidates": difference.softmaxed}
    if ((scores > 0) & (scores < 1)).all():
        functions["logit of the score"] = logits_of(scores)[0]
    for words, values in functions.items():
        rest = difference.rest(values)
        yield Trial("activation", words, rest, difference.explains(rest))


def _batches(difference: Difference, backend: Model) -> Iterator[Trial]:
    """Ask the backend itself for the same pairs in other company."""
    few = replace(
        difference,
        sample=replace(difference.sample, requests=difference.sample.requests[:MOST_ALONE]),
        expected=difference.expected[:MOST_ALONE],
        found=difference.found[:MOST_ALONE],
    )
    ways: dict[str, Callable[[], Floats]] = {
        "asked for one pair at a time": lambda: np.array(
            [_alone(backend, few.sample, one) for one in few.sample.requests]
        ),
        "asked for these pairs in another order": lambda: _score(backend, few.sample, few.sample.requests[::-1])[::-1],
    }
    for words, ask in ways.items():
        try:
            again = ask()
        except EvalkitError as error:
            yield Trial("batch composition", words, None, "no", str(error))
            continue
        asked = replace(few, found=again)
        rest = asked.rest(asked.expected)
        yield Trial("batch composition", words, rest, few.explains(rest))


def _alone(model: Model, task: Task, request: Request) -> float:
    """Return the score of a request's one candidate, each text of its query asked for by itself: the best counts."""
    asked = [replace(request, query=replace(request.query, texts=(text,))) for text in request.query.texts]
    return max(float(_score(model, task, [one])[0]) for one in asked)


def _score(model: Model, task: Task, requests: tuple[Request, ...] | list[Request]) -> Floats:
    part = replace(task, requests=tuple(requests))
    return score_task(model.runnable_on(part), model.settings, part).scores.astype(np.float64)


def _changed(difference: Difference, card: Model) -> Iterator[Trial]:
    """Try changes of the card's code, each also with a sigmoid behind it, since servers like to put one there."""
    scorer = card.runnable.scorer
    if isinstance(scorer, LocalNetwork) or not isinstance(scorer, PairScorer | TextEmbedder):
        raise TypeError(f"{type(scorer).__name__} is not the card's code")
    logits = not card.settings.makes_vectors and not difference.probabilities
    logits = logits and difference.explains(difference.rest(sigmoid(difference.expected))) != "all"
    for change in changes_of(scorer, card.settings, card.runtime, _texts(difference.sample, card)):  # type: ignore[arg-type]
        try:
            scores = _changed_scores(change, card.runnable, card, difference.sample)
        except Exception as error:  # a change may ask of a network what it can't do, which says nothing of the backend
            check()
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            yield Trial(change.cause, change.words, None, "no", reason)
            continue
        yield _judged(difference, change, scores)
        if logits:
            rest = difference.rest(sigmoid(scores))
            if difference.explains(rest) != "no":
                yield Trial(
                    f"{change.cause} and activation", f"{change.words}, then a sigmoid", rest, difference.explains(rest)
                )


def _changed_scores(change: CodeChange, runnable: RunnableModel, card: Model, sample: Task) -> Floats:
    rewritten = replace(sample, requests=tuple(change.applied(request) for request in sample.requests))
    model = RunnableModel(runnable.identity, runnable.description, None, change.open)
    return score_task(model, card.settings, rewritten).scores.astype(np.float64)


def _judged(difference: Difference, change: CodeChange, scores: Floats) -> Trial:
    rest = difference.rest(scores)
    explains = difference.explains(rest)
    if explains == "no" and change.dtype:
        # no two systems round alike, so that a low precision's scores are not had again; the size of what it does is
        made = float(np.abs(scores - difference.expected).mean())
        seen = difference.mean_rest(difference.expected)
        if made > 0 and 1 / SAME_SIZE <= seen / made <= SAME_SIZE and not difference.one_sided:
            explains = "size"
    return Trial(change.cause, change.words, rest, explains)


def _texts(sample: Task, card: Model) -> list[tuple[str, ...]]:
    """Return what the tokenizer gets in one call for each of the pairs, or for each of their texts."""
    queries = [card.settings.query_prompt + text for request in sample.requests for text in request.query.texts[:1]]
    documents = [card.settings.document_prompt + request.candidates[0].text for request in sample.requests]
    if card.settings.kind == "cross-encoder":
        return list(zip(queries, documents, strict=True))
    return [(text,) for text in (*queries, *documents)]


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
        """Return the request with its texts rewritten."""
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
    """Yield all changes that can make a difference to a model on these `texts` (pairs, or single ones), the likeliest first."""
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
    """Yield changes of prompts: left out, put before both, or those that the model or its family wants and the recipe lacks."""
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
    """Yield other lengths that would cut some of the texts in another way than the recipe's does."""
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
