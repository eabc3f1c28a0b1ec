"""The errors that a user sees as a single line."""

from __future__ import annotations


class EvalkitError(Exception):
    """Wrong usage or input: exit code 2.

    The message says what was wrong, where (file, row, field), and how to mend it.
    """

    exit_code = 2


class WrongWeightsError(EvalkitError):
    """Weights that would load and mean nothing: of another kind than the recipe says, or not complete."""


class NonFiniteError(EvalkitError):
    """A model's output that is not a finite number."""


class MismatchError(EvalkitError):
    """A check that a run starts with found a mismatch, and nothing was run: exit code 1."""

    exit_code = 1
