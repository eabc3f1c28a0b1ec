"""Copies of model folders, changed or damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]


def copied(folder: Path, into: Path) -> Path:
    """A copy named `model` that a test may change."""
    return shutil.copytree(folder, into / "model")


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def edit_weights(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    path = folder / "model.safetensors"
    tensors = change(load_file(path))
    path.unlink()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})


def pickle_weights(folder: Path) -> None:
    """The same weights as pytorch_model.bin alone."""
    path = folder / "model.safetensors"
    torch.save({name: tensor.clone() for name, tensor in load_file(path).items()}, folder / "pytorch_model.bin")
    path.unlink()
