"""The rows as Markdown, for the summary of a CI job."""

from __future__ import annotations

import re
from collections.abc import Sequence

from evalkit.check.rendering import FIGURES, count_words, note_lines, rule_words, shown_columns
from evalkit.check.rows import Row, Rules, outcome

_MARKS = re.compile(r"([\\`*_\[\]#|~$])")
_BLOCK_START = re.compile(r"^(\d*)([-+=.)])")
_ESCAPED_SECOND = r"\1\\\2"
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;"}


def markdown_summary(rows: Sequence[Row], rules: Rules) -> str:
    """Write the rows as a section of GitHub-flavoured Markdown; rows that fail are bold. Names appear as they are."""
    columns = shown_columns(rows, rules)
    rules_below = ["---:" if title in FIGURES else "---" for title in columns]
    lines = [f"### evalkit check {escaped(count_words(rows, rules))}", "", _line(list(columns)), _line(rules_below)]
    for row, cells in zip(rows, zip(*columns.values(), strict=True), strict=True):
        fails = outcome(row, rules) not in ("passed", "note")
        lines.append(_line([f"**{escaped(cell)}**" if fails and cell else escaped(cell) for cell in cells]))
    # what begins like a list would begin one inside the item
    notes = [f"* {_BLOCK_START.sub(_ESCAPED_SECOND, escaped(line))}" for line in note_lines(rows)]
    return "\n".join([*lines, "", *notes, *([""] if notes else []), escaped(rule_words(rules)), "", ""])


def escaped(text: str) -> str:
    """Escape what Markdown or HTML would read as more than text."""
    return "".join(_ENTITIES.get(character, character) for character in _MARKS.sub(r"\\\1", text))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
