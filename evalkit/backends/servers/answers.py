"""What servers answer, checked and in the order of the question: a result that is wrong, doubled or missing is refused."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

MANY = 16
"""From how many on whole numbers alone are no accident."""
SMALLEST, LARGEST = 1e-6, 1e6
"""Within which the largest number of a model's vector lies; bytes of another type, read as float32, give others."""


class WrongAnswerError(Exception):
    """An answer that is not what was asked for; the message says in what."""


def member(answer: Any, name: str) -> Any:
    """Return one field of an object. Raises WrongAnswerError where there is none."""
    if not isinstance(answer, dict) or name not in answer:
        raise WrongAnswerError(f"it has no {name!r}")
    return answer[name]


def by_index(entries: Any, count: int, name: str) -> list[Any]:
    """Return the field `name` of each entry, in the order of their `index`: 0 to count - 1, each once.

    Raises WrongAnswerError otherwise.
    """
    if not isinstance(entries, list):
        raise WrongAnswerError("there is no list of results")
    found: dict[int, Any] = {}
    for entry in entries:
        index = member(entry, "index")
        if type(index) is not int or not 0 <= index < count:
            raise WrongAnswerError(f"{index!r} is not the index of one of {count} texts")
        if index in found:
            raise WrongAnswerError(f"index {index} comes twice")
        found[index] = member(entry, name)
    lacking = sorted(set(range(count)) - found.keys())
    if lacking:
        raise WrongAnswerError(f"{len(found)} results for {count} texts, and none for index {lacking[0]}")
    return [found[index] for index in range(count)]


def in_order(entries: Any, count: int) -> list[Any]:
    """Return a list of as many entries as were asked for. Raises WrongAnswerError otherwise."""
    if not isinstance(entries, list) or len(entries) != count:
        given = f"{len(entries)} results" if isinstance(entries, list) else "no list of results"
        raise WrongAnswerError(f"{given} for {count} texts")
    return entries


def numbers(values: Sequence[Any]) -> NDArray[np.float32]:
    """Return finite numbers, float32, shape (values,). Raises WrongAnswerError for anything else."""
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise WrongAnswerError(f"{value!r:.40} is not a number")
    try:
        with np.errstate(over="ignore"):
            converted = np.array(values, np.float64).astype(np.float32)
    except OverflowError:
        raise WrongAnswerError("a number is beyond all bounds") from None
    return _finite(converted)


def vectors(values: Sequence[Any], *, packed: bool = False) -> NDArray[np.float32]:
    """Return vectors of one length, float32, shape (values, dimensions).

    They are given as numbers or, where they were asked for `packed`, as base64 of little-endian float32. Unasked, a text may be of
    another type of numbers. Raises WrongAnswerError for anything else.
    """
    rows = [_decoded(value) if packed and isinstance(value, str) else _listed(value) for value in values]
    lengths = sorted({len(row) for row in rows})
    if len(lengths) > 1 or lengths == [0]:
        raise WrongAnswerError(f"vectors of {' and '.join(map(str, lengths))} numbers")
    stacked = np.stack(rows)
    if not stacked.any(axis=1).all():
        raise WrongAnswerError("a vector has length zero")
    return stacked


def _listed(value: Any) -> NDArray[np.float32]:
    if not isinstance(value, list):
        raise WrongAnswerError(f"{value!r:.40} is not a vector of numbers")
    if len(value) >= MANY and all(type(number) is int for number in value):
        raise WrongAnswerError(f"a vector of {len(value)} whole numbers, as quantised ones are: floats were asked for")
    return numbers(value)


def _decoded(value: str) -> NDArray[np.float32]:
    try:
        content = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise WrongAnswerError(f"{value!r:.40} is not base64") from None
    if len(content) % 4:
        raise WrongAnswerError(f"{len(content)} bytes are no float32 numbers")
    decoded = _finite(np.frombuffer(content, "<f4").astype(np.float32))
    largest = float(np.abs(decoded).max(initial=0.0))
    if largest and not SMALLEST < largest < LARGEST:
        raise WrongAnswerError(f"a vector's largest number is {largest:.1e}: are its bytes little-endian float32?")
    return decoded


def _finite(converted: NDArray[np.float32]) -> NDArray[np.float32]:
    if not np.isfinite(converted).all():
        raise WrongAnswerError("a number is not finite")
    return converted
