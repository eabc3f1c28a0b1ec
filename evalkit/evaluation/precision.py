"""What low precision costs: a sample of a task's pairs scored in fp32 as well, and the two compared."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from evalkit.metrics import PROTOCOLS, lists_of_task, score_lists
from evalkit.metrics.measures import CARD_PROTOCOL
from evalkit.records import Candidate, PrecisionCheck, Task

SAMPLE_PAIRS = 200


def sample_of(task: Task) -> Task:
    """The task's first queries, as many as have SAMPLE_PAIRS candidates together and one that every protocol can score."""
    sizes = list(accumulate(len(request.candidates) for request in task.requests))
    scorable = (number for number, request in enumerate(task.requests, 1) if _has_both(request.candidates))
    enough = next((number for number, size in enumerate(sizes, 1) if size >= SAMPLE_PAIRS), len(sizes))
    return replace(task, requests=task.requests[: max(enough, next(scorable, 1))])


def compare_precisions(sample: Task, low: NDArray[np.float32], full: NDArray[np.float32], dtype: str) -> PrecisionCheck:
    """Compare scores in low precision with those in fp32, both per candidate of the sample.

    A rank flip is a pair of a query's candidates that the two order oppositely; `compared` counts the pairs that fp32 orders.
    """
    measures = PROTOCOLS[CARD_PROTOCOL].measures
    means = [score_lists(lists_of_task(sample, scores), measures).means["map"] for scores in (low, full)]
    flips = compared = start = 0
    for request in sample.requests:
        stop = start + len(request.candidates)
        orders = [np.sign(scores[start:stop, None] - scores[None, start:stop]) for scores in (low, full)]
        flips += int((orders[0] * orders[1] < 0).sum()) // 2
        compared += int((orders[1] != 0).sum()) // 2
        start = stop
    return PrecisionCheck(
        dtype=dtype,
        pairs=len(full),
        largest_difference=float(np.abs(low.astype(np.float64) - full).max()),
        rank_flips=flips,
        compared=compared,
        map_difference=means[0] - means[1],
    )


def _has_both(candidates: tuple[Candidate, ...]) -> bool:
    gains = [candidate.gain > 0 for candidate in candidates]
    return any(gains) and not all(gains)
