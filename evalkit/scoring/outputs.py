"""The outputs of a task's unique items as they come in: from the store first, then from the scorer, and into the store."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import EvalkitError
from evalkit.scoring.store import ScoreStore, StoredOutput

NOT_COUNTED = -1


class OutputTable:
    """Numbered items with their outputs. Filled batch by batch; a batch goes into the store whole or not at all.

    `elapsed` is the time that scoring took, in seconds, without loading the model; `padding_tokens` is what it wasted.
    `keys` are what the items are stored under; `values` is float32, shape (items,) for scores and (items, dimensions) for vectors;
    `tokens` (NOT_COUNTED where the scorer does not count), `truncated` and `seconds` (NaN for what the store had) are per item.
    `width` is how many numbers each output has: 1 for a score, None until the first output says it. Raises EvalkitError where a
    stored output has another.
    """

    def __init__(self, keys: Sequence[bytes], store: ScoreStore | None, width: int | None = None) -> None:
        self.keys = keys
        self._store = store
        self.width = width
        self.values: NDArray[np.float32] = np.empty(0, np.float32)
        self.known = np.zeros(len(keys), np.bool_)
        self.tokens = np.full(len(keys), NOT_COUNTED, np.int32)
        self.truncated = np.zeros(len(keys), np.bool_)
        self.seconds = np.full(len(keys), np.nan)
        self.padding_tokens = 0
        self.elapsed = 0.0
        if store is not None:
            self._take_stored(store)
        self.from_store = int(self.known.sum())

    @property
    def complete(self) -> bool:
        """Whether every item has its output."""
        return bool(self.known.all())

    def lacks(self, items: NDArray[np.int64] | slice) -> bool:
        """Whether any of these items has no output yet."""
        return not self.known[items].all()

    def add(
        self,
        items: NDArray[np.int64],
        outputs: NDArray[np.float32],
        seconds: float,
        tokens: Sequence[int] | None = None,
        truncated: Sequence[bool] | None = None,
    ) -> None:
        """Take a batch's outputs. An item that was known already keeps its output: a batch's shape moves the last bits."""
        counted = np.full(len(items), NOT_COUNTED, np.int32) if tokens is None else np.asarray(tokens, np.int32)
        cut = np.zeros(len(items), np.bool_) if truncated is None else np.asarray(truncated, np.bool_)
        share = counted / counted.sum() if tokens is not None else np.full(len(items), 1 / len(items))
        new = ~self.known[items]
        fresh = items[new]
        self._reserve(outputs[0].size)
        self.values[fresh] = outputs[new].reshape(len(fresh), *self.values.shape[1:])
        self.tokens[fresh], self.truncated[fresh] = counted[new], cut[new]
        self.seconds[fresh] = (share * seconds)[new]
        if self._store is not None:
            self._store.write(
                {
                    self.keys[item]: StoredOutput(self.values[item], int(self.tokens[item]), bool(self.truncated[item]))
                    for item in fresh.tolist()
                }
            )
        self.known[fresh] = True

    def _take_stored(self, store: ScoreStore) -> None:
        numbers = {key: item for item, key in enumerate(self.keys)}
        for key, stored in store.read(self.keys):
            if self.width not in (None, stored.output.size):
                raise EvalkitError(
                    f"{store.path} holds vectors of {self.width} and of {stored.output.size} numbers for one model: it was another "
                    "one in between, under the same name or address; cache=refresh scores all again"
                )
            item = numbers[key]
            self._reserve(stored.output.size)
            self.values[item] = stored.output.reshape(self.values.shape[1:])
            self.tokens[item], self.truncated[item] = stored.tokens, stored.truncated
            self.known[item] = True

    def _reserve(self, width: int) -> None:
        if len(self.values) != len(self.keys):
            self.width = width
            self.values = np.zeros((len(self.keys),) if width == 1 else (len(self.keys), width), np.float32)
