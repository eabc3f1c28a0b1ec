"""The machine's own limit: the best rate of a matrix product that torch, numpy and OpenVINO reach, and what a network needs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import openvino
import torch

ROWS, INNER, COLUMNS = 2_048, 3_072, 3_072
SECONDS = 2.0


def has_bf16() -> bool:
    """Whether the processor computes in bf16; where not, OpenVINO takes fp32 and torch some hundred times as long."""
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def matmul_limits() -> dict[str, float]:
    """GFLOP/s by precision that the processor has: the best of three libraries, over some seconds with all threads."""
    flop = 2.0 * ROWS * INNER * COLUMNS
    found: dict[str, float] = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))[: 1 + has_bf16()]:
        calls = [_torch_call(dtype), *_openvino_calls({"fp32": "f32", "bf16": "bf16"}[name])]
        if name == "fp32":
            calls.append(_numpy_call())
        found[name] = max(flop * _rate(call) for call in calls) / 1e9
    return found


def network_flop(lengths: np.ndarray, layers: int, hidden: int, intermediate: int, first_token: bool) -> float:
    """Floating-point operations of a BERT-like encoder over inputs of these lengths (tokens), padding not counted.

    With `first_token` the last layer computes its first position alone, as evalkit's converted cross-encoders do.
    """
    tokens, squares, inputs = lengths.sum(), (lengths.astype(float) ** 2).sum(), len(lengths)
    per_position = 2.0 * (2 * hidden**2 + 2 * hidden * intermediate)  # query, output and feed-forward
    keys_and_values, attention = 4.0 * hidden**2, 4.0 * hidden
    whole = tokens * (per_position + keys_and_values) + attention * squares
    last = inputs * per_position + tokens * (keys_and_values + attention) if first_token else whole
    return float((layers - 1) * whole + last)


def _rate(call: Callable[[], Any]) -> float:
    """Return calls per second: the best of single calls, since what is sought is a limit."""
    call()
    best, started = 0.0, time.perf_counter()
    while time.perf_counter() - started < SECONDS:
        before = time.perf_counter()
        call()
        best = max(best, 1 / (time.perf_counter() - before))
    return best


def _torch_call(dtype: torch.dtype) -> Callable[[], Any]:
    left, right = torch.randn(ROWS, INNER).to(dtype), torch.randn(INNER, COLUMNS).to(dtype)
    return lambda: left @ right


def _numpy_call() -> Callable[[], Any]:
    generator = np.random.default_rng(0)
    left, right = generator.random((ROWS, INNER), np.float32), generator.random((INNER, COLUMNS), np.float32)
    return lambda: left @ right


def _openvino_calls(precision: str) -> list[Callable[[], Any]]:
    opset = openvino.opset13
    weights = np.random.default_rng(0).random((COLUMNS, INNER), np.float32)
    left = opset.parameter([ROWS, INNER], np.float32)
    model = openvino.Model([opset.matmul(left, opset.constant(weights), False, True)], [left])
    compiled = openvino.Core().compile_model(
        model, "CPU", {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    )
    request = compiled.create_infer_request()
    data = np.random.default_rng(1).random((ROWS, INNER), np.float32)
    return [lambda: request.infer([data], share_inputs=True)]
