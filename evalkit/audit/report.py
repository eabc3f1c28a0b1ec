"""What an audit found, for people and for machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

from evalkit.audit.figures import SEVERITIES, Evidence, Figure, Finding, Registry, Severity, shown
from evalkit.audit.rules.averages import rows_with_average
from evalkit.audit.rules.lattice import lattice_state
from evalkit.output.console import STYLES, OutputConsole, Tone, print_lines, toned
from evalkit.output.numbers import counted
from evalkit.output.text import one_line, printable

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
    findings: tuple[Finding, ...] = ()
    unreadable: str = ""


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
    averages = sum(1 for _ in rows_with_average(Evidence(tuple(figures), Registry())))
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


def _finding_text(finding: Finding) -> Text:
    place = f"{shown(finding.place)}: " if finding.place else ""
    text = toned(f"  {finding.severity:8}", _TONES[finding.severity])
    text.append(f"{finding.what} [{finding.rule}]\n", style="default")
    lines = f"{place}{finding.evidence}\n{finding.why}".splitlines()
    text.append("\n".join(f"{_INDENT}{printable(line)}" for line in lines), style=STYLES["dim"])
    return text
