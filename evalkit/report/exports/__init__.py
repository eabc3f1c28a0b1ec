"""Formats that others read: files of results, not of what a report says about them. A new one is a line in `EXPORTS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from evalkit.errors import EvalkitError
from evalkit.output.files import write_bytes, write_text
from evalkit.report.exports.eval_results import eval_results_files, eval_results_text, is_eval_results
from evalkit.report.exports.model_index import is_model_index, model_index_text
from evalkit.report.exports.mteb_results import is_mteb_file, mteb_files
from evalkit.report.exports.trec import is_trec_file, trec_files
from evalkit.results.result import Result

Files = Mapping[PurePosixPath, bytes]


@dataclass(frozen=True)
class Export:
    """How results are written in one format.

    `text` gives all of it as one text, where the format has one; `files` gives it as files, by their paths in the folder that
    they go into. `recognises` tells whether a file's content is of this format and may be replaced by its like. A folder named
    `home` is the one that the paths begin with.
    """

    recognises: Callable[[bytes], bool]
    text: Callable[[Sequence[Result]], str] | None = None
    files: Callable[[Sequence[Result]], Files] | None = None
    home: str = ""


EXPORTS: Mapping[str, Export] = {
    "model-index": Export(is_model_index, text=model_index_text),
    "eval-results": Export(is_eval_results, text=eval_results_text, files=eval_results_files, home=".eval_results"),
    "mteb": Export(is_mteb_file, files=mteb_files, home="results"),
    "trec": Export(is_trec_file, files=trec_files),
}

_TEXT_SUFFIXES = (".yaml", ".yml", ".txt", ".md")


def write_export(results: Sequence[Result], format_name: str, output: Path | None) -> None:
    """Write results to a file or into a folder, or print them where the format has a text and no output is named.

    A format that is both a text and files goes into one file where the output's name ends as a text's does. Raises
    EvalkitError where the results can't be written in this format, and where something else would be replaced; then nothing
    is written.
    """
    export = EXPORTS[format_name]
    if export.text is not None and (output is None or export.files is None or output.suffix in _TEXT_SUFFIXES):
        text = export.text(results)
        _refuse_other_kinds([output] if output else [], export, format_name)
        write_text(text, output)
        return
    if output is None or export.files is None:
        raise EvalkitError(f"--format {format_name} is several files; name a folder with -o FOLDER")
    if output.is_file():
        raise EvalkitError(f"-o {output} is a file, but --format {format_name} is several; name a folder")
    files = {_place(output, path, export.home): content for path, content in export.files(results).items()}
    _refuse_other_kinds(files, export, format_name)
    for place, content in files.items():
        write_bytes(content, place)


def _place(folder: Path, path: PurePosixPath, home: str) -> Path:
    return folder / path.relative_to(home) if home and folder.name == home else folder / path


def _refuse_other_kinds(paths: Sequence[Path] | Mapping[Path, bytes], export: Export, format_name: str) -> None:
    for path in paths:
        if path.is_dir():
            raise EvalkitError(f"{path} is a folder, but --format {format_name} needs a file there; name another place")
        if path.is_file() and not export.recognises(path.read_bytes()):
            hint = ", or change a card's own with --update" if format_name == "model-index" else ""
            raise EvalkitError(f"{path} exists and holds no {format_name}; name another place{hint}")
