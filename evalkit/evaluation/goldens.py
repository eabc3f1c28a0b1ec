"""Golden scores: what known weights say of known pairs. Where they say something else, hours of inference are in vain.

The scores are bge-reranker-base's in fp32, from FlagEmbedding's issue 108. Those of other models stand in certificates
(see evaluation/certificates.py).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from evalkit.backends.probes import LARGEST_LOGIT, TOLERANCES
from evalkit.errors import MismatchError
from evalkit.evaluation.evaluate import FULL_PRECISION, Model
from evalkit.models.interfaces import RunnableModel
from evalkit.models.settings import ModelSettings, read_model
from evalkit.records import Candidate, Query, Request, Task
from evalkit.scoring.engine import score_task
from evalkit.tasks.content import task_statistics

GOLDEN_MODEL = "bge-reranker-base"
GOLDEN_SCORES = (
    ("query", "passage", 0.4474879801),
    ("what is panda?", "hi", -8.1543922424),
    (
        "what is panda?",
        "The giant panda (Ailuropoda melanoleuca), sometimes called a panda bear or simply panda, is a bear species endemic "
        "to China.",
        6.1821117401,
    ),
)
GOLDEN_PAIRS = tuple((query, document) for query, document, _ in GOLDEN_SCORES)

logger = logging.getLogger("evalkit")


@dataclass(frozen=True, slots=True)
class GoldenCheck:
    """Golden scores in one precision; `expected` and `found` are raw logits or vectors' similarities, in the order of the pairs."""

    model: str
    backend: str
    dtype: str
    tolerance: float
    expected: tuple[float, ...]
    found: tuple[float, ...]

    @property
    def largest_difference(self) -> float:
        """Of a found score from the expected one."""
        return max(abs(one - other) for one, other in zip(self.expected, self.found, strict=True))

    @property
    def matches(self) -> bool:
        """Whether these are the weights, read as they should be."""
        return self.largest_difference <= self.tolerance


def has_goldens(settings: ModelSettings) -> bool:
    """Whether the model says that it is the one with golden scores: by Hub id and revision, or by a folder in its place."""
    own = read_model(GOLDEN_MODEL)
    same = settings.hub_id == own.hub_id and settings.kind == own.kind
    return same and (settings.path is not None or settings.revision == own.revision)


def check_golden_scores(model: Model) -> tuple[GoldenCheck, ...]:
    """Score the golden pairs in fp32, and in the run's own precision where that is another one with a tolerance.

    Empty for a model without golden scores. The backend is the run's own. Raises EvalkitError where the weights can't be
    loaded.
    """
    if not has_goldens(model.settings):
        return ()
    backend = str(model.runnable.description["name"])
    dtypes = dict.fromkeys((FULL_PRECISION, model.runtime.dtype))
    return tuple(_check(model, backend, dtype) for dtype in dtypes if dtype in TOLERANCES)


def refuse_other_weights(checks: Sequence[GoldenCheck], settings: ModelSettings) -> None:
    """Raise MismatchError where weights from the Hub miss their golden scores.

    Weights of a folder may do so, as a stand-in's: then they are not the card's model, and the verdicts say that. Either way
    the outcome goes to the logger.
    """
    for check in checks:
        level, verdict = (logging.INFO, "match") if check.matches else (logging.WARNING, "do not match")
        logger.log(level, "golden scores of %s %s: %s", check.model, verdict, describe(check))
    missed = [check for check in checks if not check.matches]
    if missed and settings.path is None:
        raise MismatchError(
            f"{settings.name} misses its golden scores, so nothing was run: {describe(missed[0])}. Look first at model.revision, "
            "at damaged files in the Hub cache, and at overrides of the recipe (model.max_length, prompts)"
        )


def describe(check: GoldenCheck) -> str:
    """Return a check in one line: the scores beside what they should be."""
    pairs = ", ".join(
        f"{found:.4f} for {expected:.4f}" for found, expected in zip(check.found, check.expected, strict=True)
    )
    return f"{pairs} (backend {check.backend}, {check.dtype}; tolerance {check.tolerance:g})"


def tolerance_for(dtype: str, expected: Sequence[float]) -> float:
    """Return how far scores of any size may lie from the expected ones: TOLERANCES in proportion, as for a score of 1 at least."""
    return TOLERANCES[dtype] * max(1.0, *map(abs, expected)) / LARGEST_LOGIT


def score_pairs(model: RunnableModel, settings: ModelSettings, pairs: Sequence[tuple[str, str]]) -> tuple[float, ...]:
    """Return a model's scores of (query, document) pairs, as a run makes them; nothing is taken from the store."""
    return tuple(float(score) for score in score_task(model, settings, golden_task(pairs)).scores)


def _check(model: Model, backend: str, dtype: str) -> GoldenCheck:
    same = dtype == model.runtime.dtype
    asked = model if same else replace(model, backend=backend, runtime=replace(model.runtime, dtype=dtype))
    return GoldenCheck(
        model=str(model.settings.hub_id),
        backend=backend,
        dtype=dtype,
        tolerance=TOLERANCES[dtype],
        expected=tuple(score for _, _, score in GOLDEN_SCORES),
        found=score_pairs(asked.runnable, asked.settings, GOLDEN_PAIRS),
    )


def golden_task(pairs: Sequence[tuple[str, str]]) -> Task:
    """Make a task of pairs, a query each."""
    requests = tuple(
        Request(Query(f"q{number}", (query,)), (Candidate(f"d{number}", document, 1),))
        for number, (query, document) in enumerate(pairs)
    )
    statistics = task_statistics(requests)
    return Task("golden", "", "test", (), "cmteb", "FlagEmbedding issue 108", "", "", statistics, requests=requests)
