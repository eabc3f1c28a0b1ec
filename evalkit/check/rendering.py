"""A row in words and figures, the same in every output, and the table for standard output."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from evalkit.check.changes import exceeds
from evalkit.check.rows import CHANGES, Change, Outcome, Row, Rules, Verdict, outcome
from evalkit.output.console import add_column, plain_table, print_whole

NAMES = ("model", "task", "settings")
FIGURES = ("baseline", "now", "difference", "95 % interval", "p", "queries changed")

_STYLES: dict[Outcome, str] = {"failed": "red", "error": "red", "unreadable": "red", "note": "dim"}
_SMALLEST_P = 1e-4

_BREAKS = re.compile(r"[\t\n\r\x85\u2028\u2029]+")
# no output can hold them: control characters, surrogates and what is no character
_NOT_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def clean(text: str) -> str:
    """Put a space for a line break and U+FFFD for what XML 1.0, UTF-8 or a terminal can't take."""
    return _NOT_TEXT.sub("\N{REPLACEMENT CHARACTER}", _BREAKS.sub(" ", text))


def shown_columns(rows: Sequence[Row], rules: Rules) -> dict[str, list[str]]:
    """Cells by the title of their column; columns that would be empty throughout are left out."""
    columns: dict[str, list[str]] = {
        "model": [row.model for row in rows],
        "task": [row.task for row in rows],
        "settings": [row.settings for row in rows],
        "revision": [row.revisions for row in rows],
        "metric": [row.metric for row in rows],
    }
    figures = [_figures(row.change, rules) for row in rows]
    columns |= {title: [cells[place] for cells in figures] for place, title in enumerate(FIGURES)}
    columns["verdict"] = [verdict_words(row, rules) for row in rows]
    return {title: [clean(cell) for cell in cells] for title, cells in columns.items() if any(cells)}


def verdict_words(row: Row, rules: Rules) -> str:
    """The verdict, with the reason where it fails for strictness alone."""
    return f"{row.verdict} (fails --strict)" if rules.strict and row.verdict in CHANGES else str(row.verdict)


def note_lines(rows: Iterable[Row]) -> list[str]:
    """What there is to say beside the verdicts: a line per result and note."""
    metrics: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.note:
            metrics.setdefault((place_words(row), clean(row.note)), []).extend([row.metric] if row.metric else [])
    return [
        f"{', '.join([place, ' and '.join(named)] if named else [place])}: {note}"
        for (place, note), named in metrics.items()
    ]


def place_words(row: Row) -> str:
    """Name a row's result."""
    words = f"{row.model} on {row.task}" if row.task else row.model
    return clean(f"{words} ({row.settings})" if row.settings else words)


def count_words(rows: Sequence[Row], rules: Rules) -> str:
    """Whether the check failed, and how many rows have each verdict."""
    counts = Counter(row.verdict for row in rows)
    failed = any(outcome(row, rules) not in ("passed", "note") for row in rows)
    listed = "; ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict])
    return f"{'failed' if failed else 'passed'}: {listed}"


def rule_words(rules: Rules) -> str:
    """When a change counts as a regression."""
    words = (
        f"regression: worse by more than {rules.tolerance:g} points, p < {rules.alpha:g} in a paired randomisation test"
    )
    return f"{words}; --strict: any change fails" if rules.strict else words


def change_words(change: Change, rules: Rules) -> str:
    """A change in one phrase."""
    before, after, points, interval, p_value, changed = _figures(change, rules)
    tested = f", 95 % interval {interval}, p = {p_value}".replace("p = <", "p < ") if interval else ""
    return f"{before} → {after} ({points} points{tested}; {changed} queries changed)"


def check_table(rows: Sequence[Row], rules: Rules) -> Table:
    """One row per verdict, in percent; the difference is in points."""
    table = plain_table()
    columns = shown_columns(rows, rules)
    for title, cells in columns.items():
        justify: JustifyMethod = "right" if title in FIGURES else "left"
        add_column(table, title, cells, justify=justify, is_name=title in NAMES)
    for row, texts in zip(rows, zip(*columns.values(), strict=True), strict=True):
        # a Text shows brackets in a name; a plain string would be read as markup
        table.add_row(*map(Text, texts), style=_STYLES.get(outcome(row, rules)))
    return table


def print_check(rows: Sequence[Row], rules: Rules, console: Console) -> None:
    """Print the table, then what its verdicts rest on."""
    print_whole(check_table(rows, rules), console)
    console.print()
    for line in (*note_lines(rows), count_words(rows, rules), rule_words(rules)):
        console.print(Text(line), soft_wrap=True)


def _figures(change: Change | None, rules: Rules) -> tuple[str, ...]:
    if change is None:
        return ("",) * len(FIGURES)
    points = (change.after - change.before) * 100
    interval = "[" + ", ".join(f"{bound * 100:+.2f}" for bound in change.interval) + "]" if change.interval else ""
    return (
        f"{change.before * 100:.2f}",
        f"{change.after * 100:.2f}",
        f"{round(points, decimals) + 0.0:+.{decimals}f}" if (decimals := _decimals(points, rules.tolerance)) else "",
        interval,
        _p_words(change.p_value),
        f"{change.changed:,} of {change.queries:,}",
    )


def _decimals(points: float, tolerance: float) -> int:
    """Three where two would read as the tolerance that is exceeded."""
    return 3 if exceeds(points, tolerance) and round(abs(points), 2) <= tolerance else 2


def _p_words(p_value: float | None) -> str:
    if p_value is None:
        return ""
    return f"{p_value:.4f}" if p_value >= _SMALLEST_P else f"<{_SMALLEST_P:.4f}"
