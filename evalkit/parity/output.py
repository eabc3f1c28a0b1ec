"""Agreements as tables, as lines below them, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from evalkit import machine as provenance
from evalkit.output.numbers import counted, points
from evalkit.output.sheets import ColumnKind, Sheet
from evalkit.parity.records import Agreement, Comparison, Diagnosis, Flips, Parity, Participant

COLUMNS: tuple[tuple[str, ColumnKind], ...] = (
    ("backend", "name"),
    ("version", "text"),
    ("pairs", "number"),
    ("largest", "number"),
    ("mean", "number"),
    ("tolerance", "number"),
    ("tau", "number"),
    ("lowest", "number"),
    ("flips", "number"),
    ("near ties", "number"),
    ("ΔMAP", "number"),
    ("ΔMRR", "number"),
    ("verdict", "text"),
)
LEGEND = (
    "largest and mean: of the absolute differences of scores; tau and lowest: Kendall's tau per query, its mean and lowest value",
    "flips: pairs of a query's candidates in another order; near ties: those among them that the tolerance alone can turn round",
    "ΔMAP and ΔMRR: percentage points of cmteb-v1, the backend's less the reference's",
)


def parity_sheets(parity: Parity) -> list[Sheet]:
    """Return a table per task, one row per backend."""
    reference = parity.reference
    sheets = []
    for task in dict.fromkeys(agreement.task for agreement in parity.agreements):
        own = [agreement for agreement in parity.agreements if agreement.task == task]
        queries = counted(own[0].queries, "query")
        sheets.append(
            Sheet(
                title=f"{parity.model} on {task}, {queries}: compared with {label(reference)}",
                columns=COLUMNS,
                rows=tuple(_row(agreement) for agreement in own),
            )
        )
    return sheets


def parity_notes(parity: Parity) -> list[str]:
    """Return the notes on single backends, then what the columns are."""
    notes = []
    for agreement in parity.agreements:
        where = f"{agreement.participant.name} on {agreement.task}"
        affine = agreement.comparison.affine
        if affine is not None:
            saturated = f"; {affine.saturated} are 0 or 1" if affine.saturated else ""
            notes.append(
                f"{where}: probabilities, compared as {affine.slope:.4g} · logit {affine.offset:+.4g}{saturated}"
            )
        if agreement.comparison.untold:
            notes.append(f"{where}: can't be compared: {agreement.comparison.untold}")
            continue
        spread, tolerance = agreement.comparison.spread, agreement.comparison.tolerance
        if tolerance > spread:
            notes.append(
                f"{where}: the reference's scores spread by {spread:.2g} alone, less than the tolerance of {tolerance:g}: "
                "the verdict says little; see tau, or say tolerance="
            )
        if agreement.diagnosis is not None:
            notes.append(f"{where}: {cause_in_words(agreement.diagnosis)}")
    return [*notes, *LEGEND]


def cause_in_words(diagnosis: Diagnosis) -> str:
    """Return what explains a difference, and how much of it is left; or that nothing does."""
    found, before = diagnosis.found, f"{diagnosis.before:.2g}"
    if found is None:
        tried = sum(trial.remaining is not None for trial in diagnosis.trials)
        return f"differs by up to {before}, and none of the {tried} changes tried explains it"
    if found.explains == "size":
        return f"no change tried explains it; what differs (up to {before}) is as large as if it were {found.change}"
    rest = f"{found.remaining:.2g} of {before} remain"
    mostly = "mostly " if found.explains == "most" else ""
    return f"{mostly}explained by {found.cause}: {found.change} ({rest})"


def parity_content(parity: Parity) -> dict[str, Any]:
    """Everything that was found, for machines: differences of MAP and MRR are fractions."""
    return {
        "model": parity.model,
        "agrees": parity.agrees,
        "reference": _participant_content(parity.reference),
        "agreements": [_agreement_content(agreement) for agreement in parity.agreements],
        "provenance": provenance.collect(),
    }


def label(participant: Participant) -> str:
    """Return a backend's name with its version, and its precision where that is a low one."""
    dtype = "" if participant.dtype == "fp32" else participant.dtype
    return " ".join(part for part in (participant.name, participant.version, dtype) if part)


def _agreement_content(agreement: Agreement) -> dict[str, Any]:
    comparison = asdict(agreement.comparison)
    del comparison["differences"]
    diagnosis = agreement.diagnosis
    return {
        "task": agreement.task,
        "queries": agreement.queries,
        "backend": _participant_content(agreement.participant),
        **comparison,
        "cause": None if diagnosis is None else {**asdict(diagnosis), "in_words": cause_in_words(diagnosis)},
    }


def _participant_content(participant: Participant) -> dict[str, Any]:
    return {**asdict(participant), "description": dict(participant.description)}


def _row(agreement: Agreement) -> tuple[str, ...]:
    participant, comparison = agreement.participant, agreement.comparison
    dtype = "" if participant.dtype == "fp32" else f" {participant.dtype}"
    return (
        participant.name + dtype,
        participant.version or "–",
        *measured_cells(comparison),
        "CAN'T TELL" if comparison.untold else "agrees" if comparison.agrees else "DIFFERS",
    )


def measured_cells(comparison: Comparison) -> tuple[str, ...]:
    """Return the figures of a comparison, in the order of the columns between version and verdict."""
    flips: Flips = comparison.flips
    return (
        f"{comparison.pairs:,}",
        _small(comparison.largest),
        _small(comparison.mean),
        f"{comparison.tolerance:g}",
        *_taus((comparison.tau_mean, comparison.tau_lowest)),
        f"{flips.others + flips.near_ties:,}",
        f"{flips.near_ties:,}",
        _points(comparison.map_difference),
        _points(comparison.mrr_difference),
    )


def _small(number: float) -> str:
    return "0" if number == 0 else f"{number:.1e}"


def _taus(taus: Sequence[float | None]) -> list[str]:
    return ["n/a" if tau is None else f"{tau:.4f}" for tau in taus]


def _points(difference: float | None) -> str:
    return "n/a" if difference is None else points(difference)
