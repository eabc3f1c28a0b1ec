"""`model-index`: the part of a model card's YAML that holds its figures, as huggingface_hub reads and writes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from evalkit.configuration.files import parse_yaml
from evalkit.report.exports.selection import dataset_of, main_figures, results_of_one_model
from evalkit.results.result import Result, remark_lines
from evalkit.results.training import training_of, training_phrase

KEY = "model-index"
TASK_TYPE, RETRIEVAL_TYPE = "Reranking", "Retrieval"
Entry = dict[str, Any]


def model_index_text(results: Sequence[Result]) -> str:
    """Write the YAML of one model's results. Raises EvalkitError for several models, or two results of one task."""
    name, entries = index_entries(results)
    return yaml_text({KEY: [{"name": name, "results": entries}]})


def index_entries(results: Sequence[Result]) -> tuple[str, list[Entry]]:
    """Give the model's name and an entry for each of its tasks: task, dataset, and metrics in percent."""
    chosen = results_of_one_model(results, KEY)
    return chosen[0].model.hub_id.rpartition("/")[2], [_entry(result) for result in chosen]


def yaml_text(content: object) -> str:
    """Write YAML as model cards have it: keys in their order, Chinese as it is, a line per value."""
    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=2**31, default_flow_style=False)
    return text


def is_model_index(content: bytes) -> bool:
    """Whether a file holds a model-index and nothing else."""
    try:
        found = parse_yaml(content.decode("utf-8"))
    except ValueError:
        return False
    return isinstance(found, dict) and list(found) == [KEY]


def _entry(result: Result) -> Entry:
    dataset = dataset_of(result)
    described: Entry = {
        "type": dataset.identifier,
        "name": dataset.name,
        "config": dataset.subset,
        "split": dataset.split,
    }
    if dataset.revision:
        described["revision"] = dataset.revision
    known = {"training": training_phrase((training_of(result),)), "remarks": remark_lines([result])}
    args = {**dataset.changes, **{name: value for name, value in known.items() if value}}
    if args:
        described["args"] = args
    metrics = [{"type": metric, "value": value} for metric, value in main_figures(result).items()]
    return {
        "task": {"type": RETRIEVAL_TYPE if result.is_retrieval else TASK_TYPE},
        "dataset": described,
        "metrics": metrics,
    }
