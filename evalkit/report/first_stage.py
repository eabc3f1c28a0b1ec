"""Retrieve, then rerank: what the first stage's order was worth, and what reranking made of it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from evalkit.compare.shared_queries import metric_title
from evalkit.compare.systems import result_labels
from evalkit.metrics.measures import CARD_PROTOCOL, PROTOCOLS, asked_measures, protocol_of
from evalkit.output.numbers import counted, percent, points, points_range
from evalkit.output.sheets import Sheet, print_notes, print_sheets
from evalkit.records import FirstStage
from evalkit.results.result import Result
from evalkit.results.tables import unretrieved_documents


def print_first_stages(results: Sequence[Result], console: Console) -> None:
    """Print a table per result that reranks a first stage's candidates; nothing for others."""
    staged = [
        (result, label)
        for result, label in zip(results, result_labels(results), strict=True)
        if result.first_stage is not None
    ]
    for result, label in staged:
        console.print()
        print_sheets([stage_sheet(result, label)], console)
    if staged:
        print_notes(
            [
                "both stages are judged by the candidates that the first one handed on; mteb-v2 counts relevant documents "
                "that are not among them as missed, cmteb-v1 knows candidates only, and leaves out queries that have no "
                "relevant one among them, or no other"
            ],
            console,
        )


def stage_sheet(result: Result, label: str) -> Sheet:
    """Return a row per metric: the first stage, the reranked order, the difference with its 95 % interval, and the ceiling.

    All are in percent. The ceiling is what a perfect order of the candidates gives by measures that count what the first stage
    missed.
    """
    first, stage = result.task.first_stage, result.first_stage
    if first is None or stage is None:
        raise ValueError(f"{result.task.name} has no first stage")
    counting = [name for name, protocol in PROTOCOLS.items() if protocol.counts_missed]
    rows = []
    for name in shown_measures(result):
        difference, low, high = stage.differences[name]
        rows.append(
            (
                metric_title(name),
                protocol_of(name),
                percent(stage.scores[name]),
                percent(result.scores[name]),
                points(difference),
                points_range((low, high)),
                percent(result.ceilings.get(name, 1.0)) if protocol_of(name) in counting else "",
            )
        )
    return Sheet(
        title=f"{label} on {result.task.name}: reranks {_depth(first)} of {first.name}",
        columns=(
            *(("metric", "text"), ("protocol", "text"), (first.name, "number"), ("reranked", "number")),
            *(("difference", "number"), ("95 % interval", "number"), ("ceiling", "number")),
        ),
        rows=tuple(rows),
        above=(_found(result),),
        keys=("metric", "protocol"),
    )


def shown_measures(result: Result) -> list[str]:
    """Name the measures that both stages are shown by: those of the protocols, then those that were asked for."""
    reported = (name for protocol in PROTOCOLS.values() for name in (*protocol.leading_names, *protocol.of_first_stage))
    return list(dict.fromkeys((*reported, *(measure.name for measure in asked_measures(result.scores)))))


def _depth(first: FirstStage) -> str:
    return "all" if first.top_k is None else f"the top {first.top_k}"


def _found(result: Result) -> str:
    """How many of the relevant documents the first stage found, and how many queries cmteb-v1 can judge."""
    found = result.task.statistics.positives
    both = int(result.queries[PROTOCOLS[CARD_PROTOCOL].leading[0].column].notna().sum())
    missed = sum(map(len, unretrieved_documents(result.queries)))
    return (
        f"{found:,} of {counted(found + missed, 'relevant document')} are among the candidates (mean recall of a query "
        f"{percent(result.candidate_recall)}); "
        f"cmteb-v1 judges {both:,} of {counted(len(result.queries), 'query')}"
    )
