"""Work that is asked for in parts: which pairs go together, and how the answers become one array."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import EvalkitError
from evalkit.models.interfaces import Part


def by_query(pairs: Sequence[tuple[str, str]], size: int) -> Iterator[NDArray[np.int64]]:
    """Yield positions of pairs that share a query, wherever they stand, at most `size` together."""
    positions: dict[str, list[int]] = {}
    for position, (query, _) in enumerate(pairs):
        positions.setdefault(query, []).append(position)
    for all_of_query in positions.values():
        for start in range(0, len(all_of_query), size):
            yield np.array(all_of_query[start : start + size], np.int64)


def joined(parts: Iterable[Part], count: int) -> NDArray[np.float32]:
    """Return the outputs of all parts in the order of the `count` items: scores, or vectors of one length.

    Raises EvalkitError where the vectors' lengths differ.
    """
    outputs = np.empty(0, np.float32)
    for part in parts:
        if len(outputs) != count:
            outputs = np.empty((count, *part.outputs.shape[1:]), np.float32)
        if part.outputs.shape[1:] != outputs.shape[1:]:
            raise EvalkitError(
                f"the server's vectors have {part.outputs.shape[-1]} numbers, those before {outputs.shape[-1]}"
            )
        outputs[part.positions] = part.outputs
    return outputs
