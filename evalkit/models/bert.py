"""Encoders of BERT's kind with less to compute: batches without padding, and a last layer that computes its first position alone.

Where a classifier (or CLS pooling) reads only the first position of the last layer, keys and values are still those of all
positions; queries, attention, and the feed-forward part, some 5/6 of a layer, are needed once per input instead of once per
token. The result is the same but for the last bits.

On a GPU batches are packed: the tokens of all inputs in one row. PyTorch's kernel for inputs of different lengths keeps
attention within each input. It runs in fp16 and bf16, on NVIDIA's GPUs since Ampere; whatever it does not run is computed on
padded batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, cast

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from evalkit.models.local import Forward
from evalkit.models.networks import CrossEncoderNetwork, EmbedderNetwork
from evalkit.models.settings import ModelSettings

ARCHITECTURES = ("bert", "roberta", "xlm-roberta")

AMPERE = (8, 0)
PACKED = ("cls", "mean", "last")
Arrays = Mapping[str, NDArray[np.int64]]
EncoderNetwork = CrossEncoderNetwork | EmbedderNetwork


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
        encoder: Any = network.encoder if network.modes == ("cls",) else None
    else:
        encoder = network.classifier.base_model
    if encoder is not None and has_bert_layers(encoder.config):
        encoder.encoder.layer[-1] = FirstTokenLayer(encoder.encoder.layer[-1])
    return network


def has_bert_layers(config: Any) -> bool:
    """Return whether the layers are transformers' own of BERT's kind.

    A layer of transformers 4 gives a tuple, and may have relative positions; a model's own code may do anything.
    """
    return (
        int(transformers.__version__.split(".")[0]) >= 5
        and config.model_type in ARCHITECTURES
        and not getattr(config, "auto_map", None)
        and not config.is_decoder
        and getattr(config, "position_embedding_type", None) in (None, "absolute")
    )


def runs_packed(config: Any, device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether the kernel is there and runs a network of this configuration, in this precision, on this device."""
    return (
        device.type == "cuda"
        and dtype in (torch.float16, torch.bfloat16)
        and find_spec("torch.nn.attention.varlen") is not None  # torch 2.10
        and torch.cuda.get_device_capability(device) >= AMPERE
        and has_bert_layers(config)
        and config.hidden_size // config.num_attention_heads in range(8, 257, 8)
    )


def packs_recipe(settings: ModelSettings) -> bool:
    """Return whether the recipe can be run on packed inputs: one pooling of all tokens, and nothing behind it."""
    plain = not settings.modules and settings.dimensions is None and settings.pool_prompt
    if settings.kind == "bge-m3":
        return settings.score == "dense"
    return not settings.modules and (
        settings.kind == "cross-encoder" or (plain and settings.kind == "embedder" and settings.pooling in PACKED)
    )


def packed_forward(network: EncoderNetwork, device: torch.device) -> Forward:
    """Return the network's forward pass, which takes padded arrays and computes no padding; its layers are replaced in place."""
    base: Any = network.classifier.base_model if isinstance(network, CrossEncoderNetwork) else network.encoder
    first_token = isinstance(network, CrossEncoderNetwork) or network.modes == ("cls",)
    base.encoder = PackedEncoder(base.encoder.layer, first_token)

    def forward(arrays: Arrays) -> NDArray[np.float32]:
        row, offsets = pack_rows(arrays, base.config)
        tensors = {name: torch.from_numpy(array).to(device) for name, array in row.items()}
        places = torch.from_numpy(offsets).to(device)
        with torch.inference_mode():
            options = {"offsets": places, "longest": int(np.diff(offsets).max())}
            if isinstance(network, CrossEncoderNetwork):
                outputs = network.classifier(**tensors, **options).logits[:, network.label].float()
            else:
                outputs = _vectors(network, network.encoder(**tensors, **options).last_hidden_state.float(), places)
            found: NDArray[np.float32] = outputs.cpu().numpy()
        return found

    return forward


def pack_rows(arrays: Arrays, config: Any) -> tuple[dict[str, NDArray[np.int64]], NDArray[np.int32]]:
    """Return the arrays of padded inputs as one row, shape (1, tokens), with each token's position; and where each input starts.

    The second has one number more than there are inputs: the last one is where the last input ends.
    """
    ids, kept = arrays["input_ids"], arrays["attention_mask"].astype(bool)
    if config.model_type == "bert":
        positions = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
    else:  # RoBERTa and its kin count what is no padding token, from its id on
        words = (ids != config.pad_token_id).astype(np.int64)
        positions = np.cumsum(words, axis=1) * words + config.pad_token_id
    rows = {name: array[kept][None] for name, array in arrays.items() if name != "attention_mask"}
    offsets = np.concatenate([[0], np.cumsum(kept.sum(axis=1))]).astype(np.int32)
    return rows | {"position_ids": positions[kept][None]}, offsets


class PackedEncoder(torch.nn.Module):
    """BERT's layers over inputs in one row, shape (1, tokens, dimensions).

    `offsets` says where each input starts, and where the last one ends. With `first_token`, each input's first position is
    what comes out, shape (inputs, 1, dimensions).
    """

    def __init__(self, layers: torch.nn.ModuleList, first_token: bool) -> None:
        super().__init__()
        self.layer = layers
        self.first_token = first_token

    def forward(
        self, hidden_states: torch.Tensor, *_: Any, offsets: torch.Tensor, longest: int, **__: Any
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        hidden = hidden_states[0]
        for layer in self.layer[: len(self.layer) - self.first_token]:
            hidden = _run_layer(layer, hidden, hidden, offsets, offsets, longest, longest)
        if not self.first_token:
            return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=hidden[None])
        each = torch.arange(len(offsets), dtype=offsets.dtype, device=offsets.device)  # one query per input
        first = _run_layer(self.layer[-1], hidden[offsets[:-1]], hidden, each, offsets, 1, longest)
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=first[:, None])


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    query_offsets: torch.Tensor,
    offsets: torch.Tensor,
    longest_query: int,
    longest: int,
) -> torch.Tensor:
    """Compute attention within each input; tensors of shape (tokens, heads, dimensions)."""
    from torch.nn.attention.varlen import varlen_attn

    # it gives more than the attention's output only where asked to
    return cast(torch.Tensor, varlen_attn(query, key, value, query_offsets, offsets, longest_query, longest))


def _run_layer(
    layer: Any,
    asked: torch.Tensor,
    states: torch.Tensor,
    asked_offsets: torch.Tensor,
    offsets: torch.Tensor,
    longest_asked: int,
    longest: int,
) -> torch.Tensor:
    """Return the layer's outputs at the `asked` positions, with keys and values of all `states`, shape (tokens, dimensions)."""
    attention = layer.attention.self

    def heads(projection: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
        return torch.unflatten(projection(tokens), -1, (attention.num_attention_heads, -1))

    context = attend(
        heads(attention.query, asked),
        heads(attention.key, states),
        heads(attention.value, states),
        asked_offsets,
        offsets,
        longest_asked,
        longest,
    )
    output: torch.Tensor = layer.feed_forward_chunk(layer.attention.output(context.flatten(1), asked))
    return output


def _vectors(network: EmbedderNetwork, hidden: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    if network.modes == ("cls",):
        vectors = hidden[:, 0]
    elif network.modes == ("mean",):
        vectors = torch.segment_reduce(hidden[0], "mean", offsets=offsets.long())
    else:
        vectors = hidden[0, offsets[1:] - 1]
    return torch.nn.functional.normalize(vectors, dim=-1) if network.normalize else vectors
