"""The files of a result: `<Task>.json`, which mteb reads too, and the tables of its queries and candidates.

The JSON is mteb's `TaskResult` and, under `evalkit`, what mteb has no place for. Equal results have equal files but for
what only the course of one execution decides, which stands under the keys of `TIMING_KEYS`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.errors import EvalkitError
from evalkit.output.files import replace_files
from evalkit.output.json import json_bytes, plain_json
from evalkit.output.text import homeless
from evalkit.records import IN_MEMORY, UNIDENTIFIED, ModelIdentity, TaskIdentity
from evalkit.results.folders import MODEL_FILE, NO_REVISION, file_name
from evalkit.results.result import BLOCK_FIELDS, TEXT_COLUMNS, Result

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 2
UNPINNED = "unpinned"  # the revision of data that have none, where mteb wants a string

TIMING_KEYS = (("evaluation_time",), ("evalkit", "timing"), ("evalkit", "provenance", "timestamp"))
"""Where the JSON holds times, and what else differs between a run and its repetition (what the store already had)."""

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
        folder / MODEL_FILE: json_bytes(model_meta(result.model, result.experiment)),
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


def result_file(task: TaskIdentity, folder: Path) -> Path:
    """Name the JSON file of a task's result in its folder."""
    return folder / f"{file_name(task.mteb_name)}.json"


def refuse_other_data(task: TaskIdentity, path: Path) -> None:
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


def refuse_other_object(result: Result, path: Path) -> None:
    """Raise EvalkitError where the file holds the result of another object in memory than this one's, or may do so.

    With an identity the object must have the same weights; without one only the same scores are known to be the same object's.
    """
    if result.backend.get("name") != IN_MEMORY:
        return
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        block = stored["evalkit"]
        same_model = block["model"] == plain_json(result.model)
        same_scores = stored["scores"] == mteb_json(result)["scores"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return  # no result
    if not same_model or (result.model.revision.startswith(UNIDENTIFIED) and not same_scores):
        raise EvalkitError(
            f"{homeless(str(path))} is a result of another object of the name {result.model.name}, or of this one before it "
            "changed: give each an identity of its own, evalkit.wrap(x, identity=…), save elsewhere, or delete that file"
        )


def result_json(result: Result) -> dict[str, Any]:
    """Return a result as its JSON file holds it, with null for NaN and infinities."""
    return {**mteb_json(result), "evalkit": homeless(plain_json(_own_block(result)))}


def mteb_json(result: Result) -> dict[str, Any]:
    """Return the part of a result's JSON that is mteb's."""
    scores = {
        "hf_subset": result.task.subset,
        "languages": result.task.languages,
        "main_score": result.scores[result.main_score],
        **result.scores,
    }
    packages = result.provenance.get("packages")
    content: dict[str, Any] = plain_json(
        {
            "dataset_revision": result.task.revision or UNPINNED,
            "task_name": result.task.mteb_name,
            "mteb_version": packages.get("mteb") if isinstance(packages, Mapping) else None,
            "evaluation_time": result.timing.seconds,
            "kg_co2_emissions": None,
            "scores": {result.task.split: [scores]},
        }
    )
    return content


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
    block = {name: getattr(result, name) for name in BLOCK_FIELDS}
    block["task"] = {one.name: getattr(result.task, one.name) for one in fields(TaskIdentity)}
    for holder, name in ((block, "first_stage"), (block["task"], "first_stage"), (block, "training")):
        if holder[name] is None:
            del holder[name]
    return {
        "schema_version": SCHEMA_VERSION,
        "queries": {"scored": result.scored_queries, "dropped": result.dropped_queries},
        **block,
    }


def model_meta(identity: ModelIdentity, experiment: str) -> dict[str, Any]:
    """Describe a model as mteb wants it in a folder of results; `experiment_kwargs` is how mteb keeps experiments apart.

    `experiment` names the settings that deviate; empty where none do.
    """
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

    kept = table if with_texts else table.drop(columns=[name for name in TEXT_COLUMNS if name in table.columns])
    # pandas' own metadata names its version, and equal tables should be equal files
    arrow = pa.Table.from_pandas(kept, preserve_index=False).replace_schema_metadata(None)
    sink = io.BytesIO()
    pq.write_table(arrow, sink, compression="zstd")
    return sink.getvalue()
