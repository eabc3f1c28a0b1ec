"""C-MTEB's layout: one row per query, with the lists of its positive and negative documents."""

from __future__ import annotations

from evalkit.records import Candidate, Query, Request
from evalkit.tasks.findings import Cell, FindingLog
from evalkit.tasks.layouts.texts import TextReader, require_columns, require_rows
from evalkit.tasks.tables import Row, Table

COLUMNS = ("query", "positive", "negative")


def requests_from_rows(tables: tuple[Table, ...], split: str, log: FindingLog) -> tuple[Request, ...]:
    """Return the requests of rows in C-MTEB's layout, in file order, positives before negatives.

    Ids are those that mteb 2 gives when it converts such rows: `{split}_query{i}`, where i counts from 0 the rows that
    have both positives and negatives, and for documents `apositive_{query_id}_{00000}`, `negative_{query_id}_{00000}`.
    mteb leaves other rows out; here they stay, as `{split}_dropped{row}` with their row counted from 0 over all files,
    because which queries count is for the protocol to say.
    """
    for table in tables:
        require_columns(table, COLUMNS, log)
    require_rows(tables, log)
    log.raise_errors()
    reader = TextReader(log)
    requests: list[Request] = []
    kept = 0
    for table in tables:
        for number, row in zip(table.numbers, table.rows, strict=True):
            query, positives, negatives = _texts_of(row, Cell(table.file, number), reader)
            counts = bool(positives) and bool(negatives)
            query_id = f"{split}_query{kept}" if counts else f"{split}_dropped{len(requests)}"
            kept += counts
            _note_oddities(positives, negatives, Cell(table.file, number), log)
            requests.append(_request(query_id, query, positives, negatives))
    return tuple(requests)


def _texts_of(row: Row, cell: Cell, reader: TextReader) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    query = reader.query(row.get("query"), cell._replace(column="query"))
    positives = reader.texts(row.get("positive"), cell._replace(column="positive"))
    negatives = reader.texts(row.get("negative"), cell._replace(column="negative"))
    return query, positives, negatives


def _request(query_id: str, query: tuple[str, ...], positives: tuple[str, ...], negatives: tuple[str, ...]) -> Request:
    candidates = [Candidate(f"apositive_{query_id}_{i:05d}", text, 1) for i, text in enumerate(positives)]
    candidates += [Candidate(f"negative_{query_id}_{i:05d}", text, 0) for i, text in enumerate(negatives)]
    return Request(Query(query_id, query), tuple(candidates))


def _note_oddities(positives: tuple[str, ...], negatives: tuple[str, ...], cell: Cell, log: FindingLog) -> None:
    for column, texts in (("positive", positives), ("negative", negatives)):
        if not texts:
            log.add("note", f"query without {column}s: cmteb-v1 leaves it out", cell._replace(column=column))
        if len(set(texts)) < len(texts):
            log.add("note", "query with duplicate candidates: all are kept", cell._replace(column=column))
    if not set(positives).isdisjoint(negatives):
        log.add("warning", "query with a text that is both positive and negative", cell)
