"""The formats of `evalkit report`: a new one is a function of a `Report`, and an entry in `FORMATS`.

What writes a format is imported when it is asked for, so that `--help` can name them all at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from evalkit.errors import EvalkitError, unknown_name
from evalkit.output.files import write_bytes, write_text
from evalkit.output.text import printable

if TYPE_CHECKING:
    from evalkit.report.content import Compares, Report

Files = Mapping[PurePosixPath, bytes]
Recognises = Callable[[bytes], bool]

_TEXT_SUFFIXES = (".yaml", ".yml", ".txt", ".md")


@dataclass(frozen=True)
class Format:
    """How a report is written in one format, and how a file of it is known.

    `text` gives all of it as one text, where the format has one; `files` gives it as files, by their paths in the folder that
    they go into. A folder named `home` is the one that the paths begin with. `recognises` tells whether a file's content is of this
    format and may be replaced by its like; `instead` says what else can be done with a file that is not. `compares` says by what
    it shows results side by side: those that can't be are left out of the report.
    """

    name: str
    help: str
    recognises: Recognises
    text: Callable[[Report], str] | None = None
    files: Callable[[Report], Files] | None = None
    home: str = ""
    instead: str = ""
    compares: Compares = "queries"


Formats = Mapping[str, Format]


def format_table(formats: Iterable[Format]) -> Formats:
    """Give formats by their names."""
    return {one.name: one for one in formats}


def begins_with(text: str) -> Recognises:
    """Make what knows a file by its beginning."""
    return lambda content: content.startswith(text.encode())


def _markdown(report: Report) -> str:
    from evalkit.output.sheets import notes_as_markdown, sheets_as_markdown
    from evalkit.report.tables import report_notes, report_sheets

    return sheets_as_markdown(report_sheets(report)) + notes_as_markdown(report_notes(report))


def _json(report: Report) -> str:
    from evalkit.report.data import report_json

    return report_json(report)


def _csv(report: Report) -> str:
    from evalkit.report.data import report_csv

    return report_csv(report)


_LATEX_BEGINNING = "% evalkit report"


def _latex(report: Report) -> str:
    from evalkit.output.latex import sheet_as_latex
    from evalkit.report.tables import paper_sheets

    needs = f"{_LATEX_BEGINNING}; needs \\usepackage{{booktabs}}"
    return "\n".join([needs, *map(sheet_as_latex, paper_sheets(report))])


def _html(report: Report) -> str:
    from evalkit.report.html import html_page

    return html_page(report)


_REMARKS_BEGINNING = "What a reader of these figures should know beside them, reported by evalkit:"


def _remarks(report: Report, folder: str = "") -> Files:
    """Give the remarks on the results as a file of their own, for formats whose files have no place for them."""
    from evalkit.results.result import remark_lines
    from evalkit.results.training import training_of, training_phrase

    marks = {f"{one.model.name} on {one.task.name}": training_phrase((training_of(one),)) for one in report.results}
    lines = [*(f"{name}: {mark}" for name, mark in marks.items() if mark), *remark_lines(report.results)]
    text = "".join(f"{printable(line)}\n" for line in (_REMARKS_BEGINNING, *lines))
    return {PurePosixPath(folder, "remarks.txt"): text.encode()} if lines else {}


_is_remarks = begins_with(_REMARKS_BEGINNING)


def _is_markdown(content: bytes) -> bool:
    # its first table is headed by a task and a metric, or names what was published
    return re.match(rb"### .+(?: on [\d,]+ quer| of |\(MAP, %)", content) is not None


def _is_page(content: bytes) -> bool:
    return content.startswith(b"<!doctype html>") and b'name="generator" content="evalkit' in content[:20_000]


def _model_index(report: Report) -> str:
    from evalkit.report.exports.model_index import model_index_text

    return model_index_text(report.results)


def _is_model_index(content: bytes) -> bool:
    from evalkit.report.exports.model_index import is_model_index

    return is_model_index(content)


def _eval_results(report: Report) -> str:
    from evalkit.report.exports.eval_results import eval_results_text

    return eval_results_text(report.results)


def _eval_results_files(report: Report) -> Files:
    from evalkit.report.exports.eval_results import eval_results_files

    return eval_results_files(report.results)


def _is_eval_results(content: bytes) -> bool:
    from evalkit.report.exports.eval_results import is_eval_results

    return is_eval_results(content)


def _mteb(report: Report) -> Files:
    from evalkit.report.exports.mteb_results import FOLDER, mteb_files

    return {**mteb_files(report.results), **_remarks(report, FOLDER)}


def _is_mteb(content: bytes) -> bool:
    from evalkit.report.exports.mteb_results import is_mteb_file

    return is_mteb_file(content) or _is_remarks(content)


def _trec(report: Report) -> Files:
    from evalkit.report.exports.trec import trec_files

    return {**trec_files(report.results), **_remarks(report)}


def _is_trec(content: bytes) -> bool:
    from evalkit.report.exports.trec import is_trec_file

    return is_trec_file(content) or _is_remarks(content)


FORMATS = format_table(
    (
        Format("markdown", "GitHub's tables", _is_markdown, text=_markdown),
        Format("json", "everything, for machines", begins_with('{\n  "alpha": '), text=_json),
        Format("csv", "a row per system", begins_with("tasks,limit,protocol,metric,"), text=_csv),
        Format("latex", "a table for a paper", begins_with(_LATEX_BEGINNING), text=_latex),
        Format("html", "a page to explore", _is_page, text=_html, compares="candidates"),
        Format(
            "model-index",
            "a model card's figures",
            _is_model_index,
            text=_model_index,
            instead="change a card's own with --update",
            compares="nothing",
        ),
        Format(
            "eval-results",
            "a model's page on the Hub",
            _is_eval_results,
            text=_eval_results,
            files=_eval_results_files,
            home=".eval_results",
            compares="nothing",
        ),
        Format("mteb", "mteb's own results", _is_mteb, files=_mteb, home="results", compares="nothing"),
        Format("trec", "runs and qrels", _is_trec, files=_trec, compares="nothing"),
    )
)


def format_names_help(formats: Formats = FORMATS) -> str:
    """Say for `--help` which formats there are."""
    return ", ".join(f"{one.name} ({one.help})" for one in formats.values())


def folder_names_help(formats: Formats = FORMATS) -> str:
    """Say for `--help` which formats are several files, and need a folder."""
    return ", ".join(one.name for one in formats.values() if one.text is None)


def find_format(name: str, formats: Formats = FORMATS) -> Format:
    """Find a format by its name. Raises EvalkitError for an unknown one, with the nearest right names."""
    if name not in formats:
        raise unknown_name("format", name, formats)
    return formats[name]


def write_report(report: Report, chosen: Format, output: Path | None) -> None:
    """Write a report to a file or into a folder, or print it where the format has a text and no output is named.

    A format that is both a text and files goes into one file where the output's name ends as a text's does. Raises
    EvalkitError where the results can't be written in this format, and where something else would be replaced; then nothing
    is written.
    """
    if chosen.text is not None and (output is None or chosen.files is None or output.suffix in _TEXT_SUFFIXES):
        refuse_other_kinds([output] if output else [], chosen)
        write_text(chosen.text(report), output)
        return
    if output is None or chosen.files is None:
        raise EvalkitError(f"--format {chosen.name} is several files; name a folder with -o FOLDER")
    if output.is_file():
        raise EvalkitError(f"-o {output} is a file, but --format {chosen.name} is several; name a folder")
    files = {_place(output, path, chosen.home): content for path, content in chosen.files(report).items()}
    refuse_other_kinds(files, chosen)
    for place, content in files.items():
        write_bytes(content, place)


def refuse_other_kinds(paths: Iterable[Path], chosen: Format) -> None:
    """Raise EvalkitError where a file is about to be replaced that is not of the format, nor empty."""
    for path in paths:
        if path.is_dir():
            raise EvalkitError(f"{path} is a folder, but --format {chosen.name} needs a file there; name another place")
        if path.is_file() and (content := path.read_bytes()) and not chosen.recognises(content):
            hint = f", or {chosen.instead}" if chosen.instead else ""
            raise EvalkitError(f"{path} exists and holds no report as {chosen.name}; name another place{hint}")


def _place(folder: Path, path: PurePosixPath, home: str) -> Path:
    return folder / path.relative_to(home) if home and folder.name == home else folder / path
