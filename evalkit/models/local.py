"""A network in this process: the recipe's inputs, and a function that runs padded batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalkit.models.bge_m3 import TextPairInputs
from evalkit.models.interfaces import Encoding, OutOfMemoryError, TokenizedText
from evalkit.models.prompted import PromptedInputs
from evalkit.models.tokenization import InputBuilder
from evalkit.records import Role

OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "bad allocation",
    "failed to allocate",
)
Inputs = InputBuilder | PromptedInputs | TextPairInputs
Forward = Callable[[Mapping[str, NDArray[np.int64]]], NDArray[np.float32]]


@dataclass(frozen=True)
class TokenizedNetwork:
    """A LocalNetwork (see models/interfaces.py) out of the recipe's inputs and a backend's forward pass.

    `forward` takes the arrays of the inputs' `pad` and gives logits or vectors; it must bear as many threads as `parallel` says.
    """

    inputs: Inputs
    forward: Forward
    batch_tokens: int
    parallel: int = 1
    pads: bool = True

    def tokenize(self, texts: Sequence[str], role: Role) -> list[TokenizedText]:
        return self.inputs.tokenize(texts, role)

    def encode_pair(self, query: TokenizedText, document: TokenizedText) -> Encoding:
        return self.inputs.encode_pair(query, document)

    def encode_text(self, text: TokenizedText) -> Encoding:
        if not isinstance(self.inputs, InputBuilder):
            raise TypeError("this recipe does not encode single texts")
        return self.inputs.encode_text(text)

    def run(self, batch: Sequence[Encoding]) -> NDArray[np.float32]:
        try:
            return self.forward(self.inputs.pad(batch))
        except Exception as error:  # each system has an exception of its own for it, and none is a MemoryError
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError(str(error)) from error


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an exception of torch, OpenVINO or ONNX Runtime says that memory ran out."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in OUT_OF_MEMORY)
