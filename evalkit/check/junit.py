"""The rows as JUnit XML, which CI systems show: a suite per model, a case per task and metric."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence

from evalkit.check.rendering import change_words, clean, place_words, verdict_words
from evalkit.check.rows import Outcome, Row, Rules, outcome

_TAGS: dict[Outcome, str] = {"failed": "failure", "error": "error", "unreadable": "error", "note": "skipped"}


def junit_xml(rows: Sequence[Row], rules: Rules) -> bytes:
    """Write JUnit XML (UTF-8), without times, so that equal checks are equal files.

    A regression is a failure, and so is any change when the check is strict; what can't be compared is an error, what the
    baseline lacks is skipped. Characters that XML can't hold become U+FFFD.
    """
    root = ET.Element("testsuites", {"name": "evalkit check", **_counts(rows, rules)})
    for model in dict.fromkeys(row.model for row in rows):
        suite_rows = [row for row in rows if row.model == model]
        suite = ET.SubElement(root, "testsuite", {"name": clean(model), **_counts(suite_rows, rules)})
        for row in suite_rows:
            _add_case(suite, row, rules)
    ET.indent(root)
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _add_case(suite: ET.Element, row: Row, rules: Rules) -> None:
    name = " ".join(filter(None, (row.task, row.settings, row.metric))) or "results"
    case = ET.SubElement(suite, "testcase", {"classname": clean(row.model), "name": clean(name)})
    words = verdict_words(row, rules)
    details = [change_words(row.change, rules)] if row.change else []
    details += [f"revision {row.revisions}"] if row.revisions else []
    text = clean("; ".join([*details, row.note] if row.note else details))
    tag = _TAGS.get(outcome(row, rules))
    if tag is None:
        ET.SubElement(case, "system-out").text = "; ".join(filter(None, (words, text)))
        return
    problem = ET.SubElement(case, tag, {"message": ": ".join(filter(None, (words, text))), "type": str(row.verdict)})
    problem.text = f"{place_words(row)}: {text}" if text else place_words(row)


def _counts(rows: Sequence[Row], rules: Rules) -> dict[str, str]:
    tags = Counter(_TAGS.get(outcome(row, rules)) for row in rows)
    counted = {"failures": tags["failure"], "errors": tags["error"], "skipped": tags["skipped"]}
    return {"tests": str(len(rows)), **{name: str(number) for name, number in counted.items()}}
