"""Runs on disk: scores by query and document, as a TREC run, JSON or parquet (such as evalkit's own `*.run.parquet`)."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evalkit.errors import EvalkitError
from evalkit.output.files import similar_path
from evalkit.records import RunDict

if TYPE_CHECKING:
    import pandas as pd

TREC_COLUMNS = ["query_id", "q0", "doc_id", "rank", "score", "tag"]


@dataclass(frozen=True, eq=False)
class RunFile:
    """A run as read: `run` holds its scores in the file's order; `digest` is the content's SHA-256 in hex."""

    path: Path
    run: RunDict
    digest: str
    table: pd.DataFrame | None = None

    def row_of(self, query_id: str, doc_id: str | None = None) -> int | None:
        """In which row, counted from 1, a query or its document first stands; None for JSON, which has no rows."""
        if self.table is None:
            return None
        found = self.table["query_id"].astype(str) == query_id
        if doc_id is not None:
            found &= self.table["doc_id"].astype(str) == doc_id
        return int(np.argmax(found.to_numpy())) + 1


def read_run(path: Path, setting: str = "model.path") -> RunFile:
    """Read a run: `.json` ({query_id: {doc_id: score}}), `.parquet`, or else TREC's six columns.

    `setting` is what named the file, for messages. Raises EvalkitError for a wrong shape, a score that is no finite number,
    and a document scored twice.
    """
    if not path.is_file():
        raise EvalkitError(f"{setting}={path}: there is no such file{similar_path(str(path))}")
    if path.suffix in (".jsonl", ".csv", ".tsv"):
        raise EvalkitError(
            f"{setting}={path}: a run is .json ({{query_id: {{doc_id: score}}}}), .parquet, or TREC's six columns"
        )
    table = None
    try:
        content = path.read_bytes()
        if path.suffix == ".json":
            run = _read_json(path, content)
        else:
            table = _read_table(path, content)
            run = _run_of(table)
    except (ValueError, OSError, RecursionError) as error:
        raise EvalkitError(f"{path} is not a TREC run, JSON or parquet: {str(error).splitlines()[0]}") from error
    return RunFile(path, _checked(path, run), hashlib.sha256(content).hexdigest(), table)


def _read_json(path: Path, content: bytes) -> object:
    def refuse_repetition(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise EvalkitError(f"{path}: {twice!r} is given twice; each query and each of its documents has one place")
        return found

    return json.loads(content.decode("utf-8"), object_pairs_hook=refuse_repetition)


def _read_table(path: Path, content: bytes) -> pd.DataFrame:
    import pandas as pd

    table = pd.read_parquet(path) if path.suffix == ".parquet" else _trec_table(path, content)
    lacking = {"query_id", "doc_id", "score"} - set(table.columns)
    if lacking:
        raise EvalkitError(
            f"{path} lacks the columns {', '.join(sorted(lacking))}; it has {', '.join(map(str, table.columns))}"
        )
    twice = table.duplicated(["query_id", "doc_id"])
    if twice.any():
        row = int(np.argmax(twice.to_numpy()))
        raise EvalkitError(
            f"{path}, row {row + 1}: document {table['doc_id'].iloc[row]!r} is scored twice for one query"
        )
    return table


def _run_of(table: pd.DataFrame) -> RunDict:
    run: dict[str, dict[str, float]] = {}
    for query_id, doc_id, score in zip(table["query_id"], table["doc_id"], table["score"], strict=True):
        run.setdefault(str(query_id), {})[str(doc_id)] = score
    return run


def _trec_table(path: Path, content: bytes) -> pd.DataFrame:
    """The six columns; ids such as `NA` and `007` stay as they are, and a score that is no number stays text."""
    import pandas as pd

    rows: list[list[object]] = []
    for number, line in enumerate(content.decode("utf-8-sig").encode().split(b"\n"), start=1):
        fields = [field.decode() for field in line.split()]  # of bytes: an id may hold white space that is not ASCII
        if not fields:
            continue
        if len(fields) != len(TREC_COLUMNS):
            raise EvalkitError(
                f"{path}, row {number}: {len(fields)} fields where TREC's {len(TREC_COLUMNS)} are due: query_id Q0 doc_id rank "
                "score tag"
            )
        rows.append(
            [_number(field) if name == "score" else field for name, field in zip(TREC_COLUMNS, fields, strict=True)]
        )
    return pd.DataFrame(rows, columns=TREC_COLUMNS, dtype=object)


def _number(text: str) -> float | str:
    """A finite number, or the text as it stands."""
    try:
        number = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        return text
    return number if math.isfinite(number) else text


def _checked(path: Path, run: object) -> RunDict:
    if not run:
        raise EvalkitError(f"{path} holds no scores")
    if not isinstance(run, dict) or not all(isinstance(found, dict) for found in run.values()):
        raise EvalkitError(f'{path} is not an object of the form {{"query id": {{"document id": score}}}}')
    for query_id, found in run.items():
        for doc_id, score in found.items():
            if not _is_finite(score):
                raise EvalkitError(
                    f"{path}: query {query_id!r}, document {doc_id!r} has the score {score!r}, not a finite number"
                )
    return run


def _is_finite(score: object) -> bool:
    if isinstance(score, bool) or not isinstance(score, int | float | np.number):
        return False
    try:
        return math.isfinite(score)
    except OverflowError:  # an integer beyond any float
        return False
