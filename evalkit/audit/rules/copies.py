"""The same figures under two models."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

from evalkit.audit.figures import (
    AuditedFigures,
    AuditFinding,
    Figure,
    Registry,
    Severity,
    fraction_decimals,
    is_equal,
    is_sound,
    shown,
)
from evalkit.audit.names import mrr_cutoff, short_name
from evalkit.audit.rules.lattice import divisor
from evalkit.output.numbers import listed
from evalkit.results.published import AVERAGE_TASK

_SPREAD = 1.3
"""Log10 of how densely models lie: their figures for a task fill about a twentieth of a unit."""

_PROOF = 8.0
"""Digits in common, in all: by chance one pair of 10**8 has them, and the registry holds some 30,000 pairs."""


_FEWEST_QUERIES = 100


@dataclass(slots=True)
class _Shared:
    """The figures that two models have in common, with how many digits each of them shows."""

    figures: dict[tuple[str, str], tuple[float, Figure, Figure]] = field(default_factory=dict)

    def add(self, one: Figure, other: Figure) -> None:
        weight = min(_telling_digits(one), _telling_digits(other)) - _SPREAD
        key = one.task, one.metric
        if weight > self.figures.get(key, (0.0,))[0]:
            self.figures[key] = weight, one, other

    @property
    def proof(self) -> float:
        return sum(weight for weight, _, _ in self.figures.values())


def repeated_figures(evidence: AuditedFigures) -> Iterator[AuditFinding]:
    """Find models that share more digits than two models do by chance: with the registry, and file with file.

    A model's card with another's figures is an error; elsewhere it is a warning. Where the registry itself holds the
    same figures under both names, or the names differ in the owner alone, the two are one model: a note.
    """
    for (_, pair), shared in _pairs(evidence.figures, (*evidence.registry.figures, *evidence.figures)).items():
        if shared.proof >= _PROOF:
            yield _finding(shared, pair in _aliases(evidence.registry))


@cache
def _aliases(registry: Registry) -> set[frozenset[str]]:
    """Find the names under which the registry holds the same figures."""
    pairs = _pairs(registry.figures, registry.figures)
    return {pair for (_, pair), shared in pairs.items() if shared.proof >= _PROOF}


def _pairs(figures: tuple[Figure, ...], others: tuple[Figure, ...]) -> dict[tuple[str, frozenset[str]], _Shared]:
    """Gather what each file's models share with other models, by file and pair of models."""
    neighbours: dict[tuple[str, str], dict[float, list[Figure]]] = defaultdict(lambda: defaultdict(list))
    for other in others:
        if _says_something(other):
            neighbours[other.task, other.metric][round(other.value, 3)].append(other)
    pairs: dict[tuple[str, frozenset[str]], _Shared] = defaultdict(_Shared)
    for figure in filter(_says_something, figures):
        found = neighbours[figure.task, figure.metric]
        middle = round(figure.value, 3)
        for near in (middle - 0.001, middle, middle + 0.001):
            for other in found.get(round(near, 3), ()):
                if not _is_same_model(figure, other) and is_equal(figure, other):
                    pairs[figure.file, frozenset((figure.model, other.model))].add(figure, other)
    return pairs


def _is_same_model(figure: Figure, other: Figure) -> bool:
    """Tell one model from two: the registry also has names without their owner, which other files' names stand for."""
    if figure.model == other.model:
        return True
    return figure.kind != "registry" and "/" not in other.model and short_name(figure.model) == other.model.casefold()


def _says_something(figure: Figure) -> bool:
    if figure.kind == "own result" and (figure.queries or 0) < _FEWEST_QUERIES:
        return False  # on a few queries two good models may well rank alike
    return bool(figure.model) and figure.task != AVERAGE_TASK and figure.metric != "main_score" and is_sound(figure)


def _telling_digits(figure: Figure) -> float:
    """Count the decimals that tell models apart: an MRR has no more of them than its lattice has points."""
    decimals = float(fraction_decimals(figure))
    cutoff = mrr_cutoff(figure.metric)
    if cutoff is None or cutoff > 20 or figure.queries is None:
        return decimals
    return min(decimals, math.log10(divisor(cutoff) * figure.queries))


def _finding(shared: _Shared, is_alias: bool) -> AuditFinding:
    _, one, other = next(iter(shared.figures.values()))
    same_name = short_name(one.model) == short_name(other.model)
    severity: Severity = "note" if is_alias or same_name else "error" if one.kind == "card" else "warning"
    why = {
        "note": "the registry holds both; they are one model, or one was taken for the other",
        "warning": "two models do not get the same digits: one of the rows is a copy, or both names are one model",
        "error": "a card has to state its own model's figures: these are another's",
    }[severity]
    if same_name:
        why = "the names differ in the owner alone: one model"
    figures = (f"{shown(task)} {metric} {mine.printed}" for (task, metric), (_, mine, _) in shared.figures.items())
    source = other.place if other.file in ("", one.file) else other.file
    return AuditFinding(
        severity,
        "copy",
        f"{shown(one.model)} has the figures of {shown(other.model)}",
        one.file,
        one.place,
        why,
        f"{len(shared.figures)} in common: {listed(figures)} ({shown(source)})",
    )
