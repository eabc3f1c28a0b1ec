"""PyTorch with Hugging Face transformers: on CUDA, Apple's MPS or the CPU, in fp32, bf16 or fp16."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import reduce
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray

from evalkit.backends.probes import CpuOutputs, DeviceTrial, has_agreed, judge_device, probe
from evalkit.errors import EvalkitError
from evalkit.machine import memory_bytes
from evalkit.models.interfaces import LocalNetwork, RunnableModel, Runtime
from evalkit.models.settings import ModelSettings
from evalkit.models.weights import ModelFiles, find_model, opening, way_of_scoring

if TYPE_CHECKING:
    from evalkit.models.listwise import ListRanker
    from evalkit.models.local import Forward, Inputs

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# a CPU gains nothing from more tokens than keep its matrix units busy; an accelerator wants many
BATCH_TOKENS = {"cpu": 2_048, "mps": 16_384, "cuda": 65_536}
LARGE_NETWORK = 10**9  # weights; a CPU takes minutes for long texts
MEMORY_SHARE = 0.75  # of the machine's, that weights in fp32 may take
logger = logging.getLogger("evalkit")


def prepare(settings: ModelSettings, runtime: Runtime) -> RunnableModel:
    """Find the model's files and a device that runs it in the asked precision."""
    device = choose_device(runtime.device)
    files = find_model(settings, offline=runtime.offline, cache_dir=runtime.cache_dir)
    packed = _runs_packed(settings, files, device, DTYPES[runtime.dtype])
    description: dict[str, object] = {
        "name": "torch",
        "device": device_name(device),
        "dtype": runtime.dtype,
    }
    if packed:
        description["padding"] = "none"
    way = way_of_scoring(settings, files, description)
    trial = DeviceTrial(settings, device_name(device), runtime.dtype, way, runtime.cache_dir)
    return RunnableModel(
        identity=files.identity,
        description=description,
        way=way,
        open=opening(
            files,
            lambda: (
                open_ranker(settings, files, device, runtime, trial if is_accelerator(device) else None)
                if settings.kind == "listwise"
                else open_network(
                    settings, files, device, runtime, packed=packed, trial=trial if is_accelerator(device) else None
                )
            ),
        ),
    )


def _runs_packed(settings: ModelSettings, files: ModelFiles, device: torch.device, dtype: torch.dtype) -> bool:
    if device.type != "cuda" or dtype == torch.float32:
        return False  # without looking into files
    from evalkit.models.bert import packs_recipe, runs_packed
    from evalkit.models.networks import load_config

    return packs_recipe(settings) and runs_packed(load_config(settings, files.folder), device, dtype)


def open_network(
    settings: ModelSettings,
    files: ModelFiles,
    device: torch.device,
    runtime: Runtime,
    *,
    packed: bool,
    trial: DeviceTrial | None,
) -> LocalNetwork:
    """Load the weights onto the device; with `packed`, batches are computed without padding.

    With a `trial` the device is first compared with the CPU, where that was not done yet: on the CPU the weights are then in fp32
    for a while. Raises EvalkitError where they do not agree.
    """
    from evalkit.models.local import TokenizedNetwork
    from evalkit.models.recipes import load_recipe

    if runtime.threads:
        torch.set_num_threads(runtime.threads)
    inputs, network = load_recipe(settings, files.folder)
    expected = None if trial is None or has_agreed(trial) else _cpu_outputs(settings, inputs, network)
    _move(settings, network, device, DTYPES[runtime.dtype])
    forward = device_forward(network, device, packed=packed)
    opened = TokenizedNetwork(inputs, forward, BATCH_TOKENS[device.type], pads=not packed)
    if trial is not None and expected is not None:
        judge_device(trial, expected, lambda: probe(opened, settings, short=expected.short))
    return opened


def open_ranker(
    settings: ModelSettings, files: ModelFiles, device: torch.device, runtime: Runtime, trial: DeviceTrial | None
) -> ListRanker:
    """Load a listwise model's weights onto the device; see open_network."""
    from evalkit.models.listwise import load_ranker

    if runtime.threads:
        torch.set_num_threads(runtime.threads)
    network, ranker = load_ranker(settings, files.folder)
    expected = None
    if trial is not None and not has_agreed(trial):
        network.to(dtype=torch.float32)
        logger.info("%s: comparing its outputs on the device with the CPU's, once", settings.name)
        expected = CpuOutputs(probe(ranker(torch.device("cpu")), settings, short=True), "fp32", short=True)
    _move(settings, network, device, DTYPES[runtime.dtype])
    opened = ranker(device)
    if trial is not None and expected is not None:
        judge_device(trial, expected, lambda: probe(opened, settings, short=True))
    return opened


def _move(settings: ModelSettings, network: torch.nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Put a network onto the device. Raises EvalkitError where it does not fit; the parts behind it take its output in fp32."""
    from evalkit.models.local import is_out_of_memory
    from evalkit.models.networks import WholeNetwork

    try:
        within = network.network if isinstance(network, WholeNetwork) else network
        within.to(device=device, dtype=dtype)
        network.to(device=device)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise EvalkitError(
            f"the weights of {settings.name} do not fit into the memory of {device_name(device)}: {str(error).splitlines()[0]}; "
            "try dtype=bf16 or fp16, another device, or device=cpu"
        ) from error


def device_forward(network: torch.nn.Module, device: torch.device, *, packed: bool) -> Forward:
    """Return the network's forward pass on the device that it is on."""
    from evalkit.models.bert import EncoderNetwork, packed_forward

    return packed_forward(cast(EncoderNetwork, network), device) if packed else padded_forward(network, device)


def padded_forward(network: torch.nn.Module, device: torch.device) -> Forward:
    """Return the forward pass of transformers' own network, which computes padding too."""

    def forward(arrays: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        tensors = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        with torch.inference_mode():
            output: NDArray[np.float32] = network(**tensors).float().cpu().numpy()
        return output

    return forward


def is_accelerator(device: torch.device) -> bool:
    """Return whether the device is compared with the CPU before it is used."""
    return device.type != "cpu"


def _cpu_outputs(settings: ModelSettings, inputs: Inputs, network: torch.nn.Module) -> CpuOutputs:
    """Return what a network gives on the CPU for the probes: in fp32, or in its own precision where fp32 would not fit.

    The network's weights are in that precision then, which holds all of their digits.
    """
    from evalkit.models.local import TokenizedNetwork

    size = sum(weight.numel() for weight in network.parameters())
    memory = memory_bytes()
    own = reduce(torch.promote_types, {weight.dtype for weight in network.parameters()})
    precision = torch.float32 if memory is None or 4 * size <= memory * MEMORY_SHARE else own
    network.to(dtype=precision)
    logger.info("%s: comparing its outputs on the device with the CPU's, once", settings.name)
    on_cpu = TokenizedNetwork(inputs, padded_forward(network, torch.device("cpu")), BATCH_TOKENS["cpu"])
    short = size > LARGE_NETWORK
    dtype = next((name for name, known in DTYPES.items() if known == precision), "fp32")
    return CpuOutputs(probe(on_cpu, settings, short=short), dtype, short)


def device_name(device: torch.device) -> str:
    """Return what a result says of a device: a GPU's own name, else its type."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def choose_device(name: str | None) -> torch.device:
    """Return the device of that name, or the best there is. Raises EvalkitError where this machine lacks it."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise EvalkitError(f"device={name} is not a device: cpu, cuda, cuda:N or mps") from None
    usable = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    there = usable.get(device.type, False) and (
        device.type != "cuda" or (device.index or 0) < torch.cuda.device_count()
    )
    if not there:
        found = ", ".join(kind for kind, here in usable.items() if here)
        raise EvalkitError(f"device={name} is not there: this machine has {found}")
    return device
