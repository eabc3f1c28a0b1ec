"""Systems against each other, task by task, over all queries and over parts of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from evalkit.compare.pairs import MovedQuery, PairComparison, compare_pairs, most_moved
from evalkit.compare.shared_queries import (
    SharedQueries,
    TaskResults,
    comparable,
    data_note,
    group_by_task,
    in_one_table,
    known_metric,
    protocol_notes,
    shared_queries,
)
from evalkit.compare.slices import Slice, missing_slices, slice_queries
from evalkit.compare.systems import system_labels
from evalkit.errors import EvalkitError
from evalkit.output.numbers import listed, percent_range
from evalkit.results.reading import LEFT_OUT
from evalkit.results.result import Result, remark_lines
from evalkit.statistics import holm

MOVED_OF_TWO = 5
_NAMED = 2


@dataclass(frozen=True)
class CompareChoices:
    """What a comparison is to show; `metric` None is each protocol's main score, `moved` None suits their number."""

    metric: str | None
    alpha: float
    seed: int
    slices: tuple[str, ...]
    moved: int | None


@dataclass(frozen=True)
class TaskComparison:
    """All pairs of systems on one task: over all queries, over each part of them, and the queries that moved most.

    `data` says which data of the task they are, as a title has it; empty where that goes without saying.
    """

    shared: SharedQueries
    data: str
    pairs: tuple[PairComparison, ...]
    slices: tuple[tuple[Slice, tuple[PairComparison, ...]], ...]
    moved: tuple[tuple[PairComparison, tuple[MovedQuery, ...]], ...]


def compare_systems(
    results: Sequence[Result], choices: CompareChoices, unread: Sequence[str] = ()
) -> tuple[list[TaskComparison], list[str]]:
    """Compare the systems on every task that two or more have results for; the second part is what to tell beside it.

    Results on other data of a task, or under another protocol, are compared among themselves. What can't be compared is left out,
    by name; `unread` says what was left out already. Raises EvalkitError where nothing is left.
    """
    metric = known_metric(choices.metric, results)
    kept, unfit = comparable(results, metric)
    left_out = [*unread, *unfit]
    groups = group_by_task(kept, metric)
    compared = [group for group in groups if len(group.results) > 1]
    if not compared:
        raise EvalkitError("; ".join([_why_nothing(groups), *left_out]))
    shared = [shared_queries(group, metric) for group in compared]
    notes = left_out + [_why_alone(group, compared) for group in groups if len(group.results) == 1]
    notes += protocol_notes(compared)
    notes += remark_lines(result for group in compared for result in group.results)
    notes += [note for one in shared for note in missing_slices(one, choices.slices)]
    return [_compare_task(one, choices, _data_of(one.of, compared)) for one in shared], notes


def tie_notes(comparison: TaskComparison, alpha: float) -> list[str]:
    """Name the pairs that are told apart by the protocol's order of tied candidates alone: another order would turn them."""
    shared = comparison.shared
    labels = system_labels(shared.of.systems)
    notes = []
    for pair in (pair for pair in comparison.pairs if pair.adjusted_p < alpha):
        ranges = {
            place: shared.of.results[place].tie_range(shared.metric) or (mean, mean)
            for place, mean in zip((pair.first, pair.second), pair.means, strict=True)
        }
        winner, loser = (pair.first, pair.second) if pair.difference > 0 else (pair.second, pair.first)
        if ranges[winner][0] <= ranges[loser][1]:
            better, other = (labels[shared.of.systems[place]] for place in (winner, loser))
            notes.append(
                f"{shared.of.task}: that {better} is better than {other} depends on the order of tied candidates, which can make "
                f"{percent_range(ranges[winner])} of the one and {percent_range(ranges[loser])} of the other"
            )
    return notes


def _data_of(group: TaskResults, compared: Sequence[TaskResults]) -> str:
    same = {one.fingerprint for one in compared if (one.task, one.protocol) == (group.task, group.protocol)}
    return data_note(group.part, group.fingerprint if len(same) > 1 else "")


def _compare_task(shared: SharedQueries, choices: CompareChoices, data: str) -> TaskComparison:
    pairs = compare_pairs(shared.values, seed=choices.seed, alpha=choices.alpha)
    moved = choices.moved
    if moved is None:
        moved = MOVED_OF_TWO if len(pairs) == 1 else 0
    slices = [part for by in choices.slices for part in _compare_slices(shared, by, choices)]
    most = [(pair, tuple(most_moved(shared, pair.first, pair.second, moved))) for pair in pairs if moved]
    return TaskComparison(shared, data, tuple(pairs), tuple(slices), tuple(most))


def _compare_slices(
    shared: SharedQueries, by: str, choices: CompareChoices
) -> list[tuple[Slice, tuple[PairComparison, ...]]]:
    """Compare within each part; Holm's family is all the tests of the parts together."""
    parts = slice_queries(shared, by)
    compared = [
        compare_pairs(shared.values[part.members], seed=choices.seed, alpha=choices.alpha, families=len(parts))
        for part in parts
    ]
    adjusted = holm(np.array([pair.p_value for pairs in compared for pair in pairs]))
    numbers = iter(adjusted.tolist())
    return [
        (part, tuple(replace(pair, adjusted_p=next(numbers)) for pair in pairs))
        for part, pairs in zip(parts, compared, strict=True)
    ]


def _why_alone(group: TaskResults, compared: Sequence[TaskResults]) -> str:
    """Say why a task's only result on its data is not compared."""
    path = group.results[0].path
    other = next((one for one in compared if one.task == group.task), None)
    if other is None:
        return f"{group.task} is not compared: only {path} has it"
    if group.protocol != other.protocol:
        why = f"{path}: no other result of {group.task} follows {group.protocol}"
        same_data = group.fingerprint == other.fingerprint
        return LEFT_OUT.format(f"{why}; {in_one_table((other.protocol, group.protocol))}" if same_data else why)
    part = group.part or f"fingerprint {group.fingerprint[:12]}"
    return LEFT_OUT.format(f"{path}: no other result of {group.task} is on its data ({part})")


def _why_nothing(groups: Sequence[TaskResults]) -> str:
    """Say why there is nothing to compare: where two results of a task differ, in what."""
    first_of: dict[str, TaskResults] = {}
    for group in groups:
        first = first_of.setdefault(group.task, group)
        if group is not first:
            return _why_apart(first, group)
    found = listed((f"{group.results[0].path} ({group.task})" for group in groups), _NAMED)
    return f"nothing to compare: no task has two results; found {found}; give two results of one task"


def _why_apart(first: TaskResults, second: TaskResults) -> str:
    one, other = first.results[0], second.results[0]
    if second.protocol != first.protocol and second.fingerprint == first.fingerprint:
        return (
            f"{one.path} and {other.path} follow different protocols of {second.task} ({first.protocol} and "
            f"{second.protocol}); {in_one_table((first.protocol, second.protocol))}"
        )
    parts = ""
    if first.part != second.part:
        parts = "; " + " and ".join(one.part or "the whole task" for one in (first, second))
    return (
        f"{one.path} and {other.path} are of different data of {second.task} (fingerprints {first.fingerprint[:12]} and "
        f"{second.fingerprint[:12]}{parts}); compare runs on the same data"
    )
