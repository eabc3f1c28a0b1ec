"""The layouts of a reranking dataset, rows and mteb 2's parts: told apart and read, checked, turned into requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from evalkit.errors import EvalkitError
from evalkit.output.numbers import counted
from evalkit.records import Finding, Request
from evalkit.tasks.findings import Cell, FindingLog
from evalkit.tasks.first_stage import Corpus, FirstStageRun
from evalkit.tasks.layouts.cmteb import requests_from_rows
from evalkit.tasks.layouts.mteb import corpus_from_parts, requests_from_parts, rerank_rows
from evalkit.tasks.layouts.reading import RawDataset


def requests_of(
    raw: RawDataset, log: FindingLog, first_stage: FirstStageRun | None, *, ignore_identical_ids: bool = False
) -> tuple[Request, ...]:
    """Return the requests of a dataset in its layout; a first stage's candidates take the place of their own.

    With `ignore_identical_ids` a document with its query's id is no candidate. What is odd goes to `log`. Raises EvalkitError for
    whatever breaks the layout.
    """
    for finding in raw.findings:
        log.add(finding.severity, finding.message, Cell(finding.file))
    for tables in raw.parts.values():
        for table in tables:
            for remark in table.remarks:
                log.add("warning", remark, Cell(table.file))
    if raw.layout == "cmteb":
        if ignore_identical_ids:
            raise EvalkitError(
                "task.ignore_identical_ids=true has no effect on rows of queries and their documents, which have no ids in common: "
                "leave it out, or give corpus, queries and qrels"
            )
        requests = requests_from_rows(raw.parts["rows"], raw.split, log)
        log.raise_errors()
        requests = requests if first_stage is None else rerank_rows(requests, first_stage, log)
    else:
        requests = requests_from_parts(raw.parts, log, first_stage, ignore_identical_ids=ignore_identical_ids)
    log.raise_errors()
    _report_contents(requests, Cell(next(iter(raw.parts.values()))[0].file), log)
    return requests


def with_scores(raw: RawDataset) -> RawDataset:
    """Return a retrieval dataset in which judgements that are pairs of ids and nothing else say 1: all of them are relevant.

    Only there do judgements name nothing but what is relevant: those of candidates may have lost their column of grades.
    """
    if raw.layout != "mteb":
        return raw
    tables, findings = [], []
    for table in raw.parts["qrels"]:
        if set(table.columns) == {"query-id", "corpus-id"} and table.rows:
            rows = [{**row, "score": 1} for row in table.rows]
            table = replace(table, columns=(*table.columns, "score"), rows=rows)
            said = "there is no column score: every document that is named is relevant (1)"
            findings.append(Finding("note", said, table.file))
        tables.append(table)
    return replace(raw, parts={**raw.parts, "qrels": tuple(tables)}, findings=(*raw.findings, *findings))


def corpus_of(raw: RawDataset) -> Corpus:
    """Return what a first stage searches: of parts their corpus, of rows the distinct texts of all their documents.

    Raises EvalkitError for whatever breaks the layout.
    """
    log = FindingLog()
    if raw.layout == "mteb":
        corpus = corpus_from_parts(raw.parts, log)
        log.raise_errors()
        return corpus
    requests = requests_from_rows(raw.parts["rows"], raw.split, log)
    log.raise_errors()
    ids: dict[str, str] = {}  # one for each text, which several rows may have
    own_ids: dict[str, dict[str, str]] = {}
    for request in requests:
        own: dict[str, str] = {}
        for candidate in request.candidates:
            shared = ids.setdefault(candidate.text, candidate.doc_id)
            own.setdefault(shared, candidate.doc_id)
        own_ids[request.query.query_id] = {shared: doc_id for shared, doc_id in own.items() if shared != doc_id}
    queries = {request.query.query_id: request.query.texts for request in requests}
    return Corpus(
        queries, {doc_id: text for text, doc_id in ids.items()}, {key: own for key, own in own_ids.items() if own}
    )


def _report_contents(requests: Sequence[Request], place: Cell, log: FindingLog) -> None:
    """Report, with counts, what about the queries and candidates as a whole changes what a figure means."""
    uses = Counter(request.query.texts for request in requests)
    repeated = [count for count in uses.values() if count > 1]
    if repeated:
        message = (
            f"{counted(sum(repeated), 'query')} have only {counted(len(repeated), 'different text')}: each is scored by itself "
            "with its own candidates, as mteb does"
        )
        log.add("warning", message, place)
    own = sum(any(candidate.text in request.query.texts for candidate in request.candidates) for request in requests)
    if own:
        message = f"{own:,} of {counted(len(requests), 'query')} stand among their own candidates, word for word"
        log.add("warning", message, place)
    grades = Counter(
        gain for request in requests for gain in (*_gains(request), *request.unretrieved_gains) if gain > 0
    )
    if max(grades, default=0) > 1:
        found = ", ".join(f"{grade} ({grades[grade]:,})" for grade in sorted(grades))
        message = (
            f"relevance has grades, {found}: every grade from 1 counts as relevant in MAP and MRR; "
            "measures such as AP(rel=2) count from a higher one"
        )
        log.add("warning", message, place)


def _gains(request: Request) -> list[int]:
    return [candidate.gain for candidate in request.candidates]
