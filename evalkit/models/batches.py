"""Prepared batches: encodings padded to the longest one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evalkit.models.interfaces import Encoding


def pad_batch(
    batch: Sequence[Encoding], pad_id: int, *, left: bool = False, multiple: int = 1
) -> dict[str, NDArray[np.int64]]:
    """Return the arrays that a network takes, each of shape (inputs, longest): input_ids, attention_mask, perhaps token_type_ids.

    Inputs are padded on the right, or on the `left`, to the longest one's length, rounded up to a `multiple`.
    """
    longest = max(len(encoding.token_ids) for encoding in batch)
    shape = (len(batch), -(-longest // multiple) * multiple)
    arrays = {"input_ids": np.full(shape, pad_id, np.int64), "attention_mask": np.zeros(shape, np.int64)}
    if batch[0].type_ids is not None:
        arrays["token_type_ids"] = np.zeros(shape, np.int64)
    for row, encoding in enumerate(batch):
        start = shape[1] - len(encoding.token_ids) if left else 0
        place = slice(start, start + len(encoding.token_ids))
        arrays["input_ids"][row, place] = encoding.token_ids
        arrays["attention_mask"][row, place] = 1
        if encoding.type_ids is not None:
            arrays["token_type_ids"][row, place] = encoding.type_ids
    return arrays
