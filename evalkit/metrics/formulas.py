"""What is measured: one pure function per metric, from rankings to one value per query.

Each takes a `Ranking` and a cutoff (a rank; `WHOLE_LIST` for none) and gives float64 values in [0, 1], one per query.
A query with nothing relevant gets 0. Unless said otherwise the definitions are trec_eval's
(github.com/usnistgov/trec_eval), whose name for the measure is given.

`expected_…` are exact expectations over random orders of tied documents, each order equally likely: McSherry and Najork,
"Computing information retrieval performance measures efficiently in the presence of tied scores" (ECIR 2008). A formula that is
linear in relevance and gain needs none. The range over those orders needs no formulas: no metric here falls when a more
relevant document moves up, so the best and worst orders give it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from evalkit.metrics.ranking import Floats, Integers, Ranking, sums

Formula = Callable[[Ranking, int], Floats]

WHOLE_LIST = int(np.iinfo(np.int64).max)


def average_precision(ranking: Ranking, cutoff: int) -> Floats:
    """Mean precision at the relevant documents; one that is missed, or ranks below the cutoff, adds 0 (`map_cut`)."""
    hits = retrieved_relevant(ranking, cutoff)
    return ratio(ranking.per_query(np.where(hits, ranking.precisions, 0.0)), ranking.judgements.n_relevant)


def threshold_average_precision(ranking: Ranking, cutoff: int) -> Floats:
    """Average precision with tied documents retrieved together, as scikit-learn's `average_precision_score` has it.

    Precision is taken at the end of each group of ties. This is no order's average precision: it may lie above the best
    order's. Documents below the cutoff add 0.
    """
    hits = retrieved_relevant(ranking, cutoff)
    ties = ranking.ties
    precisions = (ties.relevant_before + ties.relevant) / (ties.before + ties.sizes)
    return ratio(ranking.per_query(np.where(hits, precisions, 0.0)), ranking.judgements.n_relevant)


def reciprocal_rank(ranking: Ranking, cutoff: int) -> Floats:
    """1 / rank of the first relevant document, or 0 if it ranks below the cutoff."""
    firsts = retrieved_relevant(ranking, cutoff) & (ranking.relevant_so_far == 1)
    return ranking.per_query(np.where(firsts, 1.0 / ranking.ranks, 0.0))


def hit_rate(ranking: Ranking, cutoff: int) -> Floats:
    """1 if any relevant document ranks at or above the cutoff, else 0 (`success`)."""
    firsts = retrieved_relevant(ranking, cutoff) & (ranking.relevant_so_far == 1)
    return ranking.per_query(firsts.astype(np.float64))


def recall(ranking: Ranking, cutoff: int) -> Floats:
    """Part of the relevant documents that rank at or above the cutoff (`recall`)."""
    return ratio(ranking.per_query(retrieved_relevance(ranking, cutoff)), ranking.judgements.n_relevant)


def precision(ranking: Ranking, cutoff: int) -> Floats:
    """Relevant documents at or above the cutoff, divided by the cutoff, however short the list (`P`)."""
    return ranking.per_query(retrieved_relevance(ranking, cutoff)) / cutoff


def ndcg(ranking: Ranking, cutoff: int) -> Floats:
    """Gain discounted by log2(rank + 1), as part of what the ideal order of all judged documents gets (`ndcg_cut`).

    Järvelin and Kekäläinen 2002 in trec_eval's form: the gain is the grade itself.
    """
    amounts = np.where(ranking.ranks <= cutoff, ranking.positive_gains / ranking.discounts, 0.0)
    return ratio(ranking.per_query(amounts), ideal_gain(ranking, cutoff))


def ideal_gain(ranking: Ranking, cutoff: int) -> Floats:
    """Sum the discounted gains of the ideal order, per query."""
    ideal = ranking.judgements
    amounts = np.where(ideal.ranks <= cutoff, ideal.gains / ideal.discounts, 0.0)
    return sums(ideal.owners, amounts, ideal.n_queries)


def retrieved_relevant(ranking: Ranking, cutoff: int) -> NDArray[np.bool_]:
    """Which candidates are relevant and rank at or above the cutoff."""
    return ranking.relevant & (ranking.ranks <= cutoff)


def retrieved_relevance(ranking: Ranking, cutoff: int) -> Floats:
    """Give each candidate's relevance (0 or 1; of tied ones their mean, where they share it), 0 below the cutoff."""
    return np.where(ranking.ranks <= cutoff, ranking.relevance, 0.0)


def ratio(amounts: Floats, totals: Integers | Floats) -> Floats:
    """Amounts divided by totals; 0 where the total is 0."""
    return np.divide(amounts, totals, out=np.zeros(len(amounts)), where=totals > 0)


def expected_average_precision(ranking: Ranking, cutoff: int) -> Floats:
    """Compute the expectation of `average_precision`."""
    ties = ranking.ties
    places = ranking.ranks - ties.before
    # of the documents above in the group, each is relevant with this chance, given that this one is
    chance_of_others = (ties.relevant - 1) / np.maximum(ties.sizes - 1, 1)
    relevant_down_to_here = ties.relevant_before + 1 + (places - 1) * chance_of_others
    amounts = chance_of_relevance(ranking, cutoff) * relevant_down_to_here / ranking.ranks
    return ratio(ranking.per_query(amounts), ranking.judgements.n_relevant)


def expected_reciprocal_rank(ranking: Ranking, cutoff: int) -> Floats:
    """Compute the expectation of `reciprocal_rank`."""
    return ranking.per_query(chance_of_first_relevant(ranking, cutoff) / ranking.ranks)


def expected_hit_rate(ranking: Ranking, cutoff: int) -> Floats:
    """Compute the expectation of `hit_rate`."""
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
