"""A result: what `evaluate` returns, and what `load_results` reads back from its files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from evalkit.metrics.measures import PROTOCOLS, Measure, asked_measures, find_measure
from evalkit.output.numbers import counted, listed, noisy_range, percent, percent_range
from evalkit.records import (
    FirstStage,
    Incomparable,
    ModelIdentity,
    NoiseBand,
    PrecisionCheck,
    RecipeField,
    Refinement,
    SampledMean,
    ScoreNoise,
    StageScores,
    TaskIdentity,
    TieRange,
    TrainingMark,
    Usage,
    WithoutSafeguard,
    finding_text,
)
from evalkit.results.folders import experiment_of, experiment_slug

if TYPE_CHECKING:
    import pandas as pd

WITHOUT_MODEL = ("baseline", "run")
OF_THE_USER = "the user's own"
"""Kinds that only read labels, dice or a file: their speed says nothing."""
_FEWEST_ON_A_SIDE = 10
"""Whole queries' worth between a sampled mean and the end of the scale: with fewer, intervals cover too little or too much."""
TEXT_COLUMNS = ("query", "text")
"""What of the tables of queries and candidates holds texts."""


class Tables(Protocol):
    """A result's tables: in memory, or read from their files when they are first needed."""

    @property
    def queries(self) -> pd.DataFrame:
        """One row per query."""

    @property
    def candidates(self) -> pd.DataFrame:
        """One row per candidate, in the order of `queries`."""

    def candidate_texts(self, places: Sequence[int]) -> list[str] | None:
        """Return the texts of the candidates in these rows of `candidates`; None where there are no texts."""


@dataclass(frozen=True)
class TablesInMemory:
    """The tables of a result that was just made."""

    queries: pd.DataFrame
    candidates: pd.DataFrame

    def candidate_texts(self, places: Sequence[int]) -> list[str] | None:
        """Return the texts of the candidates in these rows; None where there are no texts."""
        if "text" not in self.candidates:
            return None
        return [str(text) for text in self.candidates["text"].iloc[list(places)]]


@dataclass(frozen=True, slots=True)
class ItemCounts:
    """What was scored: pairs or texts, the tokens that the model read, and how many of the items were cut."""

    items: int = 0
    tokens: int = 0
    truncated_items: int = 0


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds that one query's candidates took: the median, and what 95 % of the queries stay below."""

    p50: float
    p95: float


@dataclass(frozen=True, slots=True)
class Timing:
    """How long scoring took, and what else differs between a run and its repetition.

    The rates are of what the store did not already have: candidates and tokens (padding apart) per second of machine time;
    None where nothing was scored or tokens are not counted. `latency_seconds` is None where no query was scored whole. In the file
    of a run that only read the store, rates and latency are those of the run whose result it replaced.
    """

    seconds: float = 0.0
    pairs_per_second: float | None = None
    tokens_per_second: float | None = None
    items_from_store: int = 0
    padding_tokens: int = 0
    latency_seconds: Latency | None = None


@dataclass(frozen=True)
class Result:
    """One model on one task, just evaluated or read from its files.

    `scores`, `intervals` (95 %) and `ties` are fractions by metric name, NaN where a metric has no value, and an interval also
    where no query's value differs from another's; `bands` (fractions too) are what the `noise` of the scores can do to them, empty
    and None where the scores are exact, where nothing says how they were computed, and in older files; `queries` has one row per
    query, `candidates` one per candidate (columns as in the result files). Of a sampled task, `estimates` are what the sample says
    of the whole task's means (else empty); `intervals` are always those of the mean over all queries like these. `config` is the
    configuration that was run, `deviations` the settings in it that differ from the model's and task's own (None: an older file,
    which does not say); `experiment` names them, `limit` is the number of first queries asked for, and `incomparable` why no
    published figure can be compared. `recipe` says how the model was run, each field with who states it, and `findings` what a
    reader of the scores should know of the model and of how it was judged (both empty in older files). `training` says whether the
    model was trained on the task's data (None for data that are no benchmark's, and in older files). Where relevant
    documents are no candidates, `ceilings` are the scores of a perfect order of the candidates. `without_safeguard` is what the run
    is worth without relevant documents that the dataset appends to candidates that have none (None for other data). `path` is the
    JSON file, None until it is written. Results are equal where all but tables and path are.
    """

    model: ModelIdentity
    task: TaskIdentity
    protocol: str
    main_score: str
    scores: Mapping[str, float]
    tables: Tables = field(repr=False, compare=False)
    config: Mapping[str, Any]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    estimates: Mapping[str, SampledMean] = field(default_factory=dict)
    ties: Mapping[str, TieRange] = field(default_factory=dict)
    noise: ScoreNoise | None = None
    bands: Mapping[str, NoiseBand] = field(default_factory=dict)
    ceilings: Mapping[str, float] = field(default_factory=dict)
    usage: ItemCounts = ItemCounts()
    timing: Timing = Timing()
    backend: Mapping[str, Any] = field(default_factory=dict)
    deviations: Mapping[str, Any] | None = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, RecipeField] = field(default_factory=dict)
    findings: tuple[str, ...] = ()
    precision: PrecisionCheck | None = None
    refinement: Refinement | None = None
    first_stage: StageScores | None = None
    without_safeguard: WithoutSafeguard | None = None
    training: TrainingMark | None = None
    path: Path | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        """Name model and task in one line, with the leading value as a fraction."""
        value = f"{self.main_score} {self.scores[self.main_score]:.4f}"
        place = "" if self.path is None else f", {str(self.path)!r}"
        return f"Result({self.model.name!r} on {self.task.name!r}, {self.protocol}: {value}{place})"

    @property
    def queries(self) -> pd.DataFrame:
        """One row per query: its id, what it is like, and its values.

        Raises EvalkitError where the file of a stored result is missing, damaged or of another run.
        """
        return self.tables.queries

    @property
    def candidates(self) -> pd.DataFrame:
        """One row per candidate: query_id, doc_id, label, score, and tokens and truncated where the model counted them.

        Raises EvalkitError where the file of a stored result is missing, damaged or of another run.
        """
        return self.tables.candidates

    def candidate_texts(self, places: Sequence[int]) -> list[str] | None:
        """Return the texts of the candidates in these rows of `candidates`; None where the result holds no texts."""
        return self.tables.candidate_texts(places)

    def tie_range(self, metric: str) -> tuple[float, float] | None:
        """Return the means that the worst and the best order of tied documents have: fractions; None where not known."""
        ties = self.ties.get(metric)
        known = ties is not None and math.isfinite(ties.low) and math.isfinite(ties.high)
        return (ties.low, ties.high) if ties is not None and known else None

    def noise_range(self, metric: str) -> tuple[float, float] | None:
        """Return the lowest and the highest mean that the noise of the scores leaves possible: fractions; None where not known.

        Ties are part of it.
        """
        band = self.bands.get(metric)
        known = band is not None and math.isfinite(band.low) and math.isfinite(band.high)
        return (band.low, band.high) if band is not None and known else None

    @property
    def scored_queries(self) -> int:
        """How many queries have a value under the leading protocol."""
        return int(self.queries[find_measure(self.main_score).column].notna().sum())

    @property
    def dropped_queries(self) -> int:
        """How many queries the leading protocol drops."""
        return len(self.queries) - self.scored_queries

    @property
    def _part_remarks(self) -> Iterator[str]:
        """Say which part of the task the figures are of, and what it is worth."""
        sample, queries = self.task.sample, self.task.statistics.queries
        if queries == self.limit:  # of no more than there are the task is whole
            yield (
                f"the first {counted(queries, 'query')} that can be scored, which are no random sample: nothing says how far "
                "off the whole task's figures are (sample=N draws queries, and gives an interval)"
            )
        if sample is None:
            return
        population = f"{counted(sample.population, 'query')} that can be scored"
        if sample.is_whole:
            yield f"sample={sample.size} takes all {population}: the task is whole"
            return
        strata = f"{len(sample.strata)} strata of candidates and characters" if len(sample.strata) > 1 else "all alike"
        yield f"a sample of {sample.size:,} of the {population}, drawn by sample_seed={sample.seed} from {strata}"
        if sample.unscorable:
            more = counted(sample.unscorable, "further query")
            yield (
                f"{more} of the whole task, without relevant or without other candidates, count in the measures of mteb-v2 and "
                "those asked for: a sample says nothing of the whole task's figures by these"
            )

    @property
    def _estimate_remarks(self) -> Iterator[str]:
        """Say what a sample says of the whole task's figures."""
        measures = [
            measure
            for measure in (*PROTOCOLS[self.protocol].leading, *asked_measures(self.scores))
            if measure.name in self.estimates
        ]
        if not measures:
            return
        known = [
            f"{measure.title} {percent_range((one.low, one.high))} (estimate {percent(one.value)}, smallest detectable difference "
            f"{percent(one.detectable)})"
            for measure in measures
            if math.isfinite((one := self.estimates[measure.name]).low)
        ]
        if not known:
            yield (
                "so few sampled queries give no interval for the whole task's figures; the estimates are "
                + ", ".join(f"{measure.title} {percent(self.estimates[measure.name].value)}" for measure in measures)
            )
            return
        yield (
            f"95 % interval for the whole task's figure: {', '.join(known)}; detectable is what differs from a fixed figure at "
            "5 %, with a power of 80 %, and any other interval shown is for the mean over all queries like these"
        )
        few = [measure.title for measure in measures if self._rests_on_few(measure)]
        if few:
            yield (
                f"{listed(few)} of the whole task: less than {_FEWEST_ON_A_SIDE} whole queries lie between the sample's figure and "
                "0 or 100 %, so few queries decide the interval, which may miss its level: take a larger sample"
            )

    def _rests_on_few(self, measure: Measure) -> bool:
        """Tell whether the sum of a sample's values is within a few whole queries of the lowest or the highest there is."""
        value = self.estimates[measure.name].value
        return self.queries[measure.column].notna().sum() * min(value, 1 - value) < _FEWEST_ON_A_SIDE

    @property
    def remarks(self) -> tuple[tuple[str, str], ...]:
        """What a reader of the figures should know beside them, each with what it is about: the task's or the model's name.

        First what was found in the data that changes the figures, and which part of them was taken, then how they were judged, then
        what a sample and noise leave open, then what is said of the model.
        How many queries are left out is `dropped_queries`. What noise can do to the figures of a model on a task has both names.
        """
        found = [finding_text(finding) for finding in self.task.findings if finding.severity == "warning"]
        found += self._part_remarks
        if (ceiling := self.ceilings.get(self.main_score)) is not None:
            missed, reachable = self.missed_documents, PROTOCOLS[self.protocol].counts_missed
            said = f"{counted(missed, 'relevant document')} of {missed + self.task.statistics.positives:,} are no candidates"
            if not missed:
                empty = counted(self.task.statistics.queries_without_positives, "query")
                said = f"0 for {empty} of {self.task.statistics.queries:,} that have no relevant document"
                found.append(f"{said}: no order can exceed {self.main_score} {percent(ceiling)}")
            elif reachable:
                found.append(f"{said} and count as missed: no order can exceed {self.main_score} {percent(ceiling)}")
            else:
                found.append(f"{said}, which {self.protocol} does not count")
        if self.first_stage is not None and self.task.first_stage is not None:
            found.append(self._stage_remark(self.task.first_stage, self.first_stage))
        if self.without_safeguard is not None:
            found.append(self._safeguard_remark(self.without_safeguard))
        own = [] if self.refinement is None else [_refined(self.refinement)]
        return (
            *((self.task.name, text) for text in found),
            *(
                (f"{self.model.name} on {self.task.name}", text)
                for text in (*self._estimate_remarks, *self._noise_remarks)
            ),
            *((self.model.name, text) for text in (*own, *self.findings)),
        )

    def _stage_remark(self, first: FirstStage, stage: StageScores) -> str:
        """Say who chose the candidates, what its own order is worth, and how much of what is relevant it found."""
        models = "; ".join(_searched_by(model) for model in first.made.get("stages", ()))
        depth = "all" if first.top_k is None else f"the top {first.top_k}"
        by = f" ({models})" if models else ""
        searched = first.made.get("corpus", {}).get("documents")
        of = f" of {searched:,} documents" if searched else ""
        title, value = find_measure(self.main_score).title, percent(stage.scores[self.main_score])
        k = "" if first.top_k is None else f"@{first.top_k}"
        return (
            f"the candidates are {depth} of {first.name}{by}{of}, whose own order gives {title} {value} and whose recall{k} is "
            f"{percent(self.candidate_recall)}"
        )

    @property
    def candidate_recall(self) -> float:
        """The mean share of a query's relevant documents that are candidates, over the queries that have any: a fraction."""
        missed = self.queries["unretrieved_ids"].str.len() if "unretrieved_ids" in self.queries else 0
        found = self.queries["n_positive"]
        return float((found / (found + missed)).mean())  # 0 / 0 of a query without relevant documents is left out

    def _safeguard_remark(self, without: WithoutSafeguard) -> str:
        """Give the leading figures without the safeguards, beside what the result's own are with them."""
        lists = f"{counted(without.queries, 'query')} of {self.task.statistics.queries:,}"
        if not without.queries:
            return f"no candidates have the safeguard, a relevant document at rank {without.rank}: the figures are without it"
        figures = [
            f"{measure.title} {percent(self.scores[measure.name])} with it, {percent(without.scores[measure.name])} "
            f"({percent_range(without.intervals[measure.name])}) without"
            for measure in PROTOCOLS[self.protocol].leading
        ]
        return (
            f"the candidates of {lists} held nothing relevant, and the dataset appends a relevant document at rank {without.rank} "
            f"(the safeguard): {'; '.join(figures)}"
        )

    @property
    def _noise_remarks(self) -> tuple[str, ...]:
        """Say of the figures that noise can move where it puts them, and what the noise is."""
        leading = PROTOCOLS[self.protocol].leading
        shown = [
            (
                measure,
                noisy_range(self.noise_range(measure.name), self.scores[measure.name], self.tie_range(measure.name)),
            )
            for measure in (*leading, *asked_measures(self.scores))
        ]
        moved = [f"{measure.title} {text}" for measure, text in shown if text]
        if self.noise is None or not moved:
            return ()
        bounds = [measure.name for measure, text in shown if text and not self.bands[measure.name].attained]
        outer = f" ({listed(bounds)}: outer bounds)" if bounds else ""
        noise = f"a score may lie off by {self.noise.largest:.2g} ({self.noise.source})"
        return (f"{noise}, which leaves open {', '.join(moved)}{outer}",)

    @property
    def missed_documents(self) -> int:
        """How many relevant documents are not among the candidates."""
        return sum(map(len, self.queries["unretrieved_ids"])) if "unretrieved_ids" in self.queries else 0

    @property
    def experiment(self) -> str:
        """The name of the settings that deviate, as the result's folder has it; empty where none do."""
        if self.deviations is None:
            return "" if self.path is None else experiment_of(self.path)
        return experiment_slug(self.deviations)

    @property
    def limit(self) -> int | None:
        """The number of queries that the run was limited to; None where it was not."""
        asked = self.config.get("limit") if self.task.limit is None else self.task.limit
        return asked if isinstance(asked, int) else None

    @property
    def stage(self) -> str:
        """Whose candidates were reranked, as published figures name it: `Qwen3-Embedding-0.6B@100`, a config of the dataset's.

        It is empty where the dataset has one list of candidates alone. A run that was given as a file, and a model of the user's
        own, are nobody's that is published.
        """
        first = self.task.first_stage
        if first is not None:
            searched = first.made.get("stages", ())
            own = [
                one for one in searched if str(one.get("hub_id")).startswith("local/") and one.get("kind") != "lexical"
            ]
            return f"{first.name}@{first.top_k}" if searched and not own else OF_THE_USER
        return str(self._task_settings.get("top_ranked") or "")

    @property
    def is_retrieval(self) -> bool:
        """Whether the task is one of retrieval, by its settings: a corpus, of which candidates are reranked."""
        return self._task_settings.get("type") == "retrieval"

    @property
    def _task_settings(self) -> Mapping[str, Any]:
        said = self.config.get("task")
        return said if isinstance(said, Mapping) else {}

    @property
    def incomparable(self) -> Incomparable:
        """Why the result can't be compared with a published figure; empty where it can."""
        return self.task.incomparable if self.limit is None else "limit"


def stage_of(results: Iterable[Result]) -> str:
    """Say whose candidates several results reranked, as `Result.stage` does; `several` where it is not one first stage's."""
    stages = list(dict.fromkeys(result.stage for result in results))
    return stages[0] if len(stages) == 1 else "several"


def _searched_by(stage: Mapping[str, Any]) -> str:
    """Name a model of a first stage as its record says: with its revision, what ran it and in which precision."""
    backend = stage.get("backend") or {}
    ran = " ".join(str(backend[key]) for key in ("name", "dtype") if backend.get(key))
    return f"{stage.get('hub_id')}@{stage.get('revision')}, {ran}"


def _refined(refinement: Refinement) -> str:
    """Say what a refined run's order is worth, and no more."""
    again, pairs = refinement.again, refinement.pairs
    said = f"{again:,} of {pairs:,} pairs ({again / pairs:.1%}) were scored again in fp32"
    if not refinement.left:
        return said
    said += f", for differences of {refinement.dtype} of up to {refinement.epsilon:.2g}: none above that"
    share = 3 / refinement.tested  # the rule of three: none of n, so at 95 % fewer than 3 in n
    bound = f": at 95 % fewer than {share:.1%} of the rest exceed it" if share < 1 else ""
    return f"{said} in {counted(refinement.tested, 'random pair')} of the others{bound}"


def remark_lines(results: Iterable[Result]) -> list[str]:
    """Say in a line each what a reader of these results' figures should know beside them; what several share once."""
    every = list(results)
    lines = (line for result in every for line in _lines_of(result))
    return list(dict.fromkeys((*lines, *safeguard_averages(every))))


def safeguard_averages(results: Iterable[Result]) -> list[str]:
    """Give, for each model on several tasks with safeguards, the main score's average with them and without."""
    groups: dict[tuple[object, ...], list[tuple[Result, WithoutSafeguard]]] = {}
    for result in results:
        if result.without_safeguard is not None:
            key = (result.model, result.protocol, result.experiment, result.limit)
            groups.setdefault(key, []).append((result, result.without_safeguard))
    lines = []
    for group in groups.values():
        one, names = group[0][0], {result.task.name for result, _ in group}
        if len(names) == len(group) >= 2:
            own = math.fsum(result.scores[one.main_score] for result, _ in group) / len(group)
            without = math.fsum(other.scores[one.main_score] for _, other in group) / len(group)
            title = find_measure(one.main_score).title
            lines.append(
                f"{one.model.name}, average of {len(group)}: {title} {percent(own)} with the safeguards, {percent(without)} without"
            )
    return lines


def _lines_of(result: Result) -> Iterator[str]:
    if dropped := result.dropped_queries:
        queries = f"{counted(dropped, 'query')} of {len(result.queries):,}"
        lacking = "relevant candidates, or candidates that are not relevant"
        yield f"{result.task.name}: {result.protocol} leaves out {queries}, for lack of {lacking}"
    yield from (f"{name}: {text}" for name, text in result.remarks)


BLOCK_FIELDS = tuple(one.name for one in fields(Result) if one.name not in ("scores", "tables", "path"))
"""The fields that a result's JSON holds in evalkit's own block."""


def split_usage(usage: Usage, pairs: int, *, has_model: bool = True) -> tuple[ItemCounts, Timing]:
    """Split what scoring so many candidates cost into what every execution repeats and what it does not.

    What ran no model has no speed: scores that were made elsewhere, labels, random numbers.
    """
    share = 1 - usage.items_from_store / usage.items if usage.items else 0.0
    timed = usage.seconds and share > 0 and has_model
    latency = Latency(*(float(np.percentile(usage.latencies, q)) for q in (50, 95))) if usage.latencies else None
    timing = Timing(
        seconds=usage.seconds,
        pairs_per_second=pairs * share / usage.seconds if timed else None,
        tokens_per_second=usage.tokens * share / usage.seconds if timed and usage.tokens else None,
        items_from_store=usage.items_from_store,
        padding_tokens=usage.padding_tokens,
        latency_seconds=latency,
    )
    return ItemCounts(usage.items, usage.tokens, usage.truncated_items), timing
