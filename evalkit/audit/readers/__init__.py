"""One reader per kind of file, and which of them a file is for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from evalkit.audit.figures import AuditFinding, Figure
from evalkit.audit.readers.figure_csv import csv_figures
from evalkit.audit.readers.markdown import card_figures
from evalkit.audit.readers.result_json import is_own_result, parse_json, result_figures
from evalkit.errors import EvalkitError
from evalkit.results.folders import find_results

_LARGEST = 100_000_000

_MARKDOWN = (".md", ".markdown")


@dataclass(frozen=True, slots=True)
class AuditedFile:
    """A file's figures, and what reading it already found."""

    path: Path
    figures: tuple[Figure, ...]
    findings: tuple[AuditFinding, ...] = ()


def expand(path: Path) -> list[Path]:
    """List the results in a folder; a file is itself. Raises EvalkitError for a folder without results."""
    return find_results([path]) if path.is_dir() else [path]


def read_figures(path: Path, model: str = "") -> AuditedFile:
    """Read a model card, a Markdown file, a result or the registry.

    `model` says whose figures they are, where the file and its path don't. Raises EvalkitError where the file cannot be
    read, or holds no figures of reranking.
    """
    text = _read_text(path)
    findings: Iterable[AuditFinding] = ()
    kind = path.suffix.lower()
    if kind == ".csv":
        figures = csv_figures(text, path)
    elif kind == ".json" or (kind not in _MARKDOWN and text.lstrip().startswith("{")):
        content = parse_json(text, path)
        figures = result_figures(content, path, model)
        if is_own_result(content):
            # imported where it is needed: it computes metrics, and with them comes pandas
            from evalkit.audit.readers.own_results import own_findings

            findings = own_findings(path)
    else:
        figures = card_figures(text, path, model)
    if not figures:
        raise EvalkitError(
            f"{path} holds no figures of reranking (map, mrr); give a model card, a Markdown table of reranking tasks, a "
            "result's JSON or the registry's CSV"
        )
    return AuditedFile(path, tuple(figures), tuple(findings))


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST:
            raise EvalkitError(f"{path} is larger than {_LARGEST // 1_000_000} MB; give a card, a table or a result")
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise EvalkitError(
            f"{path} is no UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error
    except OSError as error:
        raise EvalkitError(f"cannot read {path} ({error.strerror}); give a file that exists and can be read") from error
