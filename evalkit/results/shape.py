"""What the files of a result must look like where they are read: whoever made them, a wrong shape is one line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.errors import EvalkitError
from evalkit.metrics.measures import all_measures, is_measure

if TYPE_CHECKING:
    import pyarrow as pa

_MEND = "run the evaluation again"
_MAPPINGS = ("intervals", "ties", "backend", "timing", "queries", "provenance")
_WHOLE = {"n_candidates", "n_positive", "label", "query_characters"}
_TEXTS = {"query_id", "doc_id", "query_script", "query", "text"}
_NUMBERS = {"score", "tokens", "truncated_pairs", *(measure.column for measure in all_measures())}


def check_optional_parts(content: Mapping[str, Any], path: Path) -> None:
    """Check what a result's JSON may hold or leave out; the rest is checked already. Raises EvalkitError, naming the field."""
    own, task = content["evalkit"], content["evalkit"]["task"]
    for name in _MAPPINGS:
        _require(own.get(name) is None or isinstance(own[name], dict), f"evalkit.{name} is no object", path)
    for metric, interval in (own.get("intervals") or {}).items():
        is_pair = (
            isinstance(interval, list) and len(interval) == 2 and all(one is None or is_number(one) for one in interval)
        )
        _require(is_pair, f"evalkit.intervals.{metric} is no pair of numbers", path)
    for metric, ties in (own.get("ties") or {}).items():
        _require(ties is None or isinstance(ties, dict), f"evalkit.ties.{metric} is no object", path)
        for bound in ("low", "high"):
            value = (ties or {}).get(bound)
            _require(value is None or is_number(value), f"evalkit.ties.{metric}.{bound} is no number", path)
    made_by = (own.get("provenance") or {}).get("evalkit")
    _require(made_by is None or isinstance(made_by, dict), "evalkit.provenance.evalkit is no object", path)
    _require(
        task.get("languages") is None or isinstance(task["languages"], list), "evalkit.task.languages is no array", path
    )
    first = task.get("first_stage")
    _require(first is None or isinstance(first, dict), "evalkit.task.first_stage is no object", path)
    limit = task.get("limit")
    _require(limit is None or (is_number(limit) and isinstance(limit, int)), "evalkit.task.limit is no integer", path)


def is_number(value: object) -> bool:
    """Tell a number that a float can hold from all else, `true` included."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e300 < value < 1e300


def check_columns(table: pa.Table, required: Iterable[str], path: Path) -> None:
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
