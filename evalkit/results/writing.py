"""The files of a result: `<Task>.json`, which mteb reads too, and the tables of its queries and candidates.

The JSON is mteb's `TaskResult` and, under `evalkit`, what mteb has no place for. Equal results have equal files but for
what only the course of one execution decides, which stands under the keys of `TIMING_KEYS`.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.errors import EvalkitError
from evalkit.metrics.measures import PROTOCOLS, asked_measures
from evalkit.output.files import folder_locked, replace_files
from evalkit.output.json import json_bytes, plain_json
from evalkit.output.text import homeless
from evalkit.records import IN_MEMORY, UNIDENTIFIED, ModelIdentity, RecipeField, TaskIdentity
from evalkit.results.folders import MODEL_FILE, NO_REVISION, file_name
from evalkit.results.result import BLOCK_FIELDS, TEXT_COLUMNS, Result
from evalkit.results.tables import table_file

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger("evalkit")
SCHEMA_VERSION = 2
UNPINNED = "unpinned"  # the revision of data that have none, where mteb wants a string

TIMING_KEYS = (("evaluation_time",), ("evalkit", "timing"), ("evalkit", "provenance", "timestamp"))
"""Where the JSON holds times, and what else differs between a run and its repetition (what the store already had)."""

_OF_THE_MACHINE = ("version", "device")  # what a description of an object in memory says of where it ran
_SPEED = ("pairs_per_second", "tokens_per_second", "latency_seconds")
_NOISE = 1e-3  # of a fraction: what honest runs of one model differ by

CandidateIds = tuple[list[str], list[str]]
"""The ids of a task's candidates, in their order: of each its query's, and its own."""

_MODEL_TYPES = {
    "cross-encoder": "cross-encoder",
    "llm-reranker": "cross-encoder",
    "layerwise-reranker": "cross-encoder",
    "listwise": "cross-encoder",
    "multi-vector": "late-interaction",
    "lexical": "sparse",
    "bge-m3": "hybrid",
}


def write_result(result: Result, folder: Path, with_texts: bool = False) -> Path:
    """Write a result's files into `folder` and return the JSON's path.

    They take the place of an older result as a whole, whenever the process is killed, and only where that is of the same model,
    data and settings. Where all scores come from the store, the JSON keeps the speed that the older result's run measured. Texts of
    queries and documents are written only `with_texts`.

    Raises EvalkitError where the folder can't be written, and where another result lies there.
    """
    path = result_file(result.task, folder)
    name = path.name.removesuffix(".json")
    tables = {
        f"{name}.queries.parquet": _parquet(result.queries, with_texts),
        f"{name}.run.parquet": _parquet(result.candidates, with_texts),
        MODEL_FILE: json_bytes(model_meta(result.model, result.experiment)),
    }
    try:
        with folder_locked(folder):
            older = _stored_json(path)
            if older is not None:
                _refuse_other_object(result, older, path)
                ids = (result.candidates["query_id"].tolist(), result.candidates["doc_id"].tolist())
                refuse_other_result(path, result.model, result.task, ids, result.deviations, result.recipe)
                _refuse_other_figures(result, older, path)
                _warn_of_other_lead(result, older, path)
                _warn_of_dropped(result, older, path)
                _warn_of_dropped_texts(result, path, with_texts)
            content = result_json(result)
            replace_files(folder, {**tables, path.name: json_bytes(_with_measured_speed(content, older))})
    except OSError as error:
        raise EvalkitError(
            f"cannot write the result to {folder} ({error.strerror or error}); mend that, or choose another folder with "
            "results_dir=DIR"
        ) from error
    return path


def result_file(task: TaskIdentity, folder: Path) -> Path:
    """Name the JSON file of a task's result in its folder."""
    return folder / f"{file_name(task.mteb_name)}.json"


def refuse_other_result(
    path: Path,
    model: ModelIdentity,
    task: TaskIdentity,
    ids: CandidateIds,
    deviations: Mapping[str, Any] | None,
    recipe: Mapping[str, RecipeField],
) -> None:
    """Raise EvalkitError where the file holds a result of another task, other data, model or settings, which would be lost.

    `ids` are those of the candidates, which the fingerprint of the data leaves out. What an older version of evalkit did not write
    down counts as equal, and so do the ids of a result whose table can't be read.
    """
    stored = _stored_json(path)
    if stored is None:
        return
    place, mend = homeless(str(path)), "write elsewhere (results_dir=DIR), or delete that file"
    if (other := stored.get("task_name", task.mteb_name)) != plain_json(task.mteb_name):
        raise EvalkitError(
            f"{task.source}: {place} is the result of another task, {other!r}, whose file has the name that {task.mteb_name!r} "
            f"would have, or one that differs in capitals alone; give this data another name (task=local: task.name=NAME), {mend}"
        )
    if stored["evalkit"]["task"]["fingerprint"] != task.fingerprint:
        raise EvalkitError(
            f"{task.source}: {place} is a result on other data of the name {task.name}; give this data another name "
            f"(task=local: task.name=NAME), {mend}"
        )
    if difference := _other_ids(path, ids):
        raise EvalkitError(
            f"{task.source}: {place} is a result on the same texts under other ids, by which mteb-v2 orders ties: {difference}; "
            f"give this data another name (task=local: task.name=NAME), {mend}"
        )
    ours: dict[str, Any] = plain_json({"model": model, "task": task, "deviations": deviations, "recipe": recipe})
    own, other = _decisive(homeless(ours)), _decisive(stored["evalkit"])
    for name in own.keys() & other.keys():
        if own[name] != other[name]:
            raise EvalkitError(
                f"{model.name}: {place} is a result of another model or of other settings: its {name} is {other[name]!r}, "
                f"not {own[name]!r}; give this model another name (model.name=NAME), {mend}"
            )


def _other_ids(path: Path, ids: CandidateIds) -> str:
    """Say which candidate of a stored result on the same texts is the first to have other ids; empty where all have the same."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(table_file(path, "run")) as file:
            if file.metadata.num_rows != len(ids[0]):  # then the table is damaged: the same texts are as many
                return ""
            table = file.read(columns=["query_id", "doc_id"])
            stored = table["query_id"].to_pylist(), table["doc_id"].to_pylist()
    except (OSError, ValueError, LookupError, pa.ArrowException):
        return ""
    pairs = enumerate(zip(*ids, *stored, strict=True), 1)
    return next(
        (
            f"candidate {place:,} is document {old_doc!r} of query {old_query!r} there, {doc!r} of {query!r} here"
            for place, (query, doc, old_query, old_doc) in pairs
            if (query, doc) != (old_query, old_doc)
        ),
        "",
    )


def _decisive(block: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides a result's figures beside the data, by name; what its JSON does not say is left out."""
    model, first_stage = block["model"], block["task"].get("first_stage")
    said = {
        "weights_hash": model.get("weights_hash") or None,
        "deviations": block.get("deviations"),
        "first stage": first_stage and first_stage["digest"],
    }
    return {
        **{name: model[name] for name in ("hub_id", "revision", "kind")},
        **{name: value for name, value in said.items() if value is not None},
        **{name: field["value"] for name, field in (block.get("recipe") or {}).items()},
    }


def _refuse_other_object(result: Result, stored: Mapping[str, Any], path: Path) -> None:
    """Raise EvalkitError where an older result on these data is one of another object in memory than this one's, or may be.

    With an identity the object must be the same in all that can be read off it; without one, or where its content can't be read,
    only the same scores are known to be the same object's.
    """
    block = stored["evalkit"]
    if result.backend.get("name") != IN_MEMORY or block["task"]["fingerprint"] != result.task.fingerprint:
        return
    described = [
        {name: value for name, value in backend.items() if name not in _OF_THE_MACHINE}
        for backend in (plain_json(result.backend), block.get("backend", {}))
    ]
    same = block["model"] == plain_json(result.model) and described[0] == described[1]
    unknown = result.model.revision.startswith(UNIDENTIFIED) or not result.model.weights_hash
    if not same or (unknown and stored["scores"] != mteb_json(result)["scores"]):
        raise EvalkitError(
            f"{homeless(str(path))} is a result of another object of the name {result.model.name}, or of this one before it "
            "changed: give each an identity of its own, evalkit.wrap(x, identity=…), save elsewhere, or delete that file"
        )


def _refuse_other_figures(result: Result, stored: Mapping[str, Any], path: Path) -> None:
    """Raise EvalkitError where a model without a revision gave another leading figure before, by more than noise.

    Whoever answers at an address may have changed, as may an object of the user's own code.
    """
    before, now = _figures(stored).get(result.main_score), result.scores[result.main_score]
    if not result.model.revision and isinstance(before, int | float) and abs(before - now) > _NOISE:
        raise EvalkitError(
            f"{homeless(str(path))} has {result.main_score} {before:.4f}, and this run gives {now:.4f}: nothing says which "
            f"revision of {result.model.name} either is of, so it may be another model; write elsewhere (results_dir=DIR), or "
            "delete that file"
        )


def _warn_of_other_lead(result: Result, stored: Mapping[str, Any], path: Path) -> None:
    """Warn where a result that is about to be replaced is led by another protocol: readers will see another figure first.

    Nothing is lost, since every result has the measures of all protocols.
    """
    before = stored["evalkit"].get("protocol")
    if before in PROTOCOLS and before != result.protocol:
        was = PROTOCOLS[before].main_score
        logger.warning(
            "%s was led by %s of %s, and is now led by %s of %s: reports, exports and check show that one, but for --metric %s or "
            "another run with protocol=%s",
            homeless(str(path)),
            was,
            before,
            result.main_score,
            result.protocol,
            was,
            before,
        )


def _warn_of_dropped(result: Result, stored: Mapping[str, Any], path: Path) -> None:
    """Warn where a result that is about to be replaced has measures that were not asked for this time."""
    names = [measure.name for measure in asked_measures(result.scores)]
    before = [measure.name for measure in asked_measures(_figures(stored))]
    dropped = [name for name in before if name not in names]
    if dropped:
        every = ",".join((*names, *dropped))
        logger.warning("%s had %s, which this run drops: measures=[%s] keeps all", path, ", ".join(dropped), every)


def _warn_of_dropped_texts(result: Result, path: Path, with_texts: bool) -> None:
    """Warn where a result that is about to be replaced has texts in its tables, which those that replace them lack."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    dropped = False
    for kind, table in (("queries", result.queries), ("run", result.candidates)):
        try:
            before = pq.read_schema(table_file(path, kind)).names
        except (OSError, ValueError, pa.ArrowException):  # a table that is missing or damaged
            continue
        kept = table.columns if with_texts else ()
        dropped |= any(name in before and name not in kept for name in TEXT_COLUMNS)
    if dropped:
        logger.warning("%s had texts of queries or documents, which this run drops: texts=true keeps them", path)


def _with_measured_speed(content: dict[str, Any], stored: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a result's JSON with the speed of the older one that it replaces, where its own run only read the same scores again.

    Both must come from the same backend on the same processor, so that what was measured is what the JSON says.
    """
    if stored is None or stored["scores"] != content["scores"]:
        return content
    own, before = content["evalkit"], stored["evalkit"]
    kept = before.get("timing")
    measured = isinstance(kept, dict) and isinstance(kept.get("pairs_per_second"), int | float)
    again = own["timing"]["items_from_store"] and own["timing"]["pairs_per_second"] is None
    machines = [block.get("provenance", {}).get("hardware", {}).get("processor") for block in (own, before)]
    if not (again and measured and own["backend"] == before.get("backend") and machines[0] == machines[1]):
        return content
    return {**content, "evalkit": {**own, "timing": {**own["timing"], **{name: kept.get(name) for name in _SPEED}}}}


def _figures(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the only row of figures in a result's JSON."""
    rows: list[dict[str, Any]] = next(iter(content["scores"].values()))
    return rows[0]


def _stored_json(path: Path) -> dict[str, Any] | None:
    """Read the JSON of the result that lies there; None where there is none, or not in the shape that is needed here."""
    try:
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        _ = _decisive(stored["evalkit"]), stored["evalkit"]["task"]["fingerprint"]
        _ = _figures(stored).items()
    except (OSError, ValueError, LookupError, TypeError, AttributeError, StopIteration, RecursionError):
        return None
    return stored


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
    if block["noise"] is None:
        del block["bands"]
    if not block["estimates"]:
        del block["estimates"]
    for holder, name in (
        *((block, "noise"), (block, "first_stage"), (block["task"], "first_stage")),
        (block["task"], "sample"),
        *((block, "training"), (block, "without_safeguard")),
    ):
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
