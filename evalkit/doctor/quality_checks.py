"""Checks of what the scores are worth, and what the whole task will cost."""

from __future__ import annotations

import numpy as np

from evalkit.doctor.figures import average_precisions, chance_at_random, interval, random_precisions
from evalkit.doctor.records import Evidence, Opinion
from evalkit.doctor.sampling import FEWEST_QUERIES
from evalkit.output.numbers import duration, percent
from evalkit.records import Task
from evalkit.results import published
from evalkit.results.published import PublishedFigure

RANDOM = 0.01  # a p-value above it: the ranking can't be told from a random one
LITTLE = 0.1
"""Share of the way from a random order's MAP to 1 that a model should at least go."""
LITTLE_FOR_A_NEW_HEAD = 0.25
ENOUGH_QUERIES = 10
GIBIBYTE = 2**30

NO_SIGNAL = (
    "a random scoring head, weights of another kind (known prints: T2Reranking MAP 51.07 is a reranker loaded as an embedder, "
    "MMarcoReranking 0.6 an embedder as a cross-encoder), wrong pooling, or another model's tokenizer"
)
NO_WORDS = "the words of queries and documents differ, as across languages, or those of negatives are the same"


def judge_signal(evidence: Evidence) -> Opinion:
    """A model must rank better than chance, and should rank better than BM25."""
    measured = evidence.found
    task = measured.sample.task
    causes = NO_WORDS if evidence.settings.kind == "lexical" else f"look for {NO_SIGNAL}"
    values, chance, words = (
        average_precisions(task, measured.scores),
        random_precisions(task),
        average_precisions(task, measured.bm25),
    )
    own, at_random, bm25 = (float(one.mean()) for one in (values, chance, words))
    seen = f"MAP, expected over the orders of ties, {_with_interval(values)}"
    seen += f"; a random order gets {percent(at_random)}, BM25 {percent(bm25)}"
    if (luck := chance_at_random(task, own)) > RANDOM:
        if len(values) < FEWEST_QUERIES or chance_at_random(task, 1.0) > RANDOM:
            return Opinion("warning", f"{seen}: too few queries to tell", "take a larger task, or leave out limit=")
        return Opinion("fault", f"the scores carry no signal (p = {luck:.2g} against random): {seen}", causes)
    progress = (own - at_random) / (1 - at_random)
    if evidence.head_is_new and progress < LITTLE_FOR_A_NEW_HEAD:
        return Opinion("fault", f"hardly better than random, with a head that was never trained: {seen}", causes)
    if interval(values - words, 0.99)[1] < 0:
        if own - at_random < (bm25 - at_random) / 2:
            return Opinion("fault", f"nearer to a random order than to BM25: {seen}", causes)
        return Opinion("warning", f"worse than BM25: {seen}", "look at prompts, pooling, and truncation")
    if progress < LITTLE:
        return Opinion("warning", f"hardly better than random: {seen}", causes)
    return Opinion("ok", seen)


def judge_published(evidence: Evidence) -> Opinion:
    """The sample should agree with what was published of the model."""
    measured = evidence.found
    figure = measured.published
    if figure is None:
        return Opinion("skipped", "no figure is known of this model on this task")
    said = f"published: {percent(figure.value)} ({published.origin(figure)}, {figure.reference})"
    if reason := _other_queries(evidence.task, whole=measured.sample.whole):
        return Opinion("skipped", f"{said}; {reason}")
    values = average_precisions(measured.sample.task, measured.scores)
    return _against_figure(values, figure, said)


def judge_cost(evidence: Evidence) -> Opinion:
    """What to expect of the whole task."""
    cost = evidence.found.cost
    seen = (
        f"the whole task, {cost.task_pairs:,} pairs: about {duration(cost.task_seconds)} of scoring ({cost.sample_pairs:,} pairs "
        f"took {duration(cost.sample_seconds)}; loading {duration(cost.loading_seconds)})"
    )
    if cost.memory_bytes is None:
        return Opinion("ok", f"{seen}; memory: {cost.how}")
    seen += f"; memory: {cost.memory_bytes / GIBIBYTE:.1f} GiB ({cost.how})"
    if cost.machine_bytes is not None and cost.memory_bytes > 0.9 * cost.machine_bytes:
        return Opinion("warning", seen, f"this machine has {cost.machine_bytes / GIBIBYTE:.1f} GiB")
    return Opinion("ok", seen)


def _with_interval(values: np.ndarray) -> str:
    low, high = interval(values)
    number = f"on {len(values)} queries" if len(values) > 1 else "on one query"
    between = f" (95 %: {percent(low)} to {percent(high)})" if len(values) > 1 else ""
    return f"{percent(float(values.mean()))}{between} {number}"


def _other_queries(task: Task, *, whole: bool) -> str:
    if task.limit is not None:
        return "the task is cut by limit=, which takes its first queries, not any"
    if task.differences:
        return f"the data are other ones ({', '.join(task.differences)})"
    return "" if whole else "the sample has parts of long lists, whose MAP is another one"


def _against_figure(values: np.ndarray, figure: PublishedFigure, said: str) -> Opinion:
    (low, high), (lowest, highest) = interval(values), interval(values, 0.999)
    seen = f"the sample has {_with_interval(values)}; {said}"
    if len(values) >= ENOUGH_QUERIES and not lowest <= figure.value <= highest:
        return Opinion(
            "fault", f"far from the published figure: {seen}", "compare revision, recipe and data with the source's"
        )
    if not low <= figure.value <= high:
        return Opinion("warning", f"outside of the 95 % interval, as one honest sample in twenty: {seen}")
    return Opinion("ok", seen)
