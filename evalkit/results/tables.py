"""The tables beside a result's JSON: read when they are first needed, checked, and held against what the JSON states."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from evalkit.errors import EvalkitError
from evalkit.metrics.lists import CandidateLists, candidate_lists
from evalkit.metrics.measures import (
    CARD_PROTOCOL,
    PROTOCOLS,
    Measure,
    all_measures,
    asked_measures,
    find_measure,
    is_measure,
)
from evalkit.records import NoiseBand, TaskStatistics, TieRange

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

STAGE_COLUMN = "first_stage_score"
"""Of candidates, where a first stage chose them: its own scores."""
_TEXT_COLUMN = "text"  # of candidates; most of a file, where it is there
_MEAN_TOLERANCE = 1e-5  # mteb-v2 rounds its means to five decimals
# what a file may hold beyond what the result's data and its own size say: enough for any honest one, and bounded
_SPARE_ROWS = 10_000
_SPARE_BYTES = 64 << 20
_SPARE_CELLS = 1_000_000
_LARGEST_RATIO = 200  # of compression
_MEND = "run the evaluation again"

_WHOLE = {"n_candidates", "n_positive", "label", "query_characters", "stratum"}
_TEXTS = {"query_id", "doc_id", "query_script", "query", "text"}
_NUMBERS = {"score", STAGE_COLUMN, "tokens", "truncated_pairs", *(measure.column for measure in all_measures())}


def refuse_other_mean(path: Path | None, measure: Measure, stated: float, queries: pd.DataFrame) -> None:
    """Raise EvalkitError where the mean that a result states is not that of its table of queries."""
    _refuse_other_mean(path, measure.name, stated, queries[measure.column])


def _refuse_other_mean(path: Path | None, name: str, stated: float, values: pd.Series) -> None:
    mean = float(values.mean())
    if not (math.isclose(mean, stated, abs_tol=_MEAN_TOLERANCE) or (math.isnan(mean) and math.isnan(stated))):
        raise EvalkitError(
            f"{path}: its {name} is {stated}, but its table of queries has the mean {mean}; the files "
            "are of different runs or were changed by hand; run the evaluation again"
        )


def table_file(path: Path, kind: str) -> Path:
    """Name the table of queries, or of candidates (`run`), that belongs beside a result's JSON file."""
    return path.with_name(f"{path.name.removesuffix('.json')}.{kind}.parquet")


@dataclass(frozen=True)
class StoredTables:
    """The tables beside a result's JSON, of which the rest is known: they must have as many rows, and these means."""

    path: Path
    protocol: str
    scores: Mapping[str, float]
    ties: Mapping[str, TieRange]
    bands: Mapping[str, NoiseBand]
    statistics: TaskStatistics

    @cached_property
    def queries(self) -> pd.DataFrame:
        """One row per query. Raises EvalkitError where the file is missing or not the JSON's."""
        needed = (*PROTOCOLS[self.protocol].leading, *asked_measures(self.scores))
        stated = [measure for measure in all_measures() if measure.name in self.scores and measure not in needed]
        always = (measure.column for measure in PROTOCOLS[CARD_PROTOCOL].leading)
        numbers = {"n_candidates", *always, *(measure.column for measure in needed)}
        table = self._table("queries", ("query_id", *sorted(numbers)))
        if not table["query_id"].is_unique:
            raise EvalkitError(f"{self.path}: its table of queries has a query twice; run the evaluation again")
        for measure in (*needed, *stated):
            if measure.column in table:  # an older version's table may lack what no protocol leads with
                refuse_other_mean(self.path, measure, self.scores[measure.name], table)
        for name, ties in self.ties.items():
            for part, amount in asdict(ties).items():
                column = f"{find_measure(name).column}_{part}"
                if column in table:
                    _refuse_other_mean(self.path, f"{name} ({part}, of ties)", amount, table[column])
        for name, band in self.bands.items():
            for part, amount in (("low", band.low), ("high", band.high)):
                column = f"{find_measure(name).column}_noise_{part}"
                if column in table:
                    _refuse_other_mean(self.path, f"{name} ({part}, of noise)", amount, table[column])
        return table

    @cached_property
    def candidates(self) -> pd.DataFrame:
        """One row per candidate: query_id, doc_id, label, score, and tokens and truncated where the model counted them.

        They stand in the order of `queries`, without their texts (`candidate_texts`). Raises EvalkitError where the file is
        missing, of other queries, or a score is not finite.
        """
        table = self._table("run", ("query_id", "doc_id", "label", "score"), without=(_TEXT_COLUMN,))
        counts = self.queries["n_candidates"].to_numpy()
        # a damaged count may be negative, or ask for more memory than there is
        is_sound = (counts >= 0).all() and int(counts.sum()) == len(table)
        queries = (
            self.queries["query_id"].to_numpy().repeat(counts) if is_sound else self.queries["query_id"].to_numpy()[:0]
        )
        if not is_sound or table["query_id"].tolist() != queries.tolist():
            raise EvalkitError(
                f"{self.path}: its table of candidates has other queries than its table of queries; the files are of different "
                "runs or were changed by hand; run the evaluation again"
            )
        endless = table[~table["score"].abs().lt(math.inf)]
        if len(endless):
            raise EvalkitError(
                f"{self.path}: in its table of candidates the score of {endless['doc_id'].iloc[0]!r} is "
                f"{endless['score'].iloc[0]}; run the evaluation again"
            )
        return table

    def candidate_texts(self, places: Sequence[int]) -> list[str] | None:
        """Return the texts of the candidates in these rows of `candidates`; None where the result holds no texts."""
        import pyarrow.parquet as pq

        _ = self.candidates  # the file is there, and a result's
        file = pq.ParquetFile(self._table_path("run"))
        if _TEXT_COLUMN not in file.schema_arrow.names:
            return None
        texts = file.read(columns=[_TEXT_COLUMN]).column(_TEXT_COLUMN)
        return [str(text) for text in texts.take(list(places)).to_pylist()]

    def raw(self, kind: Literal["queries", "run"]) -> pd.DataFrame | None:
        """Return a table as its file holds it, whatever that is; None where the file is missing.

        Raises EvalkitError where it can't be read.
        """
        import pyarrow as pa

        path = self._table_path(kind)
        if not path.is_file():
            return None
        try:
            frame: pd.DataFrame = self._read(kind).to_pandas(ignore_metadata=True)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise EvalkitError(f"cannot read {path.name} ({_first_line(error)})") from error
        return frame

    def _table_path(self, kind: str) -> Path:
        return table_file(self.path, kind)

    def _read(self, kind: str, without: Iterable[str] = ()) -> pa.Table:
        """Read a table. Raises OSError before it is in memory where its file says that it is larger than the JSON's."""
        import pyarrow.parquet as pq

        path = self._table_path(kind)
        file = pq.ParquetFile(path)
        rows = self.statistics.queries if kind == "queries" else self.statistics.pairs
        size = path.stat().st_size
        groups = [file.metadata.row_group(place) for place in range(file.metadata.num_row_groups)]
        cells = sum(group.column(place).num_values for group in groups for place in range(group.num_columns))
        if max(file.metadata.num_rows, *(group.num_rows for group in groups), 0) > 2 * rows + _SPARE_ROWS:
            raise OSError(f"it has {file.metadata.num_rows:,} rows, but the result's data {rows:,}")
        if (
            sum(group.total_byte_size for group in groups) > _SPARE_BYTES + _LARGEST_RATIO * size
            or cells > _SPARE_CELLS + size + file.metadata.num_columns * file.metadata.num_rows
        ):
            raise OSError(f"its {size:,} bytes hold far more than a result's would")
        table = file.read(columns=[name for name in file.schema_arrow.names if name not in without])
        table.validate(full=True)
        return table

    def _table(self, kind: str, required: Iterable[str], without: Iterable[str] = ()) -> pd.DataFrame:
        import pyarrow as pa

        path = self._table_path(kind)
        try:
            table = self._read(kind, without)
            _check_columns(table, required, path)
            frame: pd.DataFrame = table.to_pandas(ignore_metadata=True)
        except FileNotFoundError as error:
            raise EvalkitError(
                f"{path} is missing; it belongs beside {self.path.name}: run the evaluation again"
            ) from error
        except (OSError, ValueError, pa.ArrowException) as error:
            raise EvalkitError(f"cannot read {path} ({_first_line(error)}); run the evaluation again") from error
        return frame


def _check_columns(table: pa.Table, required: Iterable[str], path: Path) -> None:
    """Check a result's table: the columns that it must have, without gaps where they are no metric's, and their types.

    Raises EvalkitError, naming the column.
    """
    names = table.column_names
    for name in required:
        _require(name in names, f"column {name} is missing", path)
    for name in names:
        _require(names.count(name) == 1, f"column {name!r} is there twice", path)
        column = table.column(name)
        if name in _TEXTS:
            _require(_is_text(column.type), f"column {name} holds no texts", path)
        elif name in _WHOLE:
            _require(_is_whole(column.type), f"column {name} holds no whole numbers", path)
        elif name in _NUMBERS or is_measure(name):
            _require(_is_numeric(column.type), f"column {name} holds no numbers", path)
        elif name in ("unretrieved_ids", "unretrieved_gains"):
            _require(
                _is_list(column.type, _is_text if name == "unretrieved_ids" else _is_whole),
                f"column {name} is no list",
                path,
            )
        if name in (*_WHOLE, *_TEXTS, "unretrieved_ids", "unretrieved_gains"):
            _require(column.null_count == 0, f"column {name} has gaps", path)


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow.types as types

    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_null(kind))


def _is_whole(kind: pa.DataType) -> bool:
    import pyarrow.types as types

    return bool(types.is_integer(kind))


def _is_numeric(kind: pa.DataType) -> bool:
    import pyarrow.types as types

    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_null(kind))


def _is_list(kind: pa.DataType, holds: Any) -> bool:
    import pyarrow.types as types

    is_list = types.is_list(kind) or types.is_large_list(kind)
    return bool(is_list and (holds(kind.value_type) or types.is_null(kind.value_type)))


def _require(holds: bool, problem: str, path: Path) -> None:
    if not holds:
        raise EvalkitError(f"{path} is no result of evalkit: {problem}; {_MEND}")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def lists_of_tables(queries: pd.DataFrame, candidates: pd.DataFrame, scores: str = "score") -> CandidateLists:
    """Put a result's candidates together as they were scored, by the scores of the column of that name.

    Raises EvalkitError where a score is not finite or 64 bits can't hold a label.
    """
    return candidate_lists(
        query_ids=queries["query_id"].astype(str).to_list(),
        lengths=queries["n_candidates"].to_list(),
        doc_ids=candidates["doc_id"].to_list(),
        scores=candidates[scores].to_numpy(),
        gains=candidates["label"].to_numpy(),
        unretrieved_gains=[tuple(gain for _, gain in documents) for documents in unretrieved_documents(queries)],
    )


def unretrieved_documents(queries: pd.DataFrame) -> list[list[tuple[str, int]]]:
    """List, per row of a table of queries, the relevant documents that were no candidates, with their gains."""
    if not {"unretrieved_ids", "unretrieved_gains"} <= set(queries.columns):
        return [[] for _ in range(len(queries))]
    return [
        [(str(doc_id), int(gain)) for doc_id, gain in zip(doc_ids, gains, strict=True)]
        for doc_ids, gains in zip(queries["unretrieved_ids"], queries["unretrieved_gains"], strict=True)
    ]
