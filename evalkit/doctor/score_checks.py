"""Checks of the scores themselves: numbers, not all the same, told apart, and the same however they are asked for."""

from __future__ import annotations

import numpy as np

from evalkit.doctor.figures import average_precisions, spread, tie_facts
from evalkit.doctor.records import Evidence, Measurements, Opinion, Rescored
from evalkit.doctor.sampling import first_requests
from evalkit.output.numbers import percent, share

# the largest difference between two scores of one input that rounding may make, as a share of the spread of a query's
# scores: below 1e-4 in fp32 as measured
NOISE = {"fp32": 0.01, "fp16": 0.1, "bf16": 0.5, "int8": 1.0}
SATURATED = 0.05
"""Share of the texts that are tied at the lowest or highest score of all, from which on scores are saturated."""
DECISIVE = 0.01  # of MAP, a fraction: what ties or positions may move
WORTH_TELLING = 0.01
CONSTANT = 1e-6


def judge_finite(evidence: Evidence) -> Opinion:
    """Every score must be a number."""
    if evidence.not_finite is not None:
        return Opinion(
            "fault", evidence.not_finite, "compare the weight files with their origin; in fp16: dtype=bf16 or fp32"
        )
    return Opinion("ok", f"all {len(evidence.found.scores):,} scores are finite")


def is_constant(measured: Measurements) -> bool:
    """Whether the candidates of a query have all the same score, but for rounding."""
    size = max(1.0, float(np.abs(measured.scores).max()))
    return spread(measured.sample.task, measured.scores) <= CONSTANT * size


def judge_constant(evidence: Evidence) -> Opinion:
    """Scores that don't differ rank nothing."""
    measured = evidence.found
    scores = measured.scores
    seen = (
        f"from {scores.min():.4g} to {scores.max():.4g}; those of a query lie {spread(measured.sample.task, scores):.2g} apart "
        "(standard deviation)"
    )
    if is_constant(measured):
        return Opinion(
            "fault",
            f"the scores are constant: {seen}",
            "look for an input that never reaches the network, weights of zero, or the wrong output that is taken for the score",
        )
    return Opinion("ok", seen)


def judge_ties(evidence: Evidence) -> Opinion:
    """Tied scores leave the ranking to chance, or to the file's order: positives first."""
    measured = evidence.found
    facts = tie_facts(measured.sample.task, measured.scores)
    seen = (
        f"{share(facts.tied)} of the texts share their score with another text of their query, {share(facts.at_ends)} at the "
        f"lowest or highest of all; their order can make MAP {percent(facts.map_low)} to {percent(facts.map_high)}"
    )
    # BM25's zeros are no saturation: no word is shared
    saturated = facts.at_ends >= SATURATED and evidence.settings.kind != "lexical"
    if not saturated and facts.map_high - facts.map_low <= DECISIVE:
        return Opinion("warning" if facts.tied >= WORTH_TELLING else "ok", seen, _against_ties(evidence))
    low, high = measured.scores.min(), measured.scores.max()
    sigmoid = saturated and low >= 0 and high <= 1
    what = "saturated, as a sigmoid's in low precision" if sigmoid else "saturated" if saturated else "too coarse"
    return Opinion("fault", f"the scores are {what}: {seen}", _against_ties(evidence))


def judge_order(evidence: Evidence) -> Opinion:
    """A candidate's score must not depend on where it stands: files list the positives first."""
    measured = evidence.found
    task = first_requests(measured.sample.task, len(measured.shuffled.candidates))
    again = np.empty(len(measured.shuffled.scores))
    again[measured.shuffled.candidates] = measured.shuffled.scores
    in_order, in_random = (
        float(average_precisions(task, scores).mean()) for scores in (measured.scores[: len(again)], again)
    )
    ratio, seen = _compared(evidence, measured.shuffled)
    seen += f"; MAP {percent(in_order)} from candidates in the file's order, {percent(in_random)} from shuffled ones"
    if ratio <= _noise(evidence):
        return Opinion("ok", seen)
    first = "positives gain from standing first" if in_order - in_random > DECISIVE else "scores depend on the order"
    return Opinion(
        "fault",
        f"{first}: {seen}",
        "a score may depend on its two texts alone: look for state between calls, positions in a list, dropout left on",
    )


def judge_batches(evidence: Evidence) -> Opinion:
    """Nor may it depend on what is scored beside it."""
    alone = evidence.found.alone
    if alone is None:
        return Opinion("skipped", "the scorer looks at a whole task at once")
    ratio, seen = _compared(evidence, alone)
    if ratio <= _noise(evidence):
        return Opinion("ok", seen)
    return Opinion(
        "fault",
        f"a text scored alone gets another score than in a batch: {seen}",
        "look for padding that the attention mask does not hide; int8 quantises a batch as a whole: dtype=fp32",
    )


def _compared(evidence: Evidence, again: Rescored) -> tuple[float, str]:
    """The largest difference to the first scoring, over the scores' spread, and in words."""
    measured = evidence.found
    difference = float(np.abs(measured.scores[again.candidates].astype(np.float64) - again.scores).max())
    ratio = difference / spread(measured.sample.task, measured.scores)
    return ratio, (
        f"{len(again.scores):,} scores differ by at most {difference:.2g}, {share(ratio)} of their spread "
        f"({evidence.dtype} noise: up to {share(_noise(evidence))})"
    )


def _noise(evidence: Evidence) -> float:
    return NOISE.get(evidence.dtype, NOISE["fp32"])


def _against_ties(evidence: Evidence) -> str:
    if evidence.dtype != "fp32":
        return f"dtype=fp32: {evidence.dtype} has too few digits for scores that lie this close"
    return "rank raw logits in float32: no sigmoid, no rounding before the scores are kept"
