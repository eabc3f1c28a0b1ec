"""Values of a protocol's metrics for candidate lists: per query, on average, and what ties can do to them."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evalkit.errors import EvalkitError
from evalkit.metrics.lists import CandidateLists, without_repetitions
from evalkit.metrics.protocols import Measure, Protocol
from evalkit.metrics.ranking import Floats, best_order, judgements_of, worst_order
from evalkit.metrics.ties import tie_values
from evalkit.records import QueryScores, TieRange


def score_lists(lists: CandidateLists, protocol: Protocol) -> QueryScores:
    """Compute all metrics of a protocol.

    `values` and `tie_values` (expected, low, high) hold one fraction per query, NaN where the protocol drops the query.
    `means` and `ties` are over the queries that count, rounded where the protocol rounds. Raises `EvalkitError` where
    the protocol can score no query.
    """
    counted = counted_queries(lists, protocol)
    if not counted.any():
        raise EvalkitError(_nothing_to_score(lists, protocol))
    lists = _as_seen_by(protocol, lists)
    judgements = judgements_of(lists)
    rankings = {order: order(lists, judgements) for order in {measure.order for measure in protocol.measures}}
    best, worst = best_order(lists, judgements), worst_order(lists, judgements)
    values, spreads = {}, {}
    for measure in protocol.measures:
        value = measure.metric.value(rankings[measure.order], measure.cutoff)
        spread = tie_values(measure.metric, measure.cutoff, best=best, worst=worst)
        values[measure.name] = _only(counted, value)
        expected, low, high = (_only(counted, amounts) for amounts in spread)
        spreads[measure.name] = (expected, low, high)
    return QueryScores(
        query_ids=lists.query_ids,
        values=MappingProxyType(values),
        means=MappingProxyType({m.name: _mean(m, values[m.name][counted]) for m in protocol.measures}),
        ties=MappingProxyType(
            {m.name: TieRange(*(_mean(m, part[counted]) for part in spreads[m.name])) for m in protocol.measures}
        ),
        tie_values=MappingProxyType(spreads),
    )


def counted_queries(lists: CandidateLists, protocol: Protocol) -> NDArray[np.bool_]:
    """Which queries enter the means, bool[n_queries]."""
    if protocol.needs_both_kinds:
        return (lists.positives > 0) & (lists.positives < lists.lengths)
    return np.ones(len(lists.query_ids), dtype=np.bool_)


def query_table(lists: CandidateLists, scores: QueryScores) -> pd.DataFrame:
    """One row per query: query_id, n_positive and n_candidates (of the candidates), then one column per metric."""
    counts = {"query_id": list(lists.query_ids), "n_positive": lists.positives, "n_candidates": lists.lengths}
    return pd.DataFrame({**counts, **scores.values})


def _as_seen_by(protocol: Protocol, lists: CandidateLists) -> CandidateLists:
    if not protocol.counts_unretrieved:
        lists = replace(lists, unretrieved_gains=((),) * len(lists.query_ids))
    return without_repetitions(lists) if protocol.unique_documents else lists


def _only(counted: NDArray[np.bool_], values: Floats) -> Floats:
    return np.where(counted, values, np.nan)


def _mean(measure: Measure, values: Floats) -> float:
    """Take the mean as mteb does: Python's own sum, divided, rounded by Python."""
    mean: float = sum(values.tolist()) / len(values)
    return mean if measure.decimals is None else round(mean, measure.decimals)


def _nothing_to_score(lists: CandidateLists, protocol: Protocol) -> str:
    if not lists.query_ids:
        return "There is no query to score: give a task or run with at least one."
    return (
        f"Protocol {protocol.name} can score none of the {len(lists.query_ids)} queries, since it needs a positive and "
        f"a negative candidate for each (the first, {lists.query_ids[0]!r}, has {lists.positives[0]} positives among "
        f"{lists.lengths[0]} candidates): add the missing kind, or choose protocol mteb-v2."
    )
