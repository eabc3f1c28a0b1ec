"""Results read back from their files: the JSON when it is opened, the tables when they are first needed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.errors import EvalkitError
from evalkit.metrics.measures import PROTOCOLS
from evalkit.records import ModelIdentity
from evalkit.results.folders import find_results
from evalkit.results.shape import check_columns, check_optional_parts, is_number
from evalkit.results.writing import SCHEMA_VERSION

if TYPE_CHECKING:
    import pandas as pd

_TEXT_COLUMN = "text"  # of candidates; most of a file, where it is there
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
        return {metric: value for metric, value in rows[0].items() if is_number(value)}

    @property
    def intervals(self) -> Mapping[str, tuple[float, float]]:
        """95 % intervals of the means by metric: fractions."""
        found = self.own.get("intervals") or {}
        return {metric: (low, high) for metric, (low, high) in found.items() if low is not None and high is not None}

    def tie_range(self, metric: str) -> tuple[float, float] | None:
        """Give the means that the worst and the best order of tied documents have: fractions; None where it is not known."""
        ties = (self.own.get("ties") or {}).get(metric) or {}
        low, high = ties.get("low"), ties.get("high")
        return (low, high) if isinstance(low, float | int) and isinstance(high, float | int) else None

    @cached_property
    def queries(self) -> pd.DataFrame:
        """One row per query (see `evaluation.evaluate`). Raises EvalkitError where the file is missing or not the JSON's."""
        columns = {measure.name: measure.column for measure in PROTOCOLS[self.protocol].leading}
        always = (measure.column for measure in PROTOCOLS["cmteb-v1"].leading)
        numbers = {"n_candidates", *always, *columns.values()}
        table = self._table("queries", ("query_id", *sorted(numbers)))
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
        """Give the texts of the candidates in these rows of `candidates`; None where the result holds no texts."""
        import pyarrow.parquet as pq

        _ = self.candidates  # the file is there, and a result's
        file = pq.ParquetFile(self._table_path("run"))
        if _TEXT_COLUMN not in file.schema_arrow.names:
            return None
        texts = file.read(columns=[_TEXT_COLUMN]).column(_TEXT_COLUMN)
        return [str(text) for text in texts.take(list(places)).to_pylist()]

    def _table_path(self, kind: str) -> Path:
        return self.path.with_name(f"{self.path.name.removesuffix('.json')}.{kind}.parquet")

    def _table(self, kind: str, required: Iterable[str], without: Iterable[str] = ()) -> pd.DataFrame:
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self._table_path(kind)
        try:
            columns = [name for name in pq.read_schema(path).names if name not in without]
            table = pq.ParquetFile(path).read(columns=columns)
            table.validate(full=True)
            check_columns(table, required, path)
            frame: pd.DataFrame = table.to_pandas(ignore_metadata=True)
        except FileNotFoundError as error:
            raise EvalkitError(
                f"{path} is missing; it belongs beside {self.path.name}: run the evaluation again"
            ) from error
        except (OSError, ValueError, pa.ArrowException) as error:
            raise EvalkitError(f"cannot read {path} ({_first_line(error)}); run the evaluation again") from error
        return frame


def load_results(paths: Iterable[Path]) -> list[StoredResult]:
    """Load the results among files and folders, searched to any depth. Raises EvalkitError where there are none."""
    return [load_result(path) for path in find_results(paths)]


def load_result(path: Path) -> StoredResult:
    """Load a result by its JSON file.

    Raises EvalkitError where the file is missing, is not JSON, or is not a result of this version of evalkit.
    """
    return StoredResult(path, read_result(path))


def unretrieved_documents(queries: pd.DataFrame) -> list[list[tuple[str, int]]]:
    """List, per row of a table of queries, the relevant documents that were no candidates, with their gains."""
    if not {"unretrieved_ids", "unretrieved_gains"} <= set(queries.columns):
        return [[] for _ in range(len(queries))]
    return [
        [(str(doc_id), int(gain)) for doc_id, gain in zip(doc_ids, gains, strict=True)]
        for doc_ids, gains in zip(queries["unretrieved_ids"], queries["unretrieved_gains"], strict=True)
    ]


def read_result(path: Path) -> dict[str, Any]:
    """Read a result's JSON file.

    Raises EvalkitError where the file is missing, is not JSON, or is not a result of this version of evalkit.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except OSError as error:
        raise EvalkitError(f"cannot read {path} ({error.strerror}); give a result's JSON file") from error
    except (ValueError, RecursionError) as error:
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
    if own["protocol"] not in PROTOCOLS:
        raise EvalkitError(f"{path}: evalkit.protocol {own['protocol']!r} is none of {', '.join(PROTOCOLS)}")
    _check_scores(content["scores"], own["protocol"], path)
    check_optional_parts(content, path)


def _check_scores(scores: Mapping[str, Any], protocol: str, path: Path) -> None:
    rows = next(iter(scores.values()), None)
    if len(scores) != 1 or not isinstance(rows, list) or len(rows) != 1 or not isinstance(rows[0], dict):
        raise EvalkitError(f"{path} is no result of evalkit: scores does not hold one split with one subset")
    numbers = [metric for metric, value in rows[0].items() if isinstance(value, int | float)]
    for metric in dict.fromkeys((*PROTOCOLS[protocol].leading_names, *numbers)):
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


def refuse_result(path: Path | None, option: str) -> None:
    """Raise EvalkitError where a file that is about to be written holds a result."""
    if path is None or not path.is_file():
        return
    try:
        read_result(path)
    except EvalkitError:
        return
    raise EvalkitError(f"{option} {path} would replace a result; name another file")
