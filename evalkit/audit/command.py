"""`evalkit audit FILE…`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from evalkit.audit.figures import SEVERITIES
from evalkit.audit.readers import AuditedFile, expand, read_figures
from evalkit.audit.report import FileReport, print_reports, reports_json, shown_path
from evalkit.audit.rules import check_figures
from evalkit.errors import EvalkitError
from evalkit.output.console import OutputConsole

logger = logging.getLogger("evalkit")


def audit(paths: Sequence[Path], model: str = "", as_json: bool = False) -> int:
    """Audit files, print what was found and return the exit code.

    0: no errors; 1: an error among the findings; 2: a file could not be read (the others are audited all the same).
    `model` says whose figures the files hold, where they and their paths don't.
    """
    reports = audit_files(paths, model)
    console = OutputConsole()
    if as_json:
        console.print(reports_json(reports), soft_wrap=True, highlight=False)
    else:
        print_reports(reports, console)
    for report in reports:
        if report.unreadable:
            logger.error("evalkit: %s", report.unreadable)
    if any(report.unreadable for report in reports):
        return 2
    return int(any(finding.severity == "error" for report in reports for finding in report.findings))


def audit_files(paths: Sequence[Path], model: str = "") -> list[FileReport]:
    """Read all files, put their figures to the rules together, and give each file what was found in it."""
    read: dict[Path, AuditedFile | str] = {}
    for path in paths:
        try:
            for file in expand(path):
                read[file] = _read(file, model)
        except EvalkitError as error:
            read[path] = str(error)
    files = [file for file in read.values() if isinstance(file, AuditedFile)]
    findings = [finding for file in files for finding in file.findings]
    findings += check_figures([figure for file in files for figure in file.figures])
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return [
        FileReport(path, unreadable=" ".join(shown_path(Path(file)).split()))
        if isinstance(file, str)
        else FileReport(path, file.figures, tuple(found for found in findings if found.file == str(path)))
        for path, file in read.items()
    ]


def _read(path: Path, model: str) -> AuditedFile | str:
    try:
        return read_figures(path, model)
    except EvalkitError as error:
        return str(error)
