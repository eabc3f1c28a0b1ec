"""The errors that a user sees as a single line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EvalkitError(Exception):
    """Wrong usage or input: exit code 2.

    The message says what was wrong, where (file, row, field), and how to mend it.
    """

    exit_code = 2


class WrongWeightsError(EvalkitError):
    """Weights that would load and mean nothing: of another kind than the recipe says, or not complete."""


class ConsentError(EvalkitError):
    """Code that comes with a model, or a pickle, that was about to run without the user's consent."""


class UnfitServerError(EvalkitError):
    """A server whose answers are no scores of single pairs, or no vectors of single texts, as its probe shows."""


class RefusedTextError(EvalkitError):
    """A text that a server refuses: the `query`, the `document`, or the pair of both; None for a side that was not sent."""

    def __init__(self, message: str, query: str | None, document: str | None) -> None:
        super().__init__(message)
        self.query = query
        self.document = document


class NonFiniteError(EvalkitError):
    """A model's output that is not a finite number."""


class MismatchError(EvalkitError):
    """A check that a run starts with found a mismatch, and nothing was run: exit code 1."""

    exit_code = 1


def unknown_name(what: str, name: str, known: Iterable[str]) -> EvalkitError:
    """Return the error for a name that nothing has: it offers the nearest known ones, or lists all."""
    known = tuple(known)
    close = nearest(name, known)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known) or 'none'}"
    return EvalkitError(f"there is no {what} {name!r}; {hint}")


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Return at most three known names that resemble `name`, whatever the case, the most similar first."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    return [by_lower[match] for match in difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.45)]


def install_command(*extras: str) -> str:
    """Return the command that installs extras of this package, which no index has."""
    return f'pip install ".[{",".join(extras)}]" in a clone of evalkit'
