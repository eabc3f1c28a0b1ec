"""How far scores lie off, and how a run in low precision is refined until its order is fp32's.

What low precision costs is measured on a sample of a task's pairs, scored in fp32 as well; the noise of other scores is taken
as far as it is known. To refine a run, what could stand in another order in fp32 is scored again in it, and no more: a figure
needs the order between candidates of different gain, and nothing else of the scores. A candidate that was scored again has its
fp32 score; of any other, that score is within epsilon of the one in low precision. Two candidates of different gain whose
intervals meet are open, and are scored again until none is, as are relevant ones of one gain where it takes effect whether fp32
ties them. Epsilon is the largest difference seen: it starts from a sample of the whole task, grows with whatever is scored again,
and at the end a fresh sample of what was not has to stay within it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from evalkit.metrics import PROTOCOLS, CandidateLists, lists_of_task, score_lists
from evalkit.metrics.measures import CARD_PROTOCOL
from evalkit.metrics.noise import NOISE_FACTORS, score_noise
from evalkit.output.numbers import counted
from evalkit.records import Candidate, PrecisionCheck, Refinement, ScoreNoise, Task

_NAMES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}  # as servers call them

SAMPLE_PAIRS = 200
SHARE = 100
"""One in so many candidates is drawn for a sample, within these bounds."""
FIRST_SAMPLE = (16, 128)
LAST_SAMPLE = (32, 300)
MARGIN = 1.25
"""How many times the largest difference of the first sample epsilon is: the whole task has larger ones than a sample."""
Score = Callable[[NDArray[np.int64]], NDArray[np.float32]]
"""Give the fp32 scores of some candidates, by their numbers in the task."""


def sample_of(task: Task) -> Task:
    """Return the task's first queries, as many as have SAMPLE_PAIRS candidates together and one that every protocol can score."""
    sizes = list(accumulate(len(request.candidates) for request in task.requests))
    scorable = (number for number, request in enumerate(task.requests, 1) if _has_both(request.candidates))
    enough = next((number for number, size in enumerate(sizes, 1) if size >= SAMPLE_PAIRS), len(sizes))
    return replace(task, requests=task.requests[: max(enough, next(scorable, 1))])


def compare_precisions(sample: Task, low: NDArray[np.float32], full: NDArray[np.float32], dtype: str) -> PrecisionCheck:
    """Compare scores in low precision with those in fp32, both per candidate of the sample.

    A rank flip is a pair of a query's candidates that the two order oppositely; `compared` counts the pairs that fp32 orders.
    """
    measures = PROTOCOLS[CARD_PROTOCOL].measures
    means = [score_lists(lists_of_task(sample, scores), measures).means["map"] for scores in (low, full)]
    flips = compared = start = 0
    for request in sample.requests:
        stop = start + len(request.candidates)
        orders = [np.sign(scores[start:stop, None] - scores[None, start:stop]) for scores in (low, full)]
        flips += int((orders[0] * orders[1] < 0).sum()) // 2
        compared += int((orders[1] != 0).sum()) // 2
        start = stop
    return PrecisionCheck(
        dtype=dtype,
        pairs=len(full),
        largest_difference=float(np.abs(low.astype(np.float64) - full).max()),
        rank_flips=flips,
        compared=compared,
        map_difference=means[0] - means[1],
    )


def noise_of(
    lists: CandidateLists,
    description: Mapping[str, object],
    precision: PrecisionCheck | None,
    stated: float | None,
    refined: tuple[Refinement, NDArray[np.bool_]] | None = None,
) -> tuple[ScoreNoise, NDArray[np.float64]] | None:
    """Say how far each score may lie off, and per candidate (float64[n_candidates]): by what made the scores.

    It is what was measured of a low precision against fp32, else what the backend's file states (`stated`), else what is
    usual in the precision that the backend's description names; and never less than float32's own noise, nor than what
    the comparison with torch showed by which `auto` chose the backend. Of a refined run, whose second part says which candidates
    were scored again, it is epsilon for all others. None where nothing says how the scores were computed.
    """
    dtype = str(description.get("dtype", ""))
    dtype = _NAMES.get(dtype, dtype)
    if precision is None and stated is None and refined is None and dtype not in NOISE_FACTORS:
        return None
    unit = score_noise(lists.scores, lists.lengths)
    said: list[tuple[float | NDArray[np.float64], str]] = [(NOISE_FACTORS["fp32"] * unit, "rounding in fp32")]
    if refined is not None:
        refinement, again = refined
        source = f"{refinement.dtype} where it was not scored again in fp32"
        said.append((np.where(again, 0.0, refinement.epsilon), source))
    elif precision is not None:
        said.append(
            (precision.largest_difference, f"{precision.dtype} against fp32 on {counted(precision.pairs, 'pair')}")
        )
    elif stated is not None:
        said.append((stated, f"stated for the backend {description['name']}"))
    elif dtype != "fp32":
        said.append((NOISE_FACTORS[dtype] * unit, f"usual in {dtype}, not measured"))
    if isinstance(difference := description.get("probe_difference"), float):
        said.append((difference, f"{description['name']} against torch on a probe"))
    amounts = np.max(np.stack([np.broadcast_to(amount, unit.shape) for amount, _ in said]), axis=0)
    largest = float(amounts.max(initial=0.0))
    source = next(source for amount, source in said if np.max(amount, initial=0.0) == largest)
    return ScoreNoise(largest, source), amounts


def _has_both(candidates: tuple[Candidate, ...]) -> bool:
    gains = [candidate.gain > 0 for candidate in candidates]
    return any(gains) and not all(gains)


@dataclass(frozen=True, slots=True)
class GradedCandidates:
    """A task's candidates in its order: each query's are `low[offsets[n]:offsets[n + 1]]`.

    `low` is their score in low precision, `gains` their grade, `lengths` how long their text is; `items` are equal where the model
    gets the same input, whose score is then the same.
    """

    offsets: NDArray[np.int64]
    low: NDArray[np.float64]
    gains: NDArray[np.int64]
    lengths: NDArray[np.int64]
    items: NDArray[np.int64]

    @classmethod
    def of(cls, task: Task, low: NDArray[np.floating]) -> GradedCandidates:
        """Read what decides about scoring again off a task and its scores."""
        candidates = [candidate for request in task.requests for candidate in request.candidates]
        inputs: dict[tuple[tuple[str, ...], str], int] = {}
        items = [
            inputs.setdefault((request.query.texts, candidate.text), len(inputs))
            for request in task.requests
            for candidate in request.candidates
        ]
        sizes = [len(request.candidates) for request in task.requests]
        return cls(
            np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]),
            np.asarray(low, np.float64),
            np.array([candidate.gain for candidate in candidates], np.int64),
            np.array([len(candidate.text) for candidate in candidates], np.int64),
            np.array(items, np.int64),
        )

    def queries(self) -> Iterator[slice]:
        """Yield where each query's candidates are, of those that have any."""
        for start, stop in zip(self.offsets[:-1].tolist(), self.offsets[1:].tolist(), strict=True):
            if stop > start:
                yield slice(start, stop)


def refine_scores(
    candidates: GradedCandidates, score: Score, dtype: str, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_], Refinement]:
    """Return scores whose order between candidates of different gain is fp32's, as far as epsilon holds.

    A score is fp32's where the candidate was scored again, which the second array says, and else that in low precision. Relevant
    candidates of one gain are tied where fp32 ties them, and nowhere else, unless a tie has no effect: above all that are
    irrelevant. The record says what it took.
    """
    work = _Work(candidates, score, np.random.default_rng([seed, len(candidates.low)]))
    work.score_again(work.sample(FIRST_SAMPLE, by_length=True))
    work.epsilon *= MARGIN
    rounds = 0
    while True:
        while len(chosen := work.rarer(work.open())) or len(chosen := work.tied()):
            work.score_again(chosen)
            rounds += 1
        fresh, before = work.sample(LAST_SAMPLE), work.epsilon
        work.score_again(fresh)
        if work.epsilon == before:
            break
    again = int(work.known.sum())
    return work.scores(), work.known, Refinement(dtype, len(work.known), again, rounds, work.epsilon, len(fresh))


class _Work:
    """What was scored again so far. Candidates of one item are scored together."""

    def __init__(self, candidates: GradedCandidates, score: Score, chance: np.random.Generator) -> None:
        self.candidates = candidates
        self.score = score
        self.chance = chance
        self.full = np.full(len(candidates.low), np.nan, np.float32)
        self.known = np.zeros(len(candidates.low), np.bool_)
        self.epsilon = 0.0

    def sample(self, bounds: tuple[int, int], *, by_length: bool = False) -> NDArray[np.int64]:
        """Draw candidates that were not scored again; `by_length` one of each stretch of their lengths."""
        left = np.flatnonzero(~self.known)
        size = min(len(left), max(bounds[0], min(bounds[1], len(self.known) // SHARE)))
        if not by_length:
            return np.sort(self.chance.choice(left, size, replace=False))
        order = left[np.argsort(self.candidates.lengths[left], kind="stable")]
        return np.sort([int(self.chance.choice(part)) for part in np.array_split(order, size)]) if size else left

    def score_again(self, chosen: NDArray[np.int64]) -> None:
        """Score candidates in fp32, with all that are the same item; epsilon grows with the differences."""
        same = np.isin(self.candidates.items, self.candidates.items[chosen])
        new = np.flatnonzero(same & ~self.known)
        if not len(new):
            return
        self.full[new] = self.score(new)
        self.known[new] = True
        moved = np.abs(self.candidates.low[new] - self.full[new].astype(np.float64))
        self.epsilon = max(self.epsilon, float(moved[np.isfinite(moved)].max(initial=0.0)))

    def open(self) -> NDArray[np.bool_]:
        """Return which candidates are to be scored: those whose interval meets one of another gain's."""
        low, high = self._intervals()
        found = np.zeros(len(self.known), np.bool_)
        for query in self.candidates.queries():
            gains, known = self.candidates.gains[query], self.known[query]
            grades = np.unique(gains)
            if len(grades) == 1 or known.all():
                continue
            for grade in grades:
                ours, others = np.flatnonzero((gains == grade) & ~known), gains != grade
                # of the others, those that begin before this one's end, less those that end before it begins
                begun = np.searchsorted(np.sort(low[query][others]), high[query][ours], side="right")
                ended = np.searchsorted(np.sort(high[query][others]), low[query][ours], side="left")
                found[query][ours] = begun > ended
        return found

    def rarer(self, found: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return, of each query's open candidates, those of the gain that fewest of them have, the highest of several such."""
        chosen = []
        for query in self.candidates.queries():
            if (here := np.flatnonzero(found[query])).size:
                gains = self.candidates.gains[query][here]
                grades, counts = np.unique(gains, return_counts=True)
                rarest = grades[np.flatnonzero(counts == counts.min())[-1]]
                chosen.append(query.start + here[gains == rarest])
        return np.concatenate(chosen) if chosen else np.empty(0, np.int64)

    def _intervals(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Where each candidate's fp32 score is: a point where it is known, anywhere where low precision gave no number."""
        middle = self.candidates.low
        width = np.where(np.isfinite(middle), self.epsilon, np.inf)
        middle = np.where(np.isfinite(middle), middle, 0.0)
        full = self.full.astype(np.float64)
        return np.where(self.known, full, middle - width), np.where(self.known, full, middle + width)

    def tied(self) -> NDArray[np.int64]:
        """Return relevant candidates to be scored, so that no two of one gain are left of which it is open whether fp32 ties them.

        A tie of them takes effect below an irrelevant one: there average precision by thresholds, which C-MTEB takes, has them
        share a threshold. Those between which one of another gain lies are not tied: that order is settled.
        """
        low, high = self._intervals()
        scores, chosen = self.scores(), []
        for query in self.candidates.queries():
            gains, known, own = self.candidates.gains[query], self.known[query], scores[query]
            highest = own[gains <= 0].max(initial=-np.inf)
            for grade in np.unique(gains[(gains > 0) & (own <= highest) & ~known]):
                ours = np.flatnonzero((gains == grade) & (own <= highest))
                places = np.searchsorted(np.sort(own[gains != grade]), own[ours])
                for place in np.unique(places[~known[ours]]):
                    near = ours[places == place]
                    may = _meets_another(low[query][near], high[query][near], self.candidates.items[query][near])
                    left = near[may & ~known[near]]
                    # by score every second one, whose fp32 score may settle its neighbours' ties too
                    chosen.append(query.start + left[np.argsort(own[left], kind="stable")][::2])
        return np.concatenate(chosen) if chosen else np.empty(0, np.int64)

    def scores(self) -> NDArray[np.float32]:
        """Return the scores as they are known."""
        return np.where(self.known, self.full, self.candidates.low.astype(np.float32)).astype(np.float32)


def _meets_another(low: NDArray[np.float64], high: NDArray[np.float64], items: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which closed intervals meet one of another item; those of one item are the same."""
    begun = np.searchsorted(np.sort(low), high, side="right")
    ended = np.searchsorted(np.sort(high), low, side="left")
    _, places, counts = np.unique(items, return_inverse=True, return_counts=True)
    meets: NDArray[np.bool_] = begun - ended > counts[places]
    return meets
