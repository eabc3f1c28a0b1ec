"""A results folder as mteb 2 would have written it: `results/<org>__<model>/<revision>/<Task>.json`, `model_meta.json`.

The main score is mteb 2's own (`map_at_1000`, of retrieval tasks `ndcg_at_10`), whichever protocol led the run: in mteb's tables
figures of cmteb-v1 would stand among others. `map` and `mrr` stay in the file under these names, as in the results of mteb 1.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from evalkit.errors import EvalkitError
from evalkit.metrics.measures import PROTOCOLS, RETRIEVAL_PROTOCOL
from evalkit.output.json import json_bytes
from evalkit.results.folders import MODEL_FILE, file_name, result_folder
from evalkit.results.result import Result
from evalkit.results.writing import model_meta, mteb_json

FOLDER = "results"
_MAIN_SCORES = {False: PROTOCOLS["mteb-v2"].main_score, True: PROTOCOLS[RETRIEVAL_PROTOCOL].main_score}


def mteb_files(results: Sequence[Result]) -> dict[PurePosixPath, bytes]:
    """Write each result and, once per folder, its model.

    Raises EvalkitError for two results of one task and system, and for a result without mteb-v2's values.
    """
    files: dict[PurePosixPath, bytes] = {}
    sources: dict[PurePosixPath, Path | None] = {}
    for result in results:
        folder = _folder(result)
        path = folder / f"{file_name(result.task.mteb_name)}.json"
        if path in sources:
            raise EvalkitError(
                f"{sources[path]} and {result.path} are both of {result.task.mteb_name} by {result.model.hub_id}; "
                "give one of them"
            )
        sources[path] = result.path
        files[path] = json_bytes(_task_result(result))
        files[folder / MODEL_FILE] = json_bytes(model_meta(result.model, result.experiment))
    return files


def is_mteb_file(content: bytes) -> bool:
    """Whether a file is mteb's JSON of a result or of a model, and no result of evalkit, which holds more."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return False
    if not isinstance(found, dict) or "evalkit" in found:
        return False
    return {"task_name", "scores"} <= set(found) or {"name", "revision"} <= set(found)


def _folder(result: Result) -> PurePosixPath:
    return PurePosixPath(result_folder(Path(FOLDER), result.model, result.experiment).as_posix())


def _task_result(result: Result) -> dict[str, Any]:
    content = mteb_json(result)
    ((split, (row,)),) = content["scores"].items()
    main = _MAIN_SCORES[result.is_retrieval]
    if row.get(main) is None:
        raise EvalkitError(f"{result.path}: scores.{main} is missing, which mteb needs; run the evaluation again")
    # mteb sets no value where it has none; a null would be no number to it
    scores = {key: value for key, value in row.items() if value is not None}
    return {**content, "scores": {split: [{**scores, "main_score": row[main]}]}}
