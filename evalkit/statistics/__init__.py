"""How sure a mean over queries is, and whether two systems differ. Arrays in, arrays out."""

from __future__ import annotations

from evalkit.statistics.intervals import (
    FEWEST_SAMPLED,
    average_intervals,
    bootstrap_intervals,
    level_beside_test,
    resampled_deviations,
    sampled_means,
)
from evalkit.statistics.paired import (
    average_differences,
    effect_size_intervals,
    effect_sizes,
    fewest_differences,
    holm,
    not_told_from_best,
    paired_randomisation_test,
    pairs_of,
    rank_ranges,
    resamples_needed,
    smallest_detectable_difference,
)

__all__ = [
    "FEWEST_SAMPLED",
    "average_differences",
    "average_intervals",
    "bootstrap_intervals",
    "effect_size_intervals",
    "effect_sizes",
    "fewest_differences",
    "holm",
    "level_beside_test",
    "not_told_from_best",
    "paired_randomisation_test",
    "pairs_of",
    "rank_ranges",
    "resampled_deviations",
    "resamples_needed",
    "sampled_means",
    "smallest_detectable_difference",
]
