"""What ties do to a metric: its exact expectation over random tie-breaking, and the range over all orders.

The expectations follow McSherry and Najork, "Computing information retrieval performance measures efficiently in the
presence of tied scores" (ECIR 2008): each order of the tied documents is equally likely. A formula that is linear in relevance and
gain needs none of its own. The range needs no formulas either: no metric here falls when a more relevant document moves up, so the
best and worst orders give it.
"""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln

from evalkit.metrics.formulas import ratio
from evalkit.metrics.ranking import Floats, Integers, Ranking


def average_precision(ranking: Ranking, cutoff: int) -> Floats:
    """Compute the expectation of `formulas.average_precision`."""
    ties = ranking.ties
    places = ranking.ranks - ties.before
    # of the documents above in the group, each is relevant with this chance, given that this one is
    chance_of_others = (ties.relevant - 1) / np.maximum(ties.sizes - 1, 1)
    relevant_down_to_here = ties.relevant_before + 1 + (places - 1) * chance_of_others
    amounts = chance_of_relevance(ranking, cutoff) * relevant_down_to_here / ranking.ranks
    return ratio(ranking.per_query(amounts), ranking.judgements.n_relevant)


def reciprocal_rank(ranking: Ranking, cutoff: int) -> Floats:
    """Compute the expectation of `formulas.reciprocal_rank`."""
    return ranking.per_query(chance_of_first_relevant(ranking, cutoff) / ranking.ranks)


def hit_rate(ranking: Ranking, cutoff: int) -> Floats:
    """Compute the expectation of `formulas.hit_rate`."""
    return ranking.per_query(chance_of_first_relevant(ranking, cutoff))


def chance_of_relevance(ranking: Ranking, cutoff: int) -> Floats:
    """Compute the chance, per rank, that a relevant document is there; 0 below the cutoff."""
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


def _log_binomial(n: Integers, k: Integers) -> Floats:
    logarithm: Floats = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return logarithm
