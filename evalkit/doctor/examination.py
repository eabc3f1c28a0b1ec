"""Tries a model on a sample of a task, within a time that is given, and gathers what was measured.

The model's own scorer is called through the engine that runs call it through, so that what is examined is what runs. Nothing
is taken from the score store, nor kept there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evalkit.backends.lexical import BM25
from evalkit.doctor.checks import is_clear
from evalkit.doctor.cost import full_cost
from evalkit.doctor.figures import average_precisions
from evalkit.doctor.prompts import are_missing, wanted_prompts
from evalkit.doctor.records import Evidence, Measurements, Prompts, PromptTrial, Rescored, Sample
from evalkit.doctor.sampling import (
    ENOUGH_QUERIES,
    FEWEST_QUERIES,
    SHORTEST_LIST,
    draw_sample,
    first_requests,
    n_scorable,
    shuffled,
    single_candidates,
    with_requests,
)
from evalkit.doctor.truncation import chosen_length, measure_cuts
from evalkit.doctor.weights import head_is_new, unseen_weights
from evalkit.errors import NonFiniteError, UnfitServerError, WrongWeightsError
from evalkit.evaluation.certifying import compare_with_certificate
from evalkit.evaluation.evaluate import Model
from evalkit.evaluation.goldens import check_golden_scores
from evalkit.metrics.measures import CARD_PROTOCOL
from evalkit.models.interfaces import LocalNetwork, Probed, TaskScorer
from evalkit.output.numbers import counted
from evalkit.records import Request, Run, Task
from evalkit.results import published
from evalkit.scoring.engine import score_task

logger = logging.getLogger("evalkit")
SECONDS = 30.0
"""How long scoring may take in all, but for models that are too slow for the smallest sample; loading comes on top."""

# of that time, in parts
SAMPLE, SHUFFLED, ALONE, PROMPTS = 0.4, 0.15, 0.1, 0.25
ORDERS = PROMPTS  # of listwise models, which have no prompts to try
MORE_ORDERS = 4
FIRST_PAIRS = 16  # to see how fast the model is
FEWEST_PAIRS = FEWEST_QUERIES * SHORTEST_LIST  # however long they take: fewer would tell nothing
MOST_PAIRS = 3_000  # more would tell nothing new, and BM25 has to read them too
MOST_ALONE = 24
FEWEST_ALONE = 3


def examine(model: Model, task: Task, *, seconds: float = SECONDS, folders: Sequence[Path] = ()) -> Evidence:
    """Measure the model on a sample of the task; what can't be measured is left out of the evidence.

    `folders` are the user's own configs folders, which may hold a certificate. Raises EvalkitError where the model's files are
    not to be had at all.
    """
    evidence = Evidence(model.settings, model.runtime.dtype, task)
    try:
        evidence = replace(evidence, head_is_new=head_is_new(model.settings), chosen_length=chosen_length(model))
        started = time.perf_counter()
        scorer = model.runnable.scorer
        loading = time.perf_counter() - started
        if isinstance(scorer, Probed):
            evidence = replace(evidence, server=scorer.probe)
        evidence = replace(evidence, unseen=unseen_weights(model))
        evidence = replace(
            evidence, golden=check_golden_scores(model), certificate=compare_with_certificate(model, folders)
        )
        return replace(evidence, measured=_Examination(model, task, seconds).measure(loading))
    except WrongWeightsError as error:
        return replace(evidence, broken=str(error))
    except NonFiniteError as error:
        return replace(evidence, not_finite=str(error))
    except UnfitServerError as error:
        return replace(evidence, unfit=str(error))


class _Examination:
    """One model on one task. Each part gives what it measured, or None where the model has no such side."""

    def __init__(self, model: Model, task: Task, seconds: float) -> None:
        self.model = model
        self.runnable = model.runnable_on(task)
        self.task = task
        self.seconds = seconds
        self.seed = model.runtime.seed
        self.pairs_per_second = 1.0

    def measure(self, loading: float) -> Measurements:
        first = self._draw(FIRST_PAIRS, 1 if self._is_listwise else FEWEST_QUERIES).task
        self._score(single_candidates(first, 1, self.seed)[0][1])  # whatever is made at the first call only
        self._time(first)
        sample, run, bm25 = self._ranked()
        scorer = self.runnable.scorer
        pairs = not self.model.settings.makes_vectors
        cuts = None
        if isinstance(scorer, LocalNetwork):
            cuts = measure_cuts(scorer, sample.task, pairs=pairs)
        wanted = wanted_prompts(self.model.settings)
        return Measurements(
            sample=sample,
            scores=run.scores,
            bm25=bm25,
            shuffled=self._shuffled(sample),
            alone=self._alone(sample),
            cuts=cuts,
            wanted_prompts=wanted,
            prompt_trials=self._trials(sample, wanted, run),
            published=self._published(),
            cost=full_cost(self.task, sample.task, run, loading, pairs=pairs),
            orders=self._orders(sample, run),
        )

    @property
    def _is_listwise(self) -> bool:
        return self.model.settings.kind == "listwise"

    def _draw(self, pairs: int, queries: int = FEWEST_QUERIES) -> Sample:
        return draw_sample(self.task, pairs, self.seed, queries, whole_lists=self._is_listwise)

    def _orders(self, sample: Sample, run: Run) -> NDArray[np.float64] | None:
        """Show a listwise model the first queries of the sample in other orders."""
        if not self._is_listwise:
            return None
        settings = self.model.settings
        task = first_requests(sample.task, self._pairs(ORDERS / MORE_ORDERS))
        seeds = range(settings.order_seed + 1, settings.order_seed + 1 + MORE_ORDERS)
        others = [
            score_task(self.runnable, settings.model_copy(update={"order_seed": seed}), task).scores for seed in seeds
        ]
        return np.stack([average_precisions(task, one) for one in (run.scores[: task.statistics.pairs], *others)])

    def _ranked(self) -> tuple[Sample, Run, NDArray[np.float32]]:
        """Score a sample, with what BM25 makes of it: as many pairs as fit, and more queries where these leave it in doubt.

        The latter however long it takes: no model is found at fault for what chance does on a handful of queries.
        """
        pairs = min(max(self._pairs(SAMPLE), FEWEST_PAIRS), MOST_PAIRS)
        sample = self._draw(pairs)
        run = self._time(sample.task)
        bm25 = BM25().score_task(sample.task)
        queries = min(ENOUGH_QUERIES, n_scorable(self.task))
        if len(sample.task.requests) >= queries or is_clear(sample.task, run.scores, bm25):
            return sample, run, bm25
        logger.info("%s leave the ranking in doubt; scoring more", counted(len(sample.task.requests), "query"))
        larger = self._draw(max(pairs, queries * SHORTEST_LIST), queries)
        return larger, self._time(larger.task), BM25().score_task(larger.task)

    def _pairs(self, part: float) -> int:
        """Return how many pairs fit into a part of the time."""
        return max(1, int(self.pairs_per_second * self.seconds * part))

    def _time(self, task: Task) -> Run:
        """Score a task, and learn from it how fast the model is."""
        started = time.perf_counter()
        run = self._score(task)
        self.pairs_per_second = task.statistics.pairs / max(time.perf_counter() - started, 1e-6)
        return run

    def _score(self, task: Task) -> Run:
        return score_task(self.runnable, self.model.settings, task)

    def _shuffled(self, sample: Sample) -> Rescored:
        """Score the same candidates in another order."""
        task, numbers = shuffled(first_requests(sample.task, self._pairs(SHUFFLED)), self.seed)
        return Rescored(numbers, self._score(task).scores)

    def _alone(self, sample: Sample) -> Rescored | None:
        """Score single candidates, as long as time allows; None for what looks at the whole task, or at whole lists."""
        if isinstance(self.runnable.scorer, TaskScorer) or self._is_listwise:
            return None
        started = time.perf_counter()
        numbers: list[int] = []
        scores: list[NDArray[np.floating]] = []
        for number, task in single_candidates(sample.task, MOST_ALONE, self.seed):
            if len(numbers) >= FEWEST_ALONE and time.perf_counter() - started > self.seconds * ALONE:
                break
            numbers.append(number)
            scores.append(self._score(task).scores)
        return Rescored(np.array(numbers), np.concatenate(scores))

    def _trials(self, sample: Sample, wanted: tuple[Prompts, ...], run: Run) -> tuple[PromptTrial, ...]:
        """Try each of the prompts that the run lacks."""
        missing = [prompts for prompts in wanted if are_missing(self.model.settings, prompts)]
        return tuple(self._trial(sample, prompts, run, len(missing)) for prompts in missing)

    def _trial(self, sample: Sample, prompts: Prompts, run: Run, trials: int) -> PromptTrial:
        """Score the first queries of the sample with the prompts that the run lacks put before the texts."""
        task = first_requests(sample.task, self._pairs(PROMPTS / trials))
        settings = self.model.settings
        query = "" if settings.query_prompt else prompts.query
        document = "" if settings.document_prompt else prompts.document
        prompted = with_requests(task, [_prompted(request, query, document) for request in task.requests])
        scores = self._score(prompted).scores
        return PromptTrial(
            prompts, average_precisions(task, scores), average_precisions(task, run.scores[: len(scores)])
        )

    def _published(self) -> published.PublishedFigure | None:
        hub_id = self.model.settings.hub_id or self.runnable.identity.hub_id
        return published.preferred(hub_id, self.task.name, "map", CARD_PROTOCOL)


def _prompted(request: Request, query: str, document: str) -> Request:
    return replace(
        request,
        query=replace(request.query, texts=tuple(query + text for text in request.query.texts)),
        candidates=tuple(replace(candidate, text=document + candidate.text) for candidate in request.candidates),
    )
