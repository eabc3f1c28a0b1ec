"""Protocols: which metrics a benchmark reports, and how it treats ties, missed documents and odd queries."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from evalkit.errors import EvalkitError
from evalkit.metrics.formulas import WHOLE_LIST
from evalkit.metrics.lists import CandidateLists
from evalkit.metrics.ranking import Judgements, Ranking, doc_id_descending, doc_id_descending_float32, positives_first
from evalkit.metrics.ties import METRICS, Metric

Order = Callable[[CandidateLists, Judgements], Ranking]

CUTOFFS = (1, 3, 5, 10, 20, 100, 1000)


@dataclass(frozen=True)
class Measure:
    """A metric as a protocol reports it: its name there, cutoff, order of tied documents, and decimals of its mean."""

    name: str
    metric: Metric
    cutoff: int
    order: Order
    decimals: int | None = None


@dataclass(frozen=True)
class Protocol:
    """The rules of a benchmark.

    `needs_both_kinds`: a query without positive or without negative candidates is dropped, else it counts (as 0 where
    nothing is relevant). `counts_unretrieved`: a relevant document that is no candidate counts as missed, else only
    candidates exist. `unique_documents`: a document counts once per query, else every candidate counts.
    """

    name: str
    main_score: str
    measures: tuple[Measure, ...]
    needs_both_kinds: bool
    counts_unretrieved: bool
    unique_documents: bool


# mteb's names up to the cutoff; mteb takes them from pytrec_eval and rounds, except for mrr, which it computes itself
_MTEB_V2 = (
    ("map", METRICS["average_precision"], doc_id_descending_float32, 5),
    ("ndcg", METRICS["ndcg"], doc_id_descending_float32, 5),
    ("recall", METRICS["recall"], doc_id_descending_float32, 5),
    ("precision", METRICS["precision"], doc_id_descending_float32, 5),
    ("hit_rate", METRICS["hit_rate"], doc_id_descending_float32, 5),
    ("mrr", METRICS["reciprocal_rank"], doc_id_descending, None),
)

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        # C_MTEB at de8f464 and mteb 1.x; their order of ties is numpy's unstable one, for which the stable one stands
        Protocol(
            name="cmteb-v1",
            main_score="map",
            measures=(
                Measure("map", METRICS["threshold_average_precision"], WHOLE_LIST, positives_first),
                Measure("mrr", METRICS["reciprocal_rank"], 10, positives_first),
            ),
            needs_both_kinds=True,
            counts_unretrieved=False,
            unique_documents=False,
        ),
        # mteb 2.18.19 and later
        Protocol(
            name="mteb-v2",
            main_score="map_at_1000",
            measures=tuple(
                Measure(f"{name}_at_{cutoff}", metric, cutoff, order, decimals)
                for name, metric, order, decimals in _MTEB_V2
                for cutoff in CUTOFFS
            ),
            needs_both_kinds=False,
            counts_unretrieved=True,
            unique_documents=True,
        ),
    )
}


def find_protocol(name: str) -> Protocol:
    """Look a protocol up. Raises `EvalkitError` with the nearest right name where there is none."""
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    nearest = difflib.get_close_matches(name, PROTOCOLS, n=1, cutoff=0.0)
    raise EvalkitError(
        f"There is no protocol {name!r}; the nearest name is {nearest[0]!r}, all are: {', '.join(PROTOCOLS)}."
    )
