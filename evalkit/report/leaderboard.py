"""Systems in order of their value, and which ranks can't be told apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalkit.compare.shared_queries import SharedQueries
from evalkit.compare.slices import Slice, slice_queries
from evalkit.compare.systems import System
from evalkit.records import TrainingMark
from evalkit.results.result import Result
from evalkit.results.training import training_of
from evalkit.statistics import (
    average_differences,
    average_intervals,
    bootstrap_intervals,
    holm,
    not_told_from_best,
    paired_randomisation_test,
    pairs_of,
    rank_ranges,
    resamples_needed,
)


@dataclass(frozen=True, slots=True)
class Standing:
    """A system's value, its 95 % interval and what ties and noise leave open, fractions; the ranks that the tests leave open.

    `ties` and `noise` are None where they are not known, `ranks` the best and the worst. `among_best`: no test tells it from the
    system with the highest value. `training` says of each of the board's tasks whether the model was trained on its data.
    """

    system: System
    value: float
    interval: tuple[float, float]
    ties: tuple[float, float] | None
    noise: tuple[float, float] | None
    ranks: tuple[int, int]
    among_best: bool
    training: tuple[TrainingMark | None, ...]


@dataclass(frozen=True)
class Board:
    """Systems on one task's data, or on average over the same tasks' data, the best first.

    `limit` is that of a task; `part` says which part of it, or of some of the tasks, the figures are of.
    """

    tasks: tuple[str, ...]
    protocol: str
    metric: str
    fingerprints: tuple[str, ...]
    limit: int | None
    part: str
    n_queries: int
    standings: tuple[Standing, ...]


@dataclass(frozen=True, slots=True)
class SliceMean:
    """A system's mean over a part of a task's queries, a fraction, with its 95 % interval."""

    name: str
    n_queries: int
    system: System
    value: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class SliceBoard:
    """Every system's means over the parts of a task's queries, which are cut `by` one of the ways of `slices`."""

    task: str
    protocol: str
    metric: str
    fingerprint: str
    limit: int | None
    part: str
    by: str
    means: tuple[SliceMean, ...]


def task_board(shared: SharedQueries, *, seed: int, alpha: float) -> Board:
    """Rank the systems on one task. Values are those that the results state, rounded as their protocol rounds."""
    first, second = pairs_of(len(shared.of.systems))
    p_values = _adjusted(shared.values[:, first] - shared.values[:, second], seed, alpha)
    return _board([shared], shared.of.systems, bootstrap_intervals(shared.values, seed=seed), p_values, alpha)


def average_boards(tasks: Sequence[SharedQueries], *, seed: int, alpha: float) -> list[Board]:
    """Rank systems by their average over the same tasks: a board for every set of tasks that some system has run.

    A system that has run more tasks stands on the boards of fewer, too. Tasks of different metrics are not averaged.
    """
    sets: dict[tuple[int, ...], None] = {}
    for system in dict.fromkeys(system for shared in tasks for system in shared.of.systems):
        own = [number for number, shared in enumerate(tasks) if system in shared.of.systems]
        for metric in dict.fromkeys(tasks[number].metric for number in own):
            sets[tuple(number for number in own if tasks[number].metric == metric)] = None
    return [
        _average_board([tasks[number] for number in numbers], seed, alpha)
        for numbers in sorted(sets, key=lambda numbers: (-len(numbers), numbers))
        if len(numbers) > 1 and len({tasks[number].of.task for number in numbers}) == len(numbers)
    ]


def slice_board(shared: SharedQueries, by: str, *, seed: int) -> SliceBoard:
    """Give each system's mean over each part of the queries; without parts where no result has the column that is needed."""
    means = [mean for part in slice_queries(shared, by) for mean in _slice_means(shared, part, seed)]
    of = shared.of
    return SliceBoard(of.task, of.protocol, shared.metric, of.fingerprint, of.limit, of.part, by, tuple(means))


def _slice_means(shared: SharedQueries, part: Slice, seed: int) -> list[SliceMean]:
    values = shared.values[part.members]
    means, intervals = np.ascontiguousarray(values.T).mean(axis=1), bootstrap_intervals(values, seed=seed)
    return [
        SliceMean(part.name, len(values), system, float(mean), (float(low), float(high)))
        for system, mean, (low, high) in zip(shared.of.systems, means, intervals, strict=True)
    ]


def _average_board(tasks: Sequence[SharedQueries], seed: int, alpha: float) -> Board:
    systems = [one for one in tasks[0].of.systems if all(one in shared.of.systems for shared in tasks)]
    columns = [shared.values[:, [shared.of.systems.index(system) for system in systems]] for shared in tasks]
    first, second = pairs_of(len(systems))
    differences = average_differences([values[:, first] - values[:, second] for values in columns])
    p_values = _adjusted(differences, seed, alpha)
    return _board(tasks, systems, average_intervals(columns, seed=seed), p_values, alpha)


def _board(
    tasks: Sequence[SharedQueries],
    systems: Sequence[System],
    intervals: NDArray[np.float64],
    p_values: NDArray[np.float64],
    alpha: float,
) -> Board:
    metric = tasks[0].metric
    results = [[shared.of.results[shared.of.systems.index(system)] for shared in tasks] for system in systems]
    values = [_average([result.scores[metric] for result in own]) for own in results]
    ranks = rank_ranges(np.array(values), p_values, alpha)
    among_best = not_told_from_best(np.array(values), p_values, alpha)
    standings = [
        Standing(
            system=system,
            value=value,
            interval=(float(low), float(high)),
            ties=average_ties(own, metric),
            noise=average_noise(own, metric),
            ranks=(int(best), int(worst)),
            among_best=bool(top),
            training=tuple(map(training_of, own)),
        )
        for system, value, (low, high), own, (best, worst), top in zip(
            systems, values, intervals, results, ranks, among_best, strict=True
        )
    ]
    return Board(
        tasks=tuple(shared.of.task for shared in tasks),
        protocol=tasks[0].of.protocol,
        metric=metric,
        fingerprints=tuple(shared.of.fingerprint for shared in tasks),
        limit=tasks[0].of.limit if len(tasks) == 1 else None,
        part=", ".join(dict.fromkeys(shared.of.part for shared in tasks if shared.of.part)),
        n_queries=sum(len(shared.values) for shared in tasks),
        standings=tuple(sorted(standings, key=lambda standing: -standing.value)),
    )


def _adjusted(differences: NDArray[np.float64], seed: int, alpha: float) -> NDArray[np.float64]:
    n_resamples = resamples_needed(differences.shape[1], alpha)
    return holm(paired_randomisation_test(differences, seed=seed, n_resamples=n_resamples))


def _average(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def average_ties(results: Sequence[Result], metric: str) -> tuple[float, float] | None:
    """Give the means, over these results, of what the worst and the best order of tied documents give: fractions.

    None where one of them is not known.
    """
    return _average_range([result.tie_range(metric) for result in results])


def average_noise(results: Sequence[Result], metric: str) -> tuple[float, float] | None:
    """Give the means, over these results, of the lowest and the highest value that the noise of the scores allows: fractions.

    None where one of them is not known.
    """
    return _average_range([result.noise_range(metric) for result in results])


def _average_range(ranges: Sequence[tuple[float, float] | None]) -> tuple[float, float] | None:
    known = [one for one in ranges if one is not None]
    if len(known) < len(ranges):
        return None
    return _average([low for low, _ in known]), _average([high for _, high in known])
