"""A network converted for another system, and compared with what it was converted from before anything is scored by it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from evalkit.errors import EvalkitError
from evalkit.models.bert import compute_first_token_alone
from evalkit.models.networks import load_network, quiet_transformers
from evalkit.models.settings import ModelSettings
from evalkit.models.tokenization import PROBE, InputBuilder
from evalkit.models.tokenizers import share_padding

logger = logging.getLogger("evalkit")
Converted = TypeVar("Converted")
Run = Callable[[Mapping[str, NDArray[np.int64]]], NDArray[np.float32]]
TOLERANCE = 1e-3  # of the largest number; arithmetic in another order moves 1e-5
INT8_TOLERANCE = 0.25
"""Which part of what tells inputs apart, their outputs' variance, may be lost to int8: it rounds coarsely, and what loses more is
broken. How far single scores are off is measured in each run."""


def convert_checked(
    system: str,
    settings: ModelSettings,
    folder: Path,
    inputs: InputBuilder,
    convert: Callable[[torch.nn.Module, dict[str, torch.Tensor]], Converted],
    run_with: Callable[[Converted], Run],
) -> Converted:
    """Load the folder's network, let `convert` make another system's of it, and compare the two on a batch of another shape.

    Raises EvalkitError where the system can't convert it (a converter may fail in any way at an architecture that it does not
    know), and where what it made computes something else.
    """
    network = load_network(settings, folder).float()  # a checkpoint in bf16 is fp32 from here on, as on torch
    share_padding(network, inputs.tokenizer)
    batch = inputs.example(PROBE[:9], PROBE * 3, PROBE[:2])
    with torch.inference_mode():
        expected = network(**batch).numpy()
    other = "; backend=torch runs it"
    # the tracers' remarks on transformers' code; the outputs themselves are compared
    with warnings.catch_warnings(), quiet_transformers():
        warnings.simplefilter("ignore")
        try:
            # the first token that counts stands behind a prompt that is left out
            trimmed = compute_first_token_alone(network) if settings.pool_prompt else network
            converted = convert(trimmed, inputs.example())
            found = run_with(converted)({name: tensor.numpy() for name, tensor in batch.items()})
        except EvalkitError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise EvalkitError(f"backend={system} can't run {settings.name}: {reason}{other}") from error
    difference = _difference(expected, found, batch["attention_mask"].numpy())
    if not np.isfinite(difference):
        raise EvalkitError(
            f"backend={system} can't run {settings.name}: its output is no number where torch's is one (padding in the sliding "
            f"windows of a network's attention is one cause){other}"
        )
    if not difference <= TOLERANCE:
        raise EvalkitError(
            f"backend={system} computes {settings.name} otherwise than torch: its output differs by {difference:.1e} of the "
            f"largest number{other}"
        )
    return converted


def _difference(right: NDArray[np.float32], ours: NDArray[np.float32], mask: NDArray[np.int64]) -> float:
    """Return the largest difference, in parts of the largest number; what stands at padding does not count."""
    if right.shape != ours.shape:
        return float("inf")
    if right.ndim > 2:  # tokens stand last but one
        shown = mask[:, None, :, None] if right.ndim == 4 else mask[:, :, None]
        right, ours = np.where(shown, right, 0), np.where(shown, ours, 0)
    return float(np.abs(ours - right).max() / max(np.abs(right).max(), 1e-9))


def refuse_coarse(
    system: str, settings: ModelSettings, expected: Sequence[NDArray[np.float32]], found: Sequence[NDArray[np.float32]]
) -> None:
    """Raise EvalkitError where an int8 network's outputs for some inputs, one after the other, are too far from those in fp32."""
    right, ours = (
        np.concatenate([output.reshape(-1, output.shape[-1] if output.ndim > 1 else 1) for output in outputs]).astype(
            np.float64
        )
        for outputs in (expected, found)
    )
    lost = float(((ours - right) ** 2).sum() / max(((right - right.mean(axis=0)) ** 2).sum(), 1e-9))
    if not lost <= INT8_TOLERANCE:
        said = f"loses {lost:.0%} of what tells inputs apart" if np.isfinite(lost) else "gives what is no number"
        raise EvalkitError(
            f"backend={system} can't run {settings.name} in int8: rounded to 8 bits it {said}; dtype=fp32, or backend=onnx"
        )
    logger.info("in int8 %s loses %.2g %% of the variance of its outputs", settings.name, 100 * lost)
