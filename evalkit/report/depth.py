"""Every measure as a function of how many of a first stage's candidates are reranked, from one stored run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evalkit.compare.shared_queries import metric_title
from evalkit.errors import EvalkitError
from evalkit.metrics.lists import CandidateLists, best_possible, candidates_cut
from evalkit.metrics.measures import Measure, find_measure, protocol_of
from evalkit.metrics.query_scores import counts_any, score_lists
from evalkit.output.numbers import percent, percent_range
from evalkit.output.sheets import Sheet
from evalkit.report.first_stage import shown_measures
from evalkit.results.tables import STAGE_COLUMN, lists_of_tables
from evalkit.statistics import bootstrap_intervals

if TYPE_CHECKING:
    from evalkit.results.result import Result

DEPTHS = (5, 10, 20, 50, 100, 200, 500, 1_000)


@dataclass(frozen=True, slots=True)
class DepthValue:
    """A measure of the first `depth` candidates of each query, reranked: fractions, on `n_queries` that its rules count.

    `ceiling` is what a perfect order of these candidates gives. `depth` is the longest list's length where all are reranked.
    """

    metric: str
    protocol: str
    depth: int
    is_all: bool
    n_queries: int
    value: float
    interval: tuple[float, float]
    ceiling: float


@dataclass(frozen=True, slots=True)
class DepthTable:
    """The values of one result, measure by measure, from the fewest candidates to all; `leading` is the measure that heads it."""

    task: str
    label: str
    first_stage: str
    leading: str
    values: tuple[DepthValue, ...]


def depth_table(result: Result, label: str, metric: str | None, seed: int) -> DepthTable:
    """Judge a result at each depth by the measures that both stages are shown by, or by `metric` alone.

    What is scored is the run cut to the candidates that the first stage places first (by its score in float32, tied ones by id,
    descending, as `task.top_k` cuts); relevant documents below the cut are missed. A depth that no query's list reaches beyond is
    left out, as is a measure at a depth at which its rules leave no query. Raises EvalkitError with what `no_depths` says.
    """
    problem, first = no_depths(result), result.task.first_stage
    if problem or first is None:
        raise EvalkitError(problem)
    if STAGE_COLUMN not in result.candidates:
        raise EvalkitError(
            f"{result.path}: its table of candidates has no column {STAGE_COLUMN}; run the evaluation again"
        )
    lists = lists_of_tables(result.queries, result.candidates)
    ranks = _ranks(lists_of_tables(result.queries, result.candidates, STAGE_COLUMN))
    longest = int(lists.lengths.max())
    measures = [find_measure(name) for name in ([metric] if metric else shown_measures(result))]
    values = [
        value
        for depth in (*(depth for depth in DEPTHS if depth < longest), longest)
        for value in _values(candidates_cut(lists, ranks < depth), measures, depth, longest, seed)
    ]
    places = {measure.name: place for place, measure in enumerate(measures)}
    values.sort(key=lambda one: (places[one.metric], one.depth))
    return DepthTable(result.task.name, label, first.name, metric or result.main_score, tuple(values))


def no_depths(result: Result) -> str:
    """Say why a result can't be judged at other depths than its own; empty where it can."""
    name = f"{result.model.name} on {result.task.name}"
    if result.task.first_stage is None:
        return f"{name} has no depths: its candidates are not a first stage's (task.candidates=RUN)"
    if result.task.first_stage.made.get("fusion"):
        return f"{name} has its own depth alone: each of the fused runs was cut at it; run it with task.top_k=K"
    if "listwise" in (result.model.kind, result.backend.get("scored_by")):
        return (
            f"{name} has its own depth alone: a listwise model scores other lists otherwise; run it with task.top_k=K"
        )
    return ""


def unknown_lists(result: Result) -> str:
    """Say of scores that were made elsewhere that depths are only right where lists had no part in them; empty for others."""
    if result.model.kind != "run" or no_depths(result):
        return ""
    return (
        f"{result.model.name} on {result.task.name}: what made the run is not known; of a model that ranks whole lists its depths "
        "are not those of shorter lists"
    )


def depth_sheet(table: DepthTable) -> Sheet:
    """Return a row per measure and depth, in percent."""
    return Sheet(
        title=f"{table.label} on {table.task}, by how many candidates of {table.first_stage} are reranked",
        columns=(
            *(("metric", "text"), ("protocol", "text"), ("depth", "number"), ("queries", "number")),
            *(("value", "number"), ("95 % interval", "number"), ("ceiling", "number")),
        ),
        rows=tuple(
            (
                metric_title(one.metric),
                one.protocol,
                f"all ({one.depth:,})" if one.is_all else f"{one.depth:,}",
                f"{one.n_queries:,}",
                percent(one.value),
                percent_range(one.interval),
                percent(one.ceiling),
            )
            for one in table.values
        ),
        keys=("metric", "protocol", "depth"),
    )


def _values(
    lists: CandidateLists, measures: Sequence[Measure], depth: int, longest: int, seed: int
) -> Iterator[DepthValue]:
    """Judge what is left of a run at a depth."""
    judged = [measure for measure in measures if counts_any(lists, measure)]
    if not judged:
        return
    scores, ceilings = score_lists(lists, judged), score_lists(best_possible(lists), judged).means
    intervals = bootstrap_intervals(np.column_stack([scores.values[measure.name] for measure in judged]), seed=seed)
    for measure, (low, high) in zip(judged, intervals, strict=True):
        name = measure.name
        yield DepthValue(
            metric=name,
            protocol=protocol_of(name),
            depth=depth,
            is_all=depth == longest,
            n_queries=int((~np.isnan(scores.values[name])).sum()),
            value=scores.means[name],
            interval=(float(low), float(high)),
            ceiling=ceilings[name],
        )


def _ranks(stage: CandidateLists) -> NDArray[np.int64]:
    """Return each candidate's rank in its query's list, from 0: by score in float32, then by id, descending."""
    order = np.lexsort((stage.doc_id_places, -stage.scores32, stage.owners))
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order)) - np.repeat(stage.offsets[:-1], stage.lengths)
    return ranks
