"""Prepared batches: encodings padded on the right to the longest one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evalkit.models.interfaces import Encoding


def pad_batch(batch: Sequence[Encoding], pad_id: int) -> dict[str, NDArray[np.int64]]:
    """The arrays that a network takes, each of shape (inputs, longest): input_ids, attention_mask, perhaps token_type_ids."""
    longest = max(len(encoding.token_ids) for encoding in batch)
    arrays = {
        "input_ids": np.full((len(batch), longest), pad_id, np.int64),
        "attention_mask": np.zeros((len(batch), longest), np.int64),
    }
    if batch[0].type_ids is not None:
        arrays["token_type_ids"] = np.zeros((len(batch), longest), np.int64)
    for row, encoding in enumerate(batch):
        length = len(encoding.token_ids)
        arrays["input_ids"][row, :length] = encoding.token_ids
        arrays["attention_mask"][row, :length] = 1
        if encoding.type_ids is not None:
            arrays["token_type_ids"][row, :length] = encoding.type_ids
    return arrays
