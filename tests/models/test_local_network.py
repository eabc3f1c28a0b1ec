"""A local network tells when memory runs out, whichever system it is that says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalkit.models.inputs import load_inputs
from evalkit.models.interfaces import LocalNetwork, OutOfMemoryError
from evalkit.models.local import TokenizedNetwork
from evalkit.models.settings import model_settings


def network(folder: Path, error: Exception) -> LocalNetwork:
    def forward(arrays: object) -> object:
        raise error

    settings = model_settings({"name": "m", "kind": "cross-encoder"})
    return TokenizedNetwork(load_inputs(settings, folder), forward, 512)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory: you tried to …"),
        RuntimeError("Exception from src/inference: std::bad_alloc"),
        RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer"),
        MemoryError(),
    ],
)
def test_every_system_s_way_to_say_out_of_memory(error: Exception, tiny_bert_reranker: Path) -> None:
    runs = network(tiny_bert_reranker, error)
    (text,) = runs.tokenize(["你好"], "query")
    with pytest.raises(OutOfMemoryError):
        runs.run([runs.encode_pair(text, text)])


def test_other_errors_stay_what_they_are(tiny_bert_reranker: Path) -> None:
    runs = network(tiny_bert_reranker, RuntimeError("shapes do not match"))
    (text,) = runs.tokenize(["你好"], "query")
    with pytest.raises(RuntimeError, match="shapes do not match"):
        runs.run([runs.encode_pair(text, text)])
