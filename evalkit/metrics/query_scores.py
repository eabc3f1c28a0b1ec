"""Values of measures for candidate lists: per query, on average, and what ties can do to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import EvalkitError
from evalkit.metrics.lists import CandidateLists, without_repetitions
from evalkit.metrics.measures import Measure, Order, Rules, protocol_of
from evalkit.metrics.ranking import (
    Floats,
    Judgements,
    Ranking,
    best_order,
    highest_orders,
    judgements_of,
    lowest_orders,
    shared_among_ties,
    worst_order,
)
from evalkit.records import NoiseBand, QueryScores, TieRange

if TYPE_CHECKING:
    import pandas as pd


def score_lists(lists: CandidateLists, measures: Sequence[Measure]) -> QueryScores:
    """Compute measures of candidate lists.

    `values` and `tie_values` (expected, low, high) hold one fraction per query by the measure's name, NaN where its rules drop
    the query. `means` and `ties` are over the queries that count, rounded where the rules round. Where the lists say how far
    scores may lie off, `bands` and `band_values` (low, high) are what that can do: over every order that scores within their
    noise can have. Raises `EvalkitError` where the rules of a measure can score no query.
    """
    views: dict[tuple[bool, bool, int], _View] = {}
    values, spreads, means, ties = {}, {}, {}, {}
    band_values, bands = {}, {}
    for measure in measures:
        rules = measure.rules
        key = (rules.counts_unretrieved, rules.unique_documents, measure.rel)
        view = views[key] = views.get(key) or _view(lists, measure)
        counted = view.counted(rules)
        if not counted.any():
            raise EvalkitError(_nothing_to_score(lists, measure))
        name = measure.name
        values[name] = np.where(counted, measure.metric.value(view.ranking(rules.order), measure.cutoff), np.nan)
        expected, low, high = (np.where(counted, part, np.nan) for part in _tie_values(view, measure))
        spreads[name] = (expected, low, high)
        means[name] = _mean(rules, values[name][counted])
        ties[name] = TieRange(*(_mean(rules, part[counted]) for part in spreads[name]))
        if lists.noise is not None:
            lowest, highest = (np.where(counted, part, np.nan) for part in _band_values(view, measure))
            band_values[name] = (lowest, highest)
            bands[name] = NoiseBand(
                _mean(rules, lowest[counted]), _mean(rules, highest[counted]), attained=view.attains(measure)
            )
    return QueryScores(
        query_ids=lists.query_ids,
        values=MappingProxyType(values),
        means=MappingProxyType(means),
        ties=MappingProxyType(ties),
        tie_values=MappingProxyType(spreads),
        bands=MappingProxyType(bands),
        band_values=MappingProxyType(band_values),
    )


def counted_queries(lists: CandidateLists, rules: Rules) -> NDArray[np.bool_]:
    """Which queries enter the means, bool[n_queries]."""
    if rules.needs_both_kinds:
        return (lists.positives > 0) & (lists.positives < lists.lengths)
    return np.ones(len(lists.query_ids), dtype=np.bool_)


def values_by_chance(lists: CandidateLists, measure: Measure) -> Floats:
    """Return what random orders of the candidates have on average, a fraction per query; NaN where the rules drop the query."""
    tied = replace(lists, scores=np.zeros_like(lists.scores), noise=None)
    expected, _, _ = score_lists(tied, [measure]).tie_values[measure.name]
    return expected


def counts_any(lists: CandidateLists, measure: Measure) -> bool:
    """Whether a measure's rules count any query of these lists: where not, `score_lists` refuses."""
    return bool(_view(lists, measure).counted(measure.rules).any())


def query_table(lists: CandidateLists, scores: QueryScores) -> pd.DataFrame:
    """Make a row per query: query_id, n_positive and n_candidates (of the candidates), and a column per measure."""
    import pandas as pd

    counts = {"query_id": list(lists.query_ids), "n_positive": lists.positives, "n_candidates": lists.lengths}
    return pd.DataFrame({**counts, **scores.values})


@dataclass(frozen=True, eq=False)
class _View:
    """Candidate lists as some rules see them, and their orders, each made when it is first needed."""

    every: CandidateLists  # before a document's repetitions are left out
    lists: CandidateLists

    @cached_property
    def judgements(self) -> Judgements:
        return judgements_of(self.lists)

    @cached_property
    def best(self) -> Ranking:
        return best_order(self.lists, self.judgements)

    @cached_property
    def worst(self) -> Ranking:
        return worst_order(self.lists, self.judgements)

    @cached_property
    def shared(self) -> Ranking:
        return shared_among_ties(self.best)

    @cached_property
    def by_relevance(self) -> tuple[list[Ranking], list[Ranking]]:
        return self._noisy_orders(by_grade=False)

    @cached_property
    def by_grade(self) -> tuple[list[Ranking], list[Ranking]]:
        return self._noisy_orders(by_grade=True)

    def _noisy_orders(self, *, by_grade: bool) -> tuple[list[Ranking], list[Ranking]]:
        return (
            lowest_orders(self.lists, self.judgements, by_grade=by_grade),
            highest_orders(self.lists, self.judgements, by_grade=by_grade),
        )

    def attains(self, measure: Measure) -> bool:
        return not measure.metric.by_grade or len(self.by_grade[0]) == 1

    @cached_property
    def _rankings(self) -> dict[Order, Ranking]:
        return {}

    def ranking(self, order: Order) -> Ranking:
        if order not in self._rankings:
            self._rankings[order] = order(self.lists, self.judgements)
        return self._rankings[order]

    def counted(self, rules: Rules) -> NDArray[np.bool_]:
        return counted_queries(self.every, rules)


def _view(lists: CandidateLists, measure: Measure) -> _View:
    if measure.rel > 1:
        lists = _counting_from(lists, measure.rel)
    if not measure.rules.counts_unretrieved:
        lists = replace(lists, unretrieved_gains=((),) * len(lists.query_ids))
    return _View(lists, without_repetitions(lists) if measure.rules.unique_documents else lists)


def _counting_from(lists: CandidateLists, rel: int) -> CandidateLists:
    """Take documents below a grade for irrelevant."""
    return replace(
        lists,
        gains=np.where(lists.gains >= rel, lists.gains, 0),
        unretrieved_gains=tuple(tuple(gain for gain in gains if gain >= rel) for gains in lists.unretrieved_gains),
    )


def _tie_values(view: _View, measure: Measure) -> tuple[Floats, Floats, Floats]:
    """Per query: the expectation over random orders of tied documents, then the lowest and the highest value of any."""
    metric = measure.metric
    over_orders = metric.over_orders or metric.value
    low, high = over_orders(view.worst, measure.cutoff), over_orders(view.best, measure.cutoff)
    expected = (
        over_orders(view.shared, measure.cutoff)
        if metric.expected is None
        else metric.expected(view.best, measure.cutoff)
    )
    # the logarithms of binomials are exact to some 1e-12: no expectation lies outside its range for that
    return np.clip(expected, low, high), low, high


def _band_values(view: _View, measure: Measure) -> tuple[Floats, Floats]:
    """Per query: the lowest and the highest value, or bounds of them, of any order that noise can give."""
    metric = measure.metric
    over_orders = metric.over_orders or metric.value
    lowest, highest = view.by_grade if metric.by_grade else view.by_relevance
    low, high = (
        np.sum([over_orders(ranking, measure.cutoff) for ranking in rankings], axis=0) for rankings in (lowest, highest)
    )
    return low, high


def _mean(rules: Rules, values: Floats) -> float:
    """Take the mean as mteb does: Python's own sum, divided, rounded by Python."""
    mean: float = sum(values.tolist()) / len(values)
    return mean if rules.decimals is None else round(mean, rules.decimals)


def _nothing_to_score(lists: CandidateLists, measure: Measure) -> str:
    if not lists.query_ids:
        return "There is no query to score: give a task or run with at least one."
    return (
        f"Protocol {protocol_of(measure.name)} can score none of the {len(lists.query_ids)} queries, since it needs a positive and "
        f"a negative candidate for each (the first, {lists.query_ids[0]!r}, has {lists.positives[0]} positives among "
        f"{lists.lengths[0]} candidates): add the missing kind, or choose protocol mteb-v2."
    )
