"""The catalogue of measures: what each is called, how it is computed, and which protocol reports it.

A *metric* is a formula (average precision); a *measure* is a metric as it is reported: at a cutoff, under rules for ties and
odd queries, under a name. A protocol is the measures that a benchmark reports, and the two that lead its tables. Everything
that shows, stores, compares or audits a measure reads it here. A new metric is one function and one entry in `METRICS`; a new
protocol is one entry in `PROTOCOLS` and the YAML file that describes it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from evalkit.errors import EvalkitError, nearest, unknown_name
from evalkit.metrics import formulas
from evalkit.metrics.formulas import WHOLE_LIST, Formula
from evalkit.metrics.lists import CandidateLists
from evalkit.metrics.ranking import (
    Judgements,
    Ranking,
    doc_id_descending,
    doc_id_descending_float32,
    positives_first,
)

Order = Callable[[CandidateLists, Judgements], Ranking]

CARD_PROTOCOL = "cmteb-v1"
"""The protocol of model cards up to 2024, which leads unless another is asked for or relevant documents are no candidates."""

AUTO_PROTOCOL = "auto"
"""What asks for the protocol that fits the data: see `choose_protocol`."""

CUTOFFS = (1, 3, 5, 10, 20, 100, 1000)
"""Where mteb cuts its measures."""


@dataclass(frozen=True)
class Metric:
    """A formula, and what it is called.

    `notation` is the field's own name for it (`nDCG`), empty where it has none; `name` is what results call it (`ndcg`),
    `title` what tables show. `value` is the formula. `expected` is its expectation over random orders of tied documents: None
    for a formula that is linear in relevance and gain, whose expectation is its value where tied documents share theirs equally
    (precision, recall, nDCG). `over_orders` is the formula whose expectation and range over tied documents are shown: None for
    `value` itself. `by_grade`: the formula is linear in gain, not in relevance alone; what noise can do to it is bounded grade
    by grade, and where a query's relevant documents have several grades no order need attain the bound. `needs_cutoff`: the
    whole list has no such value.
    """

    notation: str
    name: str
    title: str
    value: Formula
    expected: Formula | None = None
    over_orders: Formula | None = None
    by_grade: bool = False
    needs_cutoff: bool = False


@dataclass(frozen=True)
class Rules:
    """How a benchmark treats ties and odd queries.

    `order` puts tied documents in order. `needs_both_kinds`: a query without positive or without negative candidates is
    dropped, else it counts (as 0 where nothing is relevant). `counts_unretrieved`: a relevant document that is no candidate
    counts as missed, else only candidates exist. `unique_documents`: a document counts once per query, else every candidate
    counts. `decimals` is what a mean is rounded to, None for not at all.
    """

    order: Order
    needs_both_kinds: bool
    counts_unretrieved: bool
    unique_documents: bool
    decimals: int | None = None


@dataclass(frozen=True)
class Measure:
    """A metric as it is reported.

    `name` is its key in a result's scores, `column` that in the table of queries. `cutoff` is a rank; a document counts from
    the grade `rel` on. `ties_per_query`: the table of queries also says what ties can do to each query's value.
    """

    name: str
    metric: Metric
    rules: Rules
    cutoff: int = WHOLE_LIST
    rel: int = 1
    own_column: str = ""
    own_title: str = ""
    ties_per_query: bool = False

    @property
    def column(self) -> str:
        """What the table of queries calls the measure."""
        return self.own_column or self.name

    @property
    def title(self) -> str:
        """What tables call the measure: `MAP`, `MRR@10`, `AP(rel=2)@20`."""
        parameters = _parameters(self.rel, self.cutoff)
        is_notation = self.name == self.metric.notation + parameters
        return self.own_title or (self.name if is_notation else self.metric.title + parameters)


@dataclass(frozen=True)
class Protocol:
    """The measures that a benchmark reports; the two of `leading` head its tables, the first is the main score.

    `of_first_stage` are those shown beside the leading ones where a first stage chose the candidates.
    """

    name: str
    measures: tuple[Measure, ...]
    leading_names: tuple[str, str]
    of_first_stage: tuple[str, ...] = ()

    @cached_property
    def leading(self) -> tuple[Measure, Measure]:
        """The two measures that head the protocol's tables."""
        first, second = (self.measure(name) for name in self.leading_names)
        return first, second

    @property
    def main_score(self) -> str:
        """The name of the measure that the protocol ranks by."""
        return self.leading_names[0]

    @property
    def counts_missed(self) -> bool:
        """Whether relevant documents that are no candidates count as missed."""
        return self.leading[0].rules.counts_unretrieved

    def measure(self, name: str) -> Measure:
        """Find one of the protocol's measures by its name. Raises KeyError where it has none of that name."""
        return {measure.name: measure for measure in self.measures}[name]


METRICS = {
    metric.name: metric
    for metric in (
        Metric("AP", "map", "MAP", formulas.average_precision, formulas.expected_average_precision),
        Metric("RR", "mrr", "MRR", formulas.reciprocal_rank, formulas.expected_reciprocal_rank),
        Metric("nDCG", "ndcg", "nDCG", formulas.ndcg, by_grade=True),
        Metric("R", "recall", "recall", formulas.recall),
        Metric("P", "precision", "precision", formulas.precision, needs_cutoff=True),
        Metric("Success", "hit_rate", "hit rate", formulas.hit_rate, formulas.expected_hit_rate, needs_cutoff=True),
    )
}
"""Every metric that can be asked for, by the name that results give it."""

_THRESHOLD_AP = Metric(
    "",
    "map",
    "MAP",
    formulas.threshold_average_precision,
    formulas.expected_average_precision,
    formulas.average_precision,
)

# C_MTEB at de8f464 and mteb 1.x; their order of ties is numpy's unstable one, for which the stable one stands
_CMTEB_V1 = Rules(positives_first, needs_both_kinds=True, counts_unretrieved=False, unique_documents=False)
TREC_EVAL = Rules(doc_id_descending_float32, needs_both_kinds=False, counts_unretrieved=True, unique_documents=True)
"""trec_eval's rules, which measures in the field's notation follow: ties by document id, descending, compared in float32."""

# mteb 2.18.19 and later takes its measures from pytrec_eval and rounds them, except for mrr, which it computes itself
_MTEB_V2 = Rules(
    doc_id_descending_float32, needs_both_kinds=False, counts_unretrieved=True, unique_documents=True, decimals=5
)
_MTEB_V2_MRR = Rules(doc_id_descending, needs_both_kinds=False, counts_unretrieved=True, unique_documents=True)

RETRIEVAL_PROTOCOL = "mteb-retrieval"
"""The protocol that leads a retrieval task: mteb 2's measures, of which its retrieval tasks report nDCG@10 first."""

_MTEB_MEASURES = tuple(
    Measure(f"{name}_at_{cutoff}", METRICS[name], _MTEB_V2_MRR if name == "mrr" else _MTEB_V2, cutoff)
    for name in ("map", "ndcg", "recall", "precision", "hit_rate", "mrr")
    for cutoff in CUTOFFS
)

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name=CARD_PROTOCOL,
            measures=(
                Measure("map", _THRESHOLD_AP, _CMTEB_V1, own_column="ap", ties_per_query=True),
                Measure(
                    "mrr", METRICS["mrr"], _CMTEB_V1, cutoff=10, own_column="rr", own_title="MRR", ties_per_query=True
                ),
            ),
            leading_names=("map", "mrr"),
        ),
        Protocol(
            name="mteb-v2",
            measures=_MTEB_MEASURES,
            leading_names=("map_at_1000", "mrr_at_10"),
            of_first_stage=("ndcg_at_10", "recall_at_10", "recall_at_100"),
        ),
        Protocol(
            name=RETRIEVAL_PROTOCOL,
            measures=_MTEB_MEASURES,
            leading_names=("ndcg_at_10", "recall_at_100"),
            of_first_stage=("recall_at_10",),
        ),
    )
}

_NOTATION = re.compile(r"(?P<metric>[A-Za-z]+)(?:\((?P<parameters>[^()]*)\))?(?:@(?P<cutoff>[0-9]{1,30}))?")
_MTEB_NAME = re.compile(r"(?P<metric>[a-z_]+?)_at_(?P<cutoff>[1-9][0-9]{0,3})")
_HIGHEST = 10**6


def choose_protocol(name: str, misses: bool, is_retrieval: bool = False) -> Protocol:
    """Look up the protocol that leads a result. Raises `EvalkitError`, with the nearest right name, where there is none.

    `auto` is cmteb-v1, or mteb-v2 where relevant documents may be missing among the candidates (`misses`): it counts them; of a
    retrieval task it is mteb-retrieval.
    """
    if name == AUTO_PROTOCOL:
        return PROTOCOLS[RETRIEVAL_PROTOCOL if is_retrieval else "mteb-v2" if misses else CARD_PROTOCOL]
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    raise unknown_name("protocol", name, (AUTO_PROTOCOL, *PROTOCOLS))


def find_protocol(name: str) -> Protocol:
    """Look a protocol up. Raises `EvalkitError` with the nearest right name where there is none."""
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    raise unknown_name("protocol", name, PROTOCOLS)


def all_measures(asked: Iterable[Measure] = ()) -> tuple[Measure, ...]:
    """List the measures of every protocol, each once, and then those asked for besides."""
    every = [measure for protocol in PROTOCOLS.values() for measure in protocol.measures]
    by_name: dict[str, Measure] = {}
    for measure in (*every, *asked):
        if by_name.setdefault(measure.name, measure) != measure:
            raise ValueError(f"two measures are called {measure.name}: give the one of the newer protocol another name")
    return tuple(by_name.values())


def asked_measures(names: Iterable[str]) -> tuple[Measure, ...]:
    """List the measures among a result's names that no protocol reports: those that were asked for besides."""
    reported = {measure.name for measure in all_measures()}
    return tuple(find_measure(name) for name in names if name not in reported and is_measure(name))


def read_measures(notations: str | Sequence[str] | None) -> tuple[Measure, ...]:
    """Read measures in the field's notation, such as `nDCG@20`, `AP(rel=2)` or `RR@10`; each once, in the order given.

    They follow trec_eval's rules, whatever protocol leads; a name of a protocol's own measure (`map`, `ndcg_at_10`) is that one.
    Raises EvalkitError for what is no measure.
    """
    given = [notations] if isinstance(notations, str) else list(notations or ())
    known = {measure.name: measure for measure in all_measures()}
    read = (known[one] if isinstance(one, str) and one in known else _read_notation(one) for one in given)
    return tuple({measure.name: measure for measure in read}.values())


def find_measure(name: str) -> Measure:
    """Find a measure by its name in results (`map`, `ndcg_at_10`), or by the field's notation (`nDCG@20`).

    A name of mteb's kind at a cutoff that no protocol has (`ndcg_at_7`) is known too. Raises EvalkitError, with the nearest
    right name, for what is no measure.
    """
    known = {measure.name: measure for measure in all_measures()}
    if not isinstance(name, str):
        raise _unknown(str(name))
    if name in known:
        return known[name]
    of_mteb = _MTEB_NAME.fullmatch(name)
    if of_mteb and of_mteb["metric"] in METRICS:
        return Measure(name, METRICS[of_mteb["metric"]], _MTEB_V2, int(of_mteb["cutoff"]))
    return _read_notation(name)


def is_measure(name: str) -> bool:
    """Tell whether results can call a measure so."""
    try:
        find_measure(name)
    except EvalkitError:
        return False
    return True


def same_measures(measure: Measure, names: Iterable[str]) -> tuple[Measure, ...]:
    """List among names the measures that mean the same, but for their name and the rounding of their mean."""
    known = (find_measure(name) for name in names if is_measure(name))
    return tuple(one for one in known if _meaning(one) == _meaning(measure))


def _meaning(measure: Measure) -> tuple[object, ...]:
    rules = measure.rules
    return measure.metric, measure.cutoff, measure.rel, replace(rules, decimals=None)


def protocol_of(name: str) -> str:
    """Name the protocol that reports a measure, the first of several.

    mteb-v2 for a name of its kind at a cutoff of another's (`ndcg_at_7`), else trec_eval, whose rules measures in the field's
    notation follow.
    """
    having = (protocol.name for protocol in PROTOCOLS.values() if any(one.name == name for one in protocol.measures))
    return next(having, "mteb-v2" if _MTEB_NAME.fullmatch(name) else "trec_eval")


def leading_like(name: str, protocol: str) -> str:
    """Name the leading measure of a protocol that is of the same kind as a measure: `map` is `map_at_1000` in mteb-v2.

    The measure's own name where the protocol leads with none of its kind. `name` may be the bare name of a metric (`map`).
    """
    if protocol not in PROTOCOLS:
        return name
    title = METRICS[name].title if name in METRICS else find_measure(name).metric.title
    return next((one.name for one in PROTOCOLS[protocol].leading if one.metric.title == title), name)


def leading_with(title: str) -> tuple[str, ...]:
    """Name the leading measures of all protocols whose metric has a title: `MAP` has `map` and `map_at_1000`."""
    found = (one.name for protocol in PROTOCOLS.values() for one in protocol.leading if one.metric.title == title)
    return tuple(dict.fromkeys(found))


def _read_notation(text: str) -> Measure:
    match = _NOTATION.fullmatch(str(text).strip())
    metric = _named(match["metric"]) if match else None
    if match is None or metric is None:
        raise _unknown(str(text))
    cutoff = int(match["cutoff"]) if match["cutoff"] else WHOLE_LIST
    rel = _read_rel(match["parameters"], text)
    if metric.needs_cutoff and cutoff == WHOLE_LIST:
        raise EvalkitError(f"{text} needs a cutoff: write {metric.notation}@10")
    if not 1 <= cutoff <= WHOLE_LIST or (match["cutoff"] and cutoff > _HIGHEST):
        raise EvalkitError(f"{text}: a cutoff is a rank from 1 to {_HIGHEST:,}")
    name = metric.notation + _parameters(rel, cutoff)
    return Measure(name, metric, TREC_EVAL, cutoff, rel)


def _read_rel(parameters: str | None, text: str) -> int:
    """Read `rel=2`: the grade from which a document counts."""
    if parameters is None:
        return 1
    name, _, value = (part.strip() for part in parameters.partition("="))
    if name != "rel":
        raise EvalkitError(
            f"{text}: the only parameter is rel, the grade from which a document counts, as in AP(rel=2)"
        )
    if not re.fullmatch("[0-9]{1,9}", value) or int(value) < 1:
        raise EvalkitError(f"{text}: rel is a grade, a whole number from 1 on")
    return int(value)


def _named(word: str) -> Metric | None:
    """Find a metric by its notation, or by what results or tables call it, whatever the case."""
    wanted = word.casefold()
    return next(
        (one for one in METRICS.values() if wanted in (one.notation.casefold(), one.name, one.title.casefold())), None
    )


def _parameters(rel: int, cutoff: int) -> str:
    return (f"(rel={rel})" if rel != 1 else "") + (f"@{cutoff}" if cutoff != WHOLE_LIST else "")


def _unknown(text: str) -> EvalkitError:
    known = [measure.name for measure in all_measures()] + [f"{one.notation}@10" for one in METRICS.values()]
    close = nearest(text, known)
    hint = f"did you mean {' or '.join(close)}?" if close else "known are the names in results, and"
    notations = ", ".join(one.notation for one in METRICS.values())
    return EvalkitError(f"there is no metric {text!r}; {hint} {notations} with @CUTOFF and (rel=GRADE)")
