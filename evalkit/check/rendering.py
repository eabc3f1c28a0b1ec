"""What a check found, as a table on standard output, as Markdown for the summary of a CI job, and as JUnit XML."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any

from rich.console import Console

from evalkit.check.rows import CHANGES, CheckRow, CheckRules, CheckVerdict, MetricChange, Outcome, outcome
from evalkit.output.console import Tone, print_lines
from evalkit.output.numbers import interval_name, p_value, percent, points_beyond, points_range
from evalkit.output.sheets import Sheet, list_as_markdown, markdown_text, print_sheets, sheets_as_markdown
from evalkit.output.text import one_line

_NAMES = ("model", "task", "settings")
# the verdict stands beside what it is of: a narrow terminal shows the columns in parts
_BEFORE = (*_NAMES, "metric", "verdict", "revision")
_FIGURES = ("baseline", "now", "difference", "", "p", "detectable", "queries changed")  # the interval has a level
_TONES: dict[Outcome, Tone] = {"failed": "bad", "error": "bad", "unreadable": "bad", "note": "dim", "passed": "plain"}
_TAGS: dict[Outcome, str] = {"failed": "failure", "error": "error", "unreadable": "error", "note": "skipped"}


def check_sheet(rows: Sequence[CheckRow], rules: CheckRules) -> Sheet:
    """One row per verdict, in percent; the difference is in points. Columns that would be empty throughout are left out."""
    cells = [
        (
            row.model,
            row.task,
            row.settings,
            row.metric,
            verdict_words(row, rules),
            row.revisions,
            *_figures(row.change, rules),
        )
        for row in rows
    ]
    sheet = Sheet(
        title="",
        columns=(
            *((title, "name" if title in _NAMES else "text") for title in _BEFORE),
            *((title or interval_name(rules.level), "number") for title in _FIGURES),
        ),
        rows=tuple(tuple(map(one_line, row)) for row in cells),
        tones={number: _TONES[outcome(row, rules)] for number, row in enumerate(rows)},
        keys=(*_NAMES, "metric"),
    )
    return sheet.without_empty_columns()


def print_check(rows: Sequence[CheckRow], rules: CheckRules, console: Console) -> None:
    """Print the table, then what its verdicts rest on."""
    print_sheets([check_sheet(rows, rules)], console)
    console.print()
    print_lines(
        (*note_lines(rows), count_words(rows, rules), rule_words(rules), *detectable_words(rows, rules)), console
    )


def markdown_summary(rows: Sequence[CheckRow], rules: CheckRules) -> str:
    """Write the rows as a section of GitHub-flavoured Markdown; rows that fail are bold. Names appear as they are."""
    sheet = replace(check_sheet(rows, rules), title=f"evalkit check {count_words(rows, rules)}")
    notes = list_as_markdown(note_lines(rows))
    rested = "; ".join([rule_words(rules), *detectable_words(rows, rules)])
    below = [*notes, *([""] if notes else []), markdown_text(rested), "", ""]
    return "\n".join([sheets_as_markdown([sheet]), *below])


def junit_xml(rows: Sequence[CheckRow], rules: CheckRules) -> bytes:
    """Write JUnit XML (UTF-8), without times, so that equal checks are equal files.

    A regression is a failure, and so is any change when the check is strict; what can't be compared is an error, what the
    baseline lacks is skipped. Characters that XML can't hold become U+FFFD.
    """
    root = ET.Element("testsuites", {"name": "evalkit check", **_tag_counts(rows, rules)})
    for model in dict.fromkeys(row.model for row in rows):
        suite_rows = [row for row in rows if row.model == model]
        suite = ET.SubElement(root, "testsuite", {"name": one_line(model), **_tag_counts(suite_rows, rules)})
        for row in suite_rows:
            _add_case(suite, row, rules)
    ET.indent(root)
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _add_case(suite: ET.Element, row: CheckRow, rules: CheckRules) -> None:
    name = " ".join(filter(None, (row.task, row.settings, row.metric))) or "results"
    case = ET.SubElement(suite, "testcase", {"classname": one_line(row.model), "name": one_line(name)})
    words = verdict_words(row, rules)
    details = [change_words(row.change, rules)] if row.change else []
    details += [f"revision {row.revisions}"] if row.revisions else []
    text = one_line("; ".join([*details, row.note] if row.note else details))
    tag = _TAGS.get(outcome(row, rules))
    if tag is None:
        ET.SubElement(case, "system-out").text = "; ".join(filter(None, (words, text)))
        return
    problem = ET.SubElement(case, tag, {"message": ": ".join(filter(None, (words, text))), "type": str(row.verdict)})
    problem.text = f"{place_words(row)}: {text}" if text else place_words(row)


def _tag_counts(rows: Sequence[CheckRow], rules: CheckRules) -> dict[str, str]:
    tags = Counter(_TAGS.get(outcome(row, rules)) for row in rows)
    numbers = {"failures": tags["failure"], "errors": tags["error"], "skipped": tags["skipped"]}
    return {"tests": str(len(rows)), **{name: str(number) for name, number in numbers.items()}}


def verdict_words(row: CheckRow, rules: CheckRules) -> str:
    """Return the verdict, with the reason where it fails for strictness alone."""
    return f"{row.verdict} (fails --strict)" if rules.strict and row.verdict in CHANGES else str(row.verdict)


def note_lines(rows: Iterable[CheckRow]) -> list[str]:
    """Return the notes beside the verdicts: a line per result and note."""
    metrics: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.note:
            metrics.setdefault((place_words(row), one_line(row.note)), []).extend([row.metric] if row.metric else [])
    return [
        f"{', '.join([place, ' and '.join(named)] if named else [place])}: {note}"
        for (place, note), named in metrics.items()
    ]


def place_words(row: CheckRow) -> str:
    """Name a row's result."""
    words = f"{row.model} on {row.task}" if row.task else row.model
    return one_line(f"{words} ({row.settings})" if row.settings else words)


def count_words(rows: Sequence[CheckRow], rules: CheckRules) -> str:
    """Whether the check failed, and how many rows have each verdict."""
    counts = Counter(row.verdict for row in rows)
    listed = "; ".join(f"{counts[verdict]} {verdict}" for verdict in CheckVerdict if counts[verdict])
    return f"{'passed' if has_passed(rows, rules) else 'failed'}: {listed}"


def has_passed(rows: Iterable[CheckRow], rules: CheckRules) -> bool:
    """Whether no row fails the check, and all could be compared."""
    return all(outcome(row, rules) in ("passed", "note") for row in rows)


def rule_words(rules: CheckRules) -> str:
    """When a change counts as a regression."""
    words = (
        f"regression: worse by more than {rules.tolerance:g} points, p < {rules.alpha:g} in a paired randomisation test"
    )
    return f"{words}; --strict: any change fails" if rules.strict else words


def detectable_words(rows: Iterable[CheckRow], rules: CheckRules) -> list[str]:
    """Say what the column of detectable losses is, where there is one."""
    if all(row.change is None or row.change.detectable is None for row in rows):
        return []
    return [
        f"detectable: the smallest true loss (points) that such a test finds at p < {rules.alpha:g} with a chance of 80 %"
    ]


def check_content(rows: Sequence[CheckRow], rules: CheckRules) -> dict[str, Any]:
    """Everything that was found, as JSON holds it: values are fractions, `outcome` says what a row means for the check."""
    return {
        "passed": has_passed(rows, rules),
        "rules": asdict(rules),
        "interval_level": rules.level,
        "rows": [asdict(row) | {"outcome": outcome(row, rules)} for row in rows],
    }


def change_words(change: MetricChange, rules: CheckRules) -> str:
    """Return a change in one phrase."""
    before, after, points, interval, p, _, changed = _figures(change, rules)
    tested = (f", {interval_name(rules.level)} {interval}" if interval else "") + (
        f", p = {p}".replace("p = <", "p < ") if p else ""
    )
    return f"{before} → {after} ({points} points{tested}; {changed} queries changed)"


def _figures(change: MetricChange | None, rules: CheckRules) -> tuple[str, ...]:
    if change is None:
        return ("",) * len(_FIGURES)
    return (
        percent(change.before),
        percent(change.after),
        points_beyond((change.after - change.before) * 100, rules.tolerance),
        points_range(change.interval) if change.interval else "",
        "" if change.p_value is None else p_value(change.p_value),
        "" if change.detectable is None else percent(change.detectable),
        f"{change.changed:,} of {change.queries:,}",
    )
