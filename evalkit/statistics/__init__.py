"""How sure a mean over queries is, and whether two systems differ. Arrays in, arrays out."""

from __future__ import annotations

from evalkit.statistics.intervals import bootstrap_intervals, resampled_deviations
from evalkit.statistics.paired import (
    effect_size_intervals,
    effect_sizes,
    holm,
    paired_randomisation_test,
    smallest_detectable_difference,
)

__all__ = [
    "bootstrap_intervals",
    "effect_size_intervals",
    "effect_sizes",
    "holm",
    "paired_randomisation_test",
    "resampled_deviations",
    "smallest_detectable_difference",
]
