"""Parts of a task to try a model on: queries drawn at random, the same candidates in another order, one candidate alone."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from evalkit.doctor.records import Sample
from evalkit.records import Request, Task
from evalkit.tasks.content import has_both, task_statistics

FEWEST_QUERIES = 6  # of long lists rather a part of each of so many than one whole list
SHORTEST_LIST = 6
ENOUGH_QUERIES = 60
"""So many are scored, where the task has them, before the ranking is found at fault: six queries are often turned by sixty."""


def draw_sample(
    task: Task, pairs: int, seed: int, queries: int = FEWEST_QUERIES, *, whole_lists: bool = False
) -> Sample:
    """Draw queries of the whole task in random order, as many as have some `pairs` candidates together.

    Where fewer `queries` would fit, each list is cut to a random part of SHORTEST_LIST candidates or more, with positives and
    negatives in proportion and at least one of each; but not where only `whole_lists` tell anything. Only queries that have both
    take part. Equal arguments give equal samples.
    """
    generator = np.random.default_rng(seed)
    scorable = [request for request in task.requests if has_both(request)]
    fits = whole_lists or sum(len(request.candidates) for request in scorable) <= pairs
    longest = sys.maxsize if fits else max(pairs // queries, SHORTEST_LIST)
    chosen: list[Request] = []
    whole, taken = True, 0
    for number in generator.permutation(len(scorable)).tolist():
        request = scorable[number]
        if len(request.candidates) > longest:
            request, whole = _shortened(request, longest, generator), False
        if taken + len(request.candidates) > pairs and len(chosen) >= (queries if whole_lists else 1):
            break
        chosen.append(request)
        taken += len(request.candidates)
    return Sample(with_requests(task, chosen), whole)


def n_scorable(task: Task) -> int:
    """Count the queries that a sample can be drawn from: those with positives and negatives."""
    return sum(map(has_both, task.requests))


def with_requests(task: Task, requests: Sequence[Request]) -> Task:
    """Return the task with other requests, and their statistics."""
    return replace(task, requests=tuple(requests), statistics=task_statistics(requests))


def first_requests(task: Task, pairs: int) -> Task:
    """Return the task's first requests, as many as have at most `pairs` candidates together, and at least one."""
    sizes = np.cumsum([len(request.candidates) for request in task.requests])
    return with_requests(task, task.requests[: max(1, int(np.searchsorted(sizes, pairs, side="right")))])


def shuffled(task: Task, seed: int) -> tuple[Task, NDArray[np.int64]]:
    """Return the queries backwards, each one's candidates in random order; and per candidate its number in the task's order."""
    generator = np.random.default_rng(seed)
    starts = np.cumsum([0, *(len(request.candidates) for request in task.requests)])
    requests, numbers = [], []
    for place in reversed(range(len(task.requests))):
        request = task.requests[place]
        order = generator.permutation(len(request.candidates))
        requests.append(replace(request, candidates=tuple(request.candidates[row] for row in order.tolist())))
        numbers.append(starts[place] + order)
    return with_requests(task, requests), np.concatenate(numbers)


def single_candidates(task: Task, number: int, seed: int) -> list[tuple[int, Task]]:
    """Draw some `number` of candidates at random, each as a task of its own and with its place in the task's order."""
    placed = [(request, candidate) for request in task.requests for candidate in request.candidates]
    return [
        (place, with_requests(task, [replace(placed[place][0], candidates=(placed[place][1],))]))
        for place in np.random.default_rng(seed).permutation(len(placed))[:number].tolist()
    ]


def _shortened(request: Request, length: int, generator: np.random.Generator) -> Request:
    positive = np.array([candidate.gain > 0 for candidate in request.candidates])
    wanted = round(length * positive.mean())
    n_positive = min(max(wanted, 1), length - 1)
    kept = np.concatenate(
        [
            generator.permutation(np.flatnonzero(positive))[:n_positive],
            generator.permutation(np.flatnonzero(~positive))[: length - n_positive],
        ]
    )
    return replace(request, candidates=tuple(request.candidates[row] for row in np.sort(kept).tolist()))
