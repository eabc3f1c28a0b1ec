"""Checks of single cells, shared by both layouts. Each returns a usable value even where it notes an error."""

from __future__ import annotations

from decimal import Decimal
from numbers import Real
from typing import Any

from evalkit.output.numbers import number_in
from evalkit.tasks.findings import Cell, FindingLog, described
from evalkit.tasks.tables import Table, looks_like_list

_HIGHEST_GAIN = 2**31 - 1  # what trec_eval holds
_TRUTHS = {"true": 1, "false": 0}


class TextReader:
    """Reads texts out of cells; equal texts become one string in memory, however often the dataset repeats them."""

    def __init__(self, log: FindingLog) -> None:
        self._log = log
        self._known: dict[str, str] = {}

    def text(self, value: Any, cell: Cell) -> str:
        """Return a text; note what is not text (error) and what has no characters but white space (warning)."""
        if not isinstance(value, str):
            mend = "; give the text that is in it" if isinstance(value, dict) else ""
            self._log.add("error", f"{described(value)} where a text is due{mend}", cell)
            return ""
        if value not in self._known and not _is_encodable(value):
            self._log.add("error", f"{described(value)} holds half a surrogate pair, which is no character", cell)
            return ""
        if not value or value.isspace():
            self._log.add("warning", "empty text", cell)
        return self._known.setdefault(value, value)

    def texts(self, value: Any, cell: Cell) -> tuple[str, ...]:
        """Return a list of texts."""
        if not isinstance(value, list):
            self._log.add("error", f"{described(value)} where a list of texts is due", cell)
            return ()
        return tuple(self.text(item, cell) for item in value)

    def passages(self, value: Any, cell: Cell) -> tuple[str, ...]:
        """Return a list of texts, of which some may be objects: their title, a space and their text, stripped."""
        if not isinstance(value, list):
            return self.texts(value, cell)
        return tuple(self.text(self._passage(item, cell), cell) for item in value)

    def _passage(self, item: Any, cell: Cell) -> Any:
        if not isinstance(item, dict) or not isinstance(item.get("text"), str):
            return item
        title = item.get("title")
        if title is None or title == "":
            return item["text"].strip()
        self._log.add("note", "a document is its title, a space and its text, as in Tevatron", cell)
        return f"{self.text(title, cell)} {item['text']}".strip()

    def texts_in_cell(self, value: Any, cell: Cell) -> tuple[str, ...]:
        """Return the one text of a cell, or nothing for an empty one; note what seems to be a list (error)."""
        if value == "":
            return ()
        if isinstance(value, str) and looks_like_list(value):
            self._log.add(
                "error", f"{described(value)} is a list written as text; give a list, or one text a row", cell
            )
        return (self.text(value, cell),)

    def query(self, value: Any, cell: Cell) -> tuple[str, ...]:
        """Return a text, or a list of them with at least one."""
        if isinstance(value, list) and value:
            return self.texts(value, cell)
        if isinstance(value, str) and looks_like_list(value) and value.strip("[]() \n"):
            self._log.add("warning", "a query that seems to be a list written as text: it is read as one text", cell)
        return (self.text(value, cell),)


def identifier(value: Any, cell: Cell, log: FindingLog) -> str:
    """Return an id as text; whole numbers are taken as mteb takes them."""
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        log.add("error", f"{described(value)} where an id is due", cell)
        return ""
    return str(value)


def gain_of(value: Any, cell: Cell, log: FindingLog, *, in_qrels: bool = False) -> int:
    """Return a graded relevance, a whole number from 0; note an error for anything else.

    True and false, also as texts, are 1 and 0. In qrels negative grades are 0, with a warning, as trec_eval counts them.
    """
    text = str(value) if isinstance(value, Real | Decimal | str) else ""
    truth = _TRUTHS.get(text.strip().lower())
    if truth is not None:
        return truth
    number = number_in(text)
    if number is None or not number.is_integer() or abs(number) > _HIGHEST_GAIN:
        log.add("error", f"{described(value)} where a whole number is due: 0 for irrelevant, 1 or a higher grade", cell)
        return 0
    if number < 0 and in_qrels:
        log.add("warning", "negative grade: read as 0, not relevant, as trec_eval counts it", cell)
    elif number < 0:
        log.add("error", f"negative relevance {number:.0f}; write 0 for what is irrelevant", cell)
    return max(int(number), 0)


def require_columns(table: Table, columns: tuple[str, ...], log: FindingLog) -> None:
    """Note an error for each column that a table lacks; `a|b` stands for either name."""
    if not table.columns and not table.rows:
        log.add("error", "there is nothing in it", Cell(table.file))
        return
    found = ", ".join(table.columns) or "none"
    for column in columns:
        if not set(column.split("|")) & set(table.columns):
            name = column.replace("|", " or ")
            log.add("error", f"there is no column {name}; the columns are: {found}", Cell(table.file))


def require_rows(tables: tuple[Table, ...], log: FindingLog) -> None:
    """Note an error where a part of the dataset has no rows at all."""
    if not any(table.rows for table in tables):
        log.add("error", "there are no rows", Cell(tables[0].file))


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
