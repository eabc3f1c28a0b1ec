"""Runs on disk: scores by query and document, as a TREC run, JSON (or mteb's predictions) or parquet (`*.run.parquet`)."""

from __future__ import annotations

import hashlib
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evalkit.errors import EvalkitError
from evalkit.output.files import similar_path
from evalkit.output.numbers import number_in
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
    """Read a run: `.json` ({query_id: {doc_id: score}}, or mteb 2's predictions), `.parquet`, or else TREC's six columns.

    Each may be packed (`.gz`). `setting` is what named the file, for messages. Raises EvalkitError for a wrong shape, a score
    that is no finite number, a document scored twice, ranks that contradict the scores, and a refined run's parquet, whose scores
    are of two precisions.
    """
    if not path.is_file():
        raise EvalkitError(f"{setting}={path}: there is no such file{similar_path(str(path))}")
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if suffix in (".jsonl", ".csv", ".tsv"):
        raise EvalkitError(
            f"{setting}={path}: a run is .json ({{query_id: {{doc_id: score}}}}), .parquet, or TREC's six columns"
        )
    table = None
    try:
        content = _content(path)
        if suffix == ".json":
            run = _without_names(path, _read_json(path, content))
        else:
            table = _read_table(path, content, suffix)
            run = _run_of(table)
    except (ValueError, OSError, RecursionError) as error:
        raise EvalkitError(f"{path} is not a TREC run, JSON or parquet: {str(error).splitlines()[0]}") from error
    run = _checked(path, run)
    if table is not None:
        _refuse_contradicting_ranks(path, table)
        if suffix == ".parquet" and "refined" in table:
            raise EvalkitError(
                f"{setting}={path}: its scores are of two precisions (refine=fp32), of which only the order between candidates of "
                "different gain is fp32's; take the run of one precision"
            )
    return RunFile(path, run, hashlib.sha256(content).hexdigest(), table)


def _content(path: Path) -> bytes:
    import pyarrow as pa

    packing = "gzip" if path.name.lower().endswith(".gz") else None
    with path.open("rb") as file, pa.input_stream(file, compression=packing) as stream:
        content: bytes = stream.read()
    return content


def _without_names(path: Path, content: object) -> object:
    """Return the run in mteb 2's predictions, which name a model, a subset and a split; anything else as it is."""
    if not isinstance(content, dict) or "mteb_model_meta" not in content:
        return content
    found = [
        (f"{subset} {split}", run)
        for subset, splits in content.items()
        if subset != "mteb_model_meta" and isinstance(splits, dict)
        for split, run in splits.items()
    ]
    if len(found) != 1:
        names = ", ".join(name for name, _ in found) or "none"
        raise EvalkitError(
            f"{path}: mteb's predictions of one subset and split are due, and it has {names}; write that one alone, as "
            "{query_id: {doc_id: score}}"
        )
    return found[0][1]


def _read_json(path: Path, content: bytes) -> object:
    def refuse_repetition(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise EvalkitError(f"{path}: {twice!r} is given twice; each query and each of its documents has one place")
        return found

    return json.loads(content.decode("utf-8"), object_pairs_hook=refuse_repetition)


def _read_table(path: Path, content: bytes, suffix: str) -> pd.DataFrame:
    import pandas as pd

    table = pd.read_parquet(io.BytesIO(content)) if suffix == ".parquet" else _trec_table(path, content)
    if table.columns.has_duplicates:
        twice = table.columns[table.columns.duplicated()][0]
        raise EvalkitError(f"{path} has the column {twice!r} more than once; keep one")
    lacking = {"query_id", "doc_id", "score"} - set(table.columns)
    if lacking:
        raise EvalkitError(
            f"{path} lacks the columns {', '.join(sorted(lacking))}; it has {', '.join(map(str, table.columns))}"
        )
    repeated = table.duplicated(["query_id", "doc_id"])
    if repeated.any():
        row = int(np.argmax(repeated.to_numpy()))
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
    """Return the six columns; ids such as `NA` and `007` stay as they are, and a score that is no number stays text."""
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
    """Return a finite number, or the text as it stands."""
    number = number_in(text)
    return text if number is None else number


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


def _refuse_contradicting_ranks(path: Path, table: pd.DataFrame) -> None:
    """Raise EvalkitError where a query's document has a better rank than one with a higher score: one of the two is wrong.

    Ranks of which none is a number are ignored, as trec_eval ignores all; one among numbers is refused.
    """
    import pandas as pd

    if "rank" not in table.columns:
        return
    ranks = pd.Series([_rank(value) for value in table["rank"]], dtype=float)
    if ranks.isna().all():
        return
    if ranks.isna().any():
        row = int(np.argmax(ranks.isna().to_numpy()))
        raise EvalkitError(
            f"{path}, row {row + 1}: the rank {table['rank'].iloc[row]!r} is no number, though others are"
        )
    order = pd.DataFrame({"query": table["query_id"].astype(str), "rank": ranks, "score": table["score"].astype(float)})
    order = order.sort_values(["query", "rank", "score"], ascending=[True, True, False], kind="stable")
    # the lowest score of the better ranks: documents of one rank are not compared with each other
    lowest = (
        order.groupby(["query", "rank"])["score"].min().groupby(level="query").cummin().groupby(level="query").shift()
    )
    best = order.groupby(["query", "rank"])["score"].max()
    wrong = best[best > lowest]
    if wrong.empty:
        return
    query_id, rank = wrong.index[0]
    queries = wrong.index.get_level_values("query").nunique()
    raise EvalkitError(
        f"{path}: query {query_id!r} has at rank {rank:g} a higher score than at a better rank ({queries} of "
        f"{order['query'].nunique()} queries are so): ranks and scores contradict each other. Runs are read by their scores, the "
        "higher the better; write scores that fall with the rank (distances: their negative), or rank 0 throughout"
    )


def _rank(value: object) -> float:
    number = number_in(value) if isinstance(value, str) else value
    return float(number) if _is_finite(number) else math.nan  # type: ignore[arg-type]


def _is_finite(score: object) -> bool:
    if isinstance(score, bool) or not isinstance(score, int | float | np.number):
        return False
    try:
        return math.isfinite(score)
    except OverflowError:  # an integer beyond any float
        return False
