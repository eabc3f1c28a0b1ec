"""The table of checks, and how it judges evidence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from evalkit.doctor import input_checks, quality_checks, score_checks
from evalkit.doctor.records import Evidence, Opinion

Needs = Literal["nothing", "finite scores", "scores that differ"]


@dataclass(frozen=True, slots=True)
class Check:
    """A check: its name, why it matters, a pure function that judges, and what there must be for it to look at."""

    name: str
    why: str
    judge: Callable[[Evidence], Opinion]
    needs: Needs = "scores that differ"


CHECKS = (
    Check(
        "golden scores",
        "known weights that give other scores than they should make every figure wrong",
        input_checks.judge_golden,
        "nothing",
    ),
    Check(
        "weights",
        "a head or layer that is missing is filled with random numbers, and scores mean nothing",
        input_checks.judge_weights,
        "nothing",
    ),
    Check("finite", "a score that is no number can't be ranked", score_checks.judge_finite, "nothing"),
    Check(
        "spread",
        "scores that don't differ rank nothing, and still get an MRR of 100 from C-MTEB's own metric",
        score_checks.judge_constant,
        "finite scores",
    ),
    Check(
        "ties",
        "tied candidates stay in the file's order, positives first, which flatters MRR",
        score_checks.judge_ties,
    ),
    Check(
        "order",
        "files list the positives first: a score that depends on its place gives the answer away",
        score_checks.judge_order,
    ),
    Check(
        "batches",
        "a score that depends on its neighbours changes with the batch size, from run to run",
        score_checks.judge_batches,
    ),
    Check(
        "truncation",
        "what is cut off can't be found relevant",
        input_checks.judge_truncation,
        "finite scores",
    ),
    Check(
        "prompts",
        "a model trained with prompts loses several points without them",
        input_checks.judge_prompts,
    ),
    Check(
        "signal",
        "a ranking no better than chance, or worse than BM25, means that something is broken",
        quality_checks.judge_signal,
    ),
    Check(
        "published",
        "a sample that contradicts the published figure foretells that the whole task will",
        quality_checks.judge_published,
    ),
    Check("cost", "hours and gigabytes are better known beforehand", quality_checks.judge_cost, "finite scores"),
)


def judge_evidence(evidence: Evidence) -> list[tuple[Check, Opinion]]:
    """Every check's opinion, in the table's order; a check that has nothing to look at is skipped, with the reason."""
    return [(check, _obstacle(check, evidence) or check.judge(evidence)) for check in CHECKS]


def _obstacle(check: Check, evidence: Evidence) -> Opinion | None:
    if check.judge is score_checks.judge_finite and evidence.broken is not None:
        return Opinion("skipped", "nothing was scored")
    if check.needs == "nothing":
        return None
    if evidence.measured is None:
        return Opinion("skipped", "nothing was scored" if evidence.broken else "the scores are not finite")
    if check.needs == "scores that differ" and score_checks.is_constant(evidence.measured):
        return Opinion("skipped", "the scores are constant")
    return None
