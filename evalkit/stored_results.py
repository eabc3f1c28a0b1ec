"""Results read back from their files: the JSON when it is opened, the tables when they are first needed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.errors import EvalkitError
from evalkit.records import ModelIdentity
from evalkit.result_folders import find_results
from evalkit.results import SCHEMA_VERSION

if TYPE_CHECKING:
    import pandas as pd

QUERY_COLUMNS = {"cmteb-v1": {"map": "ap", "mrr": "rr"}}
"""What the per-query table calls a protocol's metrics, where it does not use the metric's own name."""

MAIN_METRICS = {"cmteb-v1": ("map", "mrr"), "mteb-v2": ("map_at_1000", "mrr_at_10")}
"""The two metrics that each protocol's tables show, the main score first."""

_MEAN_TOLERANCE = 1e-5  # mteb-v2 rounds its means to five decimals

_JSON_TYPES: Mapping[type, str] = {str: "string", int: "integer", dict: "object", list: "array"}
_FIELDS = {"task_name": str, "dataset_revision": str, "scores": dict, "evalkit": dict}
_OWN_FIELDS = {"schema_version": int, "protocol": str, "main_score": str, "model": dict, "task": dict, "config": dict}
_MODEL_FIELDS = {field.name: str for field in fields(ModelIdentity)}
_TASK_FIELDS = {
    "name": str,
    "mteb_name": str,
    "split": str,
    "fingerprint": str,
    "statistics": dict,
    "differences": list,
}


@dataclass(frozen=True)
class StoredResult:
    """One result as its files hold it; `content` is its JSON. Make one with `load_result`."""

    path: Path
    content: Mapping[str, Any]

    @property
    def own(self) -> Mapping[str, Any]:
        """The block of the JSON that only evalkit writes: protocol, intervals, ties, provenance, configuration."""
        block: Mapping[str, Any] = self.content["evalkit"]
        return block

    @property
    def model(self) -> ModelIdentity:
        """Which weights were run."""
        return ModelIdentity(**{field.name: self.own["model"][field.name] for field in fields(ModelIdentity)})

    @property
    def task_name(self) -> str:
        """The task's name in evalkit (`CMedQAv1`); its `mteb_name` is `content["task_name"]`."""
        name: str = self.own["task"]["name"]
        return name

    @property
    def fingerprint(self) -> str:
        """Hash of the data that were scored."""
        fingerprint: str = self.own["task"]["fingerprint"]
        return fingerprint

    @property
    def protocol(self) -> str:
        """The leading protocol's name."""
        protocol: str = self.own["protocol"]
        return protocol

    @property
    def scores(self) -> Mapping[str, float]:
        """Means by metric: fractions."""
        (rows,) = self.content["scores"].values()
        return {metric: value for metric, value in rows[0].items() if isinstance(value, float | int)}

    def tie_range(self, metric: str) -> tuple[float, float] | None:
        """Give the means that the worst and the best order of tied documents have: fractions; None where it is not known."""
        ties = (self.own.get("ties") or {}).get(metric) or {}
        low, high = ties.get("low"), ties.get("high")
        return (low, high) if isinstance(low, float | int) and isinstance(high, float | int) else None

    @cached_property
    def queries(self) -> pd.DataFrame:
        """One row per query (see `evaluation.evaluate`). Raises EvalkitError where the file is missing or not the JSON's."""
        columns = {metric: query_column(self.protocol, metric) for metric in MAIN_METRICS[self.protocol]}
        numbers = {"n_candidates", *QUERY_COLUMNS["cmteb-v1"].values(), *columns.values()}
        table = self._table("queries", ("query_id",), sorted(numbers))
        if not table["query_id"].is_unique:
            raise EvalkitError(f"{self.path}: its table of queries has a query twice; run the evaluation again")
        for metric, column in columns.items():
            mean = float(table[column].mean())
            if not math.isclose(mean, self.scores[metric], abs_tol=_MEAN_TOLERANCE):
                raise EvalkitError(
                    f"{self.path}: its {metric} is {self.scores[metric]}, but its table of queries has the mean {mean}; the files "
                    "are of different runs or were changed by hand; run the evaluation again"
                )
        return table

    @cached_property
    def candidates(self) -> pd.DataFrame:
        """One row per candidate: query_id, doc_id, label, score, and tokens and truncated where the model counted them.

        They stand in the order of `queries`. Raises EvalkitError where the file is missing, of other queries, or a score is
        not finite.
        """
        table = self._table("run", ("query_id", "doc_id"), ("label", "score"))
        queries = self.queries["query_id"].to_numpy().repeat(self.queries["n_candidates"])
        if table["query_id"].tolist() != queries.tolist():
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

    def _table(self, kind: str, names: Iterable[str], numbers: Iterable[str]) -> pd.DataFrame:
        import pandas as pd

        path = self.path.with_name(f"{self.path.name.removesuffix('.json')}.{kind}.parquet")
        try:
            table = pd.read_parquet(path)
        except FileNotFoundError as error:
            raise EvalkitError(
                f"{path} is missing; it belongs beside {self.path.name}: run the evaluation again"
            ) from error
        except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
            raise EvalkitError(f"cannot read {path} ({_first_line(error)}); run the evaluation again") from error
        for column in (*names, *numbers):
            if column not in table:
                raise EvalkitError(
                    f"{path} is no result of evalkit: column {column} is missing; run the evaluation again"
                )
        for column in numbers:
            if not pd.api.types.is_numeric_dtype(table[column]):
                raise EvalkitError(
                    f"{path} is no result of evalkit: column {column} holds no numbers; run the evaluation again"
                )
        return table


def load_results(paths: Iterable[Path]) -> list[StoredResult]:
    """Load the results among files and folders, searched to any depth. Raises EvalkitError where there are none."""
    return [load_result(path) for path in find_results(paths)]


def load_result(path: Path) -> StoredResult:
    """Load a result by its JSON file.

    Raises EvalkitError where the file is missing, is not JSON, or is not a result of this version of evalkit.
    """
    return StoredResult(path, read_result(path))


def query_column(protocol: str, metric: str) -> str:
    """Name the column of the per-query table that holds a protocol's metric."""
    return QUERY_COLUMNS.get(protocol, {}).get(metric, metric)


def read_result(path: Path) -> dict[str, Any]:
    """Read a result's JSON file.

    Raises EvalkitError where the file is missing, is not JSON, or is not a result of this version of evalkit.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except OSError as error:
        raise EvalkitError(f"cannot read {path} ({error.strerror}); give a result's JSON file") from error
    except ValueError as error:
        raise EvalkitError(f"{path} is not valid JSON ({error}); run the evaluation again") from error
    _check_shape(content, path)
    checked: dict[str, Any] = content
    return checked


def _check_shape(content: object, path: Path) -> None:
    if not isinstance(content, dict):
        raise EvalkitError(f"{path} is no result: it holds a {type(content).__name__}, not an object")
    _check_fields(content, "", _FIELDS, path)
    own = content["evalkit"]
    _check_fields(own, "evalkit.", _OWN_FIELDS, path)
    if own["schema_version"] != SCHEMA_VERSION:
        raise EvalkitError(
            f"{path} has evalkit.schema_version {own['schema_version']}, this evalkit reads {SCHEMA_VERSION}; "
            "use the version of evalkit that wrote it, or run the evaluation again"
        )
    _check_fields(own["model"], "evalkit.model.", _MODEL_FIELDS, path)
    _check_fields(own["task"], "evalkit.task.", _TASK_FIELDS, path)
    if own["protocol"] not in MAIN_METRICS:
        raise EvalkitError(f"{path}: evalkit.protocol {own['protocol']!r} is none of {', '.join(MAIN_METRICS)}")
    _check_scores(content["scores"], own["protocol"], path)


def _check_scores(scores: Mapping[str, Any], protocol: str, path: Path) -> None:
    rows = next(iter(scores.values()), None)
    if len(scores) != 1 or not isinstance(rows, list) or len(rows) != 1 or not isinstance(rows[0], dict):
        raise EvalkitError(f"{path} is no result of evalkit: scores does not hold one split with one subset")
    for metric in MAIN_METRICS[protocol]:
        value = rows[0].get(metric)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise EvalkitError(f"{path}: scores.{metric} is {value!r}, no fraction; run the evaluation again")


def _check_fields(holder: Mapping[str, Any], prefix: str, expected: Mapping[str, type], path: Path) -> None:
    for name, kind in expected.items():
        if not isinstance(holder.get(name), kind):
            state = f"is no {_JSON_TYPES[kind]}" if name in holder else "is missing"
            raise EvalkitError(f"{path} is no result of evalkit: {prefix}{name} {state}; run the evaluation again")


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON number")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
