"""PyTorch with Hugging Face transformers: on CUDA, Apple's MPS or the CPU, in fp32, bf16 or fp16."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from evalkit.errors import EvalkitError
from evalkit.models.interfaces import LocalNetwork, RunnableModel, Runtime
from evalkit.models.settings import ModelSettings
from evalkit.models.weights import ModelFiles, find_model, way_of_scoring

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# a CPU gains nothing from more tokens than keep its matrix units busy; an accelerator wants many
BATCH_TOKENS = {"cpu": 2_048, "mps": 16_384, "cuda": 65_536}


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
    return RunnableModel(
        identity=files.identity,
        description=description,
        way=way_of_scoring(settings, files, description),
        open=lambda: open_network(settings, files, device, runtime, packed=packed),
    )


def _runs_packed(settings: ModelSettings, files: ModelFiles, device: torch.device, dtype: torch.dtype) -> bool:
    if device.type != "cuda" or dtype == torch.float32:
        return False  # without looking into files
    from evalkit.models.bert import packs_recipe, runs_packed
    from evalkit.models.networks import load_config

    return packs_recipe(settings) and runs_packed(load_config(settings, files.folder), device, dtype)


def open_network(
    settings: ModelSettings, files: ModelFiles, device: torch.device, runtime: Runtime, *, packed: bool
) -> LocalNetwork:
    """Load the weights onto the device; with `packed`, batches are computed without padding."""
    from evalkit.models.bert import EncoderNetwork, packed_forward
    from evalkit.models.local import TokenizedNetwork, is_out_of_memory
    from evalkit.models.recipes import load_recipe

    if runtime.threads:
        torch.set_num_threads(runtime.threads)
    inputs, network = load_recipe(settings, files.folder)
    try:
        network.to(device=device, dtype=DTYPES[runtime.dtype])
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise EvalkitError(
            f"the weights of {settings.name} do not fit into the memory of {device_name(device)}: {str(error).splitlines()[0]}; "
            "try dtype=bf16 or fp16, another device, or device=cpu"
        ) from error

    if packed:
        return TokenizedNetwork(
            inputs, packed_forward(cast(EncoderNetwork, network), device), BATCH_TOKENS["cuda"], pads=False
        )

    def forward(arrays: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        tensors = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        with torch.inference_mode():
            output: NDArray[np.float32] = network(**tensors).float().cpu().numpy()
        return output

    return TokenizedNetwork(inputs, forward, BATCH_TOKENS[device.type])


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
