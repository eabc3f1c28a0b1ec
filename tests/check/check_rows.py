"""Rows of every kind, with names that XML, Markdown and terminals must be kept from reading."""

from __future__ import annotations

from evalkit.check.rows import Change, Row, Rules, Verdict

RULES = Rules()
STRICT = Rules(strict=True)
CHINESE = "模型 <a href=\"x\"> & 'b' | `c` *d* _e_ [f](g) \\| $h$ ~~i~~ #1 @j &amp;"
BAD_CHARACTERS = "a\x00b\x1b[31mc\x85d\udcffe\uffff"
FALLEN = Change(0.8127, 0.7910, 61, 300, (-0.0301, -0.0118), 0.0002)
DRIFTED = Change(0.8127, 0.8120, 5, 300, (-0.0021, 0.0004), 0.25)

ROWS = [
    Row("bm25", "demo-zh", Verdict.EQUAL, "map", change=Change(0.4083, 0.4083, 0, 45)),
    Row("bm25", "demo-zh", Verdict.OTHER_SCORES, "mrr", change=Change(0.7, 0.7, 0, 45)),
    Row("bm25", "demo-zh2en", Verdict.TIES, "mrr", change=Change(0.6, 0.4, 9, 16), note="9 by ties"),
    Row("e5", "T2Reranking", Verdict.REGRESSION, "map", revisions="0123 → 4567", change=FALLEN),
    Row("e5", "T2Reranking", Verdict.NOISE, "mrr", revisions="0123 → 4567", change=DRIFTED, note="too few"),
    Row("e5", "CMedQAv1", Verdict.TOLERATED, "map", change=Change(0.81, 0.80905, 40, 1000, (-0.0012, -0.0007), 9e-5)),
    Row("e5", "CMedQAv1", Verdict.BETTER, "mrr", change=Change(0.81, 0.81104, 40, 1000, (0.0007, 0.0016), 1e-3)),
    Row("e5", "CMedQAv2", Verdict.NEW, "map", "limit-5", note="the baseline does not have it"),
    Row("e5", "CMedQAv2", Verdict.MISSING, "map", note="the baseline has it, now has not"),
    Row("e5", "MMarco", Verdict.OTHER_QUERIES, "map", note="1 query ('q7') only in the baseline"),
    Row("e5", "MMarco", Verdict.AMBIGUOUS, note="can't tell"),
    Row(CHINESE, CHINESE, Verdict.REGRESSION, "map", change=FALLEN, note=f"1 query ({CHINESE!r})"),
    Row(BAD_CHARACTERS, "1. b\nc", Verdict.UNREADABLE, note="- no JSON\r\n# none"),
]
CLEANED = "a\ufffdb\ufffd[31mc d\ufffde\ufffd"
