"""CSV and TSV as records of cells: whether quotes enclose a cell or are part of its text, and what can't be known."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from evalkit.errors import EvalkitError
from evalkit.output.numbers import counted
from evalkit.tasks.findings import described

_QUOTED = re.compile(r'"((?:[^"]++|"")*+)"')
_SPACED_QUOTES = re.compile(r'\s+".*"\s*|".*"\s+', re.DOTALL)
_MEND = "; quote cells as RFC 4180 says, or save the rows as .jsonl"


class Record(NamedTuple):
    """A row's cells and the lines that it covers, counted from 1; `enclosed` are the cells that quotes enclose.

    `doubled`: each of them holds a quote, which is doubled there. `loose`: a cell that no quotes enclose holds one.
    """

    first_line: int
    last_line: int
    cells: list[str]
    enclosed: tuple[int, ...] = ()
    doubled: bool = False
    loose: bool = False


class _MalformedError(Exception):
    def __init__(self, line: int, problem: str) -> None:
        super().__init__(f"line {line}: {problem}")


def read_records(path: Path, text: str, separator: str, widths: Sequence[int] = ()) -> tuple[list[Record], list[str]]:
    """Return a file's records, without empty lines, and what to report about them.

    `widths` are the numbers of cells that a record may have; empty where the first one names the columns. CSV knows
    quotes. TSV is written both ways: MS MARCO, BEIR and TREC have none, pandas and `csv` enclose a cell in them. A TSV file is read
    with quotes where they are part of its header, of every cell, or of cells with a doubled quote and of no other, and where
    it can't be read without; else without. Numbers of cells are for the caller to check.

    Raises EvalkitError, naming the line, where quotes do not match, where both readings are possible, where a cell
    covers lines that may be rows, and for bytes that a text file does not hold.
    """
    _refuse_other_bytes(path, text)
    if '"' not in text:
        return _plain_records(text, separator), []
    try:
        quoted, problem = list(_quoted_records(text, separator)), None
    except _MalformedError as error:
        quoted, problem = [], error
    if separator == "," or (text.startswith('"') and not widths):
        if problem is not None:
            raise EvalkitError(f"{path}, {problem}{_MEND}") from problem
        _refuse_spaced_quotes(path, quoted)
        return quoted, _swallowed(path, text, quoted, separator, widths)
    plain = _plain_records(text, separator)
    if problem is not None or not _are_even(quoted, widths):
        return plain, _seemingly_enclosed(path, plain, problem)
    enclosing = [record for record in quoted if record.enclosed]
    if not _are_even(plain, widths) or all(len(record.enclosed) == len(record.cells) for record in quoted):
        return quoted, _swallowed(path, text, quoted, separator, widths)
    for record in enclosing:
        if not record.doubled or record.last_line > record.first_line:
            raise EvalkitError(
                f"{path}, line {record.first_line}: the quotes of {described(record.cells[record.enclosed[0]])} may enclose the "
                "cell or be part of its text: the file can be read both ways; save it as .jsonl, or enclose all cells in quotes"
            )
    return quoted, []


def _refuse_other_bytes(path: Path, text: str) -> None:
    for found, problem in (
        ("\0", "a zero byte, as in UTF-16 or a damaged file; save the file as UTF-8"),
        (
            "\n\ufeff",
            "a byte order mark inside the file, as if files were joined; take it out, and a second header with it",
        ),
    ):
        if found in text:
            line = text.count("\n", 0, text.index(found)) + 1 + found.count("\n")
            raise EvalkitError(f"{path}, line {line}: {problem}")


def _plain_records(text: str, separator: str) -> list[Record]:
    lines = enumerate(text.split("\n"), start=1)
    stripped = ((number, line.removesuffix("\r")) for number, line in lines)
    return [Record(number, number, line.split(separator)) for number, line in stripped if line]


def _quoted_records(text: str, separator: str) -> Iterator[Record]:
    """Yield the records of a text in which quotes enclose cells.

    Raises _MalformedError where they do not match, and in TSV where a quote stands inside a cell that no quotes enclose.
    """
    position, line = 0, 1
    while position < len(text):
        end = text.find("\n", position)
        end = len(text) if end < 0 else end
        if '"' not in text[position:end]:
            content = text[position:end].removesuffix("\r")
            if content:
                yield Record(line, line, content.split(separator))
            position, line = end + 1, line + 1
            continue
        cells: list[str] = []
        enclosed: list[int] = []
        first_line, doubled, loose = line, True, False
        while True:
            if text.startswith('"', position):
                found = _QUOTED.match(text, position)
                if found is None:
                    raise _MalformedError(line, "the quote that opens a cell is never closed")
                enclosed.append(len(cells))
                doubled &= '"' in found[1]
                cells.append(found[1].replace('""', '"'))
                opened, line, position = line, line + found[1].count("\n"), found.end()
                end = text.find("\n", position)
                end = len(text) if end < 0 else end
                if not _ends_cell(text, position, separator):
                    where = (
                        f"the quote that opens a cell is closed in line {line}"
                        if line > opened
                        else "a cell's closing quote"
                    )
                    raise _MalformedError(opened, f"{where} stands before further text")
            else:
                stop = min(at for at in (text.find(separator, position, end), end) if at >= 0)
                cells.append(text[position:stop])
                position, loose = stop, loose or '"' in cells[-1]
                if loose and separator == "\t":
                    raise _MalformedError(line, "a quote stands inside a cell that no quotes enclose")
            if not text.startswith(separator, position):
                break
            position += 1
        cells[-1] = cells[-1] if len(cells) - 1 in enclosed else cells[-1].removesuffix("\r")
        yield Record(first_line, line, cells, tuple(enclosed), doubled, loose)
        position, line = text.find("\n", position) + 1 or len(text), line + 1


def _ends_cell(text: str, position: int, separator: str) -> bool:
    rest = text[position : position + 2]
    return not rest or rest[0] in (separator, "\n") or rest in ("\r\n", "\r")


def _are_even(records: Sequence[Record], widths: Sequence[int]) -> bool:
    """Return whether all records have the number of cells that is due: one of `widths`, or what the first has."""
    due = widths or [len(record.cells) for record in records[:1]]
    return all(len(record.cells) in due for record in records)


def _refuse_spaced_quotes(path: Path, records: Sequence[Record]) -> None:
    for record in records:
        for index, cell in enumerate(record.cells if record.loose else ()):
            if index not in record.enclosed and _SPACED_QUOTES.fullmatch(cell):
                raise EvalkitError(
                    f"{path}, line {record.first_line}: blanks around the quotes of {described(cell)}, which make the quotes part "
                    "of its text; take the blanks out"
                )


def _swallowed(path: Path, text: str, records: Sequence[Record], separator: str, widths: Sequence[int]) -> list[str]:
    """Return what to report of cells whose lines may be rows; raise EvalkitError where they are likely to be."""
    long = [record for record in records if record.last_line > record.first_line]
    if not long:
        return []
    loose = next((record for record in records if record.loose), None)
    if loose is not None:
        raise EvalkitError(
            f"{path}, line {long[0].first_line}: a cell in quotes goes on to line {long[0].last_line}, but in line "
            f"{loose.first_line} a quote stands inside a cell without quotes: rows may be lost in between{_MEND}"
        )
    lines = text.split("\n")
    due = widths or (len(records[0].cells),)
    doubtful = []
    for record in long:
        first, *others = (line.count(separator) + 1 in due for line in lines[record.first_line - 1 : record.last_line])
        # tabs are rare in texts; commas are not, and who doubles a quote knows what quotes enclose
        knows_quotes = any('"' in record.cells[index] for index in record.enclosed)
        likely = any(others) if separator == "\t" else all(others) and not knows_quotes
        if max(due) > 1 and first and likely:
            doubtful.append(record)
    if not doubtful:
        return []
    found = doubtful[0]
    if separator == "\t" or _are_even(_plain_records(text, separator), widths):
        raise EvalkitError(
            f"{path}, line {found.first_line}: a cell in quotes goes on to line {found.last_line}, and these lines could each be a "
            "row, if the quotes are part of texts; save the rows as .jsonl"
        )
    return [
        f"{len(doubtful)} of {counted(len(records) - (not widths), 'row')} hold a cell whose lines could each be a row, first in "
        f"lines {found.first_line} to {found.last_line}: each is read as one cell, as its quotes say"
    ]


def _seemingly_enclosed(path: Path, records: Sequence[Record], problem: Exception | None) -> list[str]:
    """Return what to report of cells that a writer who quotes seems to have written, in a file that is read without quotes.

    Raises EvalkitError where they are as many as the cells that speak against quotes: a row of quoted cells may be damaged.
    """
    cells = [(record, cell) for record in records for cell in record.cells if '"' in cell]
    enclosed = [record for record, cell in cells if '""' in cell and _QUOTED.fullmatch(cell)]
    against = sum(_QUOTED.fullmatch(cell) is None for _, cell in cells)
    if not enclosed:
        return []
    said = (
        f"{counted(len(enclosed), 'cell')} in quotes with doubled quotes inside, first in line {enclosed[0].first_line}"
    )
    if len(enclosed) >= against:
        why = str(problem) if problem is not None else "with quotes, the rows have different numbers of cells"
        raise EvalkitError(f"{path}, {why}; but the file has {said}{_MEND}")
    return [f"{said}, but most quotes of the file enclose no cells: all are read as part of the text"]
