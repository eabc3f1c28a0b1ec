"""What ties do to a metric: its exact expectation over random tie-breaking, and the range over all orders.

The expectations follow McSherry and Najork, "Computing information retrieval performance measures efficiently in the
presence of tied scores" (ECIR 2008): each order of the tied documents is equally likely. The range needs no formulas of
its own: no metric here falls when a more relevant document moves up, so the best and worst orders give it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from evalkit.metrics import formulas
from evalkit.metrics.formulas import Formula, ideal_gain, ratio
from evalkit.metrics.ranking import Floats, Integers, Ranking


@dataclass(frozen=True)
class Metric:
    """A metric: its value, and what it is for each order of tied documents and expected over them.

    `over_orders` is the formula whose expectation and range are told: `value`, unless that treats ties in its own way.
    """

    value: Formula
    over_orders: Formula
    expected: Formula


def expected_average_precision(ranking: Ranking, cutoff: int) -> Floats:
    """Compute the expectation of `formulas.average_precision`."""
    ties = ranking.ties
    places = ranking.ranks - ties.before
    # of the documents above in the group, each is relevant with this chance, given that this one is
    chance_of_others = (ties.relevant - 1) / np.maximum(ties.sizes - 1, 1)
    relevant_down_to_here = ties.relevant_before + 1 + (places - 1) * chance_of_others
    amounts = chance_of_relevance(ranking, cutoff) * relevant_down_to_here / ranking.ranks
    return ratio(ranking.per_query(amounts), ranking.judgements.n_relevant)


def expected_reciprocal_rank(ranking: Ranking, cutoff: int) -> Floats:
    """Compute the expectation of `formulas.reciprocal_rank`."""
    return ranking.per_query(chance_of_first_relevant(ranking, cutoff) / ranking.ranks)


def expected_hit_rate(ranking: Ranking, cutoff: int) -> Floats:
    """Compute the expectation of `formulas.hit_rate`."""
    return ranking.per_query(chance_of_first_relevant(ranking, cutoff))


def expected_recall(ranking: Ranking, cutoff: int) -> Floats:
    """Compute the expectation of `formulas.recall`."""
    return ratio(ranking.per_query(chance_of_relevance(ranking, cutoff)), ranking.judgements.n_relevant)


def expected_precision(ranking: Ranking, cutoff: int) -> Floats:
    """Compute the expectation of `formulas.precision`."""
    return ranking.per_query(chance_of_relevance(ranking, cutoff)) / cutoff


def expected_ndcg(ranking: Ranking, cutoff: int) -> Floats:
    """Compute the expectation of `formulas.ndcg`."""
    mean_gains = ranking.ties.gains / ranking.ties.sizes
    amounts = np.where(ranking.ranks <= cutoff, mean_gains / ranking.discounts, 0.0)
    return ratio(ranking.per_query(amounts), ideal_gain(ranking, cutoff))


def chance_of_relevance(ranking: Ranking, cutoff: int) -> Floats:
    """Compute the chance, per rank, that a relevant document stands there; 0 below the cutoff."""
    return np.where(ranking.ranks <= cutoff, ranking.ties.relevant / ranking.ties.sizes, 0.0)


def chance_of_first_relevant(ranking: Ranking, cutoff: int) -> Floats:
    """Compute the chance, per rank, that the query's first relevant document stands there; 0 below the cutoff.

    In the first group with any of its r relevant among m documents, place i has the first with C(m-i, r-1) / C(m, r).
    """
    ties = ranking.ties
    left = ties.sizes - (ranking.ranks - ties.before)
    first_group = (ties.relevant > 0) & (ties.relevant_before == 0)
    possible = first_group & (left >= ties.relevant - 1) & (ranking.ranks <= cutoff)
    left, sizes, relevant = left[possible], ties.sizes[possible], ties.relevant[possible]
    chances = np.zeros(len(possible))
    chances[possible] = np.exp(_log_binomial(left, relevant - 1) - _log_binomial(sizes, relevant))
    return chances


def tie_values(metric: Metric, cutoff: int, *, best: Ranking, worst: Ranking) -> tuple[Floats, Floats, Floats]:
    """Per query: the expectation over random orders of tied documents, then the lowest and the highest value of any.

    `best` and `worst` are `ranking.best_order` and `ranking.worst_order` of the same lists.
    """
    low, high = metric.over_orders(worst, cutoff), metric.over_orders(best, cutoff)
    # the logarithms of binomials are exact to some 1e-12: no expectation lies outside its range for that
    return np.clip(metric.expected(best, cutoff), low, high), low, high


def _log_binomial(n: Integers, k: Integers) -> Floats:
    logarithm: Floats = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return logarithm


def _plain(formula: Formula, expected: Formula) -> Metric:
    return Metric(value=formula, over_orders=formula, expected=expected)


METRICS = {
    "average_precision": _plain(formulas.average_precision, expected_average_precision),
    "threshold_average_precision": Metric(
        formulas.threshold_average_precision, formulas.average_precision, expected_average_precision
    ),
    "reciprocal_rank": _plain(formulas.reciprocal_rank, expected_reciprocal_rank),
    "ndcg": _plain(formulas.ndcg, expected_ndcg),
    "recall": _plain(formulas.recall, expected_recall),
    "precision": _plain(formulas.precision, expected_precision),
    "hit_rate": _plain(formulas.hit_rate, expected_hit_rate),
}
