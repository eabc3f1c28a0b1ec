"""What several systems got on the same queries of one task: the values that comparisons are made of."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evalkit.compare.systems import System, systems_of
from evalkit.errors import EvalkitError, unknown_name
from evalkit.metrics.measures import (
    PROTOCOLS,
    Measure,
    asked_measures,
    find_measure,
    is_measure,
    protocol_of,
    same_measures,
)
from evalkit.results.reading import LEFT_OUT
from evalkit.results.result import Result
from evalkit.results.tables import refuse_other_mean

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class TaskResults:
    """The results on one task's data under one protocol, each with its system; in the order given.

    `part` says which part of the task they are of, as `limit 5`; empty where it is whole.
    """

    task: str
    protocol: str
    fingerprint: str
    limit: int | None
    part: str
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
        """Return what the first table that has such a column says of each query; None where none has it."""
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
    return [_task_results(key, members) for key, members in groups.items()]


def _task_results(key: tuple[str, str, str], members: Mapping[System, Result]) -> TaskResults:
    of = next(iter(members.values())).task
    return TaskResults(*key, of.limit, of.part, tuple(members.values()), tuple(members))


def protocol_notes(groups: Sequence[TaskResults]) -> list[str]:
    """Say which data have results that other protocols lead, and so a table for each, and which metrics show all in one."""
    led: dict[tuple[str, str], dict[str, None]] = {}
    for group in groups:
        led.setdefault((group.task, group.fingerprint), {})[group.protocol] = None
    return [
        f"{task}: {' and '.join(protocols)} lead results on the same data, which stand in tables of their own; "
        f"{in_one_table(protocols)}"
        for (task, _), protocols in led.items()
        if len(protocols) > 1
    ]


def in_one_table(protocols: Iterable[str]) -> str:
    """Say how results that several protocols lead are shown side by side."""
    ways = " or ".join(f"--metric {PROTOCOLS[name].main_score}" for name in protocols)
    return f"every result has the measures of all protocols: {ways} shows them side by side"


def comparable(
    results: Sequence[Result], metric: str | None = None, *, candidates: bool = False
) -> tuple[list[Result], list[str]]:
    """Keep the results that can be compared with the others on the same data, and say of each other one why it is left out.

    Where they differ in their queries, or in which of them have a value, those stay that most agree on, or else the first.
    `metric` is a name as `known_metric` gives it; without it, the protocols' main scores and the measures that all were asked
    for count. With `candidates` results also need the same candidates with the same labels. Raises EvalkitError where none stays.
    """
    reasons: list[str] = []

    def without(left: Mapping[int, str], of: Sequence[Result]) -> list[Result]:
        reasons.extend(left.values())
        return [result for result in of if id(result) not in left]

    kept = without({id(one): why for one in results if (why := _why_unfit(one, metric, candidates))}, results)
    for name in [metric] if metric else [None, *asked_of_all(kept)]:
        for group in group_by_task(kept, name):
            kept = without(_unlike(group, name), kept)
    for group in group_by_task(kept, metric) if candidates else ():
        kept = without(_unlike_candidates(group), kept)
    if not kept:
        raise EvalkitError("; ".join(reasons))
    return kept, list(map(LEFT_OUT.format, reasons))


def asked_of_all(results: Sequence[Result]) -> list[str]:
    """Name the measures that all these results were asked for beside their protocols'."""
    return [
        one.name
        for one in (asked_measures(results[0].scores) if results else ())
        if all(one.name in result.scores for result in results)
    ]


def _why_unfit(result: Result, metric: str | None, candidates: bool) -> str:
    """Say why a result's files give no values of a metric; empty where they do."""
    measure = find_measure(metric) if metric else PROTOCOLS[result.protocol].leading[0]
    try:
        _refuse_unfit(result, measure, result.queries)
        if candidates:
            _ = result.candidates
    except EvalkitError as error:
        return str(error)
    return ""


def _refuse_unfit(result: Result, measure: Measure, table: pd.DataFrame) -> None:
    if measure.column not in table or measure.name not in result.scores:
        raise _unknown_metric(measure.name, result)
    refuse_other_mean(result.path, measure, result.scores[measure.name], table)


def _unlike(group: TaskResults, metric: str | None) -> dict[int, str]:
    """Say, by `id`, which results have other queries than most, or values for others, and why they can't be compared."""
    measure = _measure_of(group, metric)

    def pattern(result: Result) -> frozenset[tuple[str, bool]]:
        return frozenset(zip(result.queries["query_id"], result.queries[measure.column].notna(), strict=True))

    def why(leading: Result, result: Result) -> str:
        try:
            shared_queries(replace(group, results=(leading, result), systems=group.systems[:2]), metric)
        except EvalkitError as error:
            return str(error)
        raise AssertionError("results of different patterns were lined up")

    return _others(group, pattern, why)


def _unlike_candidates(group: TaskResults) -> dict[int, str]:
    """Say, by `id`, which results have other candidates than most, or other labels."""
    import pandas as pd

    def pattern(result: Result) -> str:
        table = result.candidates[["query_id", "doc_id", "label"]].sort_values("query_id", kind="stable")
        rows = pd.util.hash_pandas_object(table, index=False).to_numpy()
        return hashlib.sha256(rows.tobytes()).hexdigest()

    def why(leading: Result, result: Result) -> str:
        first, other = (_by_query(one.candidates) for one in (leading, result))
        for query_id, table in first.items():
            docs, labels = ([*table[name]] == [*other[query_id][name]] for name in ("doc_id", "label"))
            if not docs or not labels:
                break
        return (
            f"{leading.path} and {result.path} have different {'labels' if docs else 'candidates'} for query {query_id}, though "
            "they are of the same data; run one of the evaluations again"
        )

    return _others(group, pattern, why)


def _by_query(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {str(query_id): own for query_id, own in table.groupby("query_id", sort=False)}


def _others(
    group: TaskResults, pattern: Callable[[Result], Hashable], why: Callable[[Result, Result], str]
) -> dict[int, str]:
    """Say, by `id`, why the results of another pattern than most are left out; of equally many the first leads."""
    patterns = list(map(pattern, group.results))
    ((most, _),) = Counter(patterns).most_common(1)
    leading = group.results[patterns.index(most)]
    others = (result for result, own in zip(group.results, patterns, strict=True) if own != most)
    return {id(result): why(leading, result) for result in others}


def _measure_of(group: TaskResults, metric: str | None) -> Measure:
    return find_measure(metric) if metric else PROTOCOLS[group.protocol].leading[0]


def shared_queries(group: TaskResults, metric: str | None = None) -> SharedQueries:
    """Line up one metric's values (see `known_metric`), by default the protocol's main score, of all systems on a task.

    Raises EvalkitError for a metric that the results do not have, and where systems have other queries than the first, or
    a value for a query that another has none for.
    """
    first, *others = group.results
    measure = _measure_of(group, metric)
    metric, column = measure.name, measure.column
    query_ids = first.queries["query_id"].tolist()
    tables = [first.queries, *(_in_order(result, query_ids, first) for result in others)]
    for result, table in zip(group.results, tables, strict=True):
        _refuse_unfit(result, measure, table)
    values = np.column_stack([table[column].to_numpy(np.float64) for table in tables])
    kept = _counted(values, query_ids, metric, group.results)
    return SharedQueries(
        of=group,
        metric=metric,
        query_ids=tuple(np.array(query_ids, dtype=object)[kept]),
        values=values[kept],
        tables=tuple(table[kept].reset_index(drop=True) for table in tables),
    )


def data_note(part: str, fingerprint: str) -> str:
    """Say which data of a task a table is of: ` (limit 5, data 1e85fb49f372)`; no fingerprint where it need not be told."""
    said = [part] if part else []
    said += [f"data {fingerprint[:12]}"] if fingerprint else []
    return f" ({', '.join(said)})" if said else ""


def metric_title(metric: str) -> str:
    """Write a metric as tables show it: `MAP`, `MRR@10`, `hit rate@1`."""
    return find_measure(metric).title


def _in_order(result: Result, query_ids: list[str], first: Result) -> pd.DataFrame:
    """Return the result's table of queries in the order of the first result's."""
    own = result.queries["query_id"].tolist()
    if own == query_ids:
        return result.queries
    expected, found = set(query_ids), set(own)
    missing, added = [one for one in query_ids if one not in found], [one for one in own if one not in expected]
    if missing or added:
        having, lacking = (first, result) if missing else (result, first)
        differ = "1 differs" if len(missing) + len(added) == 1 else f"{len(missing) + len(added)} differ"
        raise EvalkitError(
            f"{having.path} and {lacking.path} have different queries: {(missing or added)[0]} is only in the first ({differ}); "
            "compare runs on the same queries"
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
    """Return what a result counts as one by: its file, or itself where it has none."""
    return id(result) if result.path is None else result.path.resolve()


def known_metric(metric: str | None, results: Sequence[Result]) -> str | None:
    """Name the metric as most of these results have it: under its own name, or that of the same measure (`nDCG@10`, `ndcg_at_10`).

    Raises EvalkitError where none has it.
    """
    if metric is None:
        return None
    if not is_measure(metric):
        raise _unknown_metric(metric, results[0])
    measure = find_measure(metric)
    names = Counter(
        name
        for result in results
        for name in dict.fromkeys((measure.name, *(one.name for one in same_measures(measure, result.scores))))
        if name in result.scores
    )
    if not names:
        raise _unknown_metric(metric, results[0])
    return names.most_common(1)[0][0]


def _unknown_metric(metric: str, result: Result) -> EvalkitError:
    known = [name for name in result.scores if is_measure(name) and find_measure(name).column in result.queries]
    return EvalkitError(f"{result.path}: {unknown_name('metric', metric, known)}")
