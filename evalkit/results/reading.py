"""Results read back from their files: the JSON when it is opened, the tables when they are first needed.

Whoever made the files, a wrong shape is one line that names the file and the field.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from evalkit.errors import EvalkitError
from evalkit.metrics.measures import CARD_PROTOCOL, PROTOCOLS, Measure, all_measures, asked_measures, is_measure
from evalkit.results.folders import find_results, finish_result
from evalkit.results.result import BLOCK_FIELDS, Result
from evalkit.results.writing import SCHEMA_VERSION, UNPINNED

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_SCHEMA_VERSIONS = (1, SCHEMA_VERSION)  # of the first, only the folder's name says which settings deviate
_TEXT_COLUMN = "text"  # of candidates; most of a file, where it is there
_MEAN_TOLERANCE = 1e-5  # mteb-v2 rounds its means to five decimals
_MEND = "run the evaluation again"

_FIELDS = {"task_name": str, "dataset_revision": str, "scores": dict[str, Any], "evalkit": dict[str, Any]}
_NO_METRICS = ("hf_subset", "languages", "main_score")
_NUMBERS_TOGETHER = {2: "pair of numbers", 3: "triple of numbers"}

_WHOLE = {"n_candidates", "n_positive", "label", "query_characters"}
_TEXTS = {"query_id", "doc_id", "query_script", "query", "text"}
_NUMBERS = {"score", "tokens", "truncated_pairs", *(measure.column for measure in all_measures())}


def read_results(paths: Iterable[Path]) -> list[Result]:
    """Load the results among files and folders, searched to any depth. Raises EvalkitError where there are none."""
    return [read_result(path) for path in find_results(paths)]


def read_result(path: Path) -> Result:
    """Read a result by its JSON file; its tables are read when they are first needed.

    Raises EvalkitError where the file is missing, is not JSON, or is not a result of this version of evalkit.
    """
    finish_result(path.parent)
    content = read_json(path)
    try:
        outer = _typed_fields(_FIELDS, content, "")
        own = outer["evalkit"]
        version = _typed_fields({"schema_version": int}, own, "evalkit.")["schema_version"]
        if version not in _SCHEMA_VERSIONS:
            raise EvalkitError(
                f"{path} has evalkit.schema_version {version}, this evalkit reads {' and '.join(map(str, _SCHEMA_VERSIONS))}; "
                f"use the version of evalkit that wrote it, or {_MEND}"
            )
        block = _typed_fields({name: _types(Result)[name] for name in BLOCK_FIELDS}, own, "evalkit.", _optional(Result))
        _typed(Mapping[str, Any] | None, block.get("provenance", {}).get("evalkit"), "evalkit.provenance.evalkit")
    except _ShapeError as error:
        raise EvalkitError(f"{path} is no result of evalkit: {error}; {_MEND}") from error
    if block["protocol"] not in PROTOCOLS:
        raise EvalkitError(f"{path}: evalkit.protocol {block['protocol']!r} is none of {', '.join(PROTOCOLS)}")
    row = _checked_scores(outer["scores"], block["protocol"], path)
    scores = {
        metric: math.nan if value is None else float(value)
        for metric, value in row.items()
        if metric not in _NO_METRICS and (value is None or is_number(value))
    }
    if block["main_score"] not in scores:
        raise EvalkitError(f"{path}: evalkit.main_score {block['main_score']!r} is none of its scores; {_MEND}")
    block["task"] = replace(
        block["task"],
        mteb_name=outer["task_name"],
        revision=block["task"].revision if outer["dataset_revision"] == UNPINNED else outer["dataset_revision"],
        subset=str(row.get("hf_subset") or "default"),
    )
    block.setdefault("deviations", None)
    return Result(**block, scores=scores, tables=StoredTables(path, block["protocol"], scores), path=path)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object. Raises EvalkitError where it can't be read, or holds anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except OSError as error:
        raise EvalkitError(f"cannot read {path} ({error.strerror}); give a result's JSON file") from error
    except (ValueError, RecursionError) as error:
        raise EvalkitError(f"{path} is not valid JSON ({error}); {_MEND}") from error
    if not isinstance(content, dict):
        raise EvalkitError(f"{path} is no result: it holds a {type(content).__name__}, not an object")
    return content


def refuse_result(path: Path | None, option: str) -> None:
    """Raise EvalkitError where a file that is about to be written holds a result."""
    if path is None or not path.is_file():
        return
    try:
        read_result(path)
    except EvalkitError:
        return
    raise EvalkitError(f"{option} {path} would replace a result; name another file")


def unretrieved_documents(queries: pd.DataFrame) -> list[list[tuple[str, int]]]:
    """List, per row of a table of queries, the relevant documents that were no candidates, with their gains."""
    if not {"unretrieved_ids", "unretrieved_gains"} <= set(queries.columns):
        return [[] for _ in range(len(queries))]
    return [
        [(str(doc_id), int(gain)) for doc_id, gain in zip(doc_ids, gains, strict=True)]
        for doc_ids, gains in zip(queries["unretrieved_ids"], queries["unretrieved_gains"], strict=True)
    ]


# --- the JSON


class _ShapeError(Exception):
    """What of a JSON value is not as its type says."""


def _typed_fields(
    types: Mapping[str, Any], holder: Mapping[str, Any], prefix: str, optional: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """Read the fields of these types from an object; optional ones may be missing or null."""
    present = {name: kind for name, kind in types.items() if name in holder}
    found = {
        name: _typed(kind, holder[name], prefix + name)
        for name, kind in present.items()
        if name not in optional or holder[name] is not None
    }
    for name in types:
        if name not in present and name not in optional:
            raise _ShapeError(f"{prefix}{name} is missing")
    return found


def _typed(kind: Any, value: Any, name: str) -> Any:
    """Read a JSON value as a type: the way back from `plain_json`. Where a number must be, null is NaN."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is UnionType:
        (other,) = (one for one in arguments if one is not NoneType)
        return None if value is None else _typed(other, value, name)
    if isinstance(kind, type) and is_dataclass(kind):
        holder = _checked(value, dict, "object", name)
        return kind(**_typed_fields(_types(kind), holder, f"{name}.", _optional(kind)))
    if origin in (Mapping, dict):
        holder = _checked(value, dict, "object", name)
        return {key: _typed(arguments[1], one, f"{name}.{key}") for key, one in holder.items()}
    if origin is tuple and arguments[-1] is Ellipsis:
        items = _checked(value, list, "array", name)
        return tuple(_typed(arguments[0], item, f"{name}[{place}]") for place, item in enumerate(items))
    if origin is tuple:
        return _typed_numbers(len(arguments), value, name)
    return _typed_scalar(kind, value, name)


def _typed_numbers(count: int, value: Any, name: str) -> tuple[float, ...]:
    if not isinstance(value, list) or len(value) != count or not all(one is None or is_number(one) for one in value):
        raise _ShapeError(f"{name} is no {_NUMBERS_TOGETHER[count]}")
    return tuple(math.nan if one is None else float(one) for one in value)


def _typed_scalar(kind: Any, value: Any, name: str) -> Any:
    if kind is float:
        if value is not None and not is_number(value):
            raise _ShapeError(f"{name} is no number")
        return math.nan if value is None else float(value)
    if kind is int:
        return _checked(value if is_number(value) else None, int, "integer", name)
    if kind is str:
        return _checked(value, str, "string", name)
    if get_origin(kind) is Literal and value not in get_args(kind):
        raise _ShapeError(f"{name} {value!r} is none of {', '.join(get_args(kind))}")
    return value


def _checked(value: Any, kind: type, what: str, name: str) -> Any:
    if not isinstance(value, kind):
        raise _ShapeError(f"{name} is no {what}")
    return value


@cache
def _types(record: Any) -> Mapping[str, Any]:
    return get_type_hints(record)


@cache
def _optional(record: Any) -> frozenset[str]:
    return frozenset(one.name for one in fields(record) if (one.default, one.default_factory) != (MISSING, MISSING))


def _checked_scores(scores: Mapping[str, Any], protocol: str, path: Path) -> dict[str, Any]:
    """Give the only row of a result's scores. Raises EvalkitError where there is another, and for a value that is no fraction."""
    rows = next(iter(scores.values()), None)
    if len(scores) != 1 or not isinstance(rows, list) or len(rows) != 1 or not isinstance(rows[0], dict):
        raise EvalkitError(f"{path} is no result of evalkit: scores does not hold one split with one subset")
    row: dict[str, Any] = rows[0]
    numbers = [metric for metric, value in row.items() if isinstance(value, int | float)]
    for metric in dict.fromkeys((*PROTOCOLS[protocol].leading_names, *numbers)):
        value = row.get(metric)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise EvalkitError(f"{path}: scores.{metric} is {value!r}, no fraction; {_MEND}")
    return row


def is_number(value: object) -> bool:
    """Tell a number that a float can hold from all else, `true` included."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e300 < value < 1e300


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON number")


# --- the tables


def refuse_other_mean(path: Path | None, measure: Measure, stated: float, queries: pd.DataFrame) -> None:
    """Raise EvalkitError where the mean that a result states is not that of its table of queries."""
    mean = float(queries[measure.column].mean())
    if not math.isclose(mean, stated, abs_tol=_MEAN_TOLERANCE):
        raise EvalkitError(
            f"{path}: its {measure.name} is {stated}, but its table of queries has the mean {mean}; the files "
            "are of different runs or were changed by hand; run the evaluation again"
        )


@dataclass(frozen=True)
class StoredTables:
    """The tables beside a result's JSON, of which `protocol` and `scores` are known."""

    path: Path
    protocol: str
    scores: Mapping[str, float]

    @cached_property
    def queries(self) -> pd.DataFrame:
        """One row per query. Raises EvalkitError where the file is missing or not the JSON's."""
        needed = (*PROTOCOLS[self.protocol].leading, *asked_measures(self.scores))
        always = (measure.column for measure in PROTOCOLS[CARD_PROTOCOL].leading)
        numbers = {"n_candidates", *always, *(measure.column for measure in needed)}
        table = self._table("queries", ("query_id", *sorted(numbers)))
        if not table["query_id"].is_unique:
            raise EvalkitError(f"{self.path}: its table of queries has a query twice; run the evaluation again")
        for measure in needed:
            refuse_other_mean(self.path, measure, self.scores[measure.name], table)
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
            frame: pd.DataFrame = _read_parquet(path).to_pandas(ignore_metadata=True)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise EvalkitError(f"cannot read {path.name} ({_first_line(error)})") from error
        return frame

    def _table_path(self, kind: str) -> Path:
        return self.path.with_name(f"{self.path.name.removesuffix('.json')}.{kind}.parquet")

    def _table(self, kind: str, required: Iterable[str], without: Iterable[str] = ()) -> pd.DataFrame:
        import pyarrow as pa

        path = self._table_path(kind)
        try:
            table = _read_parquet(path, without)
            _check_columns(table, required, path)
            frame: pd.DataFrame = table.to_pandas(ignore_metadata=True)
        except FileNotFoundError as error:
            raise EvalkitError(
                f"{path} is missing; it belongs beside {self.path.name}: run the evaluation again"
            ) from error
        except (OSError, ValueError, pa.ArrowException) as error:
            raise EvalkitError(f"cannot read {path} ({_first_line(error)}); run the evaluation again") from error
        return frame


def _read_parquet(path: Path, without: Iterable[str] = ()) -> pa.Table:
    import pyarrow.parquet as pq

    columns = [name for name in pq.read_schema(path).names if name not in without]
    table = pq.ParquetFile(path).read(columns=columns)
    table.validate(full=True)
    return table


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
