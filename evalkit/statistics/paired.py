"""Whether systems differ on the same queries, by how much, what the queries could have shown, and the ranks that are left open."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from evalkit.statistics.intervals import bca_levels, column_means, resampled_deviations, to_fixed_point

Floats = NDArray[np.float64]
Whole = NDArray[np.intp]

_MOST_ENUMERATED = 16  # differences other than zero: 65,536 patterns of signs
_CELLS_AT_ONCE = 2_000_000  # resample × query
_SAME_EFFECT = 1e-9
_NO_SPREAD = 1e-10  # of the variance: what rounding leaves of none
_ROUNDING = 2.0**-50  # what arithmetic may have done to a difference of two fractions


def paired_randomisation_test(differences: Floats, *, seed: int, n_resamples: int = 10_000) -> Floats:
    """Return two-sided p-values of the mean paired difference, by flipping signs (Fisher 1935; Smucker et al. 2007).

    `differences` is float64[n_queries, n_comparisons] of fractions, one system's values less the other's on the same
    queries. Gives float64[n_comparisons]: how often random signs give a mean as far from zero as the one seen. A column
    with at most 16 differences other than zero is enumerated, which is exact; for others `n_resamples` patterns of signs
    are drawn, which columns share, and p = (b + 1) / (n_resamples + 1) (Phipson & Smyth 2010). Without any difference
    p is 1.

    Sums are exact and rounding does not decide ties, so that a p-value depends on its column and the seed alone, not
    on threads, processors or other columns. Raises ValueError for a difference that is not finite.
    """
    if not np.isfinite(differences).all():
        raise ValueError("differences must be finite: compare the queries that both systems have")
    fixed, units = to_fixed_point(differences)
    totals = fixed.sum(axis=0)
    # a sum of other signs that equals the one seen must count, though each difference was rounded
    bounds = np.abs(totals) - len(fixed) * np.maximum(1.0, _ROUNDING / units)
    few = np.count_nonzero(fixed, axis=0) <= _MOST_ENUMERATED
    p_values = np.ones(fixed.shape[1])
    for column in np.flatnonzero(few):
        kept = fixed[fixed[:, column] != 0, column]
        p_values[column] = np.mean(np.abs(2 * (_all_choices(len(kept)) @ kept) - totals[column]) >= bounds[column])
    if not few.all():
        rest, extreme = fixed[:, ~few], np.zeros(np.count_nonzero(~few))
        for chosen in _random_choices(len(fixed), seed, n_resamples):
            extreme += np.count_nonzero(np.abs(2 * (chosen @ rest) - totals[~few]) >= bounds[~few], axis=0)
        p_values[~few] = (extreme + 1) / (n_resamples + 1)
    return p_values


def resamples_needed(n_tests: int, alpha: float) -> int:
    """Say how many patterns of signs let one of so many tests, adjusted by `holm`, give half of `alpha`: 10,000 to a million."""
    return int(np.clip(np.ceil(2 * n_tests / max(alpha, 1e-9)), 10_000, 1_000_000))


def holm(p_values: Floats) -> Floats:
    """Adjust the p-values of one family, float64[n], so that the chance of any false rejection keeps to the level (Holm 1979).

    NaN is no test: it stays what it is, and the others are adjusted for their own number.
    """
    order = np.argsort(p_values, kind="stable")[: np.count_nonzero(~np.isnan(p_values))]
    adjusted = np.full_like(p_values, np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(p_values[order] * np.arange(len(order), 0, -1)), 1.0)
    return adjusted


def fewest_differences(alpha: float) -> int:
    """Say how many differences other than zero a p-value below `alpha` takes: k signs give none below 2 / 2^k."""
    return int(np.floor(1 - np.log2(alpha))) + 1


def smallest_detectable_difference(differences: Floats, level: float = 0.05, power: float = 0.8) -> Floats:
    """Say which true mean difference as many queries would have shown: float64[n_comparisons], in the unit of `differences`.

    It is the one that a two-sided paired test at `level` finds with probability `power` if differences spread as they do
    in float64[n_queries, n_comparisons]: (t[1 - level/2] + t[power]) · s / √n, with n - 1 degrees of freedom. NaN where
    differences don't spread, and where no test of so few queries gives a p-value below `level`, however much they differ.
    """
    n = len(differences)
    detectable = np.full(differences.shape[1], np.nan)
    if n < fewest_differences(level):
        return detectable
    spreads = _spreads(differences)
    quantiles = stdtrit(n - 1, 1 - level / 2) + stdtrit(n - 1, power)
    detectable[spreads > 0] = quantiles * spreads[spreads > 0] / np.sqrt(n)
    return detectable


def effect_sizes(differences: Floats) -> Floats:
    """Return the standardised mean of paired differences (Cohen's d_z): mean over standard deviation, float64[n_comparisons].

    0 where all differences are 0; NaN where they are equal and not 0, or there is one query.
    """
    spreads = _spreads(differences)
    effects: Floats = np.where((differences == 0).all(axis=0), 0.0, np.nan)
    varied = spreads > 0
    effects[varied] = column_means(differences)[varied] / spreads[varied]
    return effects


def effect_size_intervals(differences: Floats, *, seed: int, n_resamples: int = 10_000, level: float = 0.95) -> Floats:
    """Return intervals for `effect_sizes` by the BCa bootstrap (Efron 1987): float64[n_comparisons, 2], low and high.

    NaN where differences don't spread, or there are fewer than three queries; infinite where the interval ends among resamples
    without spread, as with a handful of queries.
    """
    n = len(differences)
    means = column_means(differences)
    intervals = np.full((len(means), 2), np.nan)
    varied = np.flatnonzero(_spreads(differences) > 0) if n > 2 else np.array([], np.intp)
    centred = differences[:, varied] - means[varied]
    variances = column_means(centred**2)
    shifts, widenings = np.hsplit(resampled_deviations(np.hstack([centred, centred**2]), seed, n_resamples), 2)
    for place, column in enumerate(varied):
        moved = shifts[:, place], variances[place] + widenings[:, place] - shifts[:, place] ** 2
        intervals[column] = _effect_interval(centred[:, place], means[column], variances[place], *moved, level)
    return intervals


def _effect_interval(
    centred: Floats, mean: float, variance: float, shifts: Floats, resampled_variances: Floats, level: float
) -> Floats:
    """Return low and high for one comparison, of its resamples' means less `mean`, and their variances (divided by n)."""
    n = len(centred)
    smallest = _NO_SPREAD * variance
    effect = _standardised(mean, variance, smallest, n)
    resampled = _standardised(mean + shifts, resampled_variances, smallest, n)
    without_one = _standardised(*_jackknifed_moments(centred, mean, variance), smallest, n - 1)
    noise = _SAME_EFFECT * max(1.0, float(np.abs(effect)))
    levels = bca_levels(without_one.mean() - without_one, resampled - effect, noise, level)
    bounds = effect + np.quantile(resampled - effect, levels)
    farthest = np.abs(resampled[resampled_variances > smallest]).max()
    return np.where(np.abs(bounds) > farthest, np.copysign(np.inf, bounds), bounds)


def _jackknifed_moments(centred: Floats, mean: float, variance: float) -> tuple[Floats, Floats]:
    """Return mean and variance (divided by n, not n - 1) of the values without each one: float64[n] each."""
    n = len(centred)
    shifts = -centred / (n - 1)
    return mean + shifts, (n * variance - centred**2) / (n - 1) - shifts**2


def _standardised(means: Floats | float, variances: Floats | float, smallest: float, n: int) -> Floats:
    """Return means over standard deviations, of variances that were divided by n and count as `smallest` at least."""
    standardised: Floats = means / np.sqrt(np.maximum(variances, smallest) * (n / (n - 1)))
    return standardised


def _spreads(differences: Floats) -> Floats:
    """Return the standard deviation of each column, the same whatever stands beside it; exactly 0 for equal values, and for one."""
    if len(differences) < 2:
        return np.zeros(differences.shape[1])
    spreads: Floats = np.ascontiguousarray(differences.T).std(axis=1, ddof=1)
    spreads[np.ptp(differences, axis=0) == 0] = 0.0
    return spreads


def _all_choices(n: int) -> Floats:
    """Return every subset of n things: float64[2**n, n] of zeros and ones."""
    numbers = np.arange(2**n, dtype=np.uint32)[:, None]
    return (numbers >> np.arange(n, dtype=np.uint32) & 1).astype(np.float64)


def _random_choices(n: int, seed: int, n_resamples: int) -> Iterator[Floats]:
    """Yield random subsets of n things, subset by subset: float64[some, n] of zeros and ones at a time."""
    generator = np.random.default_rng(seed)
    words = -(-n // 32)  # the generator gives words; whole ones for each subset make it independent of the parts
    rows = max(1, _CELLS_AT_ONCE // n)
    for start in range(0, n_resamples, rows):
        size = min(rows, n_resamples - start)
        drawn = np.frombuffer(generator.bytes(4 * words * size), np.uint8).reshape(size, -1)
        yield np.unpackbits(drawn, axis=1, count=n).astype(np.float64)


def pairs_of(n_systems: int) -> tuple[Whole, Whole]:
    """List all pairs of systems: the first and the second ones, (0, 1) and (0, 2) before (1, 2)."""
    first, second = np.triu_indices(n_systems, k=1)
    return first, second


def average_differences(tasks: Sequence[Floats]) -> Floats:
    """Put several tasks' differences together so that the mean is the plain average of the tasks' means.

    `tasks` holds a float64[n_queries, n_comparisons] for each task; gives float64[all queries, n_comparisons]. A query
    of a small task weighs more, and flipping its sign moves the average by its share.
    """
    total = sum(len(differences) for differences in tasks)
    return np.vstack([differences * (total / (len(tasks) * len(differences))) for differences in tasks])


def rank_ranges(values: Floats, p_values: Floats, alpha: float) -> Whole:
    """Say which ranks each system may have: int[n_systems, 2], best and worst, 1 being the highest value's.

    `values` is float64[n_systems]; `p_values` holds those of `pairs_of(n_systems)`, adjusted for their number. A system
    is below all that are better by a difference with p < `alpha`, and above all that are so much worse.
    """
    n = len(values)
    told_apart = _told_apart(n, p_values, alpha)
    above = told_apart & (values > values[:, None])
    below = told_apart & (values < values[:, None])
    return np.column_stack([1 + above.sum(axis=1), n - below.sum(axis=1)])


def not_told_from_best(values: Floats, p_values: Floats, alpha: float) -> NDArray[np.bool_]:
    """Say which systems no test distinguishes from the one with the highest value (of equals, the first): bool[n_systems].

    That one is among them. Arguments as of `rank_ranges`. A system may be among them and yet be told from one that is not the
    best, where the two differ more steadily.
    """
    among: NDArray[np.bool_] = ~_told_apart(len(values), p_values, alpha)[int(np.argmax(values))]
    return among


def _told_apart(n: int, p_values: Floats, alpha: float) -> NDArray[np.bool_]:
    """Return which systems differ from which: bool[n_systems, n_systems]."""
    first, second = pairs_of(n)
    told_apart = np.zeros((n, n), np.bool_)
    told_apart[first, second] = told_apart[second, first] = p_values < alpha
    return told_apart
