"""Work that is asked for in parts: which pairs go together, and how the answers become one array."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import EvalkitError
from evalkit.models.interfaces import Part


def by_query(pairs: Sequence[tuple[str, str]], size: int, characters: int | None = None) -> Iterator[NDArray[np.int64]]:
    """Yield positions of pairs that share a query, wherever they stand, at most `size` together.

    Pairs together have at most so many `characters`, unless one alone has more.
    """
    positions: dict[str, list[int]] = {}
    for position, (query, _) in enumerate(pairs):
        positions.setdefault(query, []).append(position)
    for all_of_query in positions.values():
        together: list[int] = []
        total = 0
        for position in all_of_query:
            length = sum(map(len, pairs[position]))
            if len(together) == size or (together and characters is not None and total + length > characters):
                yield np.array(together, np.int64)
                together, total = [], 0
            together.append(position)
            total += length
        yield np.array(together, np.int64)


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
