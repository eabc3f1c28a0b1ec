"""Model cards and other Markdown: the model-index in the YAML at the top, and the tables below it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from evalkit.audit.figures import Figure, Unit, decimals_of, parse_number, value_of
from evalkit.audit.names import full_model_name, is_metric, model_of_path, query_count, task_name
from evalkit.audit.readers.tables import table_figures
from evalkit.configuration.files import parse_yaml
from evalkit.errors import EvalkitError
from evalkit.metrics.measures import protocol_of

# as huggingface_hub finds it; its ModelCard refuses a card whose figures are wrong, and here these are to be told
_FRONT_MATTER = re.compile(r"^(\s*---[\r\n]+)([\S\s]*?)([\r\n]+---(\r\n|\r|\n|$))")


class _Metric(NamedTuple):
    """A metric as a model-index states it."""

    model: str
    task: str
    split: str
    metric: str
    printed: str
    place: str


def card_figures(text: str, path: Path, model: str = "") -> list[Figure]:
    """Read the figures of a card's model-index and of its tables.

    A card's figures are its model's: that which `model` names, else that of the path (`…/owner/name/README.md`), else
    that of the model-index. Raises EvalkitError where the YAML is broken.
    """
    front = _FRONT_MATTER.match(text)
    owner = model or model_of_path(path.absolute())
    metrics = list(_metrics(_parse_yaml(front[2], path))) if front else []
    body = text[front.end() :] if front else text
    first_line = text[: front.end()].count("\n") if front else 0
    return _index_figures(metrics, owner, str(path)) + table_figures(body, first_line, path, owner)


def _parse_yaml(text: str, path: Path) -> object:
    try:
        return parse_yaml(text)
    except ValueError as error:
        raise EvalkitError(f"{path}: the YAML at its top is broken ({error}); mend it") from error


def _index_figures(metrics: list[_Metric], owner: str, file: str) -> list[Figure]:
    unit = unit_of([metric.printed for metric in metrics])
    return [
        Figure(
            model=owner or full_model_name(metric.model),
            task=metric.task,
            metric=metric.metric,
            value=value_of(metric.printed, unit),
            printed=metric.printed,
            decimals=decimals_of(metric.printed),
            unit=unit,
            protocol=protocol_of(metric.metric),
            file=file,
            place=metric.place,
            row=f"model-index of {metric.model}",
            kind="card",
            queries=query_count(metric.task, metric.split),
        )
        for metric in metrics
    ]


def unit_of(printed: list[str]) -> Unit:
    """Tell percentages from fractions: what most of the numbers can only be."""
    numbers = [number for number in map(parse_number, printed) if number is not None]
    return "percent" if 2 * sum(number > 1 for number in numbers) >= max(1, len(numbers)) else "fraction"


def _metrics(front_matter: object) -> Iterator[_Metric]:
    """Yield the reranking metrics of a model-index, whatever else it holds."""
    for number, entry in enumerate(_items(_get(front_matter, "model-index"))):
        for result_number, result in enumerate(_items(_get(entry, "results"))):
            dataset = _get(result, "dataset")
            names = [_text(_get(dataset, key)) for key in ("type", "name")]
            task = next(filter(None, map(task_name, names)), "")
            if not task and _text(_get(_get(result, "task"), "type")).casefold() != "reranking":
                continue
            for metric_number, metric in enumerate(_items(_get(result, "metrics"))):
                name = _text(_get(metric, "type")).casefold()
                if is_metric(name):
                    yield _Metric(
                        model=_text(_get(entry, "name")),
                        task=task or names[1] or names[0],
                        split=_text(_get(dataset, "split")),
                        metric=name,
                        printed=_printed(_get(metric, "value")),
                        place=f"model-index[{number}].results[{result_number}].metrics[{metric_number}] ({task} {name})",
                    )


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _get(holder: object, key: str) -> object:
    return holder.get(key) if isinstance(holder, dict) else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _printed(value: object) -> str:
    """Give a YAML value's digits: a float's repr is the shortest that is the same float."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return "null" if value is None else type(value).__name__
    if isinstance(value, int) and abs(value) > 10**18:
        return "a very large number"
    return str(value) if isinstance(value, str | int) else repr(value)
