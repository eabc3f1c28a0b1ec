"""The checks: pure functions from evidence to an opinion, the table of them at the end, and how the table judges.

Those of scores and of the ranking are here; those of weights, truncation, prompts and cost stand beside what measures these.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evalkit.doctor.cost import judge_cost
from evalkit.doctor.figures import (
    average_precisions,
    chance_at_random,
    chance_of_difference,
    interval,
    random_precisions,
    spread,
    tie_facts,
)
from evalkit.doctor.prompts import judge_prompts
from evalkit.doctor.records import Evidence, Measurements, Opinion, Rescored
from evalkit.doctor.sampling import ENOUGH_QUERIES, FEWEST_QUERIES, first_requests, n_scorable
from evalkit.doctor.truncation import judge_truncation
from evalkit.doctor.weights import judge_certificate, judge_golden, judge_weights
from evalkit.output.numbers import counted, percent, share
from evalkit.records import Task
from evalkit.results import published
from evalkit.results.published import PublishedFigure

Needs = Literal["nothing", "finite scores", "scores that differ"]

# the largest difference between two scores of one input that rounding may make, as a share of the spread of a query's
# scores: below 1e-4 in fp32 as measured
NOISE = {"fp32": 0.01, "fp16": 0.1, "bf16": 0.5, "int8": 1.0}
SATURATED = 0.05
"""Share of the texts that are tied at the lowest or highest score of all, from which on scores are saturated."""
DECISIVE = 0.01  # of MAP, a fraction: what ties or positions may move
SYSTEMATIC = 0.001  # a p-value below it: what noise would be, were it not for one direction
WORTH_TELLING = 0.01
CONSTANT = 1e-6

SURE = 0.99
USUAL, FAR = 0.95, 0.999  # intervals that a published figure lies outside of by chance, and by a fault
RANDOM = 0.01  # a p-value above it: the ranking can't be told from a random one
LITTLE = 0.1
"""Share of the way from a random order's MAP to 1 that a model should at least go."""
LITTLE_FOR_A_NEW_HEAD = 0.25
NO_MODEL = 0.4
"""Models go farther on that way on most tasks; one that surely does not, and can't be told from a random order, is none."""
FEWEST_FOR_AN_INTERVAL = 16
"""Of fewer queries an interval is too often too narrow to find a fault with."""
ENOUGH_FOR_A_FIGURE = 30

NO_SIGNAL = (
    "a random scoring head, weights of another kind (known prints: T2Reranking MAP 51.07 is a reranker loaded as an embedder, "
    "MMarcoReranking 0.6 an embedder as a cross-encoder), wrong pooling, or another model's tokenizer"
)
NO_WORDS = "the words of queries and documents differ, as across languages, or those of negatives are the same"


@dataclass(frozen=True, slots=True)
class Check:
    """A check: its name, why it matters, a pure function that judges, and what there must be for it to look at."""

    name: str
    why: str
    judge: Callable[[Evidence], Opinion]
    needs: Needs = "scores that differ"


def judge_server(evidence: Evidence) -> Opinion:
    """Judge what the probe of a server showed."""
    if evidence.unfit is not None:
        return Opinion(
            "fault", evidence.unfit, "run the model in this process, or on a server that scores single pairs"
        )
    if evidence.server is None:
        return Opinion("skipped", "no server runs the model")
    seen = f"{'; '.join(evidence.server.seen)} ({counted(evidence.server.requests, 'request')})"
    return Opinion("warning" if evidence.server.findings else "ok", seen, "look at how the server was started")


def judge_finite(evidence: Evidence) -> Opinion:
    """Judge whether every score is a number."""
    if evidence.not_finite is not None:
        return Opinion(
            "fault", evidence.not_finite, "compare the weight files with their origin; in fp16: dtype=bf16 or fp32"
        )
    return Opinion("ok", f"all {len(evidence.found.scores):,} scores are finite")


def is_constant(measured: Measurements) -> bool:
    """Return whether the candidates of a query have all the same score, but for rounding."""
    size = float(np.abs(measured.scores).max())
    return spread(measured.sample.task, measured.scores) <= CONSTANT * size


def judge_constant(evidence: Evidence) -> Opinion:
    """Judge whether scores differ: those that don't rank nothing."""
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
    """Judge ties, which leave the ranking to chance, or to the file's order: positives first."""
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
    """Judge whether a candidate's score depends on its place: files list the positives first."""
    measured = evidence.found
    task = first_requests(measured.sample.task, len(measured.shuffled.candidates))
    again = np.empty(len(measured.shuffled.scores))
    again[measured.shuffled.candidates] = measured.shuffled.scores
    in_order, in_random = (average_precisions(task, scores) for scores in (measured.scores[: len(again)], again))
    ratio, seen = _compared(evidence, measured.shuffled)
    seen += (
        f"; MAP {percent(float(in_order.mean()))} from candidates in the file's order, {percent(float(in_random.mean()))} from "
        "shuffled ones"
    )
    gains = in_order - in_random
    if ratio <= _noise(evidence) and not (gains.mean() > DECISIVE and chance_of_difference(gains) < SYSTEMATIC):
        return Opinion("ok", seen)
    first = "positives gain from standing first" if gains.mean() > DECISIVE else "scores depend on the order"
    return Opinion(
        "fault",
        f"{first}: {seen}",
        "a score may depend on its two texts alone: look for state between calls, positions in a list, dropout left on",
    )


def judge_batches(evidence: Evidence) -> Opinion:
    """Judge whether a candidate's score depends on what is scored beside it."""
    alone = evidence.found.alone
    if alone is None:
        what = "a whole list" if evidence.settings.kind == "listwise" else "a whole task"
        return Opinion("skipped", f"the scorer looks at {what} at once")
    ratio, seen = _compared(evidence, alone)
    if ratio <= _noise(evidence):
        return Opinion("ok", seen)
    return Opinion(
        "fault",
        f"a text scored alone gets another score than in a batch: {seen}",
        "look for padding that the attention mask does not hide; int8 on onnx quantises a batch as a whole: dtype=fp32",
    )


def judge_orders(evidence: Evidence) -> Opinion:
    """Judge how much the order alone, in which a listwise model is shown its lists, moves the figure."""
    orders = evidence.found.orders
    if orders is None:
        return Opinion("skipped", "the model scores each document by itself")
    means = orders.mean(axis=1)
    seen = (
        f"MAP {percent(float(means.min()))} to {percent(float(means.max()))} in {len(means)} shuffled orders of the same lists "
        f"(standard deviation {100 * float(means.std(ddof=1)):.2f}), on {counted(orders.shape[1], 'query')}"
    )
    if np.ptp(means) <= DECISIVE:
        return Opinion("ok", seen)
    return Opinion(
        "warning", f"the order alone moves the figure: {seen}", "model.permutations=K ranks by the mean of K orders"
    )


def _compared(evidence: Evidence, again: Rescored) -> tuple[float, str]:
    """Return the largest difference to the first scoring, over the scores' spread, and in words."""
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


def is_clear(task: Task, scores: NDArray[np.floating], bm25: NDArray[np.float32]) -> bool:
    """Return whether a sample's ranking is better than random, and not worse than BM25's, beyond chance."""
    values, words = average_precisions(task, scores), average_precisions(task, bm25)
    worse = values.mean() < words.mean()
    return chance_at_random(task, float(values.mean())) <= RANDOM and not worse


def judge_signal(evidence: Evidence) -> Opinion:
    """Judge the ranking: a model must rank better than chance, and should rank better than BM25."""
    measured = evidence.found
    task = measured.sample.task
    causes = NO_WORDS if evidence.settings.kind == "lexical" else f"look for {NO_SIGNAL}"
    values, chance, words = (
        average_precisions(task, measured.scores),
        random_precisions(task),
        average_precisions(task, measured.bm25),
    )
    own, at_random, bm25 = (float(one.mean()) for one in (values, chance, words))
    seen = f"MAP, expected over the orders of ties, {_with_interval(values, SURE)}"
    seen += f"; a random order gets {percent(at_random)}, BM25 {percent(bm25)}"
    progress = (own - at_random) / (1 - at_random)
    worse = own < bm25 and chance_of_difference(values - words) < 1 - SURE
    nearer_to_random = worse and _is_enough(evidence) and own - at_random < (bm25 - at_random) / 2
    if (luck := chance_at_random(task, own)) > RANDOM:
        if nearer_to_random or _is_no_model(evidence, values, at_random):
            return Opinion("fault", f"the scores carry no signal (p = {luck:.2g} against random): {seen}", causes)
        return Opinion("warning", f"{seen}: too few queries to tell", "take a larger task, or leave out limit=")
    if evidence.head_is_new and progress < LITTLE_FOR_A_NEW_HEAD:
        return Opinion("fault", f"hardly better than random, with a head that was never trained: {seen}", causes)
    if nearer_to_random:
        return Opinion("fault", f"nearer to a random order than to BM25: {seen}", causes)
    if worse:
        return Opinion("warning", f"worse than BM25: {seen}", "look at prompts, pooling, and truncation")
    if progress < LITTLE:
        return Opinion("warning", f"hardly better than random: {seen}", causes)
    return Opinion("ok", seen)


def _is_enough(evidence: Evidence) -> bool:
    """Return whether the sample has ENOUGH_QUERIES, or all the queries there are, of which there must be FEWEST_QUERIES."""
    sampled = len(evidence.found.sample.task.requests)
    return sampled >= min(ENOUGH_QUERIES, max(n_scorable(evidence.task), FEWEST_QUERIES))


def _is_no_model(evidence: Evidence, values: NDArray[np.float64], at_random: float) -> bool:
    """Return whether a ranking that looks random would, of any model, have looked better on these queries.

    Of a model with a head that was never trained nothing else is expected.
    """
    if not _is_enough(evidence) or chance_at_random(evidence.found.sample.task, 1.0) > RANDOM:
        return False
    surely_little = interval(values, SURE)[1] < at_random + NO_MODEL * (1 - at_random)
    return bool(evidence.head_is_new) or (surely_little and len(values) >= FEWEST_FOR_AN_INTERVAL)


def judge_published(evidence: Evidence) -> Opinion:
    """Judge whether the sample agrees with what was published of the model."""
    measured = evidence.found
    figure = measured.published
    if figure is None:
        return Opinion("skipped", "no figure is known of this model on this task")
    said = f"published: {percent(figure.value)} ({published.origin(figure)}, {figure.reference})"
    if reason := _other_queries(evidence.task, whole=measured.sample.whole):
        return Opinion("skipped", f"{said}; {reason}")
    values = average_precisions(measured.sample.task, measured.scores)
    return _against_figure(values, figure, said)


def _with_interval(values: np.ndarray, level: float) -> str:
    low, high = interval(values, level)
    between = "" if math.isnan(low) else f" ({100 * level:g} %: {percent(low)} to {percent(high)})"
    return f"{percent(float(values.mean()))}{between} on {counted(len(values), 'query')}"


def _other_queries(task: Task, *, whole: bool) -> str:
    if task.incomparable == "limit":
        return "the task is cut by limit=, which takes its first queries, not any"
    if task.incomparable == "other data":
        return f"the data are other ones ({', '.join(task.differences)})"
    return "" if whole else "the sample has parts of long lists, whose MAP is another one"


def _against_figure(values: np.ndarray, figure: PublishedFigure, said: str) -> Opinion:
    (low, high), (lowest, highest) = interval(values, USUAL), interval(values, FAR)
    seen = f"the sample has {_with_interval(values, USUAL)}; {said}"
    if math.isnan(low):
        return Opinion("skipped", f"{seen}; values that do not differ say nothing of other queries")
    if len(values) >= ENOUGH_FOR_A_FIGURE and not lowest <= figure.value <= highest:
        seen = f"the sample has {_with_interval(values, FAR)}; {said}"
        return Opinion(
            "fault", f"far from the published figure: {seen}", "compare revision, recipe and data with the source's"
        )
    if not low <= figure.value <= high:
        return Opinion("warning", f"outside of the 95 % interval, as one honest sample in twenty: {seen}")
    return Opinion("ok", seen)


CHECKS = (
    Check(
        "server",
        "a server that cuts texts, makes scores or reads lists otherwise than is meant gives other figures",
        judge_server,
        "nothing",
    ),
    Check(
        "golden scores",
        "known weights that give other scores than they should make every figure wrong",
        judge_golden,
        "nothing",
    ),
    Check(
        "certificate",
        "a model that gives other tokens or scores than its certificate is not the one whose name it has",
        judge_certificate,
        "nothing",
    ),
    Check(
        "weights",
        "a head or layer that is missing is filled with random numbers, and scores mean nothing",
        judge_weights,
        "nothing",
    ),
    Check("finite", "a score that is no number can't be ranked", judge_finite, "nothing"),
    Check(
        "spread",
        "scores that don't differ rank nothing, and still get an MRR of 100 from C-MTEB's own metric",
        judge_constant,
        "finite scores",
    ),
    Check(
        "ties",
        "tied candidates stay in the file's order, positives first, which flatters MRR",
        judge_ties,
    ),
    Check(
        "order",
        "files list the positives first: a score that depends on its place gives the answer away",
        judge_order,
    ),
    Check(
        "batches",
        "a score that depends on its neighbours changes with the batch size, from run to run",
        judge_batches,
    ),
    Check(
        "orders",
        "a listwise model's figure is of one order among many: what another order moves is no difference between models",
        judge_orders,
    ),
    Check(
        "truncation",
        "what is cut off can't be found relevant",
        judge_truncation,
        "finite scores",
    ),
    Check(
        "prompts",
        "a model trained with prompts loses several points without them",
        judge_prompts,
    ),
    Check(
        "signal",
        "a ranking no better than chance, or worse than BM25, means that something is broken",
        judge_signal,
    ),
    Check(
        "published",
        "a sample that contradicts the published figure foretells that the whole task will",
        judge_published,
    ),
    Check("cost", "hours and gigabytes are better known beforehand", judge_cost, "finite scores"),
)


def judge_evidence(evidence: Evidence) -> list[tuple[Check, Opinion]]:
    """Return every check's opinion, in the table's order; a check that has nothing to look at is skipped, with the reason.

    That of a server is left out where none runs the model, and that of orders where the model ranks no lists.
    """
    served = evidence.server is not None or evidence.unfit is not None
    listwise = evidence.settings.kind == "listwise"
    absent = {judge for judge, there in ((judge_server, served), (judge_orders, listwise)) if not there}
    checks = [check for check in CHECKS if check.judge not in absent]
    return [(check, _obstacle(check, evidence) or check.judge(evidence)) for check in checks]


def _obstacle(check: Check, evidence: Evidence) -> Opinion | None:
    if check.judge is judge_finite and (evidence.broken or evidence.unfit):
        return Opinion("skipped", "nothing was scored")
    if check.needs == "nothing":
        return None
    if evidence.measured is None:
        return Opinion(
            "skipped", "nothing was scored" if evidence.broken or evidence.unfit else "the scores are not finite"
        )
    if check.needs == "scores that differ" and is_constant(evidence.measured):
        return Opinion("skipped", "the scores are constant")
    return None
