"""PyTorch with Hugging Face transformers: on CUDA, Apple's MPS or the CPU, in fp32, bf16 or fp16."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from evalkit.errors import EvalkitError
from evalkit.models.batches import pad_batch
from evalkit.models.interfaces import Encoding, LoadedModel, Runtime, TokenizedText
from evalkit.models.networks import load_network, load_tokenizer, position_limit
from evalkit.models.settings import ModelSettings
from evalkit.models.tokenization import InputBuilder
from evalkit.models.weights import find_model
from evalkit.records import Role

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# a CPU gains nothing from more tokens than keep its matrix units busy; an accelerator wants many
BATCH_TOKENS = {"cpu": 2_048, "mps": 16_384, "cuda": 65_536}


@dataclass(frozen=True)
class TorchNetwork:
    """A LocalNetwork (see models/interfaces.py) that PyTorch runs."""

    inputs: InputBuilder
    network: torch.nn.Module
    device: torch.device
    batch_tokens: int

    def tokenize(self, texts: Sequence[str], role: Role) -> list[TokenizedText]:
        return self.inputs.tokenize(texts, role)

    def encode_pair(self, query: TokenizedText, document: TokenizedText) -> Encoding:
        return self.inputs.encode_pair(query, document)

    def encode_text(self, text: TokenizedText) -> Encoding:
        return self.inputs.encode_text(text)

    def run(self, batch: Sequence[Encoding]) -> NDArray[np.float32]:
        arrays = pad_batch(batch, self.inputs.tokenizer.pad_token_id)
        tensors = {name: torch.from_numpy(array).to(self.device) for name, array in arrays.items()}
        with torch.inference_mode():
            output: NDArray[np.float32] = self.network(**tensors).float().cpu().numpy()
        return output


def load(settings: ModelSettings, runtime: Runtime) -> LoadedModel:
    """Load the model's weights onto the device in the asked precision."""
    if runtime.dtype not in DTYPES:
        raise EvalkitError(f"dtype={runtime.dtype}: backend torch runs {', '.join(DTYPES)}")
    device = choose_device(runtime.device)
    if runtime.threads:
        torch.set_num_threads(runtime.threads)
    files = find_model(settings, offline=runtime.offline)
    network = load_network(settings, files.folder).to(device=device, dtype=DTYPES[runtime.dtype])
    inputs = InputBuilder.create(
        load_tokenizer(settings, files.folder), settings, position_limit(settings, files.folder)
    )
    description: dict[str, object] = {
        "name": "torch",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "dtype": runtime.dtype,
        "max_length": inputs.max_length,
        "threads": torch.get_num_threads(),
    }
    return LoadedModel(TorchNetwork(inputs, network, device, BATCH_TOKENS[device.type]), files.identity, description)


def choose_device(name: str | None) -> torch.device:
    """The device of that name, or the best there is. Raises EvalkitError where this machine lacks it."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise EvalkitError(f"device={name} is not a device: cpu, cuda, cuda:N or mps") from None
    usable = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not usable.get(device.type, False) or (
        device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    ):
        found = ", ".join(kind for kind, there in usable.items() if there)
        raise EvalkitError(f"device={name} is not there: this machine has {found}")
    return device
