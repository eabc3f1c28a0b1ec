"""Data files of every known type as tables of plain Python values."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from evalkit.errors import EvalkitError
from evalkit.tasks.delimited import read_records
from evalkit.tasks.findings import described

Row = Mapping[str, Any]

# columns that may hold lists, under all names that `layouts/columns.py` reads; in CSV such a cell is a JSON list, or one text
_LIST_COLUMN = re.compile(
    r"(pos|positives?|(hard[._ -]?)?(neg|negatives?))([._ ]?\d+)?|documents?|passages?|docs?|texts|answers?"
    r"|labels?|scores?|relevances?|gains?",
    re.IGNORECASE,
)
_LABEL_COLUMN = re.compile(r"labels?|scores?|relevances?|gains?", re.IGNORECASE)
_QUERY_COLUMN = re.compile(r"query|question|anchor|sentence1|text1", re.IGNORECASE)
_IDS_COLUMN = "corpus-ids"
# how JSON, Python and numpy print lists and tuples of texts
_LIST_NOTATION = re.compile(
    r"""\s*(\[\s*\]|\[\s*['"].*\]|\(\s*['"].*['"],?\s*\)|\{\s*('[^']*'|"[^"]*")\s*(,.*)?\}"""
    r"""|(array|list)\(.*\)|(set|frozenset|tuple|deque)\(\s*[\[({].*\))\s*""",
    re.DOTALL,
)
_PACKED = ".gz"
_PEEKED_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of one file: `numbers[i]` is what people call row i (counted from 1; in JSON Lines the line).

    `remarks` are what is to be reported about how the file was read.
    """

    file: str
    columns: tuple[str, ...]
    rows: Sequence[Row]
    numbers: Sequence[int]
    remarks: Sequence[str] = ()


def read_table(path: Path) -> Table:
    """Read one data file; EvalkitError says which file (and line) is not what its name promises."""
    reader = READERS.get(data_suffix(path).removesuffix(_PACKED))
    if reader is None:
        known = ", ".join(READERS)
        raise EvalkitError(
            f"{path}: unknown file type; known are {known}, each also as {_PACKED}, and folders of such files"
        )
    try:
        return reader(path)
    except OSError as error:
        raise EvalkitError(f"{path} cannot be read: {error.strerror or error}") from error


def data_suffix(path: Path) -> str:
    """Return a file's type in small letters, with `.gz` where it is packed: `.jsonl`, `.jsonl.gz`."""
    name = path.name.lower()
    packed = _PACKED if name.endswith(_PACKED) else ""
    return Path(name.removesuffix(_PACKED)).suffix + packed


def data_stem(path: Path) -> str:
    """Return a file's name without its type: `train` of `train.jsonl.gz`."""
    return path.name[: len(path.name) - len(data_suffix(path))]


def table_of(file: str, rows: Sequence[Row], numbers: Sequence[int] | None = None) -> Table:
    """Return a table of rows that are already in memory; its columns are all keys that any row has."""
    columns = tuple(dict.fromkeys(key for row in rows for key in row))
    return Table(file, columns, rows, range(1, len(rows) + 1) if numbers is None else numbers)


def read_text(path: Path) -> str:
    """Return a text file's content; a `.gz` is unpacked. Old Macs' line ends (CR alone) become LF.

    Raises EvalkitError where it is not UTF-8.
    """
    content = _content(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise EvalkitError(f"{path}, row {line}: not UTF-8 ({error.reason}); save the file as UTF-8") from error
    return text if "\n" in text else text.replace("\r", "\n")


def peeked_columns(path: Path) -> tuple[str, ...]:
    """Return the names that seem to be a data file's columns, from its beginning alone."""
    try:
        if data_suffix(path) == ".parquet":
            with path.open("rb") as file:
                return tuple(pq.read_schema(file).names)
        with path.open("rb") as file, pa.input_stream(file, compression="gzip" if _is_packed(path) else None) as stream:
            head: str = stream.read(_PEEKED_BYTES).decode("utf-8-sig", errors="replace")
    except (pa.ArrowException, OSError) as error:
        raise EvalkitError(f"{path} is no readable {data_suffix(path)[1:]} file: fetch or write it again") from error
    if data_suffix(path).startswith((".csv", ".tsv")):
        return tuple(name.strip('"') for name in re.split(r"[,\t]", head.split("\n", 1)[0].strip()))
    return tuple(dict.fromkeys(re.findall(r'"([^"\\]{1,40})"\s*:', head)))


def looks_like_list(text: str) -> bool:
    """Return whether a text is how JSON, Python or numpy print a list or a tuple of texts."""
    return _LIST_NOTATION.fullmatch(text) is not None


def _read_parquet(path: Path) -> Table:
    try:
        with pq.ParquetFile(path if not _is_packed(path) else pa.BufferReader(_content(path))) as file:
            _refuse_repetition(str(path), file.schema_arrow.names)
            table = file.read()
        return Table(str(path), tuple(table.column_names), table.to_pylist(), range(1, table.num_rows + 1))
    except (pa.ArrowException, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise EvalkitError(f"{path} is no readable parquet file ({reason}): fetch or write it again") from error


def _refuse_repetition(where: str, names: Iterable[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise EvalkitError(
            f"{where} has the column {twice[0]!r} more than once, and one would hide the other: give each a name of its own, "
            f"such as {twice[0]}_1 and {twice[0]}_2"
        )


def _no_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice!r} is given twice in one object, and one would hide the other")
    return found


def _parsed(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_no_repeated_keys)


def _read_jsonl(path: Path) -> Table:
    return _json_lines(path, read_text(path))


def _json_lines(path: Path, text: str) -> Table:
    rows, numbers = [], []
    # not splitlines(): it also breaks at U+2028 and others, which may stand inside a JSON string
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append(_object(path, number, _parsed(line)))
        except (ValueError, RecursionError) as error:
            raise EvalkitError(f"{path}, row {number}: {_json_problem(error)}; each line must be one object") from error
        numbers.append(number)
    return table_of(str(path), rows, numbers)


def _json_problem(error: Exception) -> str:
    wrong_syntax = isinstance(error, json.JSONDecodeError | RecursionError)
    return f"not JSON ({error})" if wrong_syntax else str(error)


def _read_json(path: Path) -> Table:
    """Return an array of rows, `{"data": [rows]}`, what pandas writes (orient), or JSON Lines under a .json name."""
    text = read_text(path)
    try:
        content = _parsed(text)
    except (ValueError, RecursionError) as error:
        first_line = text.lstrip().split("\n", 1)[0].strip()
        if isinstance(error, json.JSONDecodeError) and first_line.startswith("{") and first_line.endswith("}"):
            return _json_lines(path, text)
        line = f", row {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise EvalkitError(f"{path}{line}: {_json_problem(error)}; it must hold an array of objects") from error
    rows = _rows_of(path, content) if isinstance(content, dict) else content
    if not isinstance(rows, list):
        raise EvalkitError(f"{path} holds {described(rows)}; it must hold an array of objects")
    return table_of(str(path), [_object(path, number, row) for number, row in enumerate(rows, start=1)])


def _rows_of(path: Path, content: Mapping[str, Any]) -> Any:
    """Return the rows in an object: one row, rows under `data`, or a frame of pandas (orient split, table, columns or index)."""
    data, columns = content.get("data"), content.get("columns")
    if isinstance(data, list) and isinstance(columns, list):
        _refuse_repetition(str(path), map(str, columns))
        if any(not isinstance(cells, list) or len(cells) != len(columns) for cells in data):
            raise EvalkitError(
                f"{path}: rows under `data` that do not have the {len(columns)} cells that `columns` names"
            )
        return [dict(zip(map(str, columns), cells, strict=True)) for cells in data]
    if isinstance(data, list):
        return data
    values = list(content.values())
    if not values or not all(isinstance(value, dict) for value in values):
        lists = [value for value in values if isinstance(value, list)]
        # a frame's columns, as df.to_dict('list') gives them: of one length, or with lists in them
        if 1 < len(values) == len(lists) and (
            (len(lists[0]) > 1 and len(set(map(len, lists))) == 1)
            or any(isinstance(one, list) for value in lists for one in value)
        ):
            raise EvalkitError(
                f"{path} holds columns instead of rows; write rows, as df.to_json(orient='records') does"
            )
        return [content]
    if any(values[0].keys() != value.keys() for value in values):
        raise EvalkitError(
            f"{path} holds objects of different keys ({', '.join(list(content)[:4])}, …); write an array of rows, as "
            "df.to_json(orient='records') does"
        )
    if any(_QUERY_COLUMN.fullmatch(name) or name in ("id", "_id", "query-id") for name in content):
        return [{name: cells[index] for name, cells in content.items()} for index in values[0]]
    return values


def _object(path: Path, number: int, value: Any) -> Row:
    if not isinstance(value, dict):
        raise EvalkitError(
            f"{path}, row {number}: {described(value)} where an object such as "
            '{"query": …, "positive": […], "negative": […]} is due'
        )
    return value


def _is_packed(path: Path) -> bool:
    return path.name.lower().endswith(_PACKED)


def _content(path: Path) -> bytes:
    with path.open("rb") as file, pa.input_stream(file, compression="gzip" if _is_packed(path) else None) as stream:
        content: bytes = stream.read()
    return content


def _read_csv(path: Path) -> Table:
    separator = "\t" if data_suffix(path).startswith(".tsv") else ","
    records, remarks = read_records(path, read_text(path), separator)
    if not records:
        raise EvalkitError(f"{path} is empty; its first line must name the columns")
    columns = tuple(records[0].cells)
    _refuse_repetition(str(path), columns)
    _refuse_other_separators(path, columns, separator)
    rows = []
    names = sorted(name.strip().casefold() for name in columns)
    for number, record in enumerate(records[1:], start=1):
        if len(record.cells) != len(columns):
            raise EvalkitError(
                f"{path}, row {number} (line {record.first_line}): {len(record.cells)} cells where the header names {len(columns)} "
                "columns; quote cells that hold separators"
            )
        if sorted(cell.strip().casefold() for cell in record.cells) == names:
            raise EvalkitError(
                f"{path}, row {number} (line {record.first_line}) is the header again, as if files were joined; take it out"
            )
        cells = zip(columns, record.cells, strict=True)
        rows.append({column: _csv_cell(path, number, column, cell) for column, cell in cells})
    for column in columns:
        _even_out(path, rows, column)
    return Table(str(path), columns, rows, range(1, len(rows) + 1), remarks)


def _refuse_other_separators(path: Path, columns: Sequence[str], separator: str) -> None:
    """Raise EvalkitError where the header is one name that others separate: Excel writes `;` where a comma is for decimals."""
    names = {"\t": "tabs", ",": "commas", ";": "semicolons"}
    for other in names:
        if len(columns) == 1 and other != separator and other in columns[0]:
            raise EvalkitError(
                f"{path}: its header is separated by {names[other]}, where {names[separator]} are due in a "
                f"{data_suffix(path)} file; save it with {names[separator]}"
                + (", or call it .tsv" if other == "\t" else "")
            )


def _csv_cell(path: Path, row: int, column: str, cell: str) -> Any:
    # a list as Python or numpy prints it would pass for one long text
    if _LABEL_COLUMN.fullmatch(column):
        is_list = cell.startswith("[")
    else:
        read = column == _IDS_COLUMN or _LIST_COLUMN.fullmatch(column) or _QUERY_COLUMN.fullmatch(column)
        is_list = bool(read) and looks_like_list(cell)
    return _json_list(path, row, column, cell) if is_list else cell


def _even_out(path: Path, rows: list[dict[str, Any]], column: str) -> None:
    """Make a column hold lists alone where one of its cells is a list; an empty cell is an empty list, a text a list of one."""
    if column == _IDS_COLUMN or (_LIST_COLUMN.fullmatch(column) and any(isinstance(row[column], list) for row in rows)):
        for number, row in enumerate(rows, start=1):
            cell = row[column]
            if isinstance(cell, str) and cell.lstrip().startswith("[") and cell.rstrip().endswith("]"):
                _json_list(path, number, column, cell)
            if not isinstance(cell, list):
                row[column] = [cell] if cell else []


def _json_list(path: Path, row: int, column: str, cell: str) -> Any:
    try:
        return json.loads(cell)
    except (ValueError, RecursionError) as error:
        raise EvalkitError(
            f"{path}, row {row}, column {column}: {described(cell)} is no JSON list; write lists as json.dumps does"
        ) from error


READERS: Mapping[str, Callable[[Path], Table]] = {
    ".parquet": _read_parquet,
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_csv,
}
