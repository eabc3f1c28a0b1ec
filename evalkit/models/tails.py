"""The parts of a model behind its network that sentence-transformers' own classes compute: Dense, LayerNorm, WeightedLayerPooling.

They run in torch, whichever system runs the network: what that gives (a vector per text, or one per token, or one per token and
layer) is the tail's input.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evalkit.errors import EvalkitError
from evalkit.machine import installed_version
from evalkit.models.consent import guarded_by
from evalkit.models.folders.files import read_object
from evalkit.models.parts import network_output, parts_behind
from evalkit.models.pooling import pool
from evalkit.models.settings import ModelSettings

Forward = Callable[[Mapping[str, NDArray[np.int64]]], NDArray[np.float32]]
BEHIND = {
    "Dense": ("sentence_transformers.base.modules", "sentence_transformers.models"),
    "LayerNorm": ("sentence_transformers.sentence_transformer.modules", "sentence_transformers.models"),
    "WeightedLayerPooling": ("sentence_transformers.sentence_transformer.modules", "sentence_transformers.models"),
}
"""Where sentence-transformers has its classes: today's place, and that of versions before 5.4."""


class OwnPooling(torch.nn.Module):
    """evalkit's pooling, as a part between others."""

    def __init__(self, modes: tuple[str, ...]) -> None:
        super().__init__()
        self.modes = modes

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        vectors = pool(features["token_embeddings"], features["attention_mask"], features.get("pooled"), self.modes)
        return features | {"sentence_embedding": vectors}


class OwnNormalisation(torch.nn.Module):
    """Vectors of length one, as a part between others."""

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        return features | {"sentence_embedding": torch.nn.functional.normalize(features["sentence_embedding"], dim=-1)}


class Tail(torch.nn.Module):
    """The parts behind the network, in order.

    It gives vectors of shape (inputs, dimensions), or of pairs the scores, shape (inputs,).
    """

    def __init__(self, parts: list[torch.nn.Module], settings: ModelSettings, takes: str) -> None:
        super().__init__()
        self.parts = torch.nn.ModuleList(parts)
        self.takes = takes
        self.dimensions = settings.dimensions
        self.normalize = settings.kind == "embedder" and settings.similarity == "cosine"
        self.scores = settings.kind == "cross-encoder"

    def forward(
        self, output: torch.Tensor, attention_mask: torch.Tensor, pooled: torch.Tensor | None = None
    ) -> torch.Tensor:
        features: dict[str, Any] = {"attention_mask": attention_mask, self.takes: output}
        if self.takes == "all_layer_embeddings":
            features |= {self.takes: output.unbind(1), "token_embeddings": output[:, -1]}
        if pooled is not None:
            features["pooled"] = pooled
        for part in self.parts:
            try:
                features = part(features)
            except KeyError as error:
                raise EvalkitError(
                    f"{type(part).__name__} behind the network reads {error}, which no part before it gives: modules.json is not "
                    "whole"
                ) from error
            except RuntimeError as error:
                if "shape" not in str(error):  # such as memory that ran out
                    raise
                raise EvalkitError(
                    f"{type(part).__name__} behind the network takes vectors of another size than it is given ({error}): do its "
                    "folder and model.pooling go together?"
                ) from error
        if self.scores:
            scores = features["scores"]
            if scores.shape[-1] != 1:
                raise EvalkitError(f"its last part gives {scores.shape[-1]} numbers per pair, not one score")
            found: torch.Tensor = scores[:, 0].float()
            return found
        vectors: torch.Tensor = features["sentence_embedding"].float()[:, : self.dimensions]
        return torch.nn.functional.normalize(vectors, dim=-1) if self.normalize else vectors


def load_tail(settings: ModelSettings, folder: Path) -> Tail | None:
    """Load what is to run behind the network; None where its own graph computes everything. `folder` is the model's own.

    Raises EvalkitError where sentence-transformers is not installed, and where a part's files are damaged or missing.
    """
    rest = parts_behind(settings)
    if not rest and settings.dimensions is None:
        return None
    parts: list[torch.nn.Module] = []
    for part in rest:
        name, _, place = part.partition(":")
        if name == "Pooling":
            parts.append(OwnPooling(settings.pooling_modes))
        elif name == "Normalize":
            parts.append(OwnNormalisation())
        else:
            parts.append(load_part(name, folder / place, settings))
    return Tail(parts, settings, network_output(settings)).eval()


def load_part(name: str, folder: Path, settings: ModelSettings) -> torch.nn.Module:
    """Load one of sentence-transformers' modules with its weights, without code of the model's own."""
    from evalkit.models.networks import reporting_load_errors

    part_class = _part_class(name, folder)
    _refuse_ignored_settings(part_class, folder)
    pickled = (folder / "pytorch_model.bin").is_file()
    if not (folder / "model.safetensors").is_file() and not (pickled and settings.allow_pickle):
        advice = (
            "only pytorch_model.bin, which can run code when loaded; if you trust its author: model.allow_pickle=true"
            if pickled
            else "copy it from the model's origin"
        )
        raise EvalkitError(f"{folder} has no safetensors for {name}: {advice}")
    with guarded_by(settings, folder), reporting_load_errors(f"{folder}: {name} can't be loaded"):
        part: torch.nn.Module = part_class.load(str(folder))
    return part


def _part_class(name: str, folder: Path) -> Any:
    for package in BEHIND[name]:
        try:
            found = getattr(importlib.import_module(package), name, None)
        except ModuleNotFoundError:
            continue
        if found is not None:
            return found
    raise EvalkitError(
        f"{folder}: {name} is one of sentence-transformers' modules, and that is not installed: pip install sentence-transformers"
    )


def _refuse_ignored_settings(part_class: Any, folder: Path) -> None:
    """Refuse what sentence-transformers would leave out with a warning: later settings, activations of other packages."""
    config = read_object(folder / "config.json") or {}
    known = set(inspect.signature(part_class).parameters) | set(getattr(part_class, "config_key_renames", {}))
    unknown = sorted(set(config) - known)
    if unknown:
        raise EvalkitError(
            f"{folder / 'config.json'}: {part_class.__name__} has no {unknown[0]} in sentence-transformers "
            f"{installed_version('sentence-transformers')}, which would leave it out; a later version may know it"
        )
    activation = config.get("activation_function")
    if activation is not None and not str(activation).startswith("torch."):
        raise EvalkitError(
            f"{folder / 'config.json'}: activation_function={activation!r} is none of torch's, and sentence-transformers would "
            "take Tanh in its place"
        )


def behind(forward: Forward, tail: Tail | None) -> Forward:
    """Return another system's forward pass with the tail behind it; without one as it is."""
    if tail is None:
        return forward

    def whole(arrays: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        output = torch.from_numpy(forward(arrays))
        masks = {name: torch.from_numpy(arrays[name]) for name in ("attention_mask", "pooled") if name in arrays}
        with torch.inference_mode():
            found: NDArray[np.float32] = tail(output, **masks).numpy()
        return found

    return whole
