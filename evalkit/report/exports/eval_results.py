"""`.eval_results/*.yaml`: the figures that the Hub shows on a model's page and on a benchmark's leaderboard.

Form: huggingface_hub's `EvalResultEntry` and `eval_result_entries_to_yaml`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from evalkit.configuration.files import parse_yaml
from evalkit.output.numbers import counted
from evalkit.report.exports.model_index import yaml_text
from evalkit.report.exports.selection import Dataset, dataset_of, main_figures, results_of_one_model
from evalkit.results.folders import file_name
from evalkit.results.result import Result, remark_lines
from evalkit.results.training import training_of, training_phrase

FOLDER = ".eval_results"
_FORMAT = "eval-results"


def eval_results_text(results: Sequence[Result]) -> str:
    """Write one model's results as one list. Raises EvalkitError for several models, or two results of one task."""
    return yaml_text([_entry(result) for result in results_of_one_model(results, _FORMAT)])


def eval_results_files(results: Sequence[Result]) -> dict[PurePosixPath, bytes]:
    """Write a file per task. Raises EvalkitError for several models, or two results of one task."""
    return {
        PurePosixPath(FOLDER, f"{file_name(result.task.mteb_name)}.yaml"): yaml_text([_entry(result)]).encode()
        for result in results_of_one_model(results, _FORMAT)
    }


def is_eval_results(content: bytes) -> bool:
    """Whether a file holds a list of such entries."""
    try:
        found = parse_yaml(content.decode("utf-8"))
    except ValueError:
        return False
    return isinstance(found, list) and all(isinstance(one, dict) and {"dataset", "value"} <= set(one) for one in found)


def _entry(result: Result) -> dict[str, Any]:
    dataset = dataset_of(result)
    described = {"id": dataset.identifier, "task_id": result.task.mteb_name}
    if dataset.revision:
        described["revision"] = dataset.revision
    (main, value), *others = main_figures(result).items()
    entry: dict[str, Any] = {"dataset": described, "value": value}
    timestamp = result.provenance.get("timestamp")
    if isinstance(timestamp, str):
        entry["date"] = timestamp
    entry["notes"] = _notes(result, dataset, main, others)
    return entry


def _notes(result: Result, dataset: Dataset, main: str, others: Sequence[tuple[str, float]]) -> str:
    version = (result.provenance.get("evalkit") or {}).get("version")
    facts = [
        f"{main} of {result.protocol} in percent",
        *(f"{metric} {value:.2f}" for metric, value in others),
        f"{dataset.split} split",
        counted(result.scored_queries, "query"),
        *(f"{name} {value}" for name, value in dataset.changes.items()),
        training_phrase((training_of(result),)),
        f"evalkit {version}" if version else "",
    ]
    return "; ".join((", ".join(filter(None, facts)), *remark_lines([result])))
