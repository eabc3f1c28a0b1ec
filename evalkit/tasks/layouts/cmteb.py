"""Rows of queries with their documents: C-MTEB's layout, triples of texts, and labelled documents."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.output.numbers import counted, listed
from evalkit.records import Candidate, Query, Request
from evalkit.tasks.findings import Cell, FindingLog, described
from evalkit.tasks.layouts.columns import Columns, columns_of, holds_passages
from evalkit.tasks.layouts.texts import TextReader, gain_of, identifier, require_rows
from evalkit.tasks.tables import Row, Table, data_suffix

Documents = tuple[tuple[str, int], ...]
_SEPARATORS = {name: re.compile(re.escape(name)) for name in ("|", "[SEP]", "<sep>", ";;", "\t")}
# English has a blank behind a comma, and numbers have digits around it
_SEPARATORS_IN_TEXTS = {
    ";": re.compile(";"),
    "\n": re.compile("\n"),
    ",": re.compile(r"(?<=\w),(?=[^\W\d])|(?<=[^\W\d]),(?=\w)", re.ASCII),
}
_IN_BRACKETS = re.compile(r"\s*(\[.*\]|\{.*\}|\(.*\))\s*", re.DOTALL)
_PLURAL = re.compile(r"(positive|(hard[._ -]?)?negative|document|passage|text|doc|answer)s", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Judged:
    """A query and its documents, each with its gain, and where they stand."""

    query: tuple[str, ...]
    documents: Documents
    cell: Cell
    query_id: str = ""


def requests_from_rows(tables: tuple[Table, ...], split: str, log: FindingLog) -> tuple[Request, ...]:
    """Return the requests of rows, in file order, positives before negatives.

    A row of lists is a query, as in C-MTEB and mteb; where a column of documents holds single texts (triples, labelled
    pairs), the rows of one query are one request, with each of its texts once. Queries of one text are one, unless a column has
    ids for them. Ids are those that mteb 2 gives when it converts C-MTEB's rows: `{split}_query{i}`, where i counts from 0 the
    queries that have both positives and negatives, and for documents `apositive_{query_id}_{00000}`,
    `negative_{query_id}_{00000}`. mteb leaves other rows out; here they stay, as `{split}_dropped{row}` with their row counted
    from 0 over all files, because which queries count is for the protocol to say.
    """
    columns = [columns_of(table, log) for table in tables]
    log.raise_errors()
    known = [found for found in columns if found is not None]
    for table, found in zip(tables, known, strict=True):
        if found != known[0]:
            message = f"its columns are not those of {tables[0].file}; give each dataset a folder of its own"
            log.add("error", message, Cell(table.file))
    require_rows(tables, log)
    log.raise_errors()
    _report_several_files(tables, log)
    single = _columns_of_single_texts(tables, known[0])
    judged = list(_read(tables, known[0], single, TextReader(log), log))
    log.raise_errors()
    if single:
        merged = _merged(judged, known[0], log)
        _report_lists_as_text(tables, known[0], single, len(merged) == len(judged), log)
        log.raise_errors()
        judged = merged
    return _requests(judged, split, log)


def _report_several_files(tables: Sequence[Table], log: FindingLog) -> None:
    """Report files that are read as one dataset, unless their names say which part of how many each is."""
    names = [Path(table.file).name for table in tables]
    if len(names) > 1 and not all(re.search(r"-\d{5}-of-\d{5}", name) for name in names):
        message = f"{len(names)} files are read as one dataset: {listed(names)}"
        log.add("warning", message, Cell(str(Path(tables[0].file).parent)))


def _columns_of_single_texts(tables: Sequence[Table], columns: Columns) -> frozenset[str]:
    """Return the columns of documents in which no cell is a list and some cell is a text.

    Lists of one text with labels that are no lists are single texts too: so CSV quotes a text in brackets.
    """
    rows = [row for table in tables for row in table.rows]
    single = set()
    for name in (*columns.positive, *columns.negative, *filter(None, (columns.document,))):
        kinds = {type(row.get(name)) for row in rows}
        if str in kinds and list not in kinds and not holds_passages(name):
            single.add(name)
    if columns.document and not any(isinstance(row.get(columns.label), list) for row in rows):
        cells = [row.get(columns.document) for row in rows]
        if cells and all(isinstance(cell, str) or (isinstance(cell, list) and len(cell) == 1) for cell in cells):
            single.add(columns.document)
    return frozenset(single)


def _read(
    tables: Sequence[Table], columns: Columns, single: frozenset[str], reader: TextReader, log: FindingLog
) -> Iterator[_Judged]:
    for table in tables:
        for number, row in zip(table.numbers, table.rows, strict=True):
            cell = Cell(table.file, number)
            query = reader.query(row.get(columns.query), cell._replace(column=columns.query))
            if columns.document:
                documents = _labelled(row, columns, single, cell, reader, log)
            else:
                documents = _listed(row, columns.positive, 1, single, cell, reader)
                documents += _listed(row, columns.negative, 0, single, cell, reader)
            query_id = row.get(columns.query_id) if single and columns.query_id else ""
            if single and columns.query_id:
                query_id = identifier(query_id, cell._replace(column=columns.query_id), log)
            yield _Judged(query, documents, cell, str(query_id))


def _listed(
    row: Row, names: Sequence[str], gain: int, single: frozenset[str], cell: Cell, reader: TextReader
) -> Documents:
    texts: list[str] = []
    for name in names:
        if row.get(name) is None and len(names) > 1:
            continue  # numbered columns are filled as far as a query has documents
        place = cell._replace(column=name)
        # an empty cell of a triple is no document
        listed = reader.passages if holds_passages(name) else reader.texts
        texts.extend((reader.texts_in_cell if name in single else listed)(row.get(name), place))
    return tuple((text, gain) for text in texts)


def _labelled(
    row: Row, columns: Columns, single: frozenset[str], cell: Cell, reader: TextReader, log: FindingLog
) -> Documents:
    document, label = row.get(columns.document), row.get(columns.label)
    document_cell, label_cell = cell._replace(column=columns.document), cell._replace(column=columns.label)
    if columns.document in single:
        found = reader.texts if isinstance(document, list) else reader.texts_in_cell
        texts = found(document, document_cell) or (reader.text(document, document_cell),)
        labels: list[Any] = [label]
    else:
        texts = reader.texts(document, document_cell)
        if not isinstance(label, list) or len(label) != len(texts):
            given = counted(len(label), "label") if isinstance(label, list) else described(label)
            due = f"a list of {counted(len(texts), 'label')} is due, one for each text of {columns.document}"
            log.add("error", f"{given} where {due}", label_cell)
            return ()
        labels = label
    return tuple((text, gain_of(value, label_cell, log)) for text, value in zip(texts, labels, strict=True))


def _report_lists_as_text(
    tables: Sequence[Table], columns: Columns, single: frozenset[str], one_row_each: bool, log: FindingLog
) -> None:
    """Report columns whose cells seem to be lists that something other than JSON wrote; an error where hardly a doubt is left.

    `;`, commas and line breaks stand in many a text: they are reported in CSV and TSV alone, for columns of positives and
    negatives of queries that have one row each, where lists are to be expected.
    """
    in_text = one_row_each and not columns.document and all(_is_delimited(table) for table in tables)
    separators = _SEPARATORS | (_SEPARATORS_IN_TEXTS if in_text else {})
    for name in sorted(single):
        cells = [cell for table in tables for row in table.rows if isinstance(cell := row.get(name), str) and cell]
        place = Cell(tables[0].file, None, name)
        in_brackets = [cell for cell in cells if _IN_BRACKETS.fullmatch(cell)]
        many = sum(bool(re.search(r"[,;|]", cell)) for cell in in_brackets)
        if 2 * many > len(cells):
            message = (
                f"{many} of {len(cells)} cells stand in brackets, as lists do, but are no JSON lists; write lists as "
                'json.dumps does, and a text in brackets as a list of one: ["[a text]"]'
            )
            log.add("error", message, place)
        elif many or 2 * len(in_brackets) > len(cells):
            message = (
                f"{len(in_brackets)} of {len(cells)} cells stand in brackets, as lists do: each is read as one text"
            )
            log.add("warning", message, place)
        for name_of, separator in separators.items():
            holding = sum(separator.search(cell.strip()) is not None for cell in cells)
            if holding == len(cells) > 1 and _PLURAL.fullmatch(name) and name_of not in ("\n", ","):
                message = (
                    f"all {holding} cells hold {name_of!r}, in a column that is called as one of lists; write lists as "
                    f"json.dumps does, or call the column {name[:-1]} if each cell is one text"
                )
                log.add("error", message, place)
            elif holding and 2 * holding >= len(cells):
                message = f"{holding} of {len(cells)} cells hold {name_of!r}: each cell is read as one text"
                if in_text:
                    count = counted(len(columns.positive if name in columns.positive else columns.negative), "text")
                    message += f", so that a query has at most {count} of this kind"
                log.add("warning", f"{message}; if they are lists, write them as JSON lists", place)
            else:
                continue
            break


def _is_delimited(table: Table) -> bool:
    return data_suffix(Path(table.file)).startswith((".csv", ".tsv"))


def _merged(rows: Sequence[_Judged], columns: Columns, log: FindingLog) -> list[_Judged]:
    """Return one entry per query, each of its texts once per gain, in the order of their first rows."""
    if columns.query_id:
        _check_ids(rows, columns, log)
    merged: dict[tuple[str, tuple[str, ...]], dict[tuple[str, int], None]] = {}
    first: dict[tuple[str, tuple[str, ...]], Cell] = {}
    for row in rows:
        key = (row.query_id, row.query)
        first.setdefault(key, row.cell)
        merged.setdefault(key, {}).update(dict.fromkeys(row.documents))
    found = [_Judged(key[1], tuple(documents), first[key], key[0]) for key, documents in merged.items()]
    for one in found:
        if columns.document and len({text for text, _ in one.documents}) < len(one.documents):
            message = "a document has two different labels for this query; keep one of them"
            log.add("error", message, one.cell._replace(column=columns.label))
    log.raise_errors()
    place = Cell(rows[0].cell.file)
    if len(found) < len(rows):
        message = f"{len(rows):,} rows hold {counted(len(found), 'query')}: the rows of one query are read as one"
        log.add("note" if columns.document else "warning", message, place)
    repeated = sum(len(row.documents) for row in rows) - sum(len(one.documents) for one in found)
    if repeated:
        log.add("warning", f"{counted(repeated, 'repeated text')} of a query: each is taken once", place)
    return found


def _check_ids(rows: Sequence[_Judged], columns: Columns, log: FindingLog) -> None:
    """Note an error where an id has two texts, and where ids number the rows, so that no query would be put together."""
    texts: dict[str, tuple[str, ...]] = {}
    for row in rows:
        if texts.setdefault(row.query_id, row.query) != row.query:
            message = f"query {row.query_id!r} has another text than in an earlier row"
            log.add("error", message, row.cell._replace(column=columns.query_id))
    different = len({row.query for row in rows})
    if len(texts) == len(rows) > different:
        message = (
            f"the ids differ in all {len(rows):,} rows, which hold {counted(different, 'different query')}: leave the column "
            "out if it numbers rows; queries of one text that are to be scored apart are written as rows of lists"
        )
        log.add("error", message, Cell(rows[0].cell.file, None, columns.query_id))
    log.raise_errors()


def _requests(judged: Sequence[_Judged], split: str, log: FindingLog) -> tuple[Request, ...]:
    requests: list[Request] = []
    kept = 0
    for one in judged:
        positives = [document for document in one.documents if document[1] > 0]
        negatives = [document for document in one.documents if document[1] == 0]
        counts = bool(positives) and bool(negatives)
        query_id = f"{split}_query{kept}" if counts else f"{split}_dropped{len(requests)}"
        kept += counts
        _note_oddities([text for text, _ in positives], [text for text, _ in negatives], one.cell, log)
        candidates = [Candidate(f"apositive_{query_id}_{i:05d}", *found) for i, found in enumerate(positives)]
        candidates += [Candidate(f"negative_{query_id}_{i:05d}", *found) for i, found in enumerate(negatives)]
        requests.append(Request(Query(query_id, one.query), tuple(candidates)))
    return tuple(requests)


def _note_oddities(positives: Sequence[str], negatives: Sequence[str], cell: Cell, log: FindingLog) -> None:
    for column, texts in (("positive", positives), ("negative", negatives)):
        if not texts:
            log.add("note", f"query without {column}s: cmteb-v1 leaves it out", cell._replace(column=column))
        if len(set(texts)) < len(texts):
            log.add("note", "query with duplicate candidates: all are kept", cell._replace(column=column))
    if not set(positives).isdisjoint(negatives):
        log.add("warning", "query with a text that is both positive and negative", cell)
