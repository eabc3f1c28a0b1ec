"""What an audit found, for people and for machines."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.text import Text

from evalkit.audit.figures import SEVERITIES, Evidence, Figure, Finding, Registry, shown
from evalkit.audit.rules.bounds import rows_with_average
from evalkit.audit.rules.lattice import lattice_state
from evalkit.output.console import OutputConsole

_STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}
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
        console.print(Text(shown_path(report.path), style="bold"), soft_wrap=True)
        for finding in report.findings:
            console.print(_finding_text(finding), soft_wrap=True)
        for line in coverage_lines(coverage(report.figures)):
            console.print(Text(f"  {line}", style="dim"), soft_wrap=True)
    counts = Counter(finding.severity for report in reports for finding in report.findings)
    totals = ", ".join(_number(counts[severity], severity) for severity in SEVERITIES)
    read = [report for report in reports if not report.unreadable]
    console.print(Text(f"{_number(len(read), 'file')} audited: {totals}"), soft_wrap=True)


def shown_path(path: Path) -> str:
    """Write a path so that it can be printed."""
    return "".join(char if char.isprintable() else "�" for char in str(path))


def coverage_lines(tested: Coverage) -> Iterator[str]:
    """Say in words what could be tested."""
    on = sum(tested.on_lattice.values())
    yield f"{_number(tested.figures, 'figure')} read" + (
        f", {_number(tested.averages, 'average')} compared with the mean of its row" if tested.averages else ""
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


def reports_json(reports: Sequence[FileReport]) -> str:
    """Write the same for machines: per file its findings and counts, and the number of findings by severity."""
    counts = Counter(finding.severity for report in reports for finding in report.findings)
    content = {
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
    return json.dumps(content, ensure_ascii=True, indent=2, sort_keys=True)


def _finding_text(finding: Finding) -> Text:
    place = f"{shown(finding.place)}: " if finding.place else ""
    text = Text(f"  {finding.severity:8}", style=_STYLES[finding.severity])
    text.append(f"{finding.what} [{finding.rule}]\n", style="default")
    lines = f"{place}{finding.evidence}\n{finding.why}"
    printable = "\n".join("".join(char if char.isprintable() else "�" for char in line) for line in lines.splitlines())
    text.append("\n".join(f"{_INDENT}{line}" for line in printable.splitlines()), style="dim")
    return text


def _number(count: int, name: str) -> str:
    return f"{count:,} {name}{'' if count == 1 else 's'}"
