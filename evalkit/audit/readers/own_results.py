"""Results of evalkit: whether the means are those of the queries, and the queries' values those of the scores."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from evalkit.audit.figures import AuditFinding, Severity
from evalkit.errors import EvalkitError
from evalkit.metrics import PROTOCOLS, Measure, find_measure, score_lists
from evalkit.metrics.measures import all_measures, is_measure
from evalkit.output import numbers
from evalkit.results.reading import read_json, read_result
from evalkit.results.result import Result
from evalkit.results.tables import StoredTables, lists_of_tables
from evalkit.statistics import sampled_means

if TYPE_CHECKING:
    import pandas as pd

_TOLERANCE = 1e-9
_RULE = "recomputed"
_RUN_COLUMNS = ("query_id", "doc_id", "label", "score")
_QUERY_COLUMNS = ("query_id", "n_positive", "n_candidates", "ap", "rr")


@dataclass(frozen=True, slots=True)
class _OwnResult:
    """A result's JSON and its tables as they are, with the way findings about them are made.

    `counts` are the numbers of queries that the JSON states, by name.
    """

    path: Path
    stated: Result
    counts: Mapping[str, Any]
    queries: pd.DataFrame
    run: pd.DataFrame

    def finding(self, what: str, place: str, evidence: str, severity: Severity = "error") -> AuditFinding:
        why = "the files are of different runs, or were changed by hand"
        return AuditFinding(severity, _RULE, what, str(self.path), place, why, evidence)


def own_findings(path: Path) -> list[AuditFinding]:
    """Compute a result again from its tables: scores, then each query's AP and RR, then the means."""
    try:
        stated, counts = read_result(path), read_json(path)["evalkit"].get("queries")
        tables = StoredTables(path, stated.protocol, stated.scores, {}, {}, stated.task.statistics)
        queries = _checked_table(tables, "queries", _QUERY_COLUMNS)
        run = _checked_table(tables, "run", _RUN_COLUMNS)
    except EvalkitError as error:
        why = "without them its figures cannot be computed again"
        return [
            AuditFinding(
                "error", _RULE, "the result's files are not as evalkit writes them", str(path), "", why, str(error)
            )
        ]
    if queries is None or run is None:
        missing = f"{'queries' if queries is None else 'run'}.parquet is not beside it"
        why = "its figures stand on nothing that could be computed again"
        return [AuditFinding("note", _RULE, "the result was not computed again", str(path), "", why, missing)]
    result = _OwnResult(path, stated, counts if isinstance(counts, dict) else {}, queries, run)
    try:
        return [
            *_count_findings(result),
            *_mean_findings(result),
            *_estimate_findings(result),
            *_value_findings(result),
        ]
    except (EvalkitError, LookupError, ValueError, TypeError, OverflowError) as error:
        # a table may hold anything in its columns
        return [result.finding("the tables' contents cannot be scored", "", f"{type(error).__name__}: {error}")]


def _checked_table(
    tables: StoredTables, kind: Literal["queries", "run"], columns: tuple[str, ...]
) -> pd.DataFrame | None:
    table = tables.raw(kind)
    missing = [] if table is None else [column for column in columns if column not in table]
    if missing:
        raise EvalkitError(f"{tables.path.name.removesuffix('.json')}.{kind}.parquet has no column {missing[0]}")
    return table


def _count_findings(result: _OwnResult) -> Iterator[AuditFinding]:
    """Compare what the JSON counts with the rows, and each query's labels with the table of queries."""
    statistics, protocol = result.stated.task.statistics, result.stated.protocol
    leading = PROTOCOLS[protocol].leading[0].column
    scored = int(result.queries[leading].notna().sum())
    run_ids = list(dict.fromkeys(result.run["query_id"]))
    ranked = result.queries[result.queries["n_candidates"] > 0]  # a first stage may have found nothing for a query
    stated_counts = {
        "task.statistics.queries": (statistics.queries, len(result.queries)),
        "task.statistics.pairs": (statistics.pairs, len(result.run)),
        "task.statistics.positives": (statistics.positives, int((result.run["label"] > 0).sum())),
        "queries.scored": (result.counts.get("scored"), scored),
        "queries.dropped": (result.counts.get("dropped"), len(result.queries) - scored),
    }
    for name, (stated, found) in stated_counts.items():
        if stated != found:
            yield result.finding(
                f"the tables have another number than {name}",
                f"evalkit.{name}",
                f"{stated} stated, {found} in the tables",
            )
    if result.queries["query_id"].duplicated().any() or run_ids != list(ranked["query_id"]):
        yield result.finding(
            "the two tables are of different queries",
            "query_id",
            f"{numbers.counted(len(result.queries), 'query')}, {len(run_ids)} in the run",
        )
        return
    groups = result.run.assign(positive=result.run["label"] > 0).groupby("query_id", sort=False)["positive"]
    for column, counts in (("n_positive", groups.sum()), ("n_candidates", groups.size())):
        wrong = np.flatnonzero(counts.to_numpy() != ranked[column].to_numpy())
        if wrong.size:
            first = int(wrong[0])
            yield result.finding(
                f"{column} of {numbers.counted(int(wrong.size), 'query')} is not what the run's labels give",
                f"queries.parquet, {column}",
                f"query {run_ids[first]!r}: {ranked[column].iloc[first]} in the table, {counts.iloc[first]} in the run",
            )


def _mean_findings(result: _OwnResult) -> Iterator[AuditFinding]:
    """Compare the JSON's means with those of the table of queries."""
    for measure in _measures(result):
        score = result.stated.scores.get(measure.name, math.nan)
        if math.isnan(score):
            continue
        mean = float(result.queries[measure.column].mean())
        decimals = measure.rules.decimals
        rounding = 0.0 if decimals is None else 0.5 * 10.0**-decimals
        if not abs(mean - score) <= rounding + _TOLERANCE:
            yield result.finding(
                f"{measure.name} is not the mean of its queries",
                f"scores.{measure.name}",
                f"{score} stated, {mean} over {numbers.counted(int(result.queries[measure.column].notna().sum()), 'query')}",
            )


def _estimate_findings(result: _OwnResult) -> Iterator[AuditFinding]:
    """Estimate the whole task's figures again from a sample's queries and strata."""
    sample, stated = result.stated.task.sample, result.stated.estimates
    if sample is None or sample.is_whole:
        return
    strata = result.queries["stratum"].to_numpy()
    counts = np.bincount(strata, minlength=len(sample.strata)).tolist()
    drawn = [stratum.drawn for stratum in sample.strata]
    if (
        counts != drawn
        or sample.size != len(strata)
        or sum(one.population for one in sample.strata) != sample.population
    ):
        yield result.finding(
            "the strata are not those of the tables",
            "evalkit.task.sample",
            f"{drawn} drawn stated, {counts} in the tables",
        )
        return
    measures = [measure for measure in _measures(result) if measure.name in stated]
    values = result.queries[[measure.column for measure in measures]].to_numpy(np.float64)
    found = sampled_means(values, strata.tolist(), [stratum.population for stratum in sample.strata])
    for measure, again in zip(measures, found.tolist(), strict=True):
        said = [*astuple(stated[measure.name])]
        if not np.allclose(said, again, rtol=0, atol=_TOLERANCE, equal_nan=True):
            yield result.finding(
                f"the estimate of {measure.name} is not what the sample gives",
                f"evalkit.estimates.{measure.name}",
                f"{said[0]} ({said[1]} to {said[2]}) stated, {again[0]} ({again[1]} to {again[2]}) from the tables",
            )


def _measures(result: _OwnResult) -> list[Measure]:
    """List the measures that the table of queries has: those of the protocols, and those that were asked for besides."""
    asked = [find_measure(name) for name in result.stated.scores if is_measure(name)]
    return [measure for measure in all_measures(asked) if measure.column in result.queries]


def _value_findings(result: _OwnResult) -> Iterator[AuditFinding]:
    """Score the run again and compare query by query.

    mteb-v2 counts relevant documents that are no candidates as missed: the table of queries lists them, but for results of
    evalkit's first versions, of which only those in C-MTEB's layout have none for sure.
    """
    sizes = result.queries[result.queries["n_candidates"] > 0].set_index("query_id")["n_candidates"]
    if not sizes.equals(result.run.groupby("query_id", sort=False).size().rename("n_candidates")):
        return  # the counts' findings say how the tables differ
    lists = lists_of_tables(result.queries, result.run)
    known = result.stated.task.layout == "cmteb" or any(lists.unretrieved_gains)
    measures = [measure for measure in _measures(result) if known or not measure.rules.counts_unretrieved]
    for measure, recomputed in zip(measures, score_lists(lists, measures).values.values(), strict=True):
        if len(result.queries) != len(recomputed):
            continue
        stated = result.queries[measure.column].to_numpy(dtype=np.float64)
        same = np.isclose(stated, recomputed, rtol=0, atol=_TOLERANCE, equal_nan=True)
        if not same.all():
            first = int(np.flatnonzero(~same)[0])
            yield result.finding(
                f"{measure.name} of {numbers.counted(int((~same).sum()), 'query')} is not what their scores give",
                f"queries.parquet, {measure.column}",
                f"query {lists.query_ids[first]!r}: {stated[first]} in the table, {recomputed[first]} from the run's scores",
            )
