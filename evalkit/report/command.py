"""`evalkit report`: leaderboards of results, in the format that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evalkit.configuration import unknown_name
from evalkit.console import OutputConsole
from evalkit.report.content import Choices, make_report
from evalkit.report.formats import FORMATS, report_notes, report_sheets
from evalkit.report.output import refuse_result, write_text
from evalkit.report.sheets import print_notes, print_sheets
from evalkit.stored_results import load_results

_FILE_FORMAT = "markdown"


def print_report(paths: Sequence[Path], choices: Choices, format_name: str | None, output: Path | None) -> None:
    """Print the report, or write it to a file: Markdown unless another format is named.

    Raises EvalkitError for an unknown format, and where results can't be read or the file can't be written.
    """
    if format_name is not None and format_name not in FORMATS:
        raise unknown_name("format", format_name, FORMATS)
    refuse_result(output, "-o")
    report = make_report(load_results(paths), choices)
    if format_name is not None or output is not None:
        write_text(FORMATS[format_name or _FILE_FORMAT](report), output)
        return
    console = OutputConsole()
    print_sheets(report_sheets(report), console)
    print_notes(report_notes(report), console)
