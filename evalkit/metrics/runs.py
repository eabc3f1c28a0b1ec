"""Runs given as dictionaries: {query_id: {doc_id: score}}, judged by qrels {query_id: {doc_id: gain}}."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from evalkit.errors import EvalkitError
from evalkit.metrics.lists import CandidateLists, candidate_lists
from evalkit.metrics.measures import CARD_PROTOCOL, Protocol, find_protocol, read_measures
from evalkit.metrics.query_scores import query_table, score_lists
from evalkit.output.numbers import counted
from evalkit.records import QrelsDict, RunDict, TieRange
from evalkit.statistics import bootstrap_intervals

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger("evalkit")

_GAIN_LIMIT = 2**31


@dataclass(frozen=True)
class RunScores:
    """What a run is worth under a protocol. Fractions by metric name.

    `intervals` are 95 % (low, high) of the means, by bootstrap over queries; `ties` what ties can do to the means.
    `queries` has one row per query: query_id, n_positive and n_candidates (of the run's documents), and the metrics (NaN
    where the protocol drops the query).
    """

    protocol: str
    main_score: str
    scores: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    ties: Mapping[str, TieRange]
    queries: pd.DataFrame

    def __repr__(self) -> str:
        """Name the protocol and the number of queries, with the leading value as a fraction."""
        value = f"{self.main_score} {self.scores[self.main_score]:.4f}"
        return f"RunScores({self.protocol}: {value} of {counted(len(self.queries), 'query')})"


def score_run(
    run: RunDict,
    qrels: QrelsDict,
    protocol: str = CARD_PROTOCOL,
    seed: int = 42,
    measures: str | Sequence[str] = (),
) -> RunScores:
    """Score a run against qrels.

    `run` and `qrels` are {query_id: {doc_id: number}}. cmteb-v1 orders positives then negatives, each in the run's order; a
    document that the qrels lack is a negative. mteb-v2 counts relevant documents that the run lacks as missed. Queries that
    only one of the two has are left out, with a warning. `seed` is the bootstrap's. `measures` are further ones, in the field's
    notation: `["nDCG@20", "AP(rel=2)"]`.

    Raises `EvalkitError` for an unknown protocol, ids that are not strings, scores that are not finite numbers, gains
    that are not whole numbers, a relevant document without a score (cmteb-v1), and where no query can be scored.
    """
    rules = find_protocol(protocol)
    lists = lists_of_run(run, qrels, rules)
    scores = score_lists(lists, (*rules.measures, *read_measures(measures)))
    intervals = bootstrap_intervals(np.column_stack(list(scores.values.values())), seed=seed)
    return RunScores(
        protocol=rules.name,
        main_score=rules.main_score,
        scores=scores.means,
        intervals=MappingProxyType(
            {name: (float(low), float(high)) for name, (low, high) in zip(scores.values, intervals, strict=True)}
        ),
        ties=scores.ties,
        queries=query_table(lists, scores),
    )


def lists_of_run(run: RunDict, qrels: QrelsDict, protocol: Protocol) -> CandidateLists:
    """Put a run's candidate lists together: the queries that both have, in the run's order. Errors: see `score_run`."""
    _check(run, "run", _is_score, "a finite number")
    _check(qrels, "qrels", _is_gain, "a whole number")
    if not run:
        raise EvalkitError("The run is empty: give scores for at least one query.")
    if not protocol.leading[0].rules.counts_unretrieved:
        _refuse_unscored_positives(run, qrels)
    query_ids = [query_id for query_id in run if qrels.get(query_id)]
    if not query_ids:
        raise EvalkitError(
            f"The run and the qrels have no query in common (the run's first is {next(iter(run))!r}, the qrels' "
            f"{next(iter(qrels), None)!r}): give qrels for the run's queries, under the same ids."
        )
    _tell_what_is_left_out(run, qrels, len(query_ids))
    ranked = [run[query_id] for query_id in query_ids]
    judged = [qrels[query_id] for query_id in query_ids]
    return candidate_lists(
        query_ids=query_ids,
        lengths=map(len, ranked),
        doc_ids=list(chain.from_iterable(ranked)),
        scores=np.fromiter(chain.from_iterable(scores.values() for scores in ranked), dtype=np.float64),
        gains=[int(gains.get(doc_id, 0)) for scores, gains in zip(ranked, judged, strict=True) for doc_id in scores],
        unretrieved_gains=[
            tuple(int(gain) for doc_id, gain in gains.items() if gain > 0 and doc_id not in scores)
            for scores, gains in zip(ranked, judged, strict=True)
        ],
    )


def _check(entries: Mapping[str, Any], name: str, accepts: Callable[[Any], bool], wanted: str) -> None:
    """Refuse what is not {str: {str: number}}, and a number that is not accepted."""
    if not isinstance(entries, Mapping) or not all(isinstance(documents, Mapping) for documents in entries.values()):
        raise EvalkitError(f"The {name} must be a dictionary {{query_id: {{doc_id: number}}}}: give it in that shape.")
    for query_id, documents in entries.items():
        if not all(isinstance(an_id, str) for an_id in (query_id, *documents)):
            raise EvalkitError(
                f"The {name} has ids that are not strings, at query {query_id!r}: give every id as a string."
            )
        for doc_id, number in documents.items():
            if not accepts(number):
                raise EvalkitError(
                    f"The {name} has {number!r} for document {doc_id!r} of query {query_id!r}: give {wanted} there."
                )


def _is_score(number: Any) -> bool:
    if isinstance(number, int):  # which may be too large to be taken for a float
        return abs(number) <= sys.float_info.max
    return _is_number(number) and math.isfinite(number)


def _is_gain(number: Any) -> bool:
    return _is_number(number) and bool(abs(number) < _GAIN_LIMIT) and float(number).is_integer()


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.integer | np.floating)


def _refuse_unscored_positives(run: RunDict, qrels: QrelsDict) -> None:
    for query_id, gains in qrels.items():
        scores = run.get(query_id, {})
        for doc_id, gain in gains.items():
            if gain > 0 and doc_id not in scores:
                raise EvalkitError(
                    f"The run has no score for document {doc_id!r} of query {query_id!r}, which the qrels call relevant: "
                    "score it, take it out of the qrels, or choose protocol mteb-v2, which counts it as missed."
                )


def _tell_what_is_left_out(run: RunDict, qrels: QrelsDict, common: int) -> None:
    unjudged = len(run) - common
    unscored = sum(1 for query_id, gains in qrels.items() if gains and query_id not in run)
    if unjudged:
        logger.warning("%d queries of the run are left out: the qrels judge none of their documents.", unjudged)
    if unscored:
        logger.warning("%d queries of the qrels are left out: the run has no scores for them.", unscored)
