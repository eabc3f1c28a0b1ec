"""What a check finds: a row per model, task and metric, with its verdict in words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from evalkit.statistics import level_beside_test

Outcome = Literal["passed", "note", "failed", "error", "unreadable"]


class CheckVerdict(StrEnum):
    """The words that a row ends with, the worst first."""

    UNREADABLE = "unreadable"
    REGRESSION = "regression"
    MISSING = "missing"
    AMBIGUOUS = "ambiguous"
    OTHER_PROTOCOL = "other protocol"
    OTHER_DATA = "other data"
    OTHER_QUERIES = "other queries"
    NOISE = "changed, but not distinguishable from noise"
    TOLERATED = "within tolerance"
    TIES = "equal but for the order of ties"
    OTHER_SCORES = "equal, from other scores"
    BETTER = "better"
    EQUAL = "equal"
    NEW = "new"


CHANGES = frozenset(
    {CheckVerdict.OTHER_SCORES, CheckVerdict.TIES, CheckVerdict.NOISE, CheckVerdict.TOLERATED, CheckVerdict.BETTER}
)
"""What passes, unless the check is strict."""

_OUTCOMES: dict[CheckVerdict, Outcome] = {
    CheckVerdict.EQUAL: "passed",
    **dict.fromkeys(CHANGES, "passed"),
    CheckVerdict.REGRESSION: "failed",
    CheckVerdict.NEW: "note",
    CheckVerdict.UNREADABLE: "unreadable",
}


@dataclass(frozen=True, slots=True)
class CheckRules:
    """When a change is a regression: worse by more than `tolerance` (percentage points) and p < `alpha`.

    `strict` fails on every change beyond float noise.
    """

    # three times what honest runs of one model differ by (published.NOISE_POINTS): less is no reason to act
    tolerance: float = 0.1
    alpha: float = 0.01
    strict: bool = False

    @property
    def level(self) -> float:
        """The level of the intervals beside the test."""
        return level_beside_test(self.alpha)


@dataclass(frozen=True, slots=True)
class MetricChange:
    """A metric on the same queries, before and after: fractions.

    `interval` (of the difference, at the rules' level), `p_value` and `detectable` are None where nothing changed that could be
    tested, or there is one query; the last also where no loss on so few queries could give p < alpha. `detectable` is the smallest
    true loss that the test would have found with a chance of 80 %. `changed` of the `queries` moved beyond float noise.
    """

    before: float
    after: float
    changed: int
    queries: int
    interval: tuple[float, float] | None = None
    p_value: float | None = None
    detectable: float | None = None


@dataclass(frozen=True, slots=True)
class CheckRow:
    """One verdict. `metric` is empty where it concerns a result as a whole, `revisions` where both sides have the same."""

    model: str
    task: str
    verdict: CheckVerdict
    metric: str = ""
    settings: str = ""
    revisions: str = ""
    change: MetricChange | None = None
    note: str = ""


def outcome(row: CheckRow, rules: CheckRules) -> Outcome:
    """Say what a row means for the check."""
    if rules.strict and row.verdict in CHANGES:
        return "failed"
    return _OUTCOMES.get(row.verdict, "error")
