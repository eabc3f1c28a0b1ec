"""Results read back from their files: the JSON when it is opened, the tables (`tables`) when they are first needed.

Whoever made the files, a wrong shape is one line that names the file and the field.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from evalkit.errors import EvalkitError
from evalkit.metrics.measures import PROTOCOLS
from evalkit.published_statistics import mteb_task_names
from evalkit.records import OTHER_DATA, TaskIdentity
from evalkit.results.folders import find_results, finish_result
from evalkit.results.result import BLOCK_FIELDS, Result
from evalkit.results.tables import StoredTables, table_file
from evalkit.results.writing import SCHEMA_VERSION, UNPINNED

_SCHEMA_VERSIONS = (1, SCHEMA_VERSION)  # of the first, only the folder's name says which settings deviate
_MEND = "run the evaluation again"
LEFT_OUT = "left out: {}"
"""How a result is named that others are shown without; what stands in it names the file."""

_FIELDS = {"task_name": str, "dataset_revision": str, "scores": dict[str, Any], "evalkit": dict[str, Any]}
_NO_METRICS = ("hf_subset", "languages", "main_score")
_NUMBERS_TOGETHER = {2: "pair of numbers", 3: "triple of numbers"}


def read_results(paths: Iterable[Path]) -> list[Result]:
    """Load the results among files and folders, searched to any depth. Raises EvalkitError where there are none."""
    return [read_result(path) for path in find_results(paths)]


def read_readable(paths: Iterable[Path], *, alone: bool = False) -> tuple[list[Result], list[str]]:
    """Load the results among files and folders whose JSON and table of queries can be read; say why each other is left out.

    `alone` a JSON may lack its tables.

    Raises EvalkitError for a path that does not exist, for a folder without results, and where no result can be read.
    """
    results, left_out = [], []
    for path in find_results(paths):
        try:
            result = read_result(path)
            if not alone or table_file(path, "queries").is_file():
                _ = result.queries  # no figure is shown that the tables do not have
        except EvalkitError as error:
            left_out.append(str(error))
        else:
            results.append(result)
    if not results:
        raise EvalkitError("; ".join(left_out))
    return results, list(map(LEFT_OUT.format, left_out))


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
    block["task"] = _named_by_its_data(block["task"])
    block.setdefault("deviations", None)
    tables = StoredTables(
        path, block["protocol"], scores, block.get("ties", {}), block.get("bands", {}), block["task"].statistics
    )
    return Result(**block, scores=scores, tables=tables, path=path)


def _named_by_its_data(task: TaskIdentity) -> TaskIdentity:
    """Call other data of a benchmark's name other data: earlier versions of evalkit called them by the benchmark's name."""
    differs = len(task.differences) > (task.first_stage is not None)  # a first stage is no difference of the data
    if not differs or task.revision != UNPINNED or task.mteb_name not in mteb_task_names():
        return task
    return replace(task, name=f"{task.name} {OTHER_DATA}", mteb_name=f"{task.mteb_name} {OTHER_DATA}")


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
