"""What several systems got on the same queries of one task: the values that comparisons are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evalkit.compare.systems import System, systems_of
from evalkit.errors import EvalkitError, unknown_name
from evalkit.metrics.measures import PROTOCOLS, find_measure, is_measure, protocol_of, same_measures
from evalkit.results.result import Result
from evalkit.results.tables import refuse_other_mean

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class TaskResults:
    """The results on one task's data under one protocol, each with its system; in the order given."""

    task: str
    protocol: str
    fingerprint: str
    limit: int | None
    results: tuple[Result, ...]
    systems: tuple[System, ...]


@dataclass(frozen=True)
class SharedQueries:
    """One metric's values on the queries that count.

    `values` is float64[n_queries, n_systems] of fractions; `tables` are the systems' tables of queries, cut to these
    queries and in their order.
    """

    of: TaskResults
    metric: str
    query_ids: tuple[str, ...]
    values: NDArray[np.float64]
    tables: tuple[pd.DataFrame, ...]

    def column(self, name: str) -> pd.Series | None:
        """What the first table that has such a column says of each query; None where none has it."""
        return next((table[name] for table in self.tables if name in table), None)


def group_by_task(results: Sequence[Result], metric: str | None = None) -> list[TaskResults]:
    """Put together the results on the same data under the same protocol, in order of appearance; a file counts once.

    The protocol is that of the metric, of which every result has both protocols'; without a metric, each result's leading one.
    """
    asked = protocol_of(metric) if metric else None
    distinct = list({_place(result): result for result in reversed(results)}.values())[::-1]
    groups: dict[tuple[str, str, str], dict[System, Result]] = {}
    for result, system in zip(distinct, systems_of(distinct, asked), strict=True):
        groups.setdefault((result.task.name, asked or result.protocol, result.task.fingerprint), {})[system] = result
    return [
        TaskResults(*key, next(iter(members.values())).task.limit, tuple(members.values()), tuple(members))
        for key, members in groups.items()
    ]


def shared_queries(group: TaskResults, metric: str | None = None) -> SharedQueries:
    """Line up one metric's values (see `known_metric`), by default the protocol's main score, of all systems on a task.

    Raises EvalkitError for a metric that the results do not have, and where systems have other queries than the first, or
    a value for a query that another has none for.
    """
    first, *others = group.results
    measure = find_measure(metric) if metric else PROTOCOLS[group.protocol].leading[0]
    metric, column = measure.name, measure.column
    query_ids = first.queries["query_id"].tolist()
    tables = [first.queries, *(_in_order(result, query_ids, first) for result in others)]
    for result, table in zip(group.results, tables, strict=True):
        if column not in table or metric not in result.scores:
            raise _unknown_metric(metric, result)
        refuse_other_mean(result.path, measure, result.scores[metric], table)
    values = np.column_stack([table[column].to_numpy(np.float64) for table in tables])
    kept = _counted(values, query_ids, metric, group.results)
    return SharedQueries(
        of=group,
        metric=metric,
        query_ids=tuple(np.array(query_ids, dtype=object)[kept]),
        values=values[kept],
        tables=tuple(table[kept].reset_index(drop=True) for table in tables),
    )


def metric_title(metric: str) -> str:
    """Write a metric as tables show it: `MAP`, `MRR@10`, `hit rate@1`."""
    return find_measure(metric).title


def _in_order(result: Result, query_ids: list[str], first: Result) -> pd.DataFrame:
    """The result's table of queries in the order of the first result's."""
    own = result.queries["query_id"].tolist()
    if own == query_ids:
        return result.queries
    expected, found = set(query_ids), set(own)
    missing, added = [one for one in query_ids if one not in found], [one for one in own if one not in expected]
    if missing or added:
        having, lacking = (first, result) if missing else (result, first)
        raise EvalkitError(
            f"{having.path} and {lacking.path} have different queries: {(missing or added)[0]} is only in the first "
            f"({len(missing) + len(added)} differ); compare runs on the same queries"
        )
    if len(set(own)) < len(own) or len(own) != len(query_ids):
        raise EvalkitError(
            f"{result.path}: query_ids repeat, in another order than in {first.path}; run the evaluation again"
        )
    return result.queries.set_index("query_id").loc[query_ids].reset_index()


def _counted(
    values: NDArray[np.float64], query_ids: Sequence[str], metric: str, results: Sequence[Result]
) -> NDArray[np.bool_]:
    """Which queries have a value, in all results alike: bool[n_queries]."""
    present = ~np.isnan(values)
    counted = np.asarray(present.all(axis=1))
    torn = np.flatnonzero(present.any(axis=1) & ~counted)
    if torn.size:
        without = results[int(np.argmin(present[torn[0]]))]
        raise EvalkitError(
            f"{without.path}: query {query_ids[torn[0]]} has no {metric}, but another result has it; run the evaluation again"
        )
    if not counted.any():
        raise EvalkitError(f"{results[0].path}: no query has a value of {metric}; choose another with --metric")
    return counted


def _place(result: Result) -> object:
    """What a result counts as one by: its file, or itself where it has none."""
    return id(result) if result.path is None else result.path.resolve()


def known_metric(metric: str | None, results: Sequence[Result]) -> str | None:
    """Name the metric as all these results have it: under its own name, or that of the same measure (`nDCG@10`, `ndcg_at_10`).

    Raises EvalkitError, naming the first result that lacks it.
    """
    if metric is None:
        return None
    if not is_measure(metric):
        raise _unknown_metric(metric, results[0])
    measure = find_measure(metric)
    for one in (measure, *same_measures(measure, results[0].scores)):
        if all(one.name in result.scores for result in results):
            return one.name
    raise _unknown_metric(metric, next(result for result in results if measure.name not in result.scores))


def _unknown_metric(metric: str, result: Result) -> EvalkitError:
    known = [name for name in result.scores if is_measure(name) and find_measure(name).column in result.queries]
    return EvalkitError(f"{result.path}: {unknown_name('metric', metric, known)}")
