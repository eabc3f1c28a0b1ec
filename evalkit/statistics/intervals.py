"""How sure a mean over queries is: bootstrap intervals, and what a sample says of the mean of all that it was drawn from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtrit

Floats = NDArray[np.float64]
Seed = int | tuple[int, ...]

FEWEST_SAMPLED = 30
"""Queries that an interval of `sampled_means` takes: with fewer it does not keep its level in simulation."""
_FEWEST_OF_STRATUM = 2  # a variance takes as many
_SAME_VALUE = 9  # decimals: a perfect order's nDCG may miss 1 by rounding
_CELLS_AT_ONCE = 2_000_000  # resample × query; some 50 MB in all


def level_beside_test(alpha: float) -> float:
    """Return the level of the interval that belongs beside a test at `alpha`: 1 - alpha, where 10,000 resamples bear it out.

    They give no ends beyond 99.9 %, and below 50 % an interval would say less than its middle.
    """
    return min(max(1 - alpha, 0.5), 0.999)


def bootstrap_intervals(values: Floats, *, seed: int, n_resamples: int = 10_000, level: float = 0.95) -> Floats:
    """Return intervals for the mean over queries of each metric, by the BCa bootstrap (Efron 1987).

    `values` is float64[n_queries, n_metrics], NaN where a metric does not have the query. Gives float64[n_metrics, 2]:
    low and high. Metrics that have the same queries share the resamples, and a metric's interval does not depend on
    what stands beside it. NaN for a metric whose values are all equal, as those of a single query are: resamples of values
    that do not differ say nothing of how far others may be, and an interval without width would claim certainty.
    """
    intervals = np.full((values.shape[1], 2), np.nan)
    present = ~np.isnan(values)
    for pattern in np.unique(present, axis=1).T:
        columns = np.flatnonzero((present == pattern[:, None]).all(axis=0))
        if pattern.any():
            kept = values[np.ix_(pattern, columns)]
            intervals[columns] = _bca_intervals(kept, resampled_deviations(kept, seed, n_resamples), level)
    return intervals


def average_intervals(tasks: Sequence[Floats], *, seed: int, n_resamples: int = 10_000, level: float = 0.95) -> Floats:
    """Return intervals for the plain average over tasks of each system's mean, by the BCa bootstrap within tasks (Efron 1987).

    `tasks` holds a float64[n_queries, n_systems] for each task, without NaN. Gives float64[n_systems, 2]: low and high.
    Queries are resampled task by task, so that each task keeps its weight. NaN where a task has a single query, or no task has
    values that differ.
    """
    parts = [resampled_deviations(values, (seed, number), n_resamples) for number, values in enumerate(tasks)]
    deviations = np.sum(parts, axis=0) / len(tasks)
    means = np.mean([column_means(values) for values in tasks], axis=0)
    # what a query takes from the average when it is left out (Davison & Hinkley 1997, section 5.3.2)
    influence = np.vstack([(values - column_means(values)) / len(values) for values in tasks])
    noise = np.mean([_rounding(values) for values in tasks], axis=0)
    intervals = np.full((len(means), 2), np.nan)
    if min(map(len, tasks)) < 2:
        return intervals
    for column in np.flatnonzero([any(np.ptp(values[:, number]) for values in tasks) for number in range(len(means))]):
        levels = bca_levels(influence[:, column], deviations[:, column], float(noise[column]), level)
        intervals[column] = means[column] + np.quantile(deviations[:, column], levels)
    return intervals


def sampled_means(
    values: Floats, strata: Sequence[int], populations: Sequence[int], *, level: float = 0.95, power: float = 0.8
) -> Floats:
    """Estimate the mean over a whole population from a stratified random sample: float64[n_metrics, 4].

    `values` is float64[n_queries, n_metrics] of fractions, NaN where a metric does not have the query; `strata` says of each query
    which stratum it was drawn from, and `populations` how many queries each stratum has. Gives the estimate, weighted by
    strata, low and high of an interval for the population's own mean, and the smallest difference from a fixed figure that a
    two-sided test at 1 - `level` finds with probability `power`.

    The variance is that of stratified sampling with its finite population correction (Cochran 1977, section 5.5; of a part of the
    queries by linearisation, section 5A.14); strata with fewer than two drawn are joined with their neighbours. The interval is
    Wilson's score interval for as many queries as a binary variable of that variance would need (Franco et al. 2019, the
    interval for a proportion in complex surveys): it stays between 0 and 1, and is as skew as means near an end are. No mean m
    of fractions varies more than a binary variable's, m (1 - m); where few values differ from the commonest one, their variance
    says little, and is drawn towards that bound by 1 / (1 + d^2) for d such values.

    All but the estimate are NaN below `FEWEST_SAMPLED` values.
    """
    groups, sizes = _joined_strata(np.asarray(strata, np.intp), np.asarray(populations, np.float64))
    found = [_sampled_mean(column, groups, sizes, level, power) for column in values.T]
    return np.array(found, np.float64).reshape(-1, 4)


def resampled_deviations(values: Floats, seed: Seed, n_resamples: int) -> Floats:
    """Return means of resamples less the mean: float64[n_resamples, n_metrics], of values float64[n_queries, n_metrics].

    A resample is a vector of how often it has each query, so that a product of matrices takes all means at once. The
    values enter in fixed point: then each sum is exact, and the same for any order of addition, threads or processor.
    """
    fixed, units = to_fixed_point(values - column_means(values))
    parts = [counts @ fixed for counts in _resample_counts(len(values), seed, n_resamples)]
    deviations: Floats = np.concatenate(parts) * (units / len(values))
    return deviations


def to_fixed_point(values: Floats) -> tuple[Floats, Floats]:
    """Round each column to whole multiples of a unit of its own: float64[n, n_columns] whole numbers, float64[n_columns].

    The unit is a power of two, some 2^-52 n of the column's largest magnitude: any sum of n of the numbers is exact, and
    the same for any order of addition.
    """
    _, exponents = np.frexp(np.abs(values).max(axis=0, initial=0.0))
    units: Floats = np.ldexp(1.0, exponents - _exact_bits(len(values)))
    return np.rint(values / units), units


def _joined_strata(strata: NDArray[np.intp], populations: Floats) -> tuple[NDArray[np.int_], Floats]:
    """Join neighbouring strata until each has two queries: each query's number anew, and the sizes of what they are now."""
    drawn = np.bincount(strata, minlength=len(populations))
    numbers, number, so_far = np.zeros(len(drawn), np.intp), 0, 0
    for stratum, count in enumerate(drawn):
        if so_far >= _FEWEST_OF_STRATUM:
            number, so_far = number + 1, 0
        numbers[stratum], so_far = number, so_far + count
    if so_far < _FEWEST_OF_STRATUM:  # the last one has nothing behind it
        numbers[numbers == number] = max(number - 1, 0)
    sizes: Floats = np.bincount(numbers, weights=populations).astype(np.float64)
    return numbers[strata], sizes


def _sampled_mean(
    values: Floats, groups: NDArray[np.intp], sizes: Floats, level: float, power: float
) -> tuple[float, float, float, float]:
    nothing = (math.nan, math.nan, math.nan)
    has_value = ~np.isnan(values)
    n = int(has_value.sum())
    if n == 0:
        return (math.nan, *nothing)
    drawn = np.bincount(groups).astype(np.float64)
    shares = sizes / sizes.sum()
    weights = (shares / drawn)[groups]
    weight = math.fsum(weights[has_value])
    mean = min(max(math.fsum((weights * values)[has_value]) / weight, 0.0), 1.0)
    if n < FEWEST_SAMPLED:
        return (mean, *nothing)
    # what each query adds to the estimate's error; 0 for one that the metric does not have
    errors = np.where(has_value, values - mean, 0.0) / weight
    centred = errors - (np.bincount(groups, weights=errors) / drawn)[groups]
    spreads = np.bincount(groups, weights=centred**2) / np.maximum(drawn - 1, 1)
    variance = float(np.sum(shares**2 * (1 - drawn / sizes) * spreads / drawn))
    most = (1 - drawn.sum() / sizes.sum()) / n  # of the variance, with mean (1 - mean) beside it
    _, repeats = np.unique(np.round(values[has_value], _SAME_VALUE), return_counts=True)
    doubt = 1 / (1 + (n - int(repeats.max())) ** 2)
    bound = mean * (1 - mean) * most
    share = variance / bound if bound > 0 else 1.0
    scale = most * (share + doubt * (1 - share))
    freedom = max(n - len(sizes), 1)
    quantile = stdtrit(freedom, (1 + level) / 2)
    k = float(quantile**2 * scale)
    middle, half = 2 * mean + k, math.sqrt(k * (k + 4 * mean * (1 - mean)))
    detectable = float((quantile + stdtrit(freedom, power)) * math.sqrt(scale * mean * (1 - mean)))
    low, high = (middle - half) / (2 * (1 + k)), (middle + half) / (2 * (1 + k))
    # rounding must put no end beyond the estimate, or beyond the scale
    return mean, max(min(low, mean), 0.0), min(max(high, mean), 1.0), detectable if detectable > 0 else math.nan


def _resample_counts(n: int, seed: Seed, n_resamples: int) -> Iterator[Floats]:
    """Yield how often each of n queries is drawn, resample by resample: float64[some, n] at a time."""
    generator = np.random.default_rng(seed)
    rows = max(1, _CELLS_AT_ONCE // n)
    for start in range(0, n_resamples, rows):
        size = min(rows, n_resamples - start)
        cells = generator.integers(0, n, size=(size, n)) + n * np.arange(size)[:, None]
        yield np.bincount(cells.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)


def column_means(values: Floats) -> Floats:
    """Return the mean of each column, the same whatever stands beside it."""
    means: Floats = np.ascontiguousarray(values.T).mean(axis=1)
    return means


def _exact_bits(n: int) -> int:
    """Return how many bits n values may have for every sum of n of them to be exact in float64."""
    return 52 - n.bit_length()


def _rounding(values: Floats) -> Floats:
    """Return how far a resampled mean of each column may be off: float64[n_columns]."""
    rounding: Floats = np.ldexp(2 * np.abs(values).max(axis=0), -_exact_bits(len(values)))
    return rounding


def _bca_intervals(values: Floats, deviations: Floats, level: float) -> Floats:
    means = column_means(values)
    spreads = np.ptp(values, axis=0)
    noise = _rounding(values)
    intervals = np.full((values.shape[1], 2), np.nan)
    for column in np.flatnonzero(spreads > 0):
        levels = bca_levels(values[:, column] - means[column], deviations[:, column], float(noise[column]), level)
        intervals[column] = means[column] + np.quantile(deviations[:, column], levels)
    # no mean lies outside the values, and rounding must not make it seem so
    within: Floats = np.clip(intervals, values.min(axis=0)[:, None], values.max(axis=0)[:, None])
    return within


def bca_levels(influence: Floats, deviations: Floats, noise: float, level: float) -> Floats:
    """Say which two quantiles of the resampled deviations to take: corrected for bias and acceleration.

    `influence` is float64[n_queries], proportional to what leaving out each query takes from the statistic; deviations of
    at most `noise` are none.
    """
    # resamples whose statistic is the sample's own count half; rounding must not decide on which side they lie
    below = np.mean(deviations < -noise) + 0.5 * np.mean(np.abs(deviations) <= noise)
    half_a_resample = 0.5 / len(deviations)
    bias: float = ndtri(np.clip(below, half_a_resample, 1 - half_a_resample))
    # the jackknife's skewness, which for a mean is that of the values
    acceleration = (influence**3).sum() / (6 * (influence**2).sum() ** 1.5)
    tails = bias + ndtri(np.array([(1 - level) / 2, (1 + level) / 2]))
    quantiles: Floats = ndtr(bias + tails / (1 - acceleration * tails))
    return quantiles
