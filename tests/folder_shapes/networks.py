"""Tiny networks of every architecture, with random weights that tell texts apart, in the files that the Hub has for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers

from folder_shapes.spelling import write_spelling

HIDDEN, POSITIONS = 32, 128
ENCODER = {"hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
SHARED = {**ENCODER, "max_position_embeddings": POSITIONS}
# two positions are of the padding
OFFSET = {**ENCODER, "max_position_embeddings": POSITIONS + 2, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
DECODER = {
    **ENCODER, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512,
    "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
T5 = {
    "d_model": HIDDEN, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "pad_token_id": 0, "eos_token_id": 1,
    "decoder_start_token_id": 0, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 32,
}  # fmt: skip


@dataclass(frozen=True)
class Architecture:
    """transformers' names of it (`Bert`), its tokenizer's family, and its sizes."""

    prefix: str
    spelling: str
    sizes: dict[str, Any] = field(default_factory=lambda: dict(SHARED))
    encoder: str = "Model"
    config: str = "Config"


ARCHITECTURES = {
    "bert": Architecture("Bert", "bert"),
    "roberta": Architecture("Roberta", "roberta", OFFSET | {"type_vocab_size": 1}),
    "xlm-r": Architecture("XLMRoberta", "xlm-r", OFFSET | {"type_vocab_size": 1}),
    "mpnet": Architecture("MPNet", "mpnet", OFFSET),
    "distilbert": Architecture(
        "DistilBert", "distilbert",
        {"dim": HIDDEN, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": POSITIONS},
    ),
    "electra": Architecture("Electra", "electra", SHARED | {"embedding_size": 16}),
    "deberta-v2": Architecture(
        "DebertaV2", "deberta-v2",
        SHARED | {
            "relative_attention": True, "position_biased_input": False, "pos_att_type": ["p2c", "c2p"],
            "position_buckets": 16, "norm_rel_ebd": "layer_norm", "share_att_key": True, "type_vocab_size": 0,
            "pooler_hidden_size": HIDDEN,
        },
    ),
    "modernbert": Architecture(
        "ModernBert", "modernbert",
        SHARED | {
            "num_hidden_layers": 3, "global_attn_every_n_layers": 2, "local_attention": 16, "pad_token_id": 0,
            "bos_token_id": 2, "cls_token_id": 2, "sep_token_id": 3, "eos_token_id": 3,
        },
    ),
    "albert": Architecture("Albert", "albert", SHARED | {"embedding_size": 16, "pad_token_id": 0}),
    "qwen2": Architecture("Qwen2", "decoder", DECODER),
    "qwen3": Architecture("Qwen3", "decoder", DECODER),
    "llama": Architecture("Llama", "decoder", DECODER),
    "gemma": Architecture("Gemma", "decoder", DECODER),
    "gemma2": Architecture("Gemma2", "decoder", DECODER | {"sliding_window": 16, "query_pre_attn_scalar": 8}),
    "gemma3": Architecture(
        "Gemma3", "decoder", DECODER | {"sliding_window": 16, "query_pre_attn_scalar": 8}, "TextModel", "TextConfig"
    ),
    "t5": Architecture("T5", "t5", T5, "EncoderModel"),
    "mt5": Architecture("MT5", "t5", T5, "EncoderModel"),
}  # fmt: skip


def build_network(architecture: str, tokens: int, head: str = "", seed: int = 0, **sizes: Any) -> Any:
    """The network of an architecture: its encoder, or with the head given ("ForSequenceClassification", "ForMaskedLM", …)."""
    found = ARCHITECTURES[architecture]
    config_class = getattr(transformers, found.prefix + found.config)
    config = config_class(**{"vocab_size": tokens, **found.sizes, **sizes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = getattr(transformers, found.prefix + (head or found.encoder))(config).eval()
        spread_weights(network)
    return network


def spread_weights(network: Any) -> None:
    """Weights so wide that every part of the network, biases and norms too, shows in the scores."""
    with torch.no_grad():
        for module in network.modules():
            for name, weights in module.named_parameters(recurse=False):
                if isinstance(module, torch.nn.Linear) and name == "weight":
                    few = module.out_features <= 3  # of a head that scores
                    weights.normal_(std=(4 if few else 1.5) * module.in_features**-0.5)
                elif weights.dim() >= 2:
                    weights.normal_(std=0.5)
                else:
                    weights.add_(torch.randn_like(weights) * 0.2)


def write_network(folder: Path, architecture: str, head: str = "", spelling: str = "", **sizes: Any) -> Any:
    """Write an architecture's network with its tokenizer, and give the network."""
    tokens = write_spelling(folder, spelling or ARCHITECTURES[architecture].spelling)
    network = build_network(architecture, tokens, head, **sizes)
    network.save_pretrained(folder)
    return network
