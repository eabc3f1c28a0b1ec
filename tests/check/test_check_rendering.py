"""What a check prints and writes, read back by others' parsers."""

from __future__ import annotations

import io
import itertools
import re
from collections import Counter
from pathlib import Path
from xml.dom import minidom

import pytest
from check_rows import BAD_CHARACTERS, CHINESE, CLEANED, FALLEN, ROWS, RULES, STRICT
from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.console import Console

from evalkit.check.rendering import junit_xml, markdown_summary, note_lines, print_check
from evalkit.check.rows import CheckRow, CheckRules, CheckVerdict, outcome

GOLDEN = Path(__file__).parent.parent / "golden"


def printed(rules: CheckRules, terminal: int | None = None) -> str:
    file = io.StringIO()
    options = {"width": terminal or 80, "force_terminal": terminal is not None, "no_color": True, "color_system": None}
    print_check(ROWS, rules, Console(file=file, markup=False, emoji=False, highlight=False, **options))
    return "".join(line.rstrip() + "\n" for line in file.getvalue().splitlines())


def outputs() -> dict[str, str]:
    return {
        "check-piped.txt": printed(RULES),
        "check-summary.md": markdown_summary(ROWS, RULES),
        "check-summary-strict.md": markdown_summary(ROWS[:7], STRICT),
        "check-junit.xml": junit_xml(ROWS, RULES).decode(),
    }


@pytest.mark.parametrize("name", ["check-piped.txt", "check-summary.md", "check-summary-strict.md", "check-junit.xml"])
def test_every_output_is_rendered_as_ever(name: str) -> None:
    assert outputs()[name] == (GOLDEN / name).read_text(encoding="utf-8")


def test_a_narrow_terminal_cuts_no_figure_and_no_verdict() -> None:
    text = printed(RULES, terminal=40)
    assert "[-3.01, -1.18]" in text
    # a verdict goes on in the next line, between words
    assert all(
        any(word in line for line in text.splitlines())
        for word in ["changed,", "but", "not", "distinguishable", "from"]
    )
    assert "distinguishable from\n" in text
    assert "…" not in text


def test_every_verdict_has_an_outcome() -> None:
    found = {verdict: outcome(CheckRow("m", "t", verdict), RULES) for verdict in CheckVerdict}
    assert Counter(found.values()) == {"passed": 6, "error": 5, "failed": 1, "note": 1, "unreadable": 1}
    strict = {verdict: outcome(CheckRow("m", "t", verdict), STRICT) for verdict in CheckVerdict}
    assert {verdict for verdict in CheckVerdict if found[verdict] != strict[verdict]} == {
        CheckVerdict.OTHER_SCORES,
        CheckVerdict.TIES,
        CheckVerdict.NOISE,
        CheckVerdict.TOLERATED,
        CheckVerdict.BETTER,
    }


@pytest.mark.parametrize("rules", [RULES, STRICT])
def test_junit_is_read_back(rules: CheckRules) -> None:
    """By expat's DOM: suites, cases, names and counts."""
    root = minidom.parseString(junit_xml(ROWS, rules)).documentElement
    assert root is not None
    suites = root.getElementsByTagName("testsuite")
    assert [suite.getAttribute("name") for suite in suites] == ["bm25", "e5", CHINESE, CLEANED]
    tags = {"failures": "failure", "errors": "error", "skipped": "skipped", "tests": "testcase"}
    for element in (root, *suites):
        for attribute, tag in tags.items():
            assert element.getAttribute(attribute) == str(len(element.getElementsByTagName(tag)))
    assert root.getAttribute("tests") == str(len(ROWS))
    assert root.getAttribute("failures") == ("2" if rules is RULES else "7")
    assert root.getAttribute("errors") == "4"
    cases = root.getElementsByTagName("testcase")
    names = {(case.getAttribute("classname"), case.getAttribute("name")) for case in cases}
    assert len(names) == len(ROWS)
    assert {(CHINESE, f"{CHINESE} map"), ("e5", "CMedQAv2 limit-5 map"), (CLEANED, "1. b c")} <= names
    (failure,) = suites[2].getElementsByTagName("failure")
    message = failure.getAttribute("message")
    assert message.startswith("regression: 81.27 → 79.10 (-2.17 points, 99 % interval [-3.01, -1.18], p = 0.0002; ")
    assert message.endswith(f"; 1 query ({CHINESE!r})")


def cells(text: str) -> list[list[str]]:
    """The cells of a Markdown table, as a reader sees them."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    rows: list[list[str]] = []
    for token, following in itertools.pairwise(tokens):
        if token.type == "tr_open":
            rows.append([])
        if token.type in ("td_open", "th_open"):
            rows[-1].append(seen(following))
    return rows


def seen(token: Token) -> str:
    children = token.children or []
    assert {child.type for child in children} <= {"text", "strong_open", "strong_close"}, token.content
    return "".join(child.content for child in children)


def test_markdown_shows_names_as_they_are() -> None:
    titles, *rows = cells(markdown_summary(ROWS, RULES))
    assert titles[0] == "model"
    assert len(rows) == len(ROWS)
    assert all(len(row) == len(titles) for row in rows)
    shown = [dict(zip(titles, row, strict=True)) for row in rows]
    assert [row["model"] for row in shown] == [*(row.model for row in ROWS[:-1]), CLEANED]
    assert [row["task"] for row in shown] == [*(row.task for row in ROWS[:-1]), "1. b c"]
    assert [row["verdict"] for row in shown] == [str(row.verdict) for row in ROWS]
    assert shown[3]["difference"] == f"{(FALLEN.after - FALLEN.before) * 100:.2f}"


def test_markdown_notes_are_a_plain_list() -> None:
    """One level, one item per note, and nothing in them is read as Markdown."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown_summary(ROWS, RULES))
    assert {token.type for token in tokens} <= {
        *(
            f"{kind}_{end}"
            for kind in ("heading", "table", "thead", "tbody", "tr", "th", "td")
            for end in ("open", "close")
        ),
        *(f"{kind}_{end}" for kind in ("paragraph", "bullet_list", "list_item") for end in ("open", "close")),
        "inline",
    }
    items = [seen(tokens[number + 2]) for number, token in enumerate(tokens) if token.type == "list_item_open"]
    assert items == note_lines(ROWS)
    assert sum(token.type == "bullet_list_open" for token in tokens) == 1


def test_notes_name_both_metrics_at_once() -> None:
    rows = [CheckRow("m", "t", CheckVerdict.NEW, metric, note="the same") for metric in ("map", "mrr")]
    assert note_lines(rows) == ["m on t, map and mrr: the same"]
    assert note_lines([CheckRow("m", "t", CheckVerdict.AMBIGUOUS, settings="limit-5", note="so")]) == [
        "m on t (limit-5): so"
    ]
    assert note_lines([CheckRow(BAD_CHARACTERS, "", CheckVerdict.UNREADABLE, note="so")]) == [f"{CLEANED}: so"]


def test_the_difference_shows_what_exceeds_the_tolerance() -> None:
    """-0.104 is not written as the -0.10 that would be tolerated; -0.095 is."""
    text = printed(RULES)
    assert " +0.104 " in text
    assert " -0.10 " in text.replace(" -0.09 ", " -0.10 ")


@pytest.mark.parametrize("width", [60, 80, 100])
def test_the_verdict_stands_in_the_first_part_of_a_narrow_table(width: int) -> None:
    head = printed(RULES, terminal=width).splitlines()[0]
    assert "verdict" in head
    assert re.match(r"model +task( +settings)? +metric +verdict", head)
