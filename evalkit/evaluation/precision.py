"""How far scores lie off: a low precision's measured against fp32's on a sample, any other's as far as it is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from evalkit.metrics import PROTOCOLS, CandidateLists, lists_of_task, score_lists
from evalkit.metrics.measures import CARD_PROTOCOL
from evalkit.metrics.noise import NOISE_FACTORS, score_noise
from evalkit.output.numbers import counted
from evalkit.records import Candidate, PrecisionCheck, ScoreNoise, Task

_NAMES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}  # as servers call them

SAMPLE_PAIRS = 200


def sample_of(task: Task) -> Task:
    """The task's first queries, as many as have SAMPLE_PAIRS candidates together and one that every protocol can score."""
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
    lists: CandidateLists, description: Mapping[str, object], precision: PrecisionCheck | None, stated: float | None
) -> tuple[ScoreNoise, NDArray[np.float64]] | None:
    """Say how far each score may lie off, and per candidate (float64[n_candidates]): by what made the scores.

    It is what was measured of a low precision against fp32, else what the backend's file states (`stated`), else what is
    usual in the precision that the backend's description names; and never less than float32's own noise, nor than what
    the comparison with torch showed by which `auto` chose the backend. None where nothing says how the scores were computed.
    """
    dtype = str(description.get("dtype", ""))
    dtype = _NAMES.get(dtype, dtype)
    if precision is None and stated is None and dtype not in NOISE_FACTORS:
        return None
    unit = score_noise(lists.scores, lists.lengths)
    said: list[tuple[float | NDArray[np.float64], str]] = [(NOISE_FACTORS["fp32"] * unit, "rounding in fp32")]
    if precision is not None:
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
