"""How figures are written."""

from __future__ import annotations

import pytest

from evalkit.output.numbers import tied_range


@pytest.mark.parametrize(
    ("ties", "value", "shown"),
    [
        (None, 0.5, ""),
        ((0.5, 0.5), 0.5, ""),
        ((0.500001, 0.500002), 0.5, ""),  # no printed digit moves
        ((0.4, 0.6), 0.5, "40.00–60.00"),
        ((0.14506, 0.14506), 0.18, "14.51–14.51"),  # MAP of tied documents taken together, which no order gives
    ],
)
def test_ties_are_shown_where_they_move_a_printed_digit(
    ties: tuple[float, float] | None, value: float, shown: str
) -> None:
    assert tied_range(ties, value) == shown
