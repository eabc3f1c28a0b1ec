"""`evalkit compare`: systems against each other on the same queries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evalkit.compare.comparison import Choices, compare_results
from evalkit.compare.output import comparison_content, comparison_notes, comparison_sheets
from evalkit.output.console import OutputConsole
from evalkit.output.json import STDOUT, write_json
from evalkit.output.sheets import print_notes, print_sheets
from evalkit.results.reading import load_results


def print_comparison(paths: Sequence[Path], choices: Choices, json_file: Path | None) -> None:
    """Print the comparison of results as tables; JSON goes to a file beside them, or to standard output in their place.

    Raises EvalkitError where results can't be read or compared.
    """
    comparisons, notes = compare_results(load_results(paths), choices)
    if json_file is not None:
        write_json(comparison_content(comparisons, notes, choices), json_file)
    if json_file != STDOUT:
        console = OutputConsole()
        print_sheets(comparison_sheets(comparisons, choices.alpha), console)
        print_notes([*comparison_notes(comparisons, choices.alpha), *notes], console)
