"""Files whose columns no first line names: MS MARCO's texts and candidates, and TREC's judgements."""

from __future__ import annotations

from pathlib import Path

from evalkit.errors import EvalkitError
from evalkit.tasks.tables import Row, Table, data_suffix, read_lines, table_of

_HEADERS = {
    "corpus": {"id", "_id", "text", "title"},
    "queries": {"id", "_id", "text"},
    "qrels": {"query-id", "corpus-id", "score"},
    "top_ranked": {"query-id", "corpus-ids"},
}
_NAMED = (".parquet", ".jsonl", ".json", ".csv")
_DUE = {
    "corpus": "a document's id, a tab and its text",
    "queries": "a query's id, a tab and its text",
    "qrels": "TREC's four columns, query 0 document grade",
    "top_ranked": "query id, document id, query and document, with tabs between them (a TREC run: task.candidates=FILE)",
}


def read_headless(path: Path, part: str) -> dict[str, Table] | None:
    """Return a part's table, by its name; None where the file names its columns, and `read_table` reads it.

    Candidates that hold their texts give the tables of `queries` and `corpus` too. Raises EvalkitError, naming the row,
    for a line of other columns.
    """
    if data_suffix(path).removesuffix(".gz") in _NAMED or part not in _HEADERS:
        return None
    lines = [(number, line) for number, line in enumerate(read_lines(path), start=1) if line.strip()]
    if not lines or len(_HEADERS[part] & set(lines[0][1].replace('"', "").split("\t"))) > 1:
        return None
    rows = [_fields(path, part, number, line) for number, line in lines]
    numbers = [number for number, _ in lines]
    if part == "top_ranked":
        return _candidates(path, rows, numbers)
    columns = ("query-id", "", "corpus-id", "score") if part == "qrels" else ("id", "text")
    return {part: table_of(str(path), [dict(zip(columns, row, strict=True)) for row in rows], numbers)}


def _fields(path: Path, part: str, number: int, line: str) -> list[str]:
    fields = line.split() if part == "qrels" else line.split("\t")
    due = {"corpus": (2,), "queries": (2,), "qrels": (4,), "top_ranked": (2, 4)}[part]
    if len(fields) not in due:
        raise EvalkitError(
            f"{path}, row {number}: {len(fields)} fields where {_DUE[part]}, are due; other columns need a first line with their "
            f"names ({', '.join(sorted(_HEADERS[part]))}) and tabs"
        )
    return fields


def _candidates(path: Path, rows: list[list[str]], numbers: list[int]) -> dict[str, Table]:
    ranked: dict[str, list[str]] = {}
    texts: dict[str, dict[str, str]] = {"queries": {}, "corpus": {}}
    for number, (query_id, doc_id, *given) in zip(numbers, rows, strict=True):
        ranked.setdefault(query_id, []).append(doc_id)
        for part, text_id, text in zip(texts, (query_id, doc_id), given, strict=False):
            if texts[part].setdefault(text_id, text) != text:
                raise EvalkitError(f"{path}, row {number}: {text_id!r} has another text than in an earlier row")
    parts: dict[str, list[Row]] = {
        name: [{"id": text_id, "text": text} for text_id, text in found.items()]
        for name, found in texts.items()
        if found
    }
    parts["top_ranked"] = [{"query-id": query_id, "corpus-ids": doc_ids} for query_id, doc_ids in ranked.items()]
    return {name: table_of(str(path), found) for name, found in parts.items()}
