"""Some of a task's queries drawn at random: of each size in proportion, the same for the same data and seed everywhere."""

from __future__ import annotations

import hashlib
import json
import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence

from evalkit.records import Request, Stratum, TaskSample

_BY_CANDIDATES, _BY_CHARACTERS = 3, 4  # parts, of which each holds about as many queries


def draw_queries(
    scorable: Sequence[Request], size: int, seed: int, unscorable: int
) -> tuple[TaskSample, tuple[Request, ...], tuple[int, ...]]:
    """Draw `size` of the queries: what was drawn, the queries in their order, and of each the number of its stratum.

    Strata are thirds by the number of candidates, each cut into quarters by the characters of query and candidates; queries of
    equal numbers stay together, so that there may be fewer. Seats go to strata in proportion to their sizes (Sainte-Laguë), and
    in each to the queries that come first in an order that is a hash of seed and query alone. A larger sample of the same seed
    therefore contains a smaller one, and neither machine nor library version has a part in it.

    Where there are no more than `size`, all are kept, and there are no strata. `unscorable` is only noted.
    """
    if size >= len(scorable):
        return TaskSample(size, seed, len(scorable), unscorable), tuple(scorable), ()
    sizes = [_sizes(request) for request in scorable]
    strata = cut_strata(sizes)
    drawn: list[list[int]] = [[] for _ in strata]
    order = _shuffled(scorable, seed)
    places = {query: number for number, members in enumerate(strata) for query in members}
    for query in order:
        drawn[places[query]].append(query)
    counts = share_seats([len(members) for members in strata], size)
    chosen = {query: number for number, members in enumerate(drawn) for query in members[: counts[number]]}
    described = tuple(
        Stratum(
            candidates=_span(sizes[query][0] for query in members),
            characters=_span(sizes[query][1] for query in members),
            population=len(members),
            drawn=counts[number],
        )
        for number, members in enumerate(strata)
    )
    kept = sorted(chosen)
    sample = TaskSample(size, seed, len(scorable), unscorable, described)
    return sample, tuple(scorable[query] for query in kept), tuple(chosen[query] for query in kept)


def _sizes(request: Request) -> tuple[int, int]:
    """Return the number of candidates, and the characters of the query's texts and its candidates'."""
    characters = sum(map(len, request.query.texts)) + sum(len(one.text) for one in request.candidates)
    return len(request.candidates), characters


def cut_strata(sizes: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Cut queries, by their numbers of candidates and of characters, into strata: the places of each one's queries."""
    strata = []
    for part in _parts(range(len(sizes)), [candidates for candidates, _ in sizes], _BY_CANDIDATES):
        strata += _parts(part, [characters for _, characters in sizes], _BY_CHARACTERS)
    return strata


def share_seats(populations: Sequence[int], seats: int) -> list[int]:
    """Share seats, no more than there are queries, in proportion to strata's sizes: how many each gets (Sainte-Laguë).

    The k-th seat of a stratum of n (from 0) is taken in the order of (k + 1/2) / n, so that more seats never cost one its own.
    """
    common = math.lcm(*populations)  # all such fractions as whole numbers
    order = sorted(
        ((2 * seat + 1) * (common // population), stratum)
        for stratum, population in enumerate(populations)
        for seat in range(population)
    )
    counts = Counter(stratum for _, stratum in order[:seats])
    return [counts[stratum] for stratum in range(len(populations))]


def _parts(places: Sequence[int], numbers: Sequence[int], most: int) -> list[list[int]]:
    """Cut places at the quantiles of their numbers into at most so many parts; equal numbers stay together."""
    ordered = sorted(numbers[place] for place in places)
    uppers = sorted({ordered[-(-len(ordered) * part // most) - 1] for part in range(1, most + 1)})
    parts: list[list[int]] = [[] for _ in uppers]
    for place in places:
        parts[bisect_left(uppers, numbers[place])].append(place)
    return parts


def _shuffled(requests: Sequence[Request], seed: int) -> list[int]:
    """Return the places of queries in an order of their hashes; queries of equal texts differ by which of them comes first."""
    before: Counter[tuple[str, ...]] = Counter()
    keys = []
    for place, request in enumerate(requests):
        texts = request.query.texts
        said = json.dumps([seed, before[texts], *texts]).encode()
        keys.append((hashlib.sha256(said).digest(), place))
        before[texts] += 1
    return [place for _, place in sorted(keys)]


def _span(numbers: Iterable[int]) -> tuple[int, int]:
    every = list(numbers)
    return min(every), max(every)
