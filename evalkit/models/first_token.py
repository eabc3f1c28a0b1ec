"""A last layer that computes its first position alone, where a score or vector is made of nothing else.

Of an encoder's last layer, a classifier (or CLS pooling) reads only the first position. Keys and values are still those of all
positions; queries, attention, and the feed-forward part, some 5/6 of a layer, are needed once per input instead of once per
token. The result is the same but for the last bits.
"""

from __future__ import annotations

from typing import Any

import torch
import transformers

from evalkit.models.networks import CrossEncoderNetwork, EmbedderNetwork

ARCHITECTURES = ("bert", "roberta", "xlm-roberta")


class FirstTokenLayer(torch.nn.Module):
    """A BERT layer that takes all positions, shape (inputs, tokens, dimensions), and gives the first, (inputs, 1, dimensions)."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, *_: Any, **__: Any
    ) -> torch.Tensor:
        attention = self.layer.attention.self
        first = hidden_states[:, :1]

        def heads(projection: torch.nn.Module, states: torch.Tensor) -> torch.Tensor:
            return torch.unflatten(projection(states), -1, (attention.num_attention_heads, -1)).transpose(1, 2)

        context = torch.nn.functional.scaled_dot_product_attention(
            heads(attention.query, first),
            heads(attention.key, hidden_states),
            heads(attention.value, hidden_states),
            attn_mask=None if attention_mask is None else attention_mask[..., :1, :],
        )
        attended = self.layer.attention.output(context.transpose(1, 2).flatten(2), first)
        output: torch.Tensor = self.layer.feed_forward_chunk(attended)
        return output


def compute_first_token_alone(
    network: CrossEncoderNetwork | EmbedderNetwork,
) -> CrossEncoderNetwork | EmbedderNetwork:
    """Replace the last layer, in place, where the architecture is known and nothing but the first position is read."""
    if isinstance(network, EmbedderNetwork):
        encoder: Any = network.encoder if network.pooling == "cls" else None
    else:
        encoder = network.classifier.base_model
    if encoder is not None and has_bert_layers(encoder.config):
        encoder.encoder.layer[-1] = FirstTokenLayer(encoder.encoder.layer[-1])
    return network


def has_bert_layers(config: Any) -> bool:
    """Whether the layers are transformers' own of BERT's kind.

    A layer of transformers 4 gives a tuple, and may have relative positions; a model's own code may do anything.
    """
    return (
        int(transformers.__version__.split(".")[0]) >= 5
        and config.model_type in ARCHITECTURES
        and not getattr(config, "auto_map", None)
        and not config.is_decoder
        and getattr(config, "position_embedding_type", None) in (None, "absolute")
    )
