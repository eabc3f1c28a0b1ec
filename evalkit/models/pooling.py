"""One vector per text out of its tokens' vectors: sentence-transformers' pooling modes, each a pure function.

Source: `sentence_transformer/modules/pooling.py` of sentence-transformers 6.2. Inputs are padded on the right or on the left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

Pool = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def pool(
    hidden: torch.Tensor, attention_mask: torch.Tensor, pooled: torch.Tensor | None, modes: Sequence[str]
) -> torch.Tensor:
    """Return the modes' vectors end to end, shape (inputs, modes x dimensions).

    `hidden` are the tokens' vectors, shape (inputs, tokens, dimensions); `attention_mask` (inputs, tokens) is 0 for padding, and
    `pooled` is 0 for the tokens that are left out besides (None: no others are).
    """
    mask = attention_mask if pooled is None else pooled
    vectors = [POOLS[mode](hidden, mask, attention_mask) for mode in modes]
    return vectors[0] if len(vectors) == 1 else torch.cat(vectors, dim=-1)


def _first(hidden: torch.Tensor, mask: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    return _at(hidden, mask.to(torch.int32).argmax(dim=1))


def _last(hidden: torch.Tensor, mask: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    places = torch.arange(mask.shape[1], device=mask.device)
    return _at(hidden, (mask.to(torch.int32) * places).argmax(dim=1))


def _at(hidden: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), places]


def _sum(hidden: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return (hidden * weights[..., None]).sum(1), weights.sum(1, keepdim=True).clamp(min=1e-9)


def _mean(hidden: torch.Tensor, mask: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    total, count = _sum(hidden, mask.to(hidden.dtype))
    return total / count


def _mean_sqrt_len(hidden: torch.Tensor, mask: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    total, count = _sum(hidden, mask.to(hidden.dtype))
    return total / torch.sqrt(count)


def _weighted_mean(hidden: torch.Tensor, mask: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """Weigh each token by its place in the text, from 1 on; a prompt that is left out still takes its places."""
    places = torch.cumsum(attention_mask, dim=1)
    total, weight = _sum(hidden, (mask * places).to(hidden.dtype))
    return total / weight


def _max(hidden: torch.Tensor, mask: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    return hidden.masked_fill(mask[..., None] == 0, -torch.inf).max(dim=1).values


POOLS: dict[str, Pool] = {
    "cls": _first,
    "mean": _mean,
    "max": _max,
    "mean_sqrt_len": _mean_sqrt_len,
    "weightedmean": _weighted_mean,
    "last": _last,
}
