"""`evalkit parity`: the same pairs through several backends, and why one differs where it does."""

from __future__ import annotations

from pathlib import Path

from evalkit.output.console import OutputConsole
from evalkit.output.json import STDOUT, write_json
from evalkit.output.sheets import print_notes, print_sheets
from evalkit.parity.examining import examine
from evalkit.parity.output import parity_content, parity_notes, parity_sheets
from evalkit.parity.participants import Compose, choose_candidates
from evalkit.parity.words import Words


def compare_backends(words: Words, compose: Compose, json_file: Path | None) -> int:
    """Compare the backends and print what was found. Gives the exit code: 0 where all agree, else 1.

    JSON goes to a file beside the tables, or to standard output in their place.
    Raises EvalkitError for whatever is wrong with the words, and for a backend that can't run the model, before weights load.
    """
    parity = examine(choose_candidates(words, compose), words.tolerance)
    if json_file is not None:
        write_json(parity_content(parity), json_file)
    if json_file != STDOUT:
        console = OutputConsole()
        print_sheets(parity_sheets(parity), console)
        print_notes(parity_notes(parity), console)
    return 0 if parity.agrees else 1
