"""What the columns of a row mean: C-MTEB's and FlagEmbedding's lists, triples of texts, and labelled documents."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from evalkit.output.numbers import number_in
from evalkit.tasks.findings import Cell, FindingLog
from evalkit.tasks.tables import Table

_NAMES = {
    "query": r"query|question|anchor|sentence1|text1",
    "positive": r"(pos|positives?)([._ ]?\d+)?",
    "negative": r"(neg|negatives?)([._ ]?\d+)?",
    "document": r"documents?|passages?|texts?|docs?|sentence2|answers?|text2",
    "label": r"labels?|scores?|relevances?|gains?",
}
# names that are read where no column has one of those above; Tevatron's and DPR's hold objects with a title and a text
_OTHER_NAMES = {
    "positive": (r"positive_(passages|ctxs)",),
    "negative": (r"hard[._ -]?(neg|negatives?)([._ ]?\d+)?", r"(hard_)?negative_(passages|ctxs)"),
}
_PASSAGES = re.compile(r"(hard_)?(?P<column>(positive|negative)_(passages|ctxs))", re.IGNORECASE)
# columns that would change a figure if they were read: they get a warning, others a note
_DECISIVE = re.compile(r"instruct|prompt|title|neg|pos|passage|document|answer|context", re.IGNORECASE)
_HARMLESS = re.compile(r"(^|[^a-z])(ids?|scores?|idx)$", re.IGNORECASE)

_QUERY_ID = re.compile(r"(query|question|topic)[-_ .]?id|qid|q_id", re.IGNORECASE)
_SCORES = re.compile(r"scores?", re.IGNORECASE)
_NUMBER = re.compile(r"[._ ]?\d+$")
_NAME_SHOWN = 40


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a row by what they mean: a query with `positive` and `negative` columns, or with a `document` and its `label`.

    The two forms exclude each other; `document` is empty in the first. `query_id` is empty where no column has queries' ids.
    """

    query: str
    positive: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()
    document: str = ""
    label: str = ""
    query_id: str = ""


def holds_rows(names: Sequence[str]) -> bool:
    """Return whether columns of these names are rows of queries with their documents."""
    found = {meaning for meaning in _NAMES if _named(meaning, names)}
    return {"positive", "negative"} <= found or {"query", "document", "label"} <= found


def columns_of(table: Table, log: FindingLog) -> Columns | None:
    """Return what the columns of a table of rows mean; None, with an error in `log`, where they are not those of any known rows."""
    place = Cell(table.file)
    if not table.columns and not table.rows:
        log.add("error", "there is nothing in it", place)
        return None
    names = {meaning: _named(meaning, table.columns) for meaning in _NAMES}
    names["label"] = _without_a_models_scores(names["label"], table)
    labelled = not names["positive"] and not names["negative"] and (names["document"] or names["label"])
    wanted = ("query", "document", "label") if labelled else ("query", "positive", "negative")
    for meaning in wanted:
        if not names[meaning]:
            log.add("error", f"there is no column {meaning}; {_listed(table.columns, any(names.values()))}", place)
        elif len(_unnumbered(names[meaning]) if meaning in ("positive", "negative") else names[meaning]) > 1:
            both = " and ".join(names[meaning])
            log.add("error", f"the columns {both} could each be the {meaning}; rename or leave out all but one", place)
    if not all(names[meaning] for meaning in wanted):
        return None
    query_ids = [name for name in table.columns if _QUERY_ID.fullmatch(name)]
    if len(query_ids) > 1:
        log.add(
            "error", f"the columns {' and '.join(query_ids)} could each be the query's id; leave out all but one", place
        )
    query_id = query_ids[0] if query_ids else ""
    first = {meaning: names[meaning][0] for meaning in wanted}
    if labelled:
        columns = Columns(first["query"], document=first["document"], label=first["label"], query_id=query_id)
    else:
        columns = Columns(first["query"], names["positive"], names["negative"], query_id=query_id)
    _report_unread(table, columns, log)
    return columns


def _without_a_models_scores(names: tuple[str, ...], table: Table) -> tuple[str, ...]:
    """Return the columns of labels, without one of scores that are no grades where another column is called as labels are."""
    scores = tuple(name for name in names if _SCORES.fullmatch(name))
    others = tuple(name for name in names if name not in scores)
    return others if others and all(_holds_fractions(name, table) for name in scores) else names


def _holds_fractions(name: str, table: Table) -> bool:
    for row in table.rows:
        cell = row.get(name)
        for value in cell if isinstance(cell, list) else [cell]:
            number = number_in(str(value))
            if number is not None and not number.is_integer():
                return True
    return False


def holds_passages(name: str) -> bool:
    """Return whether a column of documents is Tevatron's or DPR's, which hold lists of objects with a title and a text."""
    return _PASSAGES.fullmatch(name) is not None


def _unnumbered(names: Iterable[str]) -> set[str]:
    """Return names without their numbers; DPR's negatives and hard negatives are two columns of one name."""
    return {found["column"] if (found := _PASSAGES.fullmatch(name)) else _NUMBER.sub("", name) for name in names}


def _listed(columns: Iterable[str], some_known: bool) -> str:
    found = ", ".join(name[:_NAME_SHOWN] for name in columns) or "none"
    if some_known:
        return f"the columns are: {found}"
    return f"the columns are: {found}; rows are query, positive, negative or query, document, label, and say so in their first line"


def _named(meaning: str, names: Sequence[str]) -> tuple[str, ...]:
    for pattern in (_NAMES[meaning], *_OTHER_NAMES.get(meaning, ())):
        if found := tuple(name for name in names if re.fullmatch(pattern, name, re.IGNORECASE)):
            return found
    return ()


def _report_unread(table: Table, columns: Columns, log: FindingLog) -> None:
    place = Cell(table.file)
    read = {columns.query, *columns.positive, *columns.negative, columns.document, columns.label, columns.query_id} - {
        ""
    }
    for name in table.columns:
        if name in read:
            continue
        if not name:  # pandas writes its index so
            texts = sum(
                isinstance(cell := row.get(name), str) and cell != "" and number_in(cell) is None for row in table.rows
            )
            if texts:
                message = (
                    f"a column without a name is not read, though it holds texts in {texts} of {len(table.rows)} rows"
                )
                log.add("warning", message, place)
            continue
        filled = sum(row.get(name) not in (None, "", []) for row in table.rows)
        decisive = _DECISIVE.search(name) is not None and not _HARMLESS.search(name)
        if decisive and filled:
            message = f"the column {name} is not read, though it holds something in {filled} of {len(table.rows)} rows"
            log.add("warning", message, Cell(table.file, None, name))
        else:
            log.add("note", f"the column {name} is not read", Cell(table.file, None, name))
