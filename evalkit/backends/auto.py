"""Chooses the backend: on an accelerator torch; on a CPU the fastest one installed whose scores equal torch's in fp32.

`dtype=auto` chooses the precision too: that in which a refined run takes the least time here. Verdicts are remembered for these
weights, recipe, package versions and processor, so that the choice repeats.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import time
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evalkit.backends import ALONE, backends_for, is_installed, prepare_model, read_backend
from evalkit.backends.probes import PACKAGES, TOLERANCES, VERDICTS, probe
from evalkit.cache import cache_folder, read_entries, store_entry
from evalkit.errors import EvalkitError, install_command
from evalkit.interruption import check
from evalkit.machine import package_version, processor_name
from evalkit.models.interfaces import LocalNetwork, RunnableModel, Runtime
from evalkit.models.settings import ModelSettings

FASTEST_FIRST = ("openvino", "onnx", "torch")  # on a CPU
AGAIN = {"bf16": 0.15, "fp16": 0.05, "int8": 0.5}
"""About which share of the pairs a refined run scores again in fp32: in bf16 as measured on a real cross-encoder, else assumed."""
TIMED = 2  # times that the probe is timed, after it has warmed up
Floats = NDArray[np.float32]
logger = logging.getLogger("evalkit")


class ChosenBackend(NamedTuple):
    """A backend's name, why it was chosen, and how far its scores of the probe lay from torch's, where they were compared."""

    backend: str
    why: str
    difference: float | None = None


def prepare(settings: ModelSettings, runtime: Runtime) -> RunnableModel:
    """Choose a backend and let it find the model; the network that was just compared is the one that will run."""
    verdict, compared = _choose(settings, runtime)
    chosen = compared or prepare_model(verdict.backend, settings, runtime)
    if verdict.why:
        logger.info("backend=auto takes %s: %s", verdict.backend, verdict.why)
        measured = {} if verdict.difference is None else {"probe_difference": verdict.difference}
        return dataclasses.replace(chosen, description={**chosen.description, "why": verdict.why, **measured})
    return chosen


def choose(settings: ModelSettings, runtime: Runtime) -> ChosenBackend:
    """Return the backend for this model, here."""
    return _choose(settings, runtime)[0]


class ChosenPrecision(NamedTuple):
    """A precision, and why it was chosen."""

    dtype: str
    why: str


def fastest_precision(settings: ModelSettings, backend: str, runtime: Runtime) -> ChosenPrecision:
    """Return the precision in which a run that is refined in fp32 takes the least time here: fp32 itself where none is faster.

    The probe is timed in each precision that the backend has on this machine; in int8 where it has no bf16. Raises EvalkitError
    where it can't be run in fp32.
    """
    full = prepare_model(backend, settings, dataclasses.replace(runtime, dtype="fp32"))
    versions = {name: package_version(name) for name in PACKAGES}
    circumstances = ["precision", full.way, backend, AGAIN, versions, processor_name(), runtime.device, runtime.threads]
    key = hashlib.sha256(json.dumps(circumstances, sort_keys=True).encode()).hexdigest()
    path = cache_folder(runtime.cache_dir) / VERDICTS
    match read_entries(path).get(key):
        case [str(dtype), str(why)]:
            return ChosenPrecision(dtype, why)
    seconds = {"fp32": _probe_seconds(full, settings)}
    for dtype in AGAIN:
        if dtype == "int8" and "bf16" in seconds:
            continue  # it is for processors without bf16: it has to be quantised first, and more of it is scored again
        try:
            seconds[dtype] = _probe_seconds(
                prepare_model(backend, settings, dataclasses.replace(runtime, dtype=dtype)), settings
            )
        except Exception as error:  # the backend, or this processor, has no such precision, or a converter fails at it
            check()  # an interruption says nothing of the precision
            logger.debug("dtype=auto leaves out %s: %s", dtype, error)
    expected = {dtype: taken + AGAIN.get(dtype, 0.0) * seconds["fp32"] for dtype, taken in seconds.items()}
    best = min(expected, key=lambda dtype: expected[dtype])
    said = ", ".join(f"{dtype} {expected[dtype] / seconds['fp32']:.2f}" for dtype in expected)
    verdict = ChosenPrecision(
        best, f"by the time of a probe, with what is then scored again in fp32, relative to fp32: {said}"
    )
    try:
        store_entry(path, key, verdict)
    except OSError as error:  # it costs the probes the next time, no more
        logger.warning("the choice of precision can't be remembered in %s: %s", path, error.strerror)
    return verdict


def _probe_seconds(model: RunnableModel, settings: ModelSettings) -> float:
    """Time the probe on an open network: the least of some tries."""
    scorer = model.scorer
    if not isinstance(scorer, LocalNetwork):
        raise EvalkitError(
            f"dtype=auto: {model.description['name']} runs {settings.name} its own way, which is not timed; name the precision"
        )
    probe(scorer, settings)
    taken = []
    for _ in range(TIMED):
        started = time.perf_counter()
        probe(scorer, settings)
        taken.append(time.perf_counter() - started)
    return min(taken)


Choice = tuple[ChosenBackend, RunnableModel | None]
"""The verdict, and the model with its network loaded where it was compared just now."""


def _choose(settings: ModelSettings, runtime: Runtime) -> Choice:
    able = backends_for(settings)
    if "torch" not in able:
        here = [name for name in (*ALONE, *able) if name in able and not read_backend(name).server]
        return ChosenBackend(next(iter(here), able[0]), ""), None
    from evalkit.backends.torch import choose_device

    device = choose_device(runtime.device)
    if device.type != "cpu":
        return ChosenBackend("torch", f"the device is {device.type}"), None
    candidates = [name for name in FASTEST_FIRST if name in able and _can(name, runtime.dtype)]
    if not candidates:
        raise EvalkitError(f"dtype={runtime.dtype} on a CPU needs an extra: {install_command('openvino', 'onnx')}")
    if runtime.dtype != "fp32" or candidates == ["torch"]:
        return _first_that_can(settings, runtime, candidates), None
    return _remembered(settings, runtime, candidates)


def _first_that_can(settings: ModelSettings, runtime: Runtime, candidates: list[str]) -> ChosenBackend:
    """Return the first backend that has the precision on this processor; the last one is left to say why it has not."""
    why = f"the first one here that runs {runtime.dtype}"
    for name in candidates[:-1]:
        try:
            prepare_model(name, settings, runtime)
        except EvalkitError:
            continue
        return ChosenBackend(name, why)
    return ChosenBackend(candidates[-1], why)


def _can(name: str, dtype: str) -> bool:
    backend = read_backend(name)
    return dtype in backend.dtypes and is_installed(backend)


def _remembered(settings: ModelSettings, runtime: Runtime, candidates: list[str]) -> Choice:
    torch_model = prepare_model("torch", settings, runtime)
    circumstances = [torch_model.way, candidates, {name: package_version(name) for name in PACKAGES}, processor_name()]
    key = hashlib.sha256(json.dumps(circumstances, sort_keys=True).encode()).hexdigest()
    path = cache_folder(runtime.cache_dir) / VERDICTS
    match read_entries(path).get(key):
        case [str(backend), str(why), None | float() as difference] if backend in candidates:
            return ChosenBackend(backend, why, difference), None
    verdict, model = _compare(settings, runtime, torch_model, candidates)
    try:
        store_entry(path, key, verdict)
    except OSError as error:  # it costs a probe the next time, no more
        logger.warning("the choice of backend can't be remembered in %s: %s", path, error.strerror)
    return verdict, model


def _compare(
    settings: ModelSettings, runtime: Runtime, torch_model: RunnableModel, candidates: list[str]
) -> tuple[ChosenBackend, RunnableModel]:
    """Return the first candidate that agrees with torch on the probes; torch itself comes last, and does."""
    expected = probe(torch_model.scorer, settings)
    refused: list[str] = []
    for name in candidates:
        if name == "torch":
            break
        try:
            model = prepare_model(name, settings, runtime)
            found = probe(model.scorer, settings)
            difference = float(np.abs(found - expected).max())
        except Exception as error:  # a converter may fail in any way at an architecture that it does not know
            check()  # an interruption says nothing of the backend
            refused.append(f"{name} can't run it ({' '.join(str(error).split())[:200] or type(error).__name__})")
            continue
        if difference <= TOLERANCES["fp32"]:
            why = "; ".join([*refused, f"it agrees with torch fp32 to {difference:.0e} on a probe"])
            return ChosenBackend(name, why, _score_difference(settings, found, expected)), model.kept_open()
        refused.append(f"{name} differs from torch fp32 by {difference:.0e} on a probe")
    return ChosenBackend("torch", "; ".join(refused)), torch_model.kept_open()


def _score_difference(settings: ModelSettings, found: Floats, expected: Floats) -> float | None:
    """Return the largest difference between scores of the probes; None where vectors give no scores by a product."""
    if not settings.makes_vectors:
        return float(np.abs(found - expected).max())
    if settings.similarity not in ("cosine", "dot"):
        return None
    products = [vectors @ vectors.T for vectors in (found.astype(np.float64), expected.astype(np.float64))]
    return float(np.abs(products[0] - products[1]).max())
