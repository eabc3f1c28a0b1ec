"""The one error that a user sees as a single line and exit code 2."""

from __future__ import annotations


class EvalkitError(Exception):
    """Wrong usage or input.

    The message says what was wrong, where (file, row, field), and how to mend it.
    """
