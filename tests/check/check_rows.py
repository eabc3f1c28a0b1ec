"""Rows of every kind, with names that XML, Markdown and terminals must be kept from reading."""

from __future__ import annotations

from evalkit.check.rows import CheckRow, CheckRules, CheckVerdict, MetricChange

RULES = CheckRules()
STRICT = CheckRules(strict=True)
CHINESE = "模型 <a href=\"x\"> & 'b' | `c` *d* _e_ [f](g) \\| $h$ ~~i~~ #1 @j &amp;"
BAD_CHARACTERS = "a\x00b\x1b[31mc\x85d\udcffe\uffff"
FALLEN = MetricChange(0.8127, 0.7910, 61, 300, (-0.0301, -0.0118), 0.0002)
DRIFTED = MetricChange(0.8127, 0.8120, 5, 300, (-0.0021, 0.0004), 0.25)

ROWS = [
    CheckRow("bm25", "demo-zh", CheckVerdict.EQUAL, "map", change=MetricChange(0.4083, 0.4083, 0, 45)),
    CheckRow("bm25", "demo-zh", CheckVerdict.OTHER_SCORES, "mrr", change=MetricChange(0.7, 0.7, 0, 45)),
    CheckRow("bm25", "demo-zh2en", CheckVerdict.TIES, "mrr", change=MetricChange(0.6, 0.4, 9, 16), note="9 by ties"),
    CheckRow("e5", "T2Reranking", CheckVerdict.REGRESSION, "map", revisions="0123 → 4567", change=FALLEN),
    CheckRow("e5", "T2Reranking", CheckVerdict.NOISE, "mrr", revisions="0123 → 4567", change=DRIFTED, note="too few"),
    CheckRow(
        "e5",
        "CMedQAv1",
        CheckVerdict.TOLERATED,
        "map",
        change=MetricChange(0.81, 0.80905, 40, 1000, (-0.0012, -0.0007), 9e-5),
    ),
    CheckRow(
        "e5",
        "CMedQAv1",
        CheckVerdict.BETTER,
        "mrr",
        change=MetricChange(0.81, 0.81104, 40, 1000, (0.0007, 0.0016), 1e-3),
    ),
    CheckRow("e5", "CMedQAv2", CheckVerdict.NEW, "map", "limit-5", note="the baseline does not have it"),
    CheckRow("e5", "CMedQAv2", CheckVerdict.MISSING, "map", note="the baseline has it, now has not"),
    CheckRow("e5", "MMarco", CheckVerdict.OTHER_QUERIES, "map", note="1 query ('q7') only in the baseline"),
    CheckRow("e5", "MMarco", CheckVerdict.AMBIGUOUS, note="can't tell"),
    CheckRow(CHINESE, CHINESE, CheckVerdict.REGRESSION, "map", change=FALLEN, note=f"1 query ({CHINESE!r})"),
    CheckRow(BAD_CHARACTERS, "1. b\nc", CheckVerdict.UNREADABLE, note="- no JSON\r\n# none"),
]
CLEANED = "a\ufffdb\ufffd[31mc d\ufffde\ufffd"
