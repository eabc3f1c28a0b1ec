"""Whether a server's answers to a long list are those of its documents: judged on one list that is shown in two orders.

A model that ranks whole lists may give a document other scores in another order, but not any: what it is given for is either
relevant to the query or not, and the same document in both. Answers to other documents, or to none, follow neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from evalkit.records import Task

FEWEST = 24
"""Documents; a shorter list shows too little."""
SHORTEST = 40
"""Characters of a document at least, so that each is another one."""
BLOCK = 12
"""Places of a list that are judged together, of both orders."""
LEFT_OUT = 4
"""Documents that are left out at the end, to see whether others' scores depend on them."""
AT_END = 3
"""Relevant documents at the end of each list: where it is cut short, these are lost."""
UNLIKELY, UNLIKELY_IN_BLOCK = 1e-3, 0.05
"""Answers follow the documents where so much agreement is less likely than this by chance; a block shows less than a list."""
TURNED = 0.5
"""The rank correlation from which on scores are those of the list read backwards."""
NEGATED = 0.1
"""The share of (relevant, irrelevant) pairs in order below which scores are taken for negated."""
SAME = 1e-6
"""How far a score may move that does not depend on the list, as a share of the largest."""
Scores = NDArray[np.float64]
Places = NDArray[np.int64]


@dataclass(frozen=True)
class ListSize:
    """How long a list a server is probed with: so many documents, of about so many characters each."""

    documents: int = 100
    characters: int = SHORTEST

    @classmethod
    def of(cls, task: Task) -> ListSize:
        """Return the size of the task's longest list: the most documents, and as many characters as any list has in all."""
        lists = [{candidate.text for candidate in request.candidates} for request in task.requests]
        documents = max(FEWEST, *map(len, lists)) if lists else FEWEST
        characters = max((sum(map(len, texts)) for texts in lists), default=0)
        return cls(documents, max(SHORTEST, characters // documents))


@dataclass(frozen=True)
class Orders:
    """Two orders of the same documents, by their numbers; every second number is of a relevant one."""

    first: Places
    second: Places

    @classmethod
    def of(cls, count: int) -> Orders:
        """Shuffle twice. At the end of both stand relevant documents, none of them twice."""
        relevant = np.arange(0, count, 2)
        return cls(*(_shuffled(count, relevant[start : start + AT_END], start) for start in (0, AT_END)))


def _shuffled(count: int, last: Places, seed: int) -> Places:
    others = np.setdiff1d(np.arange(count), last)
    return np.concatenate([np.random.default_rng(seed).permutation(others), last])


@dataclass(frozen=True)
class ListAnswers:
    """What a server answered to a list in two `orders`, by place, and to the first without its last documents."""

    orders: Orders
    first: Scores
    second: Scores
    without_last: Scores

    def fault(self) -> str | None:
        """Return what makes the answers none of the list's documents; None where nothing does."""
        count = len(self.first)
        if np.ptp(self.first) == 0:
            return f"gives {count} different texts the same score"
        if run := self._same_at_end():
            return (
                f"gives the last {run} of {count} different texts the same score, in two orders of the list: it cuts lists short "
                "(a first stage's task.top_k=N makes them shorter)"
            )
        places = np.arange(count)
        if not self._follow(places, UNLIKELY):
            turned = _agreement(self.orders, self.first[::-1], self.second[::-1]) > TURNED
            how = "are in reverse order" if turned else "are in another order than the texts, of other texts, or random"
            return f"gives {count} texts scores that do not follow the texts when their order changes: they {how}"
        for block in np.array_split(places, max(1, count // BLOCK)):
            if not self._follow(block, UNLIKELY_IN_BLOCK):
                return (
                    f"gives the texts in places {block[0] + 1} to {block[-1] + 1} of {count} scores that do not follow the texts, "
                    "while others' do: it cuts or splits lists (a first stage's task.top_k=N makes them shorter)"
                )
        return None

    def findings(self) -> Iterator[str]:
        """Yield what a reader of the scores should know, where nothing is at fault."""
        if self._share_in_order() < NEGATED:
            yield (
                f"in a list of {len(self.first)} texts those that answer the query have the lower scores: are they distances, or "
                "negated?"
            )
        kept = len(self.without_last)
        moved = np.abs(self.first[:kept] - self.without_last) > SAME * np.abs(self.first).max()
        same = int(np.argmax(moved)) if moved.any() else kept
        if same >= BLOCK:
            yield (
                f"the first {same} of {len(self.first)} texts keep their scores when the last {LEFT_OUT} are left out: the server "
                "splits lists, or scores each text alone"
            )

    def seen(self) -> str:
        """Return how far the answers agree in both orders."""
        agreement = _agreement(self.orders, self.first, self.second)
        return f"a list of {len(self.first)} texts in two orders: rank correlation {agreement:.2f}"

    def _shown(self) -> tuple[tuple[Places, Scores], tuple[Places, Scores]]:
        return (self.orders.first, self.first), (self.orders.second, self.second)

    def _same_at_end(self) -> int:
        """Return how many texts at the end of both lists have one score there, and others elsewhere; 0 for less than three."""
        runs = []
        for (order, scores), (other, others) in (self._shown(), self._shown()[::-1]):
            differs = scores[::-1] != scores[-1]
            run = int(np.argmax(differs))
            elsewhere = _by_document(other, others)[order[len(order) - run :]]
            runs.append(run if run and np.ptp(elsewhere) > 0 else 0)
        return min(runs) if min(runs) >= 3 else 0

    def _follow(self, places: Places, unlikely: float) -> bool:
        """Return whether scores at some places of both orders agree with the other order's, or with what is relevant."""
        from scipy.stats import mannwhitneyu, rankdata, spearmanr

        one, two = (_by_document(order, rankdata(scores)) for order, scores in self._shown())
        documents = np.concatenate([self.orders.first[places], self.orders.second[places]])
        here = np.concatenate([one[documents[: len(places)]], two[documents[len(places) :]]])
        there = np.concatenate([two[documents[: len(places)]], one[documents[len(places) :]]])
        if len(places) == len(one):  # each text would be there twice
            documents, here, there = np.arange(len(one)), one, two
        if np.ptp(here) == 0 or np.ptp(there) == 0:
            return False
        likely = [float(cast("Any", spearmanr(here, there, alternative="greater")).pvalue)]
        relevant = documents % 2 == 0
        if relevant.any() and not relevant.all():
            side = (
                "greater" if self._share_in_order() >= 0.5 else "less"
            )  # scores that are negated follow the texts too
            likely.append(float(mannwhitneyu(here[relevant], here[~relevant], alternative=side).pvalue))
        return min(likely) < unlikely

    def _share_in_order(self) -> float:
        return float(np.mean([_share_in_order(order, scores) for order, scores in self._shown()]))


def _agreement(orders: Orders, first: Scores, second: Scores) -> float:
    """Return the rank correlation of the documents' scores in two orders, which are given by place."""
    from scipy.stats import spearmanr

    found = cast("Any", spearmanr(_by_document(orders.first, first), _by_document(orders.second, second)))
    return float(found.statistic)


def _share_in_order(order: Places, scores: Scores) -> float:
    """Return the share of (relevant, irrelevant) pairs of which the relevant one has the higher score; of ties a half."""
    relevant, others = scores[order % 2 == 0], scores[order % 2 == 1]
    above, tied = relevant[:, None] > others[None], relevant[:, None] == others[None]
    return float((above + tied / 2).mean())


def _by_document(order: Places, scores: Scores) -> Scores:
    """Return scores that are given by place by the documents' numbers."""
    found = np.empty_like(scores)
    found[order] = scores
    return found
