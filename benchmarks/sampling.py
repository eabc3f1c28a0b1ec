"""`python -m benchmarks.sampling`: how often the interval of `sample=N` holds the whole task's figure, in simulation.

Each population is a task of its own: rankings of made scores, or values as skewed as those of strong and of weak models. It is
drawn from again and again as `evalkit.tasks.sampling` draws, and the interval should hold its mean 95 times in 100.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from evalkit.statistics import sampled_means
from evalkit.tasks.sampling import cut_strata, share_seats

Floats = NDArray[np.float64]
SIZES = (30, 50, 100, 300, 900)
FEWEST_ON_A_SIDE = 10  # as in a result's remarks


@dataclass(frozen=True)
class Population:
    """A task's queries: the value of each, and its strata as lists of places."""

    name: str
    values: Floats
    strata: list[list[int]]


def population(name: str, values: Floats, candidates: NDArray[np.int64], characters: NDArray[np.int64]) -> Population:
    """Cut made queries into strata as a sample does."""
    return Population(name, values, cut_strata(list(zip(candidates.tolist(), characters.tolist(), strict=True))))


def rankings(
    name: str, n: int, *, separation: float, candidates: int, positives: float, fixed: bool = False, first: bool = False
) -> Population:
    """Rank made scores, whose relevant candidates are higher by some standard deviations: AP, or with `first` RR@10.

    Queries differ in how hard they are, in their numbers of candidates (unless `fixed`) and relevant ones, and in length: longer
    ones are harder.
    """
    generator = np.random.default_rng(11)
    values, counts, characters = np.empty(n), np.empty(n, np.int64), np.empty(n, np.int64)
    for query in range(n):
        count = candidates if fixed else int(2 + generator.negative_binomial(2, 2 / (2 + candidates)))
        relevant = min(count - 1, 1 + generator.poisson(positives - 1))
        length = generator.lognormal(5, 0.8)
        gap = max(0.0, generator.normal(separation, 0.6 * separation)) * (length / 150) ** -0.15
        scores = generator.normal(size=count) + gap * (np.arange(count) < relevant)
        ranks = np.flatnonzero(np.argsort(-scores) < relevant) + 1
        precision = np.mean(np.arange(1, relevant + 1) / ranks)
        values[query] = (1 / ranks[0] if ranks[0] <= 10 else 0.0) if first else precision
        counts[query], characters[query] = count, int(length * count)
    return population(name, values, counts, characters)


def mixture(
    name: str, n: int, end: float, share: float, rest: Callable[[np.random.Generator, int], Floats]
) -> Population:
    """Make values of which a share are `end` (0 or 1) and the others are drawn; sizes have no part in them."""
    generator = np.random.default_rng(12)
    values = np.where(generator.random(n) < share, end, rest(generator, n))
    return population(name, values, generator.integers(5, 50, n), generator.integers(100, 10_000, n))


def by_length(name: str, n: int) -> Population:
    """Make values that follow the length of their queries closely."""
    generator = np.random.default_rng(13)
    place = generator.random(n)
    values = np.clip(place + generator.normal(0, 0.15, n), 0, 1)
    return population(name, values, generator.integers(5, 50, n), (place * 10_000).astype(np.int64))


def populations() -> list[Population]:
    """Make all the populations."""

    def beta(generator: np.random.Generator, n: int) -> Floats:
        return generator.beta(1, 3, n)

    def zero(_: np.random.Generator, n: int) -> Floats:
        return np.zeros(n)

    def nearly(generator: np.random.Generator, n: int) -> Floats:
        return generator.choice([0.99, 0.0], n)

    return [
        rankings("AP, MAP 71 %", 6_000, separation=1.2, candidates=20, positives=6),
        rankings("AP, MAP 85 %", 4_000, separation=3, candidates=20, positives=3),
        rankings("AP, MAP 91 %", 2_000, separation=5, candidates=10, positives=2),
        rankings("AP, 100 candidates", 4_000, separation=2, candidates=100, positives=2, fixed=True),
        rankings("AP, 1 of 100 relevant, weak", 3_000, separation=1, candidates=100, positives=1, fixed=True),
        rankings("AP, 1 of 100 relevant, near chance", 2_000, separation=0.3, candidates=100, positives=1, fixed=True),
        rankings("RR@10, 1 of 100 relevant", 1_000, separation=2, candidates=100, positives=1, fixed=True, first=True),
        rankings("RR@10, strong", 1_000, separation=4, candidates=30, positives=1, first=True),
        mixture("60 % zeros", 3_000, 0.0, 0.6, beta),
        mixture("90 % ones", 3_000, 1.0, 0.9, beta),
        mixture("97 % ones", 1_000, 1.0, 0.97, beta),
        mixture("hit rate 80 %", 2_000, 1.0, 0.8, zero),
        mixture("hit rate 90 %", 2_000, 1.0, 0.9, zero),
        mixture("hit rate 95 %", 2_000, 1.0, 0.95, zero),
        mixture("97 % ones, else 0.99 or 0", 3_000, 1.0, 0.97, nearly),
        by_length("follows length", 1_000),
    ]


@dataclass(frozen=True)
class Coverage:
    """Of one population and sample size: shares of samples whose interval holds the mean, and half of its width in points."""

    name: str
    mean: float
    queries: int
    size: int
    share: float
    student: float
    plain: float
    half_width: float

    @property
    def rests_on_few(self) -> bool:
        """Whether less than ten whole queries lie between the sample's expected sum and an end of the scale."""
        return self.size * min(self.mean, 1 - self.mean) < FEWEST_ON_A_SIDE


def cover(of: Population, size: int, rounds: int, seed: int = 7) -> Coverage:
    """Draw samples of one size, and count the intervals that hold the population's mean.

    Beside evalkit's: Student's with the same stratified variance, and Wilson's without strata and finite population.
    """
    generator = np.random.default_rng(seed)
    sizes = [len(members) for members in of.strata]
    seats = share_seats(sizes, size)
    strata = np.repeat(np.arange(len(sizes)), seats)
    mean, n = float(of.values.mean()), len(of.values)
    held = student = plain = 0
    widths = []
    for _ in range(rounds):
        drawn = [
            generator.choice(members, count, replace=False) for members, count in zip(of.strata, seats, strict=True)
        ]
        values = of.values[np.concatenate(drawn)]
        estimate, low, high, _ = sampled_means(values[:, None], strata, sizes)[0]
        held += low <= mean <= high
        widths.append(high - low)
        student += _student(values, strata, sizes, float(estimate), mean)
        _, low, high, _ = sampled_means(values[:, None], np.zeros(size, int), [10**9])[0]
        plain += low <= mean <= high
    shares = (count / rounds for count in (held, student, plain))
    return Coverage(of.name, mean, n, size, *shares, 50 * float(np.mean(widths)))


def _student(values: Floats, strata: NDArray[np.int64], sizes: list[int], estimate: float, mean: float) -> bool:
    """Whether Student's interval holds the mean; strata of one query add nothing to its variance."""
    variance, freedom = 0.0, 0
    for stratum, size in enumerate(sizes):
        own = values[strata == stratum]
        if len(own) > 1:
            variance += (size / sum(sizes)) ** 2 * (1 - len(own) / size) * float(own.var(ddof=1)) / len(own)
            freedom += len(own) - 1
    return bool(abs(estimate - mean) <= stdtrit(freedom, 0.975) * variance**0.5)


def main() -> None:
    """Print the table, and the range of coverage with and without the cells that rest on few queries."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4_000)
    rounds = parser.parse_args().rounds
    print(
        "| population | queries | mean, % | N | covers, % | Student's | without strata and fpc | half-width, points |"
    )
    print("|---|---|---|---|---|---|---|---|")
    found = [cover(one, size, rounds) for one in populations() for size in SIZES if size < len(one.values)]
    for one in found:
        few = " *" if one.rests_on_few else ""
        shares = " | ".join(f"{100 * share:.1f}" for share in (one.share, one.student, one.plain))
        shares = shares.replace(" |", f"{few} |", 1)
        print(
            f"| {one.name} | {one.queries:,} | {100 * one.mean:.1f} | {one.size} | {shares} | {one.half_width:.2f} |",
            flush=True,
        )
    for few, name in ((False, "the others"), (True, "with *, which a run remarks on")):
        of = [100 * one.share for one in found if one.rests_on_few == few]
        within = sum(93.5 <= share <= 96.5 for share in of)
        print(
            f"\n{name}: {min(of):.1f} to {max(of):.1f} %, mean {np.mean(of):.1f}; {within} of {len(of)} within 93.5 to 96.5 %"
        )


if __name__ == "__main__":
    main()
