"""What files call tasks, metrics and models, and what evalkit calls them; how large the published tasks are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from evalkit.metrics.formulas import WHOLE_LIST
from evalkit.metrics.measures import (
    CARD_PROTOCOL,
    PROTOCOLS,
    RETRIEVAL_PROTOCOL,
    all_measures,
    find_measure,
    is_measure,
    protocol_of,
)
from evalkit.published_statistics import published_statistics
from evalkit.results import published
from evalkit.results.published import AVERAGE_TASK, SUITES

_TASKS = {
    "t2reranking": "T2Reranking",
    "t2rerankingzh2en": "T2RerankingZh2En",
    "t2rerankingen2zh": "T2RerankingEn2Zh",
    "mmarcoreranking": "MMarcoReranking",
    "mmarco": "MMarcoReranking",
    "cmedqav1": "CMedQAv1",
    "cmedqav1reranking": "CMedQAv1",
    "cmedqav2": "CMedQAv2",
    "cmedqav2reranking": "CMedQAv2",
    "cmtebr": "CMTEB-R",
}
_REPORTED = frozenset(measure.name for measure in all_measures())
_AVERAGES = {"avg", "average", "mean", "平均"}
_SPLITS = {"T2Reranking": "dev", "MMarcoReranking": "dev", "CMedQAv1": "test", "CMedQAv2": "test"}


@dataclass(frozen=True, slots=True)
class TaskSize:
    """How large a published task is."""

    queries: int
    pairs: int
    positives: int


def task_name(text: str) -> str:
    """Name the task that a text means (`C-MTEB/CMedQAv1-reranking`, `MTEB T2Reranking`), empty for none of ours."""
    plain = text.strip().rpartition("/")[2].removeprefix("MTEB ")
    letters = re.sub(r"[\s_*\-]", "", plain).casefold()
    return AVERAGE_TASK if letters in _AVERAGES else _TASKS.get(letters, "")


def usual_metric(task: str) -> str:
    """Name the metric of a task's figures where a table does not say: MAP, or nDCG@10 of a mean over retrieval tasks."""
    return PROTOCOLS[RETRIEVAL_PROTOCOL if task in SUITES else CARD_PROTOCOL].main_score


def usual_protocol(task: str, metric: str) -> str:
    """Name the protocol that a task's figure of a metric is of, as far as its name says."""
    return RETRIEVAL_PROTOCOL if task in SUITES else protocol_of(metric)


def is_metric(name: str) -> bool:
    """Tell whether a name is that of a measure, all of which lie between 0 and 1, or of a main score."""
    # a bare word of the notation, such as R or AP, may stand for anything in a table of others
    return name == "main_score" or (("_at_" in name or "@" in name or name in _REPORTED) and is_measure(name))


def mrr_cutoff(metric: str) -> int | None:
    """Give the cutoff of a mean reciprocal rank (cmteb-v1's is 10), None for other metrics."""
    if not is_measure(metric):
        return None
    measure = find_measure(metric)
    return measure.cutoff if measure.metric.name == "mrr" and measure.cutoff != WHOLE_LIST else None


def query_count(task: str, split: str = "") -> int | None:
    """Return how many queries a published task has, None where nobody says so, or of another split."""
    size = task_size(task)
    return size.queries if size and split in ("", _SPLITS.get(task)) else None


def task_size(task: str) -> TaskSize | None:
    """Return how large a published task is; None for others."""
    return _task_sizes().get(task)


@cache
def _task_sizes() -> dict[str, TaskSize]:
    return {
        task_name(name): TaskSize(entry["queries"], entry["pairs"], entry["positives"])
        for name, entry in published_statistics().items()
    }


def full_model_name(name: str) -> str:
    """Give a model's name with its owner where the registry has one such model alone; else the name as it is.

    Tables also write `OpenAI(text-embedding-ada-002)`, or the reverse.
    """
    name = name.strip()
    if "/" in name:
        return name
    for part in (name, *re.split(r"[()（）]", name)):
        owned = [known for known in _model_names().get(part.strip().casefold(), ()) if "/" in known]
        if len(owned) == 1:
            return owned[0]
    return name


def model_of_path(path: Path) -> str:
    """Name the model that a path speaks of: `…/owner__name/…`, `…/models--owner--name/…`, or a published model's name."""
    for part in (path.stem, *reversed(path.parts[:-1])):
        owner, mark, name = part.removeprefix("models--").partition("--" if part.startswith("models--") else "__")
        if mark and owner and name:
            return f"{owner}/{name}"
        if part.casefold() in _model_names():
            return full_model_name(part)
    return ""


def short_name(model: str) -> str:
    """Give a model's name without its owner, to compare."""
    return model.rpartition("/")[2].casefold()


@cache
def _model_names() -> dict[str, tuple[str, ...]]:
    names: dict[str, dict[str, None]] = {}
    for figure in published.all_figures():
        names.setdefault(short_name(figure.model), {})[figure.model] = None
    return {name: tuple(models) for name, models in names.items()}
