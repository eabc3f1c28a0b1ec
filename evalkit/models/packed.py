"""Batches without padding, for encoders of BERT's kind on a GPU: the tokens of all inputs in one row.

PyTorch's kernel for inputs of different lengths keeps attention within each input. It runs in fp16 and bf16, on NVIDIA's GPUs
since Ampere; whatever it does not run is computed on padded batches. Of the last layer, only each input's first position is
computed where nothing else is read, as in first_token.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from evalkit.models.first_token import has_bert_layers
from evalkit.models.local import Forward
from evalkit.models.networks import CrossEncoderNetwork, EmbedderNetwork

AMPERE = (8, 0)
Arrays = Mapping[str, NDArray[np.int64]]
EncoderNetwork = CrossEncoderNetwork | EmbedderNetwork


def runs_packed(config: Any, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernel is there and runs a network of this configuration, in this precision, on this device."""
    return (
        device.type == "cuda"
        and dtype in (torch.float16, torch.bfloat16)
        and find_spec("torch.nn.attention.varlen") is not None  # torch 2.10
        and torch.cuda.get_device_capability(device) >= AMPERE
        and has_bert_layers(config)
        and config.hidden_size // config.num_attention_heads in range(8, 257, 8)
    )


def packed_forward(network: EncoderNetwork, device: torch.device) -> Forward:
    """The network's forward pass, its layers replaced in place: takes padded arrays, and computes what is no padding."""
    base: Any = network.classifier.base_model if isinstance(network, CrossEncoderNetwork) else network.encoder
    first_token = isinstance(network, CrossEncoderNetwork) or network.pooling == "cls"
    base.encoder = PackedEncoder(base.encoder.layer, first_token)

    def forward(arrays: Arrays) -> NDArray[np.float32]:
        row, offsets = pack_rows(arrays, base.config)
        tensors = {name: torch.from_numpy(array).to(device) for name, array in row.items()}
        places = torch.from_numpy(offsets).to(device)
        with torch.inference_mode():
            options = {"offsets": places, "longest": int(np.diff(offsets).max())}
            if isinstance(network, CrossEncoderNetwork):
                outputs = network.classifier(**tensors, **options).logits[:, 0].float()
            else:
                outputs = _vectors(network, network.encoder(**tensors, **options).last_hidden_state.float(), places)
            found: NDArray[np.float32] = outputs.cpu().numpy()
        return found

    return forward


def pack_rows(arrays: Arrays, config: Any) -> tuple[dict[str, NDArray[np.int64]], NDArray[np.int32]]:
    """The arrays of padded inputs as one row, shape (1, tokens), with each token's position; and where each input starts.

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
    """Attention within each input; tensors of shape (tokens, heads, dimensions)."""
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
    """The layer's outputs at the `asked` positions, with keys and values of all `states`, shape (tokens, dimensions)."""
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
    if network.pooling == "cls":
        vectors = hidden[:, 0]
    elif network.pooling == "mean":
        vectors = torch.segment_reduce(hidden[0], "mean", offsets=offsets.long())
    else:
        vectors = hidden[0, offsets[1:] - 1]
    return torch.nn.functional.normalize(vectors, dim=-1) if network.normalize else vectors
