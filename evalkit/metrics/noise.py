"""What is noise in a score: how far processors, libraries and batches move what one model says of one pair.

It is judged by the scores themselves, so that neither their scale (logits, cosines, probabilities) nor an offset decides.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SCORE_NOISE = 1e-5
"""A score's noise as part of how far the query's scores lie apart. Float32 moves the output of a network by some 1e-6 where
another processor or library adds in another order."""
ROUNDING_STEPS = 8
"""A score's noise in steps between neighbouring numbers of its type, where that is more: some 1e-6 of a score in float32."""
NOISE_FACTORS = {"fp32": 2, "fp16": 2**13, "bf16": 2**16}
"""How many times that noise a score may lie off, by the precision that computed it, where nothing more is known: of low precision
what it rounds more coarsely than float32 does. docs/metrics.md says what was measured."""


def score_noise(scores: Floats, lengths: NDArray[np.int64], steps_of: np.dtype[Any] | type = np.float32) -> Floats:
    """Return what is noise in each score of a float32 network, float64[n_candidates], judged by its query's scores.

    `lengths` are the candidates of each query, whose scores stand query by query. `steps_of` is the type that holds the scores;
    noise is NaN where it can't hold one.
    """
    distances = _typical_distances(scores, lengths)
    return np.maximum(SCORE_NOISE * distances, ROUNDING_STEPS * _steps(scores, steps_of))


def _typical_distances(scores: Floats, lengths: NDArray[np.int64]) -> Floats:
    """Return for each candidate how far its query's scores lie apart: float64[n_candidates].

    It is the query's own spread, but at most that of the typical query (the median), which also stands for a query whose scores
    are all equal; where no query has a spread, scores are taken to be of order 1.
    """
    spreads = np.array([_spread(own) for own in np.split(scores, np.cumsum(lengths)[:-1])])
    varied = spreads[spreads > 0]
    typical = float(np.median(varied)) if varied.size else 1.0
    return np.repeat(np.where(spreads > 0, np.minimum(spreads, typical), typical), lengths)


def _spread(scores: Floats) -> float:
    """Return the length of the shortest interval that holds half of a query's distinct scores; 0 where all are equal.

    It does not change when all scores are moved by one number, nor with a few scores that are far from the others, or many
    that are equal: neither makes a difference between the others small.
    """
    distinct = np.unique(scores)
    half = max(2, (len(distinct) + 1) // 2)
    return (
        float((distinct[half - 1 :] - distinct[: len(distinct) - half + 1]).min(initial=np.inf))
        if len(distinct) > 1
        else 0.0
    )


def _steps(scores: Floats, dtype: np.dtype[Any] | type) -> Floats:
    """Return how far each score is from the next number of its type; NaN where the type can't hold it."""
    with np.errstate(over="ignore", invalid="ignore"):
        steps: Floats = np.spacing(np.abs(scores).astype(dtype)).astype(np.float64)
    return steps
