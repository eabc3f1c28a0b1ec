"""`evalkit report`: leaderboards of results, in the format that is asked for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from evalkit.errors import EvalkitError
from evalkit.output.console import OutputConsole
from evalkit.output.files import write_text
from evalkit.output.sheets import Sheet, notes_as_markdown, print_notes, print_sheets, sheets_as_markdown
from evalkit.report.content import ReportChoices, make_report
from evalkit.report.data import report_json
from evalkit.report.exports.card import update_card
from evalkit.report.exports.model_index import KEY as MODEL_INDEX
from evalkit.report.formats import FORMATS, Formats, find_format, refuse_other_kinds, write_report
from evalkit.report.published_tables import published_notes, published_sheets
from evalkit.report.tables import report_notes, report_sheets
from evalkit.results.reading import read_readable, read_results, refuse_result
from evalkit.results.result import Result

logger = logging.getLogger("evalkit")
_FILE_FORMAT = "markdown"
_PAGE_FORMAT = "html"


def print_report(
    paths: Sequence[Path],
    choices: ReportChoices,
    format_name: str | None,
    output: Path | None,
    card: Path | None = None,
    formats: Formats = FORMATS,
    json_file: Path | None = None,
) -> None:
    """Print the report, or write it to a file: Markdown unless another format is named; or update a model card.

    With `json_file` the report is written there too, as JSON.
    Raises EvalkitError for an unknown format or an option that it has no use for, and where results can't be read or the
    file can't be written.
    """
    named = format_name or (_FILE_FORMAT if output is not None else None)
    chosen = None if named is None else find_format(named, formats)
    if card is not None and (format_name != MODEL_INDEX or output is not None):
        raise EvalkitError(f"--update {card} goes with --format {MODEL_INDEX}, and without -o")
    if format_name != _PAGE_FORMAT and (choices.drill_down is not None or not choices.texts):
        raise EvalkitError(f"--drill-down and --no-texts are for pages; add --format {_PAGE_FORMAT}, or leave them out")
    if choices.depth and (card is not None or format_name not in (None, _FILE_FORMAT, "json", _PAGE_FORMAT)):
        raise EvalkitError(
            f"--depth is for tables, markdown, json and pages, not for {format_name}; leave one of them out"
        )
    if not paths:
        raise EvalkitError("give result files or folders to report, or --published")
    refuse_result(output, "-o")
    if json_file is not None and card is not None:
        raise EvalkitError(f"--json {json_file} is a report's; leave it out with --update")
    if card is not None:
        update_card(_read_whole(paths), card)
        return
    report = make_report(paths, choices, "queries" if chosen is None else chosen.compares)
    if json_file is not None:
        write_text(report_json(report), json_file)
    if chosen is not None:
        for line in report.left_out:  # not all formats have a place for it
            logger.warning(line)
        write_report(report, chosen, output)
        return
    _print_tables(report_sheets(report), report_notes(report))


def print_published(paths: Sequence[Path], format_name: str | None, output: Path | None) -> None:
    """Print the published tables with the results among their rows, or write them in Markdown.

    Raises EvalkitError for another format, and where results can't be read or the file can't be written.
    """
    if format_name not in (None, _FILE_FORMAT):
        raise EvalkitError(
            f"--published is written as {_FILE_FORMAT} alone, not as {format_name}; leave --format out, or give {_FILE_FORMAT}"
        )
    refuse_result(output, "-o")
    results, left_out = read_readable(paths, alone=True) if paths else ([], [])
    sheets, notes = published_sheets(results), [*left_out, *published_notes(results)]
    if format_name is not None or output is not None:
        refuse_other_kinds([output] if output else [], FORMATS[_FILE_FORMAT])
        write_text(sheets_as_markdown(sheets) + notes_as_markdown(notes), output)
        return
    _print_tables(sheets, notes)


def _read_whole(paths: Sequence[Path]) -> list[Result]:
    """Read results with their tables, so that no figure is shown that these do not have. Raises EvalkitError, naming the file."""
    results = read_results(paths)
    for result in results:
        _ = result.queries
    return results


def _print_tables(sheets: Sequence[Sheet], notes: Sequence[str]) -> None:
    console = OutputConsole()
    print_sheets(sheets, console)
    print_notes(notes, console)
