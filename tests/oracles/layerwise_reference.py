"""FlagEmbedding's layerwise networks, run by FlagEmbedding's own code.

That code was written for an older transformers. Three things of it are given back here: a list of tied weights is none, the
rotary settings of MiniCPM are none, and a layer of Gemma 2 makes its position embeddings itself and returns a tuple.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

MINICPM = {
    "architectures": ["LayerWiseMiniCPMForCausalLM"], "model_type": "minicpm", "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 5, "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 2_048,
    "rms_norm_eps": 1e-5, "scale_emb": 12, "scale_depth": 1.4, "dim_model_base": 16, "start_layer": 2, "head_multi": True,
    "head_type": "simple", "pad_token_id": 3, "bos_token_id": 0, "eos_token_id": 1, "tie_word_embeddings": False,
    "auto_map": {"AutoConfig": "configuration_minicpm_reranker.LayerWiseMiniCPMConfig"},
}  # fmt: skip
GEMMA = {
    "architectures": ["CostWiseGemmaForCausalLM"], "model_type": "cost_wise_gemma", "hidden_size": 64,
    "intermediate_size": 128, "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "query_pre_attn_scalar": 24, "max_position_embeddings": 4_096, "rms_norm_eps": 1e-6, "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 3.0, "hidden_activation": "gelu_pytorch_tanh", "sliding_window": 4_096, "start_layer": 2,
    "layer_sep": 1, "layer_wise": True, "pad_token_id": 3, "bos_token_id": 0, "eos_token_id": 1, "tie_word_embeddings": False,
    "auto_map": {"AutoConfig": "BAAI/bge-reranker-v2.5-gemma2-lightweight--gemma_config.CostWiseGemmaConfig"},
}  # fmt: skip


class OldLayer(torch.nn.Module):
    """A layer of today as the layers of transformers 4.46 were called."""

    def __init__(self, layer: Any, rotary: Any) -> None:
        super().__init__()
        self.layer, self.rotary = layer, [rotary]

    def forward(
        self, hidden: torch.Tensor, attention_mask: torch.Tensor, position_ids: torch.Tensor, **_: Any
    ) -> tuple[torch.Tensor]:
        embeddings = self.rotary[0](hidden, position_ids)
        options = {"attention_mask": attention_mask, "position_ids": position_ids, "position_embeddings": embeddings}
        return (self.layer(hidden, **options),)


def build(config: dict[str, Any]) -> Any:
    """FlagEmbedding's network of this configuration, its weights not yet told."""
    fields = {key: value for key, value in config.items() if key not in ("architectures", "model_type", "auto_map")}
    if config["model_type"] == "minicpm":
        from FlagEmbedding.inference.reranker.decoder_only.models import modeling_minicpm_reranker as minicpm

        class MiniCPM(minicpm.LayerWiseMiniCPMForCausalLM):
            _tied_weights_keys = None

        settings = minicpm.LayerWiseMiniCPMConfig(**fields, attn_implementation="eager")
        settings.rope_parameters = None
        return MiniCPM(settings).eval()
    from FlagEmbedding.inference.reranker.decoder_only.models import gemma_model
    from transformers.models.gemma2.modeling_gemma2 import Gemma2RotaryEmbedding

    class Gemma(gemma_model.CostWiseGemmaForCausalLM):
        _tied_weights_keys = None

    network = Gemma(gemma_model.CostWiseGemmaConfig(**fields, attn_implementation="eager")).eval()
    rotary = Gemma2RotaryEmbedding(network.config)
    network.model.layers = torch.nn.ModuleList(OldLayer(layer, rotary) for layer in network.model.layers)
    return network


def write_layerwise(folder: Path, config: dict[str, Any], vocab_size: int) -> None:
    """Random weights under the checkpoint's names, and a config.json as on the Hub, code of its own and all."""
    config = config | {"vocab_size": vocab_size}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build(config)
        for name, weight in network.named_parameters():
            if weight.ndim == 2:
                torch.nn.init.normal_(weight, std=(4 if "head" in name else 1) * weight.shape[1] ** -0.5)
            else:
                torch.nn.init.normal_(weight, mean=0.0 if config["model_type"] != "minicpm" else 1.0, std=0.1)
    tensors = {name.replace(".layer.", "."): tensor.contiguous() for name, tensor in network.state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))


@cache
def load(folder: Path) -> Any:
    """FlagEmbedding's network with the folder's weights."""
    network = build(json.loads((folder / "config.json").read_text()))
    tensors = load_file(folder / "model.safetensors")
    names = {name.replace(".layer.", "."): name for name in network.state_dict()}
    network.load_state_dict({names[name]: tensor for name, tensor in tensors.items()})
    return network


def scores(
    folder: Path,
    tokenizer_folder: Path,
    pairs: Sequence[tuple[str, str]],
    prompt: str,
    max_length: int = 512,
    batch_size: int = 3,
    **options: Any,
) -> list[float]:
    """As FlagEmbedding's two classes make them, with its own inputs and padding. `options`: cutoff_layers, compress_…"""
    from FlagEmbedding.inference.reranker.decoder_only.base import Collater, DatasetForReranker
    from FlagEmbedding.inference.reranker.decoder_only.lightweight import last_logit_pool_lightweight

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    cut = {"add_special_tokens": False, "truncation": True}
    queries = [tokenizer("A: " + query, max_length=max_length * 3 // 4, **cut) for query, _ in pairs]
    documents = [tokenizer("B: " + document, max_length=max_length, **cut) for _, document in pairs]
    items = DatasetForReranker(queries, documents, str(tokenizer_folder), max_length, prompt=prompt)
    collate = Collater(items.tokenizer, max_length)
    items.tokenizer.padding_side = "right"
    found: list[float] = []
    for start in range(0, len(pairs), batch_size):
        numbers = range(start, min(start + batch_size, len(pairs)))
        inputs = collate([items[number] for number in numbers])
        extra = dict(options)
        if "compress_ratio" in options:
            extra["query_lengths"] = [1 + len(queries[i]["input_ids"]) + len(items.sep_inputs) for i in numbers]
            extra["prompt_lengths"] = [len(items.sep_inputs) + len(items.prompt_inputs)] * len(numbers)
        with torch.inference_mode():
            outputs = load(folder)(
                **inputs, output_hidden_states=True, output_attentions=False, use_cache=False, return_dict=True, **extra
            )
        masks = getattr(outputs, "attention_masks", None) or [inputs["attention_mask"]]
        found += last_logit_pool_lightweight(outputs.logits[0], masks[0]).tolist()
    return found
