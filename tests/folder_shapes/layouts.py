"""What lies around a network: modules.json with its subfolders, and settings, as sentence-transformers 3 and 6 write them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from real_models import write_json
from safetensors.torch import save_file

from folder_shapes.networks import HIDDEN, write_network
from folder_shapes.spelling import LENGTH

OLD_FLAGS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
PROMPTS = {"query": "query: ", "document": "passage: "}


@dataclass(frozen=True)
class Part:
    """A module behind the network: its class, its config.json, and its weights by shape."""

    name: str
    config: Mapping[str, Any] | None = None
    weights: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def type(self) -> str:
        """The class as files of sentence-transformers 5 and before name it; a dotted name is taken as it is."""
        return self.name if "." in self.name else f"sentence_transformers.models.{self.name}"


def dense(inputs: int = HIDDEN, outputs: int = HIDDEN, activation: str = "Tanh", bias: bool = True) -> Part:
    place = "linear" if activation == "Identity" else "activation"
    config = {"in_features": inputs, "out_features": outputs, "bias": bias}
    config["activation_function"] = f"torch.nn.modules.{place}.{activation}"
    weights = {"linear.weight": (outputs, inputs)} | ({"linear.bias": (outputs,)} if bias else {})
    return Part("Dense", config, weights)


NORMALIZE = Part("Normalize")
LAYER_NORM = Part("LayerNorm", {"dimension": HIDDEN}, {"norm.weight": (HIDDEN,), "norm.bias": (HIDDEN,)})
DROPOUT = Part("Dropout", {"dropout": 0.5})
WEIGHTED_LAYERS = Part(
    "WeightedLayerPooling",
    {"word_embedding_dimension": HIDDEN, "layer_start": 1, "num_hidden_layers": 2},
    {"layer_weights": (2,)},
)


def write_embedder(
    folder: Path,
    architecture: str = "bert",
    pooling: Sequence[str] = ("mean",),
    *,
    before: Sequence[Part] = (),
    after: Sequence[Part] = (),
    new: bool = False,
    length: int | None = LENGTH,
    lower: bool = False,
    include_prompt: bool | None = None,
    settings: Mapping[str, Any] | None = None,
    **network: Any,
) -> None:
    """A SentenceTransformer: a network, `before`, `pooling`, `after`.

    `settings` are those of config_sentence_transformers.json. The files are as an older version wrote them, or with `new` as the
    installed one saves what it read from those. `network` is for `write_network`.
    """
    write_network(folder, architecture, **network)
    said: dict[str, Any] = {"word_embedding_dimension": HIDDEN}
    said |= {"pooling_mode": list(pooling)} if new else {flag: mode in pooling for mode, flag in OLD_FLAGS.items()}
    if include_prompt is not None:
        said["include_prompt"] = include_prompt
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": length, "do_lower_case": lower})
    if settings is not None:
        write_json(folder / "config_sentence_transformers.json", SAVED_BY | settings)
    write_modules(folder, [*before, Part("Pooling", said), *after])
    if new:
        resave(folder)


SAVED_BY = {"__version__": {"sentence_transformers": "3.3.1", "transformers": "4.46.3", "pytorch": "2.5.1"}}


def write_modules(folder: Path, parts: Sequence[Part]) -> None:
    """modules.json for the network in the folder and these parts, and their subfolders with spread weights."""
    rows = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    draw = torch.Generator().manual_seed(7)
    for number, part in enumerate(parts, start=1):
        path = f"{number}_{part.name.rpartition('.')[2]}"
        rows.append({"idx": number, "name": str(number), "path": path, "type": part.type})
        (folder / path).mkdir(parents=True, exist_ok=True)
        if part.config is not None:
            write_json(folder / path / "config.json", part.config)
        if part.weights:
            tensors = {
                name: torch.randn(shape, generator=draw) * shape[-1] ** -0.5
                if len(shape) > 1
                else torch.rand(shape, generator=draw) + 0.5
                for name, shape in part.weights.items()
            }
            save_file(tensors, folder / path / "model.safetensors")
    write_json(folder / "modules.json", rows)


def resave(folder: Path, model: Any = None) -> None:
    """Replace the folder by what the installed sentence-transformers saves of it, or of `model`."""
    if model is None:
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    saved = folder.with_name(folder.name + "-saved")
    model.save_pretrained(str(saved), create_model_card=False)
    shutil.rmtree(folder)
    saved.rename(folder)


def write_classifier(folder: Path, architecture: str, spelling: str = "", *, labels: int = 1, **sizes: Any) -> None:
    """A classifier of pairs as transformers saves it."""
    if "id2label" not in sizes:
        sizes["num_labels"] = labels
    head = "TextForSequenceClassification" if architecture == "gemma3" else "ForSequenceClassification"
    write_network(folder, architecture, head, spelling, **sizes)


def write_with_library(folder: Path, build: Callable[[Path], Any]) -> None:
    """What the installed sentence-transformers saves of the model that `build` makes in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    resave(folder, build(folder))
