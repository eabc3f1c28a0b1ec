"""`evalkit compare`: systems against each other on the same queries, as tables and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evalkit.compare.comparison import CompareChoices, TaskComparison, compare_systems, tie_notes
from evalkit.compare.pairs import MovedQuery, PairComparison
from evalkit.compare.shared_queries import SharedQueries, metric_title
from evalkit.compare.systems import system_labels
from evalkit.output.console import OutputConsole
from evalkit.output.json import STDOUT, write_json
from evalkit.output.numbers import (
    counted,
    interval_name,
    letters,
    noisy_range,
    p_value,
    percent,
    points,
    points_range,
    signed,
    signed_range,
    tied_range,
)
from evalkit.output.sheets import ColumnKind, Sheet, print_notes, print_sheets
from evalkit.results.reading import read_readable
from evalkit.statistics import level_beside_test

_POWER = "80 %"


def print_comparison(paths: Sequence[Path], choices: CompareChoices, json_file: Path | None) -> None:
    """Print the comparison of results as tables; JSON goes to a file beside them, or to standard output in their place.

    Raises EvalkitError where results can't be read or compared.
    """
    results, left_out = read_readable(paths)
    comparisons, notes = compare_systems(results, choices, left_out)
    if json_file is not None:
        write_json(comparison_content(comparisons, notes, choices), json_file)
    if json_file != STDOUT:
        console = OutputConsole()
        print_sheets(comparison_sheets(comparisons, choices.alpha), console)
        print_notes([*comparison_notes(comparisons, choices.alpha), *notes], console)


def comparison_sheets(comparisons: Sequence[TaskComparison], alpha: float) -> list[Sheet]:
    """Tables per task: the pairs, the pairs within parts of the queries, and the queries that moved most."""
    sheets = []
    for comparison in comparisons:
        sheets.append(_pairs_sheet(comparison, alpha))
        ways = dict.fromkeys(part.by for part, _ in comparison.slices)
        sheets += [_slices_sheet(comparison, by, alpha) for by in ways]
        sheets += [_moved_sheet(comparison, pair, moved) for pair, moved in comparison.moved if moved]
    return sheets


def comparison_notes(comparisons: Sequence[TaskComparison], alpha: float) -> list[str]:
    """Say what the columns of the tables are, and which verdicts rest on ties."""
    interval = interval_name(level_beside_test(alpha))
    adjusted = any(len(comparison.pairs) > 1 or comparison.slices for comparison in comparisons)
    holm = "; p (Holm): adjusted for all tests of a table, as intervals are not" if adjusted else ""
    return [
        f"difference, its {interval} and detectable are percentage points; wins: queries that the first does better",
        f"p: paired randomisation test, two-sided{holm}; systems are told apart where it is below {alpha:g}",
        f"detectable: the smallest true difference that one such test would have found with a chance of {_POWER}",
        *(note for comparison in comparisons for note in tie_notes(comparison, alpha)),
    ]


def comparison_content(
    comparisons: Sequence[TaskComparison], notes: Sequence[str], choices: CompareChoices
) -> dict[str, Any]:
    """Everything that was found, as JSON holds it: values and differences are fractions, intervals of `interval_level`."""
    return {
        "alpha": choices.alpha,
        "interval_level": level_beside_test(choices.alpha),
        "seed": choices.seed,
        "tasks": [_task_content(comparison, choices.alpha) for comparison in comparisons],
        "notes": list(notes),
    }


def _pairs_sheet(comparison: TaskComparison, alpha: float) -> Sheet:
    shared = comparison.shared
    many = len(comparison.pairs) > 1
    labels = system_labels(shared.of.systems)
    return Sheet(
        title=_title(comparison),
        above=tuple(
            f"{letters(place)}: {labels[system]}{_tied(shared, place)}"
            for place, system in enumerate(shared.of.systems)
        ),
        columns=_columns(many, alpha),
        rows=tuple(tuple(_cells(pair, many, alpha)) for pair in comparison.pairs),
    )


def _slices_sheet(comparison: TaskComparison, by: str, alpha: float) -> Sheet:
    parts = [(part, pairs) for part, pairs in comparison.slices if part.by == by]
    many = sum(len(pairs) for _, pairs in parts) > 1
    return Sheet(
        title=f"{_title(comparison)}, by {by}",
        columns=((by, "text"), ("queries", "number"), *_columns(many, alpha)),
        rows=tuple(
            (part.name, f"{pair.n_queries:,}", *_cells(pair, many, alpha)) for part, pairs in parts for pair in pairs
        ),
        keys=(by, "queries", "pair"),
    )


def _columns(adjusted: bool, alpha: float) -> tuple[tuple[str, ColumnKind], ...]:
    columns: list[tuple[str, ColumnKind]] = [
        ("pair", "text"),
        ("first", "number"),
        ("second", "number"),
        ("difference", "number"),
        (interval_name(level_beside_test(alpha)), "number"),
        ("effect size", "number"),
        ("p", "number"),
        ("p (Holm)", "number"),
        ("wins/losses/ties", "number"),
        ("detectable", "number"),
        ("better", "text"),
    ]
    return tuple(column for column in columns if adjusted or column[0] != "p (Holm)")


def _cells(pair: PairComparison, adjusted: bool, alpha: float) -> list[str]:
    winner = pair.first if pair.difference > 0 else pair.second
    return [
        f"{letters(pair.first)}−{letters(pair.second)}",
        percent(pair.means[0]),
        percent(pair.means[1]),
        points(pair.difference),
        points_range(pair.interval),
        f"{signed(pair.effect_size)} {signed_range(pair.effect_interval)}",
        p_value(pair.p_value),
        *([p_value(pair.adjusted_p)] if adjusted else []),
        f"{pair.wins:,}/{pair.losses:,}/{pair.ties:,}",
        percent(pair.detectable),
        letters(winner) if pair.adjusted_p < alpha else "not told apart",
    ]


def _moved_sheet(comparison: TaskComparison, pair: PairComparison, moved: Sequence[MovedQuery]) -> Sheet:
    shared = comparison.shared
    first, second = letters(pair.first), letters(pair.second)
    title = metric_title(shared.metric)
    columns: list[tuple[str, ColumnKind]] = [
        ("query_id", "text"),
        (f"{title} {first}", "number"),
        (f"{title} {second}", "number"),
        ("difference", "number"),
    ]
    with_texts = any(query.text for query in moved)
    if with_texts:
        columns.append(("query", "name"))
    rows = [
        (query.query_id, *map(percent, query.values), points(query.values[0] - query.values[1]))
        + ((" ".join(query.text.split()),) if with_texts else ())
        for query in moved
    ]
    return Sheet(
        title=f"{shared.of.task}{comparison.data}: the queries that moved most, {first}−{second}",
        columns=tuple(columns),
        rows=tuple(rows),
    )


def _tied(shared: SharedQueries, place: int) -> str:
    result = shared.of.results[place]
    value, ties = result.scores[shared.metric], result.tie_range(shared.metric)
    ranges = {"ties": tied_range(ties, value), "noise": noisy_range(result.noise_range(shared.metric), value, ties)}
    said = [f"{name}: {shown}" for name, shown in ranges.items() if shown]
    return f" ({'; '.join(said)})" if said else ""


def _title(comparison: TaskComparison) -> str:
    shared = comparison.shared
    queries = counted(len(shared.query_ids), "query")
    return f"{shared.of.task}{comparison.data}: {metric_title(shared.metric)} of {shared.of.protocol} on {queries}"


def _task_content(comparison: TaskComparison, alpha: float) -> dict[str, Any]:
    shared = comparison.shared
    labels = system_labels(shared.of.systems)
    systems = [
        {"label": labels[system], **asdict(system), "path": str(result.path)}
        for system, result in zip(shared.of.systems, shared.of.results, strict=True)
    ]
    return {
        "task": shared.of.task,
        "protocol": shared.of.protocol,
        "metric": shared.metric,
        "fingerprint": shared.of.fingerprint,
        "limit": shared.of.limit,
        "part": shared.of.part,
        "n_queries": len(shared.query_ids),
        "systems": systems,
        "pairs": [asdict(pair) for pair in comparison.pairs],
        "decided_by_ties": tie_notes(comparison, alpha),
        "slices": [
            {"by": part.by, "name": part.name, "pairs": [asdict(pair) for pair in pairs]}
            for part, pairs in comparison.slices
        ],
        "moved": [
            {"first": pair.first, "second": pair.second, "queries": [asdict(query) for query in queries]}
            for pair, queries in comparison.moved
        ],
    }
