"""Candidate lists put in order: by score, and among equal scores by a stated rule."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from evalkit.metrics.lists import CandidateLists

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Judgements:
    """The positive gains of all judged documents, retrieved or not: per query in descending order, query by query."""

    n_queries: int
    owners: Integers
    gains: Integers

    @cached_property
    def ranks(self) -> Integers:
        """The rank, from 1, that each has in the ideal list."""
        return _places(self.owners, self.n_queries) + 1

    @cached_property
    def discounts(self) -> Floats:
        """What the gain at each rank is divided by: log2(rank + 1)."""
        return np.log2(self.ranks + 1)

    @cached_property
    def n_relevant(self) -> Integers:
        """Relevant documents of each query."""
        return np.bincount(self.owners, minlength=self.n_queries)


@dataclass(frozen=True, eq=False)
class TieGroups:
    """For each ranked candidate, the group of equal scores that it belongs to.

    `sizes`, `relevant` and `gains` (a sum) are the group's own; `before` and `relevant_before` count what ranks above.
    """

    sizes: Integers
    relevant: Integers
    gains: Floats
    before: Integers
    relevant_before: Integers


@dataclass(frozen=True, eq=False)
class Ranking:
    """All queries' candidates from first to last, query by query.

    Per candidate: the number of its query (`owners`), its gain, and the number of its group of tied scores (`groups`).
    """

    judgements: Judgements
    owners: Integers
    gains: Integers
    groups: Integers

    @property
    def n_queries(self) -> int:
        """How many queries there are, those without candidates included."""
        return self.judgements.n_queries

    @cached_property
    def ranks(self) -> Integers:
        """The rank of each candidate in its list, from 1."""
        return _places(self.owners, self.n_queries) + 1

    @cached_property
    def discounts(self) -> Floats:
        """What the gain at each rank is divided by: log2(rank + 1)."""
        return np.log2(self.ranks + 1)

    @cached_property
    def relevant(self) -> NDArray[np.bool_]:
        """Whether each candidate is relevant."""
        return self.gains > 0

    @cached_property
    def relevance(self) -> Floats:
        """1 for a relevant candidate, else 0."""
        return self.relevant.astype(np.float64)

    @cached_property
    def positive_gains(self) -> Floats:
        """The gain of each candidate, 0 where it is negative."""
        return np.maximum(self.gains, 0).astype(np.float64)

    @cached_property
    def relevant_so_far(self) -> Integers:
        """Relevant candidates of the same query down to this one."""
        running = np.cumsum(self.relevant)
        firsts = np.arange(len(running)) - (self.ranks - 1)
        so_far: Integers = running - (running - self.relevant)[firsts]
        return so_far

    @cached_property
    def precisions(self) -> Floats:
        """The part of the candidates down to this one that is relevant."""
        return self.relevant_so_far / self.ranks

    @cached_property
    def ties(self) -> TieGroups:
        """The groups of tied candidates."""
        sizes = np.bincount(self.groups)
        firsts = np.cumsum(sizes) - sizes
        above = self.relevant_so_far[firsts] - self.relevant[firsts]
        return TieGroups(
            sizes=sizes[self.groups],
            relevant=np.bincount(self.groups[self.relevant], minlength=len(sizes))[self.groups],
            gains=sums(self.groups, np.maximum(self.gains, 0), len(sizes))[self.groups],
            before=self.ranks[firsts][self.groups] - 1,
            relevant_before=above[self.groups],
        )

    def per_query(self, amounts: Floats) -> Floats:
        """Sum `amounts`, one per candidate, over each query, from the first rank to the last."""
        return sums(self.owners, amounts, self.n_queries)


class SharedRanking(Ranking):
    """A ranking whose tied candidates share their relevance and gains equally: their mean over all orders."""

    @cached_property
    def relevance(self) -> Floats:
        """The part of each candidate's group that is relevant."""
        return self.ties.relevant / self.ties.sizes

    @cached_property
    def positive_gains(self) -> Floats:
        """The mean gain of each candidate's group, negative ones taken for 0."""
        return self.ties.gains / self.ties.sizes


def shared_among_ties(ranking: Ranking) -> SharedRanking:
    """Let tied candidates share their relevance and gains."""
    return SharedRanking(ranking.judgements, ranking.owners, ranking.gains, ranking.groups)


def sums(owners: Integers, amounts: Floats | Integers, n: int) -> Floats:
    """Sum the amounts of each of n owners, in the order given."""
    totals: Floats = np.bincount(owners, weights=amounts, minlength=n).astype(np.float64, copy=False)
    return totals


def judgements_of(lists: CandidateLists) -> Judgements:
    """Gather the positive gains of each query, those of unretrieved documents included."""
    relevant = lists.gains > 0
    missed_owners, missed_gains = lists.unretrieved
    owners = np.concatenate([lists.owners[relevant], missed_owners])
    gains = np.concatenate([lists.gains[relevant], missed_gains])
    order = np.lexsort((-gains, owners))
    return Judgements(n_queries=len(lists.query_ids), owners=owners[order], gains=gains[order])


def positives_first(lists: CandidateLists, judgements: Judgements) -> Ranking:
    """Tied candidates: positives, then negatives, each in the file's order. Ties are told in the scores' own precision."""
    return _ranked(lists, judgements, lists.scores, lists.gains <= 0)


def doc_id_descending_float32(lists: CandidateLists, judgements: Judgements) -> Ranking:
    """Tied candidates: by document id, descending. Ties are told in float32, as trec_eval holds scores."""
    return _ranked(lists, judgements, lists.scores32, lists.doc_id_places)


def doc_id_descending(lists: CandidateLists, judgements: Judgements) -> Ranking:
    """Tied candidates: by document id, descending. Ties are told in the scores' own precision."""
    return _ranked(lists, judgements, lists.scores, lists.doc_id_places)


def best_order(lists: CandidateLists, judgements: Judgements) -> Ranking:
    """Tied candidates: the most relevant first, which no other order beats. Ties are told in float32."""
    return _ranked(lists, judgements, lists.scores32, -lists.gains)


def worst_order(lists: CandidateLists, judgements: Judgements) -> Ranking:
    """Tied candidates: the most relevant last, than which no other order is worse. Ties are told in float32."""
    return _ranked(lists, judgements, lists.scores32, lists.gains)


def lowest_orders(lists: CandidateLists, judgements: Judgements, *, by_grade: bool) -> list[Ranking]:
    """Let noise put the candidates of each query in the order than which none is worse (see `_noisy_orders`)."""
    return _noisy_orders(lists, judgements, -1, by_grade)


def highest_orders(lists: CandidateLists, judgements: Judgements, *, by_grade: bool) -> list[Ranking]:
    """Let noise put the candidates of each query in the order that none beats (see `_noisy_orders`)."""
    return _noisy_orders(lists, judgements, 1, by_grade)


def _noisy_orders(lists: CandidateLists, judgements: Judgements, direction: int, by_grade: bool) -> list[Ranking]:
    """Move relevant candidates by their noise, up (1) or down (-1), and all others the other way.

    Every order that noise within these bounds can give has at each rank at most, or at least, as many relevant candidates down
    to it as this one. Where scores meet, tied ones included, the order of the direction is taken. A gain counts as
    relevance alone, unless `by_grade`: then there is a ranking for each grade that a query has, from the lowest on, in which
    what has at least that grade is relevant, with the step from the grade below as its gain; their sum is the gain itself.
    """
    noise = np.zeros(len(lists.scores)) if lists.noise is None else lists.noise
    scores = lists.scores32.astype(np.float64)
    rankings = []
    for gains in _steps_of_grades(lists) if by_grade else [lists.gains]:
        relevant = gains > 0
        shifted = scores + np.where(relevant, direction, -direction) * noise
        order = np.lexsort((relevant if direction < 0 else ~relevant, -shifted, lists.owners))
        # ties are decided: each candidate is its own group
        rankings.append(Ranking(judgements, lists.owners, gains[order], np.arange(len(order))))
    return rankings


def _steps_of_grades(lists: CandidateLists) -> list[Integers]:
    """Split gains into steps: of the n-th grade that a query's candidates have, its distance from the grade below.

    One array per n, with a gain for each candidate: the step where the candidate has at least the grade, else 0. At least one.
    """
    positive = lists.gains > 0
    grades = np.unique(np.stack([lists.owners[positive], lists.gains[positive]], axis=1), axis=0)
    owners, gains = grades[:, 0], grades[:, 1]
    places = _places(owners, len(lists.query_ids))
    below = np.where(places > 0, np.concatenate([[0], gains[:-1]]), 0)
    steps = []
    for place in range(int(places.max(initial=0)) + 1):
        here = places == place
        least, step = np.full(len(lists.query_ids), np.iinfo(np.int64).max), np.zeros(len(lists.query_ids), np.int64)
        least[owners[here]], step[owners[here]] = gains[here], (gains - below)[here]
        steps.append(np.where(positive & (lists.gains >= least[lists.owners]), step[lists.owners], 0))
    return steps


def _ranked(
    lists: CandidateLists,
    judgements: Judgements,
    scores: NDArray[np.float32] | Floats,
    tie_break: NDArray[np.bool_] | Integers,
) -> Ranking:
    """Order by score, descending, then by `tie_break`, ascending, then as in the file."""
    order = np.lexsort((tie_break, -scores, lists.owners))
    sorted_scores = scores[order]
    starts = np.ones(len(order), dtype=np.bool_)
    starts[1:] = (sorted_scores[1:] != sorted_scores[:-1]) | (lists.owners[1:] != lists.owners[:-1])
    return Ranking(judgements, lists.owners, lists.gains[order], np.cumsum(starts) - 1)


def _places(owners: Integers, n_queries: int) -> Integers:
    """Count the entries of the same query before each; entries lie query by query."""
    lengths = np.bincount(owners, minlength=n_queries)
    return np.arange(len(owners)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
