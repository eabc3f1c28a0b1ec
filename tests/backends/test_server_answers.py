"""Answers that are not what was asked for are refused, whatever is wrong with them."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.backends.servers.answers import WrongAnswerError, by_index, in_order, numbers, vectors


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=20), st.randoms())
def test_results_in_any_order_come_back_by_index(values: list[float], random: Any) -> None:
    entries = [{"index": index, "score": value} for index, value in enumerate(values)]
    random.shuffle(entries)
    assert by_index(entries, len(values), "score") == values
    np.testing.assert_array_equal(numbers(values), np.array(values, np.float32))


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ([], "0 results for 2 texts, and none for index 0"),
        ([{"index": 1, "score": 1.0}], "1 results for 2 texts, and none for index 0"),
        ([{"index": 0, "score": 1.0}, {"index": 0, "score": 1.0}], "index 0 comes twice"),
        ([{"index": 0, "score": 1.0}, {"index": 2, "score": 1.0}], "2 is not the index of one of 2 texts"),
        ([{"index": 0, "score": 1.0}, {"index": -1, "score": 1.0}], "-1 is not the index"),
        ([{"index": 0, "score": 1.0}, {"index": True, "score": 1.0}], "True is not the index"),
        ([{"index": 0, "score": 1.0}, {"index": "1", "score": 1.0}], "'1' is not the index"),
        ([{"index": 0, "score": 1.0}, {"score": 1.0}], "it has no 'index'"),
        ([{"index": 0, "score": 1.0}, {"index": 1}], "it has no 'score'"),
        ([1, 2], "it has no 'index'"),
        ({"0": 1}, "there is no list of results"),
        (None, "there is no list of results"),
    ],
)
def test_wrong_indices(entries: object, problem: str) -> None:
    with pytest.raises(WrongAnswerError, match=problem):
        by_index(entries, 2, "score")


@pytest.mark.parametrize(
    "text", ["NaN", "Infinity", "-Infinity", "1e999", "1e39", "null", "true", '"0.5"', "[1]", "1" + "0" * 400]
)
def test_what_is_no_finite_number(text: str) -> None:
    with pytest.raises(WrongAnswerError):
        numbers([1.0, json.loads(text)])


@pytest.mark.parametrize(
    ("entries", "problem"), [([1], "1 results for 2"), ([1, 2, 3], "3 results for 2"), ({}, "no list")]
)
def test_wrong_counts(entries: object, problem: str) -> None:
    with pytest.raises(WrongAnswerError, match=problem):
        in_order(entries, 2)


def packed(*values: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


@given(
    st.lists(
        st.lists(st.floats(-1024, 1024, width=32), min_size=3, max_size=3).filter(
            lambda row: max(map(abs, row)) > 1e-5
        ),
        min_size=1,
    )
)
def test_base64_is_little_endian_float32(rows: list[list[float]]) -> None:
    np.testing.assert_array_equal(vectors([packed(*row) for row in rows], packed=True), np.array(rows, np.float32))
    np.testing.assert_array_equal(vectors(rows), np.array(rows, np.float32))


@pytest.mark.parametrize(
    "values",
    [
        [[1.0, 2.0], [1.0]],
        [[]],
        [""],
        [[1.0], None],
        [[1.0, float("nan")]],
        [["1.0"]],
        [packed(1.0, float("inf"))],
        ["not base64!"],
        [base64.b64encode(b"12345").decode()],
        [packed(1.0), packed(1.0, 2.0)],
        [[1.0, 0.0], [0.0, 0.0]],
        [packed(0.0, 0.0)],
    ],
)
def test_wrong_vectors(values: list[Any]) -> None:
    with pytest.raises(WrongAnswerError):
        vectors(values, packed=True)


def test_text_in_place_of_numbers_that_were_asked_for() -> None:
    with pytest.raises(WrongAnswerError, match="is not a vector of numbers"):
        vectors([packed(1.0, 2.0)])


UNIT = np.linspace(-0.2, 0.3, 64)


@pytest.mark.parametrize("type_", [">f4", "<f8", "<f2", "int8"])
def test_bytes_of_another_type(type_: str) -> None:
    values = (UNIT * 127 if type_ == "int8" else UNIT).astype(type_)
    with pytest.raises(WrongAnswerError, match=r"largest number is|not finite"):
        vectors([base64.b64encode(values.tobytes()).decode()], packed=True)
    np.testing.assert_allclose(
        vectors([base64.b64encode(UNIT.astype("<f4").tobytes()).decode()], packed=True)[0], UNIT, atol=1e-7
    )


def test_quantised_vectors() -> None:
    whole = [round(value * 127) for value in UNIT.tolist()]
    with pytest.raises(WrongAnswerError, match="64 whole numbers"):
        vectors([whole])
    assert vectors([[1, 0, 2]]).shape == (1, 3)
    assert vectors([[*whole, 0.5]]).shape == (1, 65)
