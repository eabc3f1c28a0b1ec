"""Inputs of a pair, from a tokenizer used directly."""

from __future__ import annotations

from typing import Any


def flagembedding_2024_ids(tokenizer: Any, query: str, document: str, max_length: int) -> list[int]:
    """FlagEmbedding's rule since 2024, for XLM-R: the query keeps 3/4 of the length, the document what is left then.

    First each text is tokenised alone, the query to `max_length * 3 // 4` tokens, the document to `max_length`; then the
    pair is put together with `only_second`.
    """
    whole = max_length * 3 // 4
    first = tokenizer(query, add_special_tokens=False, truncation=True, max_length=whole)["input_ids"]
    second = tokenizer(document, add_special_tokens=False, truncation=True, max_length=max_length)["input_ids"]
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    excess = len(first) + len(second) + 4 - max_length
    if excess > 0:
        second = second[: len(second) - excess]
    return [start, *first, end, end, *second, end]
