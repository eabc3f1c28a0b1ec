"""mteb 2's layout: corpus, queries, qrels and top_ranked, tied together by ids."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evalkit.output.numbers import counted
from evalkit.records import Candidate, Query, Request
from evalkit.tasks.findings import Cell, FindingLog, described
from evalkit.tasks.first_stage import Corpus, FirstStageRun
from evalkit.tasks.layouts.texts import TextReader, gain_of, identifier, require_columns, require_rows
from evalkit.tasks.tables import Row, Table, data_suffix

Texts = dict[str, tuple[str, ...]]
Gains = dict[str, dict[str, int]]
Ranked = Mapping[str, list[str]]
_NAME = re.compile(r"[^\W\d][^\d\s]{0,30}( [^\d\s]{1,20})?")
_USUAL_NAMES = {
    "text",
    "title",
    "query",
    "question",
    "topic",
    "passage",
    "document",
    "doc",
    "content",
    "contents",
    "body",
}
_INSTRUCTION = re.compile("instruct|prompt", re.IGNORECASE)


def requests_from_parts(
    parts: Mapping[str, tuple[Table, ...]],
    log: FindingLog,
    first_stage: FirstStageRun | None = None,
    *,
    ignore_identical_ids: bool = False,
) -> tuple[Request, ...]:
    """Return the requests of a dataset in mteb 2's layout, in the order of `queries` and `top_ranked`.

    A document is its title, a space and its text, stripped. Queries that the qrels do not name are left out, as mteb
    does. Without `top_ranked` a query's candidates are the documents that its qrels name. A relevant document that is
    not among the candidates goes to `unretrieved_gains`. A document that top_ranked lists twice for a query is one
    candidate. With a `first_stage` its run takes the place of `top_ranked`. Where `top_ranked` gives the texts too, as
    MS MARCO's top1000 does, the qrels may name documents that it missed, and queries that it lacks, which are left out.
    With `ignore_identical_ids` a document that has its query's id is taken from the query's candidates after they were chosen, as
    mteb takes it from the results; where the qrels call it relevant it is missed.
    """
    _require(parts, log)
    reader = TextReader(log)
    corpus, _ = _read_texts(parts["corpus"], _document_reader(reader), log)
    queries, query_places = _read_texts(parts["queries"], _query_reader(reader), log)
    gains = _read_gains(parts, queries, corpus, log)
    if first_stage is not None:
        first_stage.check(queries, queries.keys() & gains.keys(), corpus, log)
        ranked = first_stage.ranked
    elif "top_ranked" in parts:
        ranked = _read_ranked(parts["top_ranked"], queries, corpus, log)
    else:
        ranked = _judged(parts, gains, log)
    log.raise_errors()
    _report_names_as_rows(parts, gains, ranked, log)
    if ignore_identical_ids:
        ranked = _without_identical(ranked, Cell(parts["queries"][0].file), log)
    requests = []
    for query_id, texts in queries.items():
        if query_id not in gains:
            log.add("note", "query that the qrels do not name: left out", query_places[query_id])
            continue
        requests.append(
            _request(Query(query_id, texts), corpus, gains[query_id], ranked.get(query_id, []), first_stage)
        )
        _note_oddities(requests[-1], query_places[query_id], log)
    return tuple(requests)


def corpus_from_parts(parts: Mapping[str, tuple[Table, ...]], log: FindingLog) -> Corpus:
    """Return the documents of a dataset in mteb 2's layout, and those of its queries that the qrels name."""
    _require(parts, log)
    reader = TextReader(log)
    corpus, _ = _read_texts(parts["corpus"], _document_reader(reader), log)
    queries, _ = _read_texts(parts["queries"], _query_reader(reader), log)
    gains = _read_gains(parts, queries, corpus, log)
    judged = {query_id: texts for query_id, texts in queries.items() if query_id in gains}
    return Corpus(judged, {doc_id: text for doc_id, (text,) in corpus.items()})


def rerank_rows(requests: Sequence[Request], first_stage: FirstStageRun, log: FindingLog) -> tuple[Request, ...]:
    """Return the requests of rows with a first stage's candidates in place of their own; all rows' documents are the corpus.

    A text that a row repeats is one document there: its further copies are missed by nobody.
    """
    corpus: Texts = {candidate.doc_id: (candidate.text,) for request in requests for candidate in request.candidates}
    query_ids = [request.query.query_id for request in requests]
    first_stage.check(set(query_ids), query_ids, corpus, log)
    log.raise_errors()
    place = Cell(str(first_stage.file.path))
    chosen = []
    for request in requests:
        ranked = first_stage.ranked.get(request.query.query_id, [])
        found = set(ranked)
        there = {(candidate.text, candidate.gain) for candidate in request.candidates if candidate.doc_id in found}
        gains: dict[str, int] = {}
        for candidate in request.candidates:
            if candidate.doc_id in found or (candidate.text, candidate.gain) not in there:
                gains[candidate.doc_id] = candidate.gain
                there.add((candidate.text, candidate.gain))
        chosen.append(_request(request.query, corpus, gains, ranked, first_stage))
        _note_oddities(chosen[-1], place, log)
    return tuple(chosen)


def _require(parts: Mapping[str, tuple[Table, ...]], log: FindingLog) -> None:
    columns = {
        "corpus": ("id|_id", "text"),
        "queries": ("id|_id", "text"),
        "qrels": ("query-id", "corpus-id", "score"),
        "top_ranked": ("query-id", "corpus-ids"),
        "instruction": (),
    }
    for name, tables in parts.items():
        for table in tables:
            require_columns(table, columns[name], log)
        require_rows(tables, log)
    for table in (*parts["queries"], *parts.get("instruction", ())):
        for column in table.columns:
            filled = sum(row.get(column) not in (None, "") for row in table.rows) if _INSTRUCTION.search(column) else 0
            if filled:
                message = f"instructions are not read: {filled} of {len(table.rows)} queries go without them"
                log.add("warning", message, Cell(table.file, None, column))
    log.raise_errors()


def _rows(tables: tuple[Table, ...]) -> Iterator[tuple[Row, Cell]]:
    for table in tables:
        for number, row in zip(table.numbers, table.rows, strict=True):
            yield row, Cell(table.file, number)


def _read_texts(
    tables: tuple[Table, ...], read: Callable[[Row, Cell], tuple[str, ...]], log: FindingLog
) -> tuple[Texts, dict[str, Cell]]:
    texts: Texts = {}
    places: dict[str, Cell] = {}
    for row, cell in _rows(tables):
        column = "id" if "id" in row else "_id"
        text_id = identifier(row.get(column), cell._replace(column=column), log)
        if text_id in texts:
            log.add("error", f"id {text_id!r} is given twice; ids must differ", cell._replace(column=column))
        texts[text_id], places[text_id] = read(row, cell), cell
    return texts, places


def _document_reader(reader: TextReader) -> Callable[[Row, Cell], tuple[str, ...]]:
    def read(row: Row, cell: Cell) -> tuple[str, ...]:
        title, text = row.get("title"), row.get("text")
        if isinstance(text, str):
            # a null title is none; one that is no text is reported as such
            title = "" if title is None else reader.text(title, cell._replace(column="title")) if title != "" else title
            text = f"{title} {text}".strip()
        return (reader.text(text, cell._replace(column="text")),)

    return read


def _query_reader(reader: TextReader) -> Callable[[Row, Cell], tuple[str, ...]]:
    return lambda row, cell: reader.query(row.get("text"), cell._replace(column="text"))


def _known(value: Any, known: Mapping[str, Any], what: str, cell: Cell, log: FindingLog) -> str:
    """Return an id that must name a row of another part."""
    found = identifier(value, cell, log)
    if found and found not in known:
        log.add("error", f"{found!r} names no {what}; add it to the {what} rows, or remove this row", cell)
    return found


def _read_gains(parts: Mapping[str, tuple[Table, ...]], queries: Texts, corpus: Texts, log: FindingLog) -> Gains:
    of_candidates = {
        name
        for name in ("queries", "corpus")
        if parts[name][0].file in {one.file for one in parts.get("top_ranked", ())}
    }
    gains: Gains = {}
    for row, cell in _rows(parts["qrels"]):
        found = []
        for column, name, known in (("query-id", "queries", queries), ("corpus-id", "corpus", corpus)):
            place = cell._replace(column=column)
            if name in of_candidates:
                found.append(identifier(row.get(column), place, log))
            else:
                found.append(_known(row.get(column), known, name, place, log))
        query_id, doc_id = found
        judged = gains.setdefault(query_id, {})
        if doc_id in judged:
            log.add("warning", "judgement given twice for a query and document: the last one counts", cell)
        judged[doc_id] = gain_of(row.get("score"), cell._replace(column="score"), log, in_qrels=True)
    if of_candidates:
        gains = _report_not_offered(parts, gains, queries, corpus, log)
    return gains


def _report_not_offered(
    parts: Mapping[str, tuple[Table, ...]], gains: Gains, queries: Texts, corpus: Texts, log: FindingLog
) -> Gains:
    """Return the judgements of the queries that there are; report the queries and relevant documents that have no text."""
    kept = {query_id: judged for query_id, judged in gains.items() if query_id in queries}
    place, source = Cell(parts["qrels"][0].file), Path(parts["top_ranked"][0].file).name
    if not kept:
        message = (
            f"none of the {counted(len(gains), 'query')} that it names is in {source}; give the qrels of its queries"
        )
        log.add("error", message, place)
    elif len(kept) < len(gains):
        message = (
            f"{len(gains) - len(kept):,} of the {counted(len(gains), 'query')} that it names are not in {source}: left out of "
            "every figure"
        )
        log.add("warning", message, place)
    missed = [
        doc_id for judged in kept.values() for doc_id, gain in judged.items() if gain > 0 and doc_id not in corpus
    ]
    if missed:
        message = (
            f"{counted(len(missed), 'relevant document')} that it names for these queries are not in {source}, which has "
            "the texts: mteb-v2 counts them as missed, cmteb-v1 does not"
        )
        log.add("warning", message, place)
    return kept


def _read_ranked(tables: tuple[Table, ...], queries: Texts, corpus: Texts, log: FindingLog) -> Ranked:
    ranked: dict[str, list[str]] = {}
    for row, cell in _rows(tables):
        query_cell, list_cell = cell._replace(column="query-id"), cell._replace(column="corpus-ids")
        query_id = _known(row.get("query-id"), queries, "queries", query_cell, log)
        if query_id in ranked:
            log.add("error", f"query {query_id!r} is given twice; ids must differ", query_cell)
        listed = row.get("corpus-ids")
        if not isinstance(listed, list):
            log.add("error", f"{described(listed)} where a list of ids is due", list_cell)
            listed = []
        doc_ids = [_known(doc_id, corpus, "corpus", list_cell, log) for doc_id in listed]
        ranked[query_id] = list(dict.fromkeys(doc_ids))
        if len(ranked[query_id]) < len(doc_ids):
            log.add("warning", "document listed twice for a query: taken once", list_cell)
    return ranked


def _report_names_as_rows(
    parts: Mapping[str, tuple[Table, ...]], gains: Gains, ranked: Ranked, log: FindingLog
) -> None:
    """Report first rows of files that may lack a line of names, where they seem to be one and nothing refers to them."""
    used = {
        "queries": {*gains, *ranked},
        "corpus": {found for of in (gains, ranked) for ids in of.values() for found in ids},
    }
    for part, ids in used.items():
        for table in parts[part]:
            if data_suffix(Path(table.file)).startswith((".json", ".csv", ".parquet")) or len(table.rows) < 2:
                continue
            first, *_ = found = [str(row.get("id", row.get("_id"))) for row in table.rows]
            text = str(table.rows[0].get("text"))
            if first in ids or not (_NAME.fullmatch(first) and _NAME.fullmatch(text)):
                continue
            if text.lower() in _USUAL_NAMES or all(re.search(r"\d", one) for one in found[1:]):
                message = f"{first!r} and {text!r} seem to name columns, but are read as one of the {part}; nothing refers to it"
                log.add("warning", message, Cell(table.file, table.numbers[0]))


def _without_identical(ranked: Ranked, place: Cell, log: FindingLog) -> Ranked:
    """Take from each query's candidates the document that has its id."""
    found = [query_id for query_id, doc_ids in ranked.items() if query_id in doc_ids]
    if found:
        message = (
            f"{counted(len(found), 'query')} of {len(ranked):,} had a document of their own id among their candidates, first "
            f"{found[0]!r}: left out (task.ignore_identical_ids=true, as mteb's task says)"
        )
        log.add("warning", message, place)
    return {query_id: [one for one in doc_ids if one != query_id] for query_id, doc_ids in ranked.items()}


def _judged(parts: Mapping[str, tuple[Table, ...]], gains: Gains, log: FindingLog) -> Ranked:
    pairs = sum(map(len, gains.values()))
    message = (
        f"there is no top_ranked: the candidates of {counted(len(gains), 'query')} are the {counted(pairs, 'document')} that the "
        "qrels name for them, which is easier than what a first stage finds; give its run with task.candidates=FILE"
    )
    log.add("warning", message, Cell(parts["qrels"][0].file))
    return {query_id: list(judged) for query_id, judged in gains.items()}


def _request(
    query: Query, corpus: Texts, gains: Mapping[str, int], doc_ids: list[str], first_stage: FirstStageRun | None
) -> Request:
    candidates = tuple(Candidate(doc_id, corpus[doc_id][0], gains.get(doc_id, 0)) for doc_id in doc_ids)
    offered = set(doc_ids)
    missed = {doc_id: gain for doc_id, gain in gains.items() if gain > 0 and doc_id not in offered}
    scores = first_stage.scores(query.query_id, doc_ids) if first_stage is not None else ()
    return Request(query, candidates, tuple(missed.values()), tuple(missed), scores)


def _note_oddities(request: Request, cell: Cell, log: FindingLog) -> None:
    positives = [candidate.text for candidate in request.candidates if candidate.gain > 0]
    negatives = [candidate.text for candidate in request.candidates if candidate.gain == 0]
    if request.unretrieved_gains:
        log.add("note", "relevant document that is no candidate: mteb-v2 counts it as missed, cmteb-v1 does not", cell)
    if not request.candidates:
        log.add("warning", "query without candidates: it scores 0 in mteb-v2, cmteb-v1 leaves it out", cell)
    else:
        for name, texts in (("positives", positives), ("negatives", negatives)):
            if not texts:
                log.add("note", f"query without {name} among its candidates: cmteb-v1 leaves it out", cell)
    if len(set(positives)) + len(set(negatives)) < len(request.candidates):
        log.add("note", "query with duplicate candidates: all are kept", cell)
    if not set(positives).isdisjoint(negatives):
        log.add("warning", "query with a text that is both positive and negative", cell)
