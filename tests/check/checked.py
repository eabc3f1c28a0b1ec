"""A result to check, and what `evalkit check` says of it."""

from __future__ import annotations

import re
from pathlib import Path
from xml.dom import minidom

import numpy as np
import pandas as pd
from command import Outcome, run_here
from made_results import (
    noisy_scores,
    ranking_task,
)
from sklearn.metrics import average_precision_score

from evalkit.check.rows import CheckVerdict

TASK = ranking_task(300)
SCORES = noisy_scores(TASK)
LABELS = np.array([[candidate.gain for candidate in request.candidates] for request in TASK.requests])
_WORDS = set(map(str, CheckVerdict))
EQUAL = {"map": "equal", "mrr": "equal"}


def root(path: Path) -> Path:
    return path.parent.parent.parent


def check(baseline: Path, results: Path, *options: str) -> Outcome:
    return run_here("check", "--baseline", str(baseline), "--results", str(results), *options)


def verdicts(done: Outcome, task: str = "made") -> dict[str, str]:
    """The verdict by metric; by "" where a row has none."""
    table = done.stdout.partition("──\n")[2].partition("\n\n")[0]
    cells = [re.split(r"\s{2,}", line.rstrip()) for line in table.splitlines()]
    return {
        next((cell for cell in row if cell in ("map", "mrr")), ""): next(
            cell for cell in row if cell.removesuffix(" (fails --strict)") in _WORDS
        )
        for row in cells
        if task in row
    }


def suites(path: Path) -> minidom.Element:
    """JUnit's outermost element, read by a parser that is not the writer's."""
    return minidom.parse(str(path)).documentElement


def values(scores: np.ndarray) -> dict[str, np.ndarray]:
    """AP and RR@10 per query, by scikit-learn and by hand."""
    ap = [average_precision_score(labels, row) for labels, row in zip(LABELS, scores, strict=True)]
    ranked = np.take_along_axis(LABELS, np.argsort(-scores, axis=1), axis=1)
    return {"map": np.array(ap), "mrr": 1 / (1 + np.argmax(ranked, axis=1))}


def off_by_one(table: pd.DataFrame) -> pd.DataFrame:
    """Every rank counted one too high."""
    ranked = np.take_along_axis(LABELS, np.argsort(-SCORES, axis=1), axis=1)
    ranks = np.arange(1, LABELS.shape[1] + 1) + 1
    ap = (ranked * np.cumsum(ranked, axis=1) / ranks).sum(axis=1) / ranked.sum(axis=1)
    return table.assign(ap=ap, rr=1 / (1 / table["rr"] + 1))
