"""Results as JSON: mteb's (since 2023, in three shapes) and evalkit's own, which is mteb's with a block of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evalkit.audit.figures import Figure, FigureKind, decimals_of, value_of
from evalkit.audit.names import full_model_name, is_metric, model_of_path, query_count, task_name
from evalkit.errors import EvalkitError
from evalkit.metrics.measures import find_measure, is_measure, protocol_of
from evalkit.results.folders import MODEL_FILE

_DESCRIPTIONS = ("mteb_version", "mteb_dataset_name", "dataset_revision", "task_name", "evaluation_time", "evalkit")
_DEEPEST = 3  # split, subset, metrics


class _Digits(str):
    """A number as the file writes it."""

    __slots__ = ()


def parse_json(text: str, path: Path) -> dict[str, Any]:
    """Parse JSON, numbers as their own digits. Raises EvalkitError where it is none, or is no object."""
    try:
        content = json.loads(text, parse_float=_Digits, parse_int=_Digits, parse_constant=_Digits)
    except (ValueError, RecursionError) as error:
        raise EvalkitError(
            f"{path} is not valid JSON ({error}); give a result's JSON as mteb or evalkit wrote it"
        ) from error
    if not isinstance(content, dict):
        raise EvalkitError(f"{path} is no result: it holds no JSON object; give a result's JSON")
    return content


def is_own_result(content: Mapping[str, Any]) -> bool:
    """Tell evalkit's own results from mteb's."""
    return isinstance(content.get("evalkit"), dict)


def result_figures(content: Mapping[str, Any], path: Path, model: str = "") -> list[Figure]:
    """Give the metrics of a result: `scores: {split: [{…}]}` as since mteb 1.11, `{split: {…}}` as before."""
    own = content["evalkit"] if is_own_result(content) else {}
    task_text = str(content.get("task_name") or content.get("mteb_dataset_name") or path.stem)
    task = task_name(task_text) or task_text
    kind: FigureKind = "own result" if own else "result"
    of_mteb_2 = not own and str(content.get("mteb_version") or "").startswith("2")
    figures = []
    for split, place, block in _blocks(content):
        # a result of other data than the published, or of a part of them, tells by itself how many queries there were
        queries = None if own else query_count(task, split)
        for metric, number in block.items():
            if not is_metric(metric):
                continue
            printed = _printed(number)
            figures.append(
                Figure(
                    model=model or _model_of(own, path),
                    task=task,
                    metric=metric,
                    value=value_of(printed, "fraction"),
                    printed=printed,
                    decimals=decimals_of(printed),
                    unit="fraction",
                    protocol="mteb-v2" if of_mteb_2 else protocol_of(metric),
                    file=str(path),
                    place=f"{place}.{metric}",
                    row=place,
                    kind=kind,
                    queries=_own_query_count(own, metric) if own else queries,
                )
            )
    return figures if any(figure.metric != "main_score" for figure in figures) else []


def _blocks(content: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield each split's metrics, with the split's name and their place."""
    scores = content.get("scores")
    holder = scores if isinstance(scores, dict) else content
    prefix = "scores." if holder is scores else ""
    for split, block in holder.items():
        if split in _DESCRIPTIONS:
            continue
        for place, metrics in _metrics_below(block, f"{prefix}{split}", _DEEPEST):
            yield str(split), place, metrics


def _metrics_below(block: object, place: str, depth: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Find the objects that hold metrics: the block itself, or those in it (a list of subsets, a language each)."""
    if isinstance(block, dict) and any(is_metric(str(key)) for key in block):
        yield place, block
    elif depth and isinstance(block, dict):
        for key, part in block.items():
            yield from _metrics_below(part, f"{place}.{key}", depth - 1)
    elif depth and isinstance(block, list):
        for number, part in enumerate(block):
            yield from _metrics_below(part, f"{place}[{number}]", depth - 1)


def _printed(number: object) -> str:
    if isinstance(number, str):  # digits, or a text that stands where a number should
        return str(number)
    return "null" if number is None else f"{type(number).__name__}"


def _model_of(own: Mapping[str, Any], path: Path) -> str:
    """Name the model: as evalkit recorded it, as the file beside the result says, or as the path does."""
    recorded = own.get("model")
    if isinstance(recorded, dict) and isinstance(recorded.get("hub_id"), str):
        return str(recorded["hub_id"])
    try:
        beside = json.loads(path.with_name(MODEL_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        beside = None
    if isinstance(beside, dict) and isinstance(beside.get("name"), str):
        return full_model_name(beside["name"])
    return model_of_path(path.resolve())


def _own_query_count(own: Mapping[str, Any], metric: str) -> int | None:
    """How many queries a metric of evalkit's own result is over: cmteb-v1 drops those without both kinds."""
    task = own.get("task")
    statistics = task.get("statistics") if isinstance(task, dict) else None
    if not isinstance(statistics, dict):
        return None
    names = ("queries", "queries_without_positives", "queries_without_negatives")
    numbers = [statistics.get(name) for name in names]
    if not all(isinstance(number, _Digits) and number.isdecimal() and len(number) < 10 for number in numbers):
        return None
    every, without_positives, without_negatives = (int(str(number)) for number in numbers)
    scored = every - without_positives - without_negatives if _drops_queries(metric) else every
    return scored if scored > 0 else None


def _drops_queries(metric: str) -> bool:
    """Tell whether a metric's rules leave out queries without a positive or a negative candidate."""
    return is_measure(metric) and find_measure(metric).rules.needs_both_kinds
