"""The files of a result: `<Task>.json`, which mteb reads too, and the tables of its queries and candidates.

The JSON is mteb's `TaskResult` and, under `evalkit`, what mteb has no place for. Equal results have equal files but for
what only the course of one execution decides, which stands under the keys of `TIMING_KEYS`.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evalkit.errors import EvalkitError
from evalkit.metrics.measures import find_measure
from evalkit.output.files import replace_files
from evalkit.output.json import json_bytes, plain_json
from evalkit.output.text import homeless
from evalkit.records import ModelIdentity, Result, Task, Usage
from evalkit.results.folders import EXPERIMENTS, MODEL_FILE, NO_REVISION, file_name

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1

TIMING_KEYS = (("evaluation_time",), ("evalkit", "timing"), ("evalkit", "provenance", "timestamp"))
"""Where the JSON holds times, and what else differs between a run and its repetition (what the store already had)."""

_TEXT_COLUMNS = ("query", "text")
_MODEL_TYPES = {
    "cross-encoder": "cross-encoder",
    "llm-reranker": "cross-encoder",
    "layerwise-reranker": "cross-encoder",
    "lexical": "sparse",
    "bge-m3": "hybrid",
}


def write_result(result: Result, folder: Path, with_texts: bool = False) -> Path:
    """Write a result's files into `folder` and return the JSON's path.

    Each file replaces its older self as a whole, and the JSON comes last, after the older one is gone: where it lies,
    the tables beside it are its own. Texts of queries and documents are written only `with_texts`.

    Raises EvalkitError where the folder can't be written.
    """
    path = result_file(result.task, folder)
    name = path.name.removesuffix(".json")
    contents = {
        folder / f"{name}.queries.parquet": _parquet(result.queries, with_texts),
        folder / f"{name}.run.parquet": _parquet(result.candidates, with_texts),
        folder / MODEL_FILE: json_bytes(model_meta(result.model, folder)),
        path: json_bytes(result_json(result)),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_files(contents, last=path)
    except OSError as error:
        raise EvalkitError(
            f"cannot write the result to {folder} ({error.strerror or error}); mend that, or choose another folder with "
            "results_dir=DIR"
        ) from error
    return path


def result_file(task: Task, folder: Path) -> Path:
    """Name the JSON file of a task's result in its folder."""
    return folder / f"{file_name(task.mteb_name)}.json"


def refuse_other_data(task: Task, path: Path) -> None:
    """Raise EvalkitError where a result on other data of the task's name stands in the file: it would be lost."""
    try:
        fingerprint = json.loads(path.read_text(encoding="utf-8"))["evalkit"]["task"]["fingerprint"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return  # no result
    if fingerprint != task.fingerprint:
        raise EvalkitError(
            f"{task.source}: {homeless(str(path))} is a result on other data of the name {task.name}; give this data another name "
            "(task=local: task.name=NAME), write elsewhere (results_dir=DIR), or delete that file"
        )


def result_json(result: Result) -> dict[str, Any]:
    """Give a result as its JSON file holds it, with null for NaN and infinities."""
    scores = {
        "hf_subset": result.task.subset,
        "languages": result.task.languages,
        "main_score": result.scores[result.main_score],
        **result.scores,
    }
    content: dict[str, Any] = plain_json(
        {
            "dataset_revision": result.task.revision or "unpinned",
            "task_name": result.task.mteb_name,
            "mteb_version": importlib.metadata.version("mteb"),
            "evaluation_time": result.usage.seconds,
            "kg_co2_emissions": None,
            "scores": {result.task.split: [scores]},
            "evalkit": homeless(plain_json(_own_block(result))),
        }
    )
    return content


def count_queries(result: Result) -> tuple[int, int]:
    """Count the queries that have a value under the leading protocol, and those that it drops."""
    column = find_measure(result.main_score).column
    scored = int(result.queries[column].notna().sum())
    return scored, len(result.queries) - scored


def pairs_per_second(result: Result) -> float | None:
    """Give the candidates scored per second, without what the store already had; None where nothing was scored."""
    usage: Usage = result.usage
    if not usage.seconds or usage.items <= usage.items_from_store:
        return None
    return len(result.candidates) * (1 - usage.items_from_store / usage.items) / usage.seconds


def tokens_per_second(result: Result) -> float | None:
    """Give the tokens read per second, padding apart; None where nothing was scored or the scorer does not count them."""
    usage: Usage = result.usage
    if not usage.tokens or not usage.seconds or usage.items <= usage.items_from_store:
        return None
    return usage.tokens * (1 - usage.items_from_store / usage.items) / usage.seconds


def without_timings(content: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a result's JSON without what stands under `TIMING_KEYS`: equal for equal results."""
    rest = deepcopy(dict(content))
    for *parents, key in TIMING_KEYS:
        holder = rest
        for parent in parents:
            holder = holder.get(parent, {})
        holder.pop(key, None)
    return rest


def _own_block(result: Result) -> dict[str, Any]:
    scored, dropped = count_queries(result)
    task = {field.name: getattr(result.task, field.name) for field in fields(result.task) if field.name != "requests"}
    if result.task.first_stage is None:
        del task["first_stage"]
    return {
        "schema_version": SCHEMA_VERSION,
        "protocol": result.protocol,
        "main_score": result.main_score,
        "model": result.model,
        "task": task,
        "queries": {"scored": scored, "dropped": dropped},
        "intervals": result.intervals,
        "ties": result.ties,
        "usage": {name: getattr(result.usage, name) for name in ("items", "tokens", "truncated_items")},
        "timing": _timing(result),
        "backend": result.backend,
        "precision": result.precision,
        "config": result.config,
        "provenance": result.provenance,
        **({} if result.first_stage is None else {"first_stage": result.first_stage}),
    }


def _timing(result: Result) -> dict[str, Any]:
    usage = result.usage
    percentiles = {f"p{q}": float(np.percentile(usage.latencies, q)) for q in (50, 95)} if usage.latencies else None
    return {
        "seconds": usage.seconds,
        "pairs_per_second": pairs_per_second(result),
        "tokens_per_second": tokens_per_second(result),
        "items_from_store": usage.items_from_store,
        "padding_tokens": usage.padding_tokens,
        "latency_seconds": percentiles,
    }


def model_meta(identity: ModelIdentity, folder: Path) -> dict[str, Any]:
    """Describe a model as mteb wants it in a folder of results; `experiment_kwargs` is how mteb keeps experiments apart."""
    unknown = (
        "loader",
        "release_date",
        "languages",
        "n_parameters",
        "memory_usage_mb",
        "max_tokens",
        "embed_dim",
        "license",
        "open_weights",
        "public_training_code",
        "public_training_data",
        "similarity_fn_name",
        "use_instructions",
        "training_datasets",
    )
    experiment = folder.name if folder.parent.name == EXPERIMENTS else None
    return {
        **dict.fromkeys(unknown),
        "name": identity.hub_id,
        "revision": identity.revision or NO_REVISION,
        "framework": [],
        "model_type": [_MODEL_TYPES.get(identity.kind, "dense")],
        "experiment_kwargs": {"settings": experiment} if experiment else None,
    }


def _parquet(table: pd.DataFrame, with_texts: bool) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kept = table if with_texts else table.drop(columns=[name for name in _TEXT_COLUMNS if name in table.columns])
    # pandas' own metadata names its version, and equal tables should be equal files
    arrow = pa.Table.from_pandas(kept, preserve_index=False).replace_schema_metadata(None)
    sink = io.BytesIO()
    pq.write_table(arrow, sink, compression="zstd")
    return sink.getvalue()
