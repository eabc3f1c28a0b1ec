"""`evalkit parity`: the same pairs through several backends, and why one differs where it does."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evalkit.backends import backends_for, prepare_model
from evalkit.errors import EvalkitError
from evalkit.evaluation.evaluate import Model
from evalkit.evaluation.runs import tasks_of
from evalkit.models.interfaces import TaskScorer
from evalkit.output.console import OutputConsole
from evalkit.output.json import STDOUT, write_json
from evalkit.output.sheets import print_notes, print_sheets
from evalkit.parity.causes import find_cause, find_difference
from evalkit.parity.comparing import compare_scores, default_tolerance, refuse_no_probabilities
from evalkit.parity.output import parity_content, parity_notes, parity_sheets
from evalkit.parity.participants import Compose, Contender, choose_candidates
from evalkit.parity.records import Agreement, Comparison, Diagnosis, Parity
from evalkit.parity.words import ParityWords
from evalkit.records import Task
from evalkit.scoring.engine import score_task

CARD = "transformers"
FULL_PRECISION = "fp32"
Scores = NDArray[np.floating]
logger = logging.getLogger("evalkit")


def compare_backends(words: ParityWords, compose: Compose, json_file: Path | None) -> int:
    """Compare the backends and print what was found. Return the exit code: 0 where all agree, else 1.

    JSON goes to a file beside the tables, or to standard output in their place.
    Raises EvalkitError for whatever is wrong with the words, and for a backend that can't run the model, before weights load.
    """
    parity = compare_candidates(choose_candidates(words, compose), words.tolerance)
    if json_file is not None:
        write_json(parity_content(parity), json_file)
    if json_file != STDOUT:
        console = OutputConsole()
        print_sheets(parity_sheets(parity), console)
        print_notes(parity_notes(parity), console)
    return 0 if parity.agrees else 1


def compare_candidates(candidates: list[Contender], tolerance: float | None) -> Parity:
    """Compare each candidate with the first, one after the other; a model is let go of once it is done with.

    Raises EvalkitError as a run does. Nothing is taken from the score store, nor kept there.
    """
    reference = candidates.pop(0)
    tasks = tasks_of(reference.settings)
    logger.info("scoring with %s, which the others are compared with", reference.name)
    expected = [_score(reference.model, task) for task in tasks]
    card = _CardModel(reference)
    agreements: list[Agreement] = []
    while candidates:
        agreements += _agreements(
            candidates.pop(0), reference, card, list(zip(tasks, expected, strict=True)), tolerance
        )
    order = {task.name: place for place, task in enumerate(tasks)}
    agreements.sort(key=lambda agreement: order[agreement.task])
    return Parity(reference.settings.model.name, reference.participant(), tuple(agreements))


class _CardModel:
    """The model as the card's page runs it, for trying changes; made when it is first needed."""

    def __init__(self, reference: Contender) -> None:
        self._reference = reference
        self._made: Model | None = None

    def get(self) -> Model | None:
        """Return the model, or None where transformers can't run it as the page does."""
        model = self._reference.model
        if self._reference.name == CARD and model.runtime.dtype == FULL_PRECISION:
            return model
        if self._made is None and CARD in backends_for(model.settings):
            runtime = replace(model.runtime, dtype=FULL_PRECISION, server=None)
            # changes of truncation start from the page's own
            made = Model(model.settings.model_copy(update={"truncation": "longest_first"}), CARD, runtime)
            try:
                prepare_model(CARD, made.settings, runtime)
            except EvalkitError as error:  # such as weights that only a server has
                logger.info("the card's code can't be tried in changed ways: %s", error)
                return None
            self._made = made
        return self._made


def _agreements(
    candidate: Contender,
    reference: Contender,
    card: _CardModel,
    scored: Sequence[tuple[Task, Scores]],
    tolerance: float | None,
) -> Iterator[Agreement]:
    for task, expected in scored:
        logger.info("scoring %s with %s", task.name, candidate.name)
        scores = _score(candidate.model, task)
        if candidate.probabilities:
            refuse_no_probabilities(candidate.name, task, scores)
        comparison = compare_scores(
            task,
            expected,
            scores,
            _tolerance(candidate, reference) if tolerance is None else tolerance,
            probabilities=candidate.probabilities,
        )
        agreement = Agreement(task.name, len(task.requests), candidate.participant(), comparison)
        if not comparison.agrees and not comparison.untold and not _looks_at_the_whole(candidate):
            agreement = replace(agreement, diagnosis=_diagnosis(candidate, card, task, comparison, expected, scores))
        yield agreement


def _diagnosis(
    candidate: Contender, card: _CardModel, task: Task, comparison: Comparison, expected: Scores, scores: Scores
) -> Diagnosis:
    logger.info("%s differs by up to %.2g; looking for the cause", candidate.name, comparison.largest)
    return find_cause(find_difference(task, comparison, expected, scores), card.get(), candidate.model)


def _looks_at_the_whole(candidate: Contender) -> bool:
    """Tell whether the model needs all of a task (BM25 its corpus), so that it can't be asked for some of its pairs."""
    return isinstance(candidate.model.runnable.scorer, TaskScorer)


def _tolerance(candidate: Contender, reference: Contender) -> float:
    """Return the wider tolerance of the two precisions."""
    vectors = candidate.model.settings.makes_vectors
    return max(default_tolerance(one.settings.runtime.dtype, vectors=vectors) for one in (candidate, reference))


def _score(model: Model, task: Task) -> Scores:
    return score_task(model.runnable_on(task), model.settings, task).scores
