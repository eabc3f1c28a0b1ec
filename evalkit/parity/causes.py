"""Why a backend differs: the reference is run in changed ways on the pairs that differ most, until one gives its scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import EvalkitError
from evalkit.evaluation.evaluate import Model
from evalkit.interruption import check
from evalkit.models.interfaces import LocalNetwork, PairScorer, RunnableModel, TextEmbedder
from evalkit.parity.changes import CodeChange, changes_of
from evalkit.parity.measures import fit_probabilities, logits_of, sigmoid, softmax_per_query
from evalkit.parity.records import Comparison, Diagnosis, Explains, Floats, Trial
from evalkit.records import Request, Task
from evalkit.scoring.engine import score_task

MOST_PAIRS = 32
MOST_ALONE = 16
SMALL_REST = 0.1
"""What may be left of a difference for a change to explain most of it."""
SMALL_PART = 1 / 3
"""The same for a change that brings all within the tolerance, which may be wide."""
SAME_SIZE = 3.0
"""Mean differences within this factor of each other are of one size."""
SIDED = 0.9
"""Differences whose mean is this part of their mean size, or more, all lie on one side."""


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
        """The largest difference between these scores and the backend's."""
        return float(self._apart(scores).max(initial=0.0))

    def mean_rest(self, scores: Floats) -> float:
        """The mean of those differences."""
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
        """How much a change explains that leaves so much."""
        if rest <= self.tolerance and rest < SMALL_PART * self.before:
            return "all"
        return "most" if rest < SMALL_REST * self.before else "no"


def find_difference(
    task: Task, comparison: Comparison, reference: NDArray[np.floating], other: NDArray[np.floating]
) -> Difference:
    """The pairs of the task that differ most, the largest difference first."""
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
    """The first that explains all, else the one that leaves least of the difference, else a precision that makes as much."""
    for degree in ("all", "most", "size"):
        found = [trial for trial in trials if trial.explains == degree]
        if found:
            return found[0] if degree == "all" else min(found, key=lambda trial: trial.remaining or 0.0)
    return None


def _activations(difference: Difference) -> Iterator[Trial]:
    """The reference's own scores put through a function."""
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
    """The backend itself, asked for the same pairs in other company."""
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
    """The score of a request's one candidate, each text of its query asked for by itself: the best counts."""
    asked = [replace(request, query=replace(request.query, texts=(text,))) for text in request.query.texts]
    return max(float(_score(model, task, [one])[0]) for one in asked)


def _score(model: Model, task: Task, requests: tuple[Request, ...] | list[Request]) -> Floats:
    part = replace(task, requests=tuple(requests))
    return score_task(model.runnable_on(part), model.settings, part).scores.astype(np.float64)


def _changed(difference: Difference, card: Model) -> Iterator[Trial]:
    """The card's code, changed; each also with a sigmoid behind it, since servers like to put one there."""
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
    """What the tokenizer gets in one call for each of the pairs, or for each of their texts."""
    queries = [card.settings.query_prompt + text for request in sample.requests for text in request.query.texts[:1]]
    documents = [card.settings.document_prompt + request.candidates[0].text for request in sample.requests]
    if card.settings.kind == "cross-encoder":
        return list(zip(queries, documents, strict=True))
    return [(text,) for text in (*queries, *documents)]
