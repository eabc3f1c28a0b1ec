"""What networks are compared on before they are used, and the comparison of an accelerator with the CPU.

Kernels of a device may be wrong for a shape, a mask or a precision, and say nothing. What a device gives is compared with what the
same weights give on the CPU in fp32, once for each model, recipe, precision, device and set of versions: the verdict is kept in the
cache. That costs some seconds for an encoder; a language model is compared on short texts alone, which takes up to a few minutes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from evalkit.cache import cache_folder, read_entries, store_entry
from evalkit.errors import EvalkitError
from evalkit.interruption import check
from evalkit.machine import package_versions, processor_name
from evalkit.models.interfaces import Encoding, ListScorer, LocalNetwork, OutOfMemoryError, Scorer
from evalkit.models.settings import ModelSettings

VERDICTS = "verdicts.json"
"""The file of evalkit's cache that holds what comparisons have shown, by all that could change it."""
PACKAGES = ("openvino", "nncf", "onnxruntime", "torch", "transformers", "numpy")
PROBE_TEXTS = (
    "感冒了应该吃什么药？",
    "How do I renew a passport that has expired?",
    "苹果公司于1976年成立，总部位于加利福尼亚州库比蒂诺。",
    "这种药一天三次，饭后服用；如果两天后仍然发烧，请及时就医。" * 4,
    "Boil the noodles for four minutes, drain them, and toss them with sesame oil and soy sauce. " * 8,
    "深度学习模型需要大量的数据和计算资源，训练一次往往要花上几天。" * 40,
)
SHORT_TEXTS = 4  # of them, and no more, where each costs much
TOLERANCES = {"fp32": 1e-3, "fp16": 0.05, "bf16": 0.25}
"""How far a logit may lie from the right one: by the rounding of some hundred operations one after the other, of logits up to 8.
int8 rounds so coarsely that no figure could be given; its runs are checked in fp32 alone."""
LARGEST_LOGIT = 8.0
NEIGHBOURS_MOVE = 1e-2
"""How far, as a share of the largest number, an output may move by what stands beside its text: by padding in low precision."""
AGREES = "agrees with the CPU"
Item = TypeVar("Item")
logger = logging.getLogger("evalkit")


def influence_of_neighbours(
    call: Callable[[list[Item]], NDArray[np.float32]], items: Sequence[Item], least: float = 0.0
) -> tuple[float, float]:
    """Return by how much outputs of items together differ from those of each alone, and how far that may be.

    `call` gives the outputs of some items; the largest number counts as `least` at least.
    """
    together, alone = call(list(items)), np.concatenate([call([item]) for item in items])
    return float(np.abs(together - alone).max()), NEIGHBOURS_MOVE * max(least, float(np.abs(together).max()))


def probe(scorer: Scorer, settings: ModelSettings, *, short: bool = False) -> NDArray[np.float32]:
    """Return logits or vectors of the probe texts in two batches: the first beside the longest, and the rest.

    Pairs are of the first two texts with each but the longest, which is paired with the first alone: what is padded to its length
    costs the most. A network that runs several batches at once gets both. With `short`, one batch has pairs of the first
    one with the short ones, or the short ones' vectors. A listwise model gets one list of all the texts.
    """
    texts = PROBE_TEXTS[:SHORT_TEXTS] if short else PROBE_TEXTS
    if isinstance(scorer, ListScorer):
        return scorer.score_list(texts[0], texts).scores
    if not isinstance(scorer, LocalNetwork):
        raise TypeError(f"{type(scorer).__name__} is not a local network")
    documents = scorer.tokenize(texts, "document")
    if settings.makes_vectors:
        encodings = [scorer.encode_text(text) for text in documents]
    else:
        queries = scorer.tokenize(texts[: 1 if short else 2], "query")
        encodings = [scorer.encode_pair(query, document) for query in queries for document in documents]
    longest = len(documents) - 1
    batches = (
        [encodings]
        if short
        else [[encodings[0], encodings[longest]], encodings[1:longest] + encodings[longest + 1 : -1]]
    )
    with ThreadPoolExecutor(min(scorer.parallel, len(batches))) as pool:
        return np.concatenate(list(pool.map(lambda batch: _run(scorer, batch), batches)))


def _run(network: LocalNetwork, batch: Sequence[Encoding]) -> NDArray[np.float32]:
    """Run a batch, in halves where it does not fit into memory. Raises OutOfMemoryError where one input alone does not."""
    try:
        return network.run(batch)
    except OutOfMemoryError:
        if len(batch) == 1:
            raise
    middle = len(batch) // 2
    return np.concatenate([_run(network, batch[:middle]), _run(network, batch[middle:])])


@dataclass(frozen=True, slots=True)
class DeviceTrial:
    """A model that is to run on an accelerator: the device's name, the run's precision, and all that can change its scores."""

    settings: ModelSettings
    device: str
    dtype: str
    way: Mapping[str, object]
    cache_dir: Path | None

    @property
    def key(self) -> str:
        """What its verdict is kept under: other weights, recipe, device, versions or systems are another question."""
        versions = package_versions(PACKAGES)
        circumstances = [AGREES, self.way, self.device, versions, platform.platform(), processor_name(), PROBE_TEXTS]
        return hashlib.sha256(json.dumps(circumstances, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class CpuOutputs:
    """What the CPU gives for the probes, in which precision, and whether the probes were the short ones."""

    outputs: NDArray[np.float32]
    dtype: str
    short: bool


def has_agreed(trial: DeviceTrial) -> bool:
    """Return whether the cache says that this device gave what the CPU gives."""
    match read_entries(cache_folder(trial.cache_dir) / VERDICTS).get(trial.key):
        case [str(verdict), float()]:
            return verdict == AGREES
    return False


def judge_device(trial: DeviceTrial, expected: CpuOutputs, run: Callable[[], NDArray[np.float32]]) -> None:
    """Compare what `run` gives on the device with the CPU's outputs, and remember that they agree.

    Raises EvalkitError, which names the device, where they differ by more than rounding does, or the device gives what is no number
    or fails. A refusal is not remembered: it may end with another driver, which nothing here sees.
    """
    if not np.isfinite(expected.outputs).all():
        raise EvalkitError(
            f"{trial.settings.name} gives no finite numbers on the CPU in {expected.dtype} either, so that {trial.device} can't be "
            "compared with it: are its weights damaged?"
        )
    try:
        found = run()
    except Exception as error:  # a device's library may fail in any way at what it has no kernel for
        check()  # an interruption says nothing of the device
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise EvalkitError(f"{_subject(trial)} can't be run: {reason}; {_mend(trial)}") from error
    if found.shape != expected.outputs.shape or not np.isfinite(found).all():
        raise EvalkitError(f"{_subject(trial)} gives what is no finite number, where the CPU gives one; {_mend(trial)}")
    difference = float(np.abs(found - expected.outputs).max())
    most = tolerance_of(trial, expected)
    if not difference <= most:
        raise EvalkitError(
            f"{_subject(trial)} differs from the CPU by {difference:.1e} on a probe, and rounding explains {most:.1e} at most; "
            f"{_mend(trial)}"
        )
    logger.info("%s agrees with the CPU to %.0e on a probe", _subject(trial), difference)
    path = cache_folder(trial.cache_dir) / VERDICTS
    try:
        store_entry(path, trial.key, [AGREES, difference])
    except OSError as error:  # it costs a probe the next time, no more
        logger.warning("the verdict on %s can't be remembered in %s: %s", trial.device, path, error.strerror)


def tolerance_of(trial: DeviceTrial, expected: CpuOutputs) -> float:
    """Return how far the device's outputs may lie from the CPU's: by what the coarser of both precisions rounds.

    Logits above 8 round more coarsely in proportion. Of vectors, whose length is their model's affair, and of a listwise model's
    cosines, it is a share of the largest number: a quarter of what a logit may lie off (multilingual-e5-small is off by 0.001 of it
    in fp16, by 0.009 in bf16).
    """
    rounding = max(TOLERANCES[trial.dtype], TOLERANCES[expected.dtype])
    largest = float(np.abs(expected.outputs).max())
    share = trial.settings.makes_vectors or trial.settings.kind == "listwise"
    return rounding * (largest / 4 if share else max(1.0, largest / LARGEST_LOGIT))


def _subject(trial: DeviceTrial) -> str:
    return f"{trial.settings.name} on {trial.device} in {trial.dtype}"


def _mend(trial: DeviceTrial) -> str:
    return "take device=cpu" if trial.dtype == "fp32" else "take dtype=fp32, or device=cpu"
