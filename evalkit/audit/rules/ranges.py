"""Values that no metric can have, and percentages taken for fractions or the reverse."""

from __future__ import annotations

import math
from collections.abc import Iterator

from evalkit.audit.figures import AuditedFigures, AuditFinding, Figure, is_sound, shown

_LEAST_PERCENT = 0.01
# with a thousand candidates a query, a ranking of noise is worth less than one percent
_NOISE_TASK = "MMarcoReranking"


def wrong_values(evidence: AuditedFigures) -> Iterator[AuditFinding]:
    """Find what is no number, or not between 0 and 1, or is a fraction among percentages."""
    for figure in evidence.figures:
        if math.isnan(figure.value):
            yield _finding(figure, "no number", "a metric is a number", shown(figure.printed))
        elif not is_sound(figure):
            why = "a metric lies between 0 and 1, in percent between 0 and 100"
            if figure.unit == "fraction" and 1 < figure.value <= 100:
                why += "; among fractions this looks like a percentage"
            yield _finding(figure, "out of range", why, f"{figure.printed} as a {figure.unit}")
        elif figure.unit == "percent" and 0 < figure.value <= _LEAST_PERCENT:
            yield _fraction_among_percentages(figure)


def _fraction_among_percentages(figure: Figure) -> AuditFinding:
    severity = "warning" if figure.task == _NOISE_TASK else "error"
    return AuditFinding(
        "warning" if severity == "warning" else "error",
        "range",
        f"{figure.metric} of {shown(figure.task)} is a fraction among percentages",
        figure.file,
        figure.place,
        "units are mixed up: readers and leaderboards will take it for less than one percent",
        f"{figure.printed} stands beside figures above 1",
    )


def _finding(figure: Figure, what: str, why: str, evidence: str) -> AuditFinding:
    subject = f"{figure.metric} of {shown(figure.task)} is {what}"
    return AuditFinding("error", "range", subject, figure.file, figure.place, why, evidence)
