"""Data files of every known type as tables of plain Python values."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from evalkit.errors import EvalkitError
from evalkit.tasks.findings import described

Row = Mapping[str, Any]

# columns that hold lists; in CSV each of their cells is a JSON list, or one text
_LIST_COLUMNS = ("positive", "negative", "corpus-ids")


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of one file: `numbers[i]` is what people call row i (counted from 1; in JSON Lines the line)."""

    file: str
    columns: tuple[str, ...]
    rows: Sequence[Row]
    numbers: Sequence[int]


def read_table(path: Path) -> Table:
    """Read one data file; EvalkitError says which file (and line) is not what its name promises."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise EvalkitError(f"{path}: unknown file type; known are {', '.join(READERS)}, and folders of such files")
    try:
        return reader(path)
    except OSError as error:
        raise EvalkitError(f"{path} cannot be read: {error.strerror or error}") from error


def table_of(file: str, rows: Sequence[Row], numbers: Sequence[int] | None = None) -> Table:
    """Return a table of rows that are already in memory; its columns are all keys that any row has."""
    columns = tuple(dict.fromkeys(key for row in rows for key in row))
    return Table(file, columns, rows, range(1, len(rows) + 1) if numbers is None else numbers)


def _read_parquet(path: Path) -> Table:
    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
        return Table(str(path), tuple(table.column_names), table.to_pylist(), range(1, table.num_rows + 1))
    except (pa.ArrowException, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise EvalkitError(f"{path} is no readable parquet file ({reason}): fetch or write it again") from error


def _read_jsonl(path: Path) -> Table:
    return _json_lines(path, _text(path))


def _json_lines(path: Path, text: str) -> Table:
    rows, numbers = [], []
    # not splitlines(): it also breaks at U+2028 and others, which may stand inside a JSON string
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append(_object(path, number, json.loads(line)))
        except (ValueError, RecursionError) as error:
            raise EvalkitError(f"{path}, row {number}: not JSON ({error}); each line must be one object") from error
        numbers.append(number)
    return table_of(str(path), rows, numbers)


def _read_json(path: Path) -> Table:
    """Return an array of rows, `{"data": [rows]}`, or JSON Lines under a .json name."""
    text = _text(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        first_line = text.lstrip().split("\n", 1)[0].strip()
        if first_line.startswith("{") and first_line.endswith("}"):
            return _json_lines(path, text)
        line = f", row {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise EvalkitError(f"{path}{line}: not JSON ({error}); it must hold an array of objects") from error
    if isinstance(content, dict):
        content = content["data"] if isinstance(content.get("data"), list) else [content]
    if not isinstance(content, list):
        raise EvalkitError(f"{path} holds {described(content)}; it must hold an array of objects")
    return table_of(str(path), [_object(path, number, row) for number, row in enumerate(content, start=1)])


def _object(path: Path, number: int, value: Any) -> Row:
    if not isinstance(value, dict):
        raise EvalkitError(
            f"{path}, row {number}: {described(value)} where an object such as "
            '{"query": …, "positive": […], "negative": […]} is due'
        )
    return value


def _text(path: Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise EvalkitError(f"{path}, row {line}: not UTF-8 ({error.reason}); save the file as UTF-8") from error


def _read_csv(path: Path) -> Table:
    records = _csv_records(path, "\t" if path.suffix.lower() == ".tsv" else ",")
    if not records:
        raise EvalkitError(f"{path} is empty; its first line must name the columns")
    columns = tuple(records[0])
    rows = []
    for number, record in enumerate(records[1:], start=1):
        if len(record) != len(columns):
            raise EvalkitError(
                f"{path}, row {number}: {len(record)} cells where the header names {len(columns)} columns; "
                "quote cells that hold separators"
            )
        cells = zip(columns, record, strict=True)
        rows.append({column: _csv_cell(path, number, column, cell) for column, cell in cells})
    return Table(str(path), columns, rows, range(1, len(rows) + 1))


def _csv_records(path: Path, separator: str) -> list[list[str]]:
    lines = io.StringIO(_text(path), newline="")
    # the default limit of 128 KiB is less than a cell with a thousand passages
    previous_limit = csv.field_size_limit(2**31 - 1)
    try:
        return [record for record in csv.reader(lines, delimiter=separator, strict=True) if record]
    except csv.Error as error:
        raise EvalkitError(
            f"{path} is no readable {path.suffix[1:].upper()}: {error}; quote cells as RFC 4180 says"
        ) from error
    finally:
        csv.field_size_limit(previous_limit)


def _csv_cell(path: Path, row: int, column: str, cell: str) -> Any:
    if column not in _LIST_COLUMNS:
        is_list = column == "query" and cell.startswith('["') and cell.endswith("]")
        return _json_list(path, row, column, cell) if is_list else cell
    if not cell:
        return []
    # a list as Python or numpy prints it would pass for one long text
    is_list = cell.startswith(('["', "['", "[]")) and cell.endswith("]")
    return _json_list(path, row, column, cell) if is_list else [cell]


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
