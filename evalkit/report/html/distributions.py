"""How a system's scores of relevant and of irrelevant candidates lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 40
_OUTER = 0.001


@dataclass(frozen=True, slots=True)
class Distribution:
    """Shares of the relevant and of the irrelevant candidates per bin of scores, `low` to `high` in BINS equal bins.

    The outermost scores (a thousandth at either end) count in the bins at the ends. `separation` is the chance that a
    relevant candidate of any query scores above an irrelevant one of any query, ties counting half (the area under the ROC
    curve); None where one of the two is missing.
    """

    low: float
    high: float
    relevant: tuple[float, ...]
    irrelevant: tuple[float, ...]
    separation: float | None


def score_distribution(scores: NDArray[np.floating], gains: NDArray[np.integer]) -> Distribution:
    """Count finite scores by label: both arrays are of one length, [n_candidates]."""
    values = scores.astype(np.float64)
    low, high = (float(end) for end in np.quantile(values, (_OUTER, 1 - _OUTER)))
    if not low < high:
        low, high = low - 0.5, low + 0.5
    relevant, irrelevant = values[gains > 0], values[gains <= 0]
    return Distribution(
        low, high, _shares(relevant, low, high), _shares(irrelevant, low, high), _separation(relevant, irrelevant)
    )


def _shares(values: NDArray[np.float64], low: float, high: float) -> tuple[float, ...]:
    counts, _ = np.histogram(np.clip(values, low, high), bins=BINS, range=(low, high))
    return tuple((counts / max(1, len(values))).tolist())


def _separation(relevant: NDArray[np.float64], irrelevant: NDArray[np.float64]) -> float | None:
    if not len(relevant) or not len(irrelevant):
        return None
    ordered = np.sort(irrelevant)
    below = np.searchsorted(ordered, relevant, "left") + np.searchsorted(ordered, relevant, "right")
    return float(below.mean() / 2 / len(ordered))
