"""`evalkit audit FILE…`: what an audit found, for people and for machines."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

from evalkit.audit.figures import SEVERITIES, AuditedFigures, AuditFinding, Figure, Registry, Severity, shown
from evalkit.audit.readers import AuditedFile, expand, read_figures
from evalkit.audit.rules import check_figures
from evalkit.audit.rules.bounds import rows_with_average
from evalkit.audit.rules.lattice import lattice_state
from evalkit.errors import EvalkitError
from evalkit.output.console import STYLES, OutputConsole, Tone, print_lines, toned
from evalkit.output.json import write_json
from evalkit.output.numbers import counted
from evalkit.output.text import one_line, printable

logger = logging.getLogger("evalkit")
_TONES: Mapping[Severity, Tone] = {"error": "bad", "warning": "warning", "note": "note"}
_INDENT = " " * 10


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of some figures could be tested: MRRs on the lattice by protocol, untestable MRRs by reason, averages."""

    figures: int
    on_lattice: dict[str, int]
    off_lattice: int
    untestable: dict[str, int]
    averages: int


@dataclass(frozen=True, slots=True)
class FileReport:
    """A file and what was found in it; `unreadable` says why it could not be read, if it could not."""

    path: Path
    figures: tuple[Figure, ...] = ()
    findings: tuple[AuditFinding, ...] = ()
    unreadable: str = ""


def audit(paths: Sequence[Path], model: str = "", as_json: bool = False) -> int:
    """Audit files, print what was found and return the exit code.

    0: no errors; 1: an error among the findings; 2: a file could not be read (the others are audited all the same).
    `model` says whose figures the files hold, where they and their paths don't.
    """
    reports = audit_files(paths, model)
    if as_json:
        write_json(reports_content(reports))
    else:
        print_reports(reports, OutputConsole())
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
        FileReport(path, unreadable=one_line(file))
        if isinstance(file, str)
        else FileReport(path, file.figures, tuple(found for found in findings if found.file == str(path)))
        for path, file in read.items()
    ]


def coverage(figures: Sequence[Figure]) -> Coverage:
    """Count what the rules could test."""
    on_lattice: Counter[str] = Counter()
    untestable: Counter[str] = Counter()
    off = 0
    for figure in figures:
        state = lattice_state(figure)
        if state == "on":
            on_lattice[figure.protocol] += 1
        elif state == "off":
            off += 1
        elif state:
            untestable[state] += 1
    averages = sum(1 for _ in rows_with_average(AuditedFigures(tuple(figures), Registry())))
    stated = sum(figure.metric != "main_score" for figure in figures)
    return Coverage(stated, dict(sorted(on_lattice.items())), off, dict(sorted(untestable.items())), averages)


def print_reports(reports: Sequence[FileReport], console: OutputConsole) -> None:
    """Print the findings file by file, what could be tested, and a summary. Names are shown as they are, never as markup."""
    for report in reports:
        if report.unreadable:
            continue
        tested = coverage_lines(coverage(report.figures))
        lines = [*map(_finding_text, report.findings), *(toned(f"  {line}", "dim") for line in tested)]
        print_lines([toned(one_line(str(report.path)), "strong"), *lines], console)
    counts = Counter(finding.severity for report in reports for finding in report.findings)
    totals = ", ".join(counted(counts[severity], severity) for severity in SEVERITIES)
    read = [report for report in reports if not report.unreadable]
    print_lines([f"{counted(len(read), 'file')} audited: {totals}"], console)


def coverage_lines(tested: Coverage) -> Iterator[str]:
    """Say in words what could be tested."""
    on = sum(tested.on_lattice.values())
    yield f"{counted(tested.figures, 'figure')} read" + (
        f", {counted(tested.averages, 'average')} compared with the mean of its row" if tested.averages else ""
    )
    if on or tested.off_lattice or tested.untestable:
        protocols = ", ".join(f"{number:,} {protocol}" for protocol, number in tested.on_lattice.items())
        yield (
            f"MRRs tested on their lattice, 1/(2520 × queries) at cutoff 10: {on + tested.off_lattice:,}, on it {on:,}"
            + (f" ({protocols})" if len(tested.on_lattice) > 1 else "")
        )
    if tested.untestable:
        reasons = ", ".join(f"{number:,}: {reason}" for reason, number in tested.untestable.items())
        yield f"MRRs that can't be tested: {sum(tested.untestable.values()):,} ({reasons})"


def reports_content(reports: Sequence[FileReport]) -> dict[str, Any]:
    """Give the same for machines: per file its findings and counts, and the number of findings by severity."""
    counts = Counter(finding.severity for report in reports for finding in report.findings)
    return {
        "files": [
            {
                "file": str(report.path),
                "unreadable": report.unreadable or None,
                "tested": None if report.unreadable else asdict(coverage(report.figures)),
                "findings": [asdict(finding) for finding in report.findings],
            }
            for report in reports
        ],
        "findings": {severity: counts[severity] for severity in SEVERITIES},
    }


def _read(path: Path, model: str) -> AuditedFile | str:
    try:
        return read_figures(path, model)
    except EvalkitError as error:
        return str(error)


def _finding_text(finding: AuditFinding) -> Text:
    place = f"{shown(finding.place)}: " if finding.place else ""
    text = toned(f"  {finding.severity:8}", _TONES[finding.severity])
    text.append(f"{finding.what} [{finding.rule}]\n", style="default")
    lines = f"{place}{finding.evidence}\n{finding.why}".splitlines()
    text.append("\n".join(f"{_INDENT}{printable(line)}" for line in lines), style=STYLES["dim"])
    return text
