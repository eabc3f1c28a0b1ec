"""The values that travel between the steps: frozen, with arrays inside.

A task's candidates are numbered through: query by query, each query's candidates in the file's order. Every array
"per candidate" follows that numbering.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Role = Literal["query", "document"]
Layout = Literal["cmteb", "mteb"]
Incomparable = Literal["", "limit", "sample", "other data"]
OTHER_DATA = "(other data)"
"""What is put behind a benchmark's name where data under it are not known to be the benchmark's."""
SAMPLE_SEED = 42
"""By which a sample is drawn where no seed is given."""
QrelsDict = Mapping[str, Mapping[str, int]]
RunDict = Mapping[str, Mapping[str, float]]
_SHOWN_TEXT = 60  # characters of a text that a record's name shows


def _beginning(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_TEXT else f"{text[:_SHOWN_TEXT]}…")


@dataclass(frozen=True, slots=True)
class Query:
    """A query; several texts where the dataset lists several, of which the best-scoring one counts."""

    query_id: str
    texts: tuple[str, ...]

    def __repr__(self) -> str:
        """Name the query, with the beginning of its first text and the number of further ones."""
        more = f" and {len(self.texts) - 1} more" if len(self.texts) > 1 else ""
        return f"Query({self.query_id!r}, {_beginning(self.texts[0] if self.texts else '')}{more})"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A document offered for one query, with its graded relevance (0: irrelevant)."""

    doc_id: str
    text: str
    gain: int

    def __repr__(self) -> str:
        """Name the document, with its gain and the beginning of its text."""
        return f"Candidate({self.doc_id!r}, gain {self.gain}, {_beginning(self.text)})"


@dataclass(frozen=True, slots=True)
class Request:
    """One query and the candidates to rank for it.

    `unretrieved_gains` are the gains of relevant documents that the qrels name but that are not among the candidates;
    protocols that count them as missed (mteb-v2) need them. `unretrieved_ids` names these documents, in the same order.
    `first_stage_scores` are what a first stage said of each candidate, where one chose them.
    """

    query: Query
    candidates: tuple[Candidate, ...]
    unretrieved_gains: tuple[int, ...] = ()
    unretrieved_ids: tuple[str, ...] = ()
    first_stage_scores: tuple[float, ...] = ()

    def __repr__(self) -> str:
        """Name the query, with the numbers of its candidates and of the relevant ones among them."""
        relevant = sum(candidate.gain > 0 for candidate in self.candidates)
        return f"Request({self.query.query_id!r}, candidates: {len(self.candidates):,}, relevant: {relevant:,})"


@dataclass(frozen=True, slots=True)
class FirstStage:
    """Whose candidates a task has: the run's name and file, its SHA-256, and how many of its best were taken (None: all).

    `made` says of a run that evalkit made itself how: its `stages` (each a model with revision, recipe, backend and precision), how
    several were fused, and the corpus that was searched. It is empty for a run that was given.
    """

    name: str
    source: str
    digest: str
    top_k: int | None
    made: Mapping[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that validation noticed: `error` stops the load, `warning` and `note` are told and kept."""

    severity: Literal["error", "warning", "note"]
    message: str
    file: str = ""
    row: int | None = None
    column: str = ""


def finding_text(finding: Finding) -> str:
    """Return a finding in one line: file, row, column, message."""
    place = [
        finding.file,
        f"row {finding.row}" if finding.row is not None else "",
        f"column {finding.column}" if finding.column else "",
    ]
    return ": ".join(filter(None, (", ".join(filter(None, place)), finding.message)))


@dataclass(frozen=True, slots=True)
class TaskStatistics:
    """Sizes of a task as loaded, before any protocol drops a query. Characters are Unicode code points."""

    queries: int
    pairs: int
    positives: int
    queries_without_positives: int
    queries_without_negatives: int
    query_characters: int
    document_characters: int
    unique_queries: int
    unique_documents: int


@dataclass(frozen=True, slots=True)
class Stratum:
    """Queries that a sample takes a share of: those with so many candidates and characters, how many there are and were drawn.

    Characters are Unicode code points of a query's texts and its candidates' together.
    """

    candidates: tuple[int, int]
    characters: tuple[int, int]
    population: int
    drawn: int


@dataclass(frozen=True, slots=True)
class TaskSample:
    """Which queries a task was cut to: `size` of the `population` that can be scored, drawn by `seed` from each of the `strata`.

    Where the population is no larger than `size` the task is whole, and there are no strata. `unscorable` are the queries that
    have no relevant or no other candidate: they are no part of the population.
    """

    size: int
    seed: int
    population: int
    unscorable: int
    strata: tuple[Stratum, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether nothing was left out."""
        return self.size >= self.population


@dataclass(frozen=True, slots=True)
class SampledMean:
    """What a sample says of a mean over its whole population: fractions.

    `low` and `high` are a 95 % interval for the population's own mean, NaN where there are too few queries for one. From a fixed
    figure it is told apart (two-sided at 5 %, with a power of 80 %) where it differs by `detectable` or more.
    """

    value: float
    low: float
    high: float
    detectable: float


@dataclass(frozen=True, slots=True)
class TaskIdentity:
    """Which data were scored: all of a `Task` but its queries and candidates."""

    name: str
    mteb_name: str
    split: str
    languages: tuple[str, ...]
    layout: Layout
    source: str
    revision: str
    fingerprint: str
    statistics: TaskStatistics
    findings: tuple[Finding, ...] = ()
    limit: int | None = None
    differences: tuple[str, ...] = ()
    subset: str = "default"
    first_stage: FirstStage | None = None
    sample: TaskSample | None = None

    @property
    def part(self) -> str:
        """Which part of the data they are: `limit 5`, `sample 200` (`sample 200, seed 7`); empty where they are whole."""
        if self.limit is not None:
            return f"limit {self.limit}"
        if self.sample is None or self.sample.is_whole:
            return ""
        return f"sample {self.sample.size}{'' if self.sample.seed == SAMPLE_SEED else f', seed {self.sample.seed}'}"

    @property
    def incomparable(self) -> Incomparable:
        """Why no published figure can be compared with a result on these data; empty where one can."""
        if self.limit is not None:
            return "limit"
        if self.part:
            return "sample"
        return "other data" if self.differences else ""


@dataclass(frozen=True, slots=True)
class Task(TaskIdentity):
    """A reranking dataset, validated and in memory.

    `limit` is the number of queries that it was cut to, if it was; of a `sample`, `strata` has the number of each request's
    stratum, from 0, and is empty where the task is whole; `differences` say where its figures differ from those of the published
    dataset of its name; `subset` is mteb's name for a part of a dataset. With a `first_stage` its candidates are that one's, each
    with its score. `settings` are those it was loaded with, as plain values; `deviations` those of them, by name, that its own file
    does not say.
    """

    requests: tuple[Request, ...] = field(kw_only=True)
    settings: Mapping[str, Any] = field(default_factory=dict, compare=False)
    deviations: Mapping[str, Any] = field(default_factory=dict, compare=False)
    strata: tuple[int, ...] = ()

    def __repr__(self) -> str:
        """Name the data in one line, whatever their texts are."""
        sizes = f"queries: {self.statistics.queries:,}, pairs: {self.statistics.pairs:,}"
        return f"Task({self.name!r}, {sizes}, {self.source!r}, fingerprint {self.fingerprint[:12]})"

    @property
    def identity(self) -> TaskIdentity:
        """The task without its requests."""
        return TaskIdentity(**{one.name: getattr(self, one.name) for one in fields(TaskIdentity)})


IN_MEMORY = "in-memory"
"""The backend of objects that the user has in memory."""
UNIDENTIFIED = "unidentified-"
"""How the revision of such an object begins where the user gives it no identity; what follows no other one has."""


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which weights were run: everything that names a result's folder.

    `hub_id` is `organisation/name`, or `local/NAME`; `revision` is a commit, or for local weights the first 12 hex digits
    of the hash over all that decides a score; `weights_hash` covers the weights alone, and is empty where there are none.
    """

    name: str
    hub_id: str
    revision: str
    kind: str
    weights_hash: str = ""


@dataclass(frozen=True, slots=True)
class RecipeField:
    """A field of a model's recipe, as JSON holds it, and who states it: the user, a file, or a default."""

    value: Any
    origin: str


@dataclass(frozen=True, slots=True)
class TrainingMark:
    """Whether a model was trained on a task's data, as far as `source` says; `datasets` are those by which it names them."""

    verdict: Literal["trained", "not trained", "not stated"]
    datasets: tuple[str, ...]
    source: str


@dataclass(frozen=True, slots=True)
class Usage:
    """What scoring a task cost. `latencies` are seconds to score one query's candidates, where that was measured."""

    seconds: float
    items: int
    items_from_store: int = 0
    tokens: int = 0
    padding_tokens: int = 0
    truncated_items: int = 0
    latencies: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """One model's scores for one task, and per candidate the tokens that the model read and whether text was cut.

    Scores are float32, unless they were made elsewhere. `refined` says of a refined run's which are fp32's.
    """

    scores: NDArray[np.floating]
    usage: Usage
    tokens: NDArray[np.int32] | None = None
    truncated: NDArray[np.bool_] | None = None
    refined: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class TieRange:
    """What ties can do to a mean: its expectation over random tie-breaking, and the lowest and highest order's value."""

    expected: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ScoreNoise:
    """How far a score may lie off, either way: the `largest` of all candidates' noise, in the scores' own unit, and who says so."""

    largest: float
    source: str


@dataclass(frozen=True, slots=True)
class NoiseBand:
    """What the noise of scores can do to a mean: its lowest and highest value over all orders that scores within it can have.

    Where not `attained`, these are bounds that no order need reach: of a measure that weighs several grades.
    """

    low: float
    high: float
    attained: bool


def _means(means: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in means.items())


@dataclass(frozen=True, slots=True)
class QueryScores:
    """Metric values of a run: fractions. Per query (`values[metric]`, NaN where the protocol drops the query) and means.

    `bands` and `band_values` (low, high) are empty where the noise of the scores is not known.
    """

    query_ids: tuple[str, ...]
    values: Mapping[str, NDArray[np.float64]]
    means: Mapping[str, float]
    ties: Mapping[str, TieRange]
    tie_values: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]]
    bands: Mapping[str, NoiseBand] = field(default_factory=dict)
    band_values: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Name the number of queries and the means, whatever the values are."""
        return f"QueryScores(queries: {len(self.query_ids):,}, {_means(self.means)})"


@dataclass(frozen=True, slots=True)
class PrecisionCheck:
    """What a low precision did to a sample of `pairs`, against fp32: scores, orders of two candidates, MAP (a fraction)."""

    dtype: str
    pairs: int
    largest_difference: float
    rank_flips: int
    compared: int
    map_difference: float


@dataclass(frozen=True, slots=True)
class Refinement:
    """How a run in low precision `dtype` was refined: `again` of its `pairs` were scored again in fp32, in so many `rounds`.

    `epsilon` is the largest difference between both that was allowed for: none of the `tested` pairs that were drawn at the end
    from those that nothing had asked to score again exceeded it.
    """

    dtype: str
    pairs: int
    again: int
    rounds: int
    epsilon: float
    tested: int

    @property
    def left(self) -> int:
        """How many pairs have their score in low precision."""
        return self.pairs - self.again


@dataclass(frozen=True, slots=True)
class StageScores:
    """What a first stage's own order of the candidates is worth: fractions by metric name, with 95 % intervals.

    `differences` are the reranked values less these, on the same queries: (difference, low, high).
    """

    scores: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    differences: Mapping[str, tuple[float, float, float]]


@dataclass(frozen=True, slots=True)
class WithoutSafeguard:
    """What a result is worth without its safeguards: relevant documents that a dataset appends to candidates that have none.

    `queries` of the candidates' lists end in one, at `rank`. `scores` and `intervals` (95 %) are fractions by metric name, of the
    same scores of the model; there the safeguards are missed.
    """

    rank: int
    queries: int
    scores: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
