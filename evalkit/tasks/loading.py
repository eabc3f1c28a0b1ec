"""From a task's settings to a Task: read, check, measure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from evalkit.errors import EvalkitError
from evalkit.records import Finding, Request, Task
from evalkit.tasks.content import compare_with_published, fingerprint, has_both, task_statistics
from evalkit.tasks.findings import FindingLog, log_findings
from evalkit.tasks.first_stage import FirstStageRun, read_first_stage
from evalkit.tasks.layouts import requests_of
from evalkit.tasks.settings import TaskSettings
from evalkit.tasks.sources import complete_task, read_source
from evalkit.tasks.tables import data_stem

UNNAMED = ("", "local")  # such a task is named after its folder or file


def read_task(settings: TaskSettings, *, limit: int | None = None, offline: bool = False) -> Task:
    """Load and check one task.

    `limit` keeps the first so many queries that have both positives and negatives; statistics and fingerprint are those
    of what is kept. Findings go to the logger `evalkit`, a line per kind. A dataset whose figures differ from the
    published ones is reported, not refused.

    Raises EvalkitError where the dataset cannot be had, breaks its layout, or has no query that can be scored.
    """
    if settings.suite:
        raise EvalkitError(f"{settings.name} is a suite; load one of its tasks: {', '.join(settings.suite)}")
    if limit is not None and limit < 1:
        raise EvalkitError(f"limit={limit}: the number of queries to keep must be at least 1")
    first_stage = read_first_stage(settings)
    said = settings.model_dump(mode="json")
    settings = complete_task(settings)
    raw, source, revision = read_source(settings, offline=offline)
    log = FindingLog()
    requests = requests_of(raw, log, first_stage)
    requests = _scorable(requests, limit, source, first_stage)
    name = settings.name if settings.mteb_name or settings.name not in UNNAMED else _name_of(settings.path)
    task = Task(
        name=name,
        mteb_name=settings.mteb_name or name,
        split=raw.split,
        languages=settings.languages,
        layout=raw.layout,
        source=source,
        revision=revision,
        requests=requests,
        fingerprint=fingerprint(requests),
        statistics=task_statistics(requests),
        findings=log.findings(),
        limit=limit,
        subset=settings.subset or "default",
        first_stage=None if first_stage is None else first_stage.describe(),
        differences=() if first_stage is None else (f"the candidates of {first_stage.file.path.stem}",),
        settings=said,
    )
    if limit is None and settings.mteb_name and first_stage is None:
        task = _compared(task)
    log_findings(task.name, task.findings)
    return task


def with_deviations(task: Task, deviations: Mapping[str, Any]) -> Task:
    """Return the task with the settings, by name, that its own file does not say.

    A first stage's run is named by the digest of what it holds: a path says less than what lies there.
    """
    if task.first_stage is not None and "candidates" in deviations:
        held = f"{task.first_stage.name}-{task.first_stage.digest[:12]}"
        deviations = {**deviations, "candidates": held}
    return replace(task, deviations=deviations)


def _scorable(
    requests: tuple[Request, ...], limit: int | None, source: str, first_stage: FirstStageRun | None
) -> tuple[Request, ...]:
    scorable = [request for request in requests if has_both(request)]
    if not scorable and first_stage is not None:
        raise EvalkitError(
            f"{first_stage.file.path}: for none of the {len(requests)} queries of {source} it has both a relevant and an "
            "irrelevant document among those that are taken, so nothing can be scored; look at its ids, or raise task.top_k"
        )
    if not scorable:
        raise EvalkitError(
            f"{source}: none of its {len(requests)} queries has both a positive and a negative candidate, "
            "so nothing can be scored; add the documents that are missing (through top_ranked or task.candidates)"
        )
    return requests if limit is None else tuple(scorable[:limit])


def _name_of(path: str | None) -> str:
    if path is None:
        return ""
    place = Path(path).expanduser().resolve()
    return data_stem(place) if place.is_file() else place.name


def _compared(task: Task) -> Task:
    """Return the task, with what differs from the published dataset of its name."""
    differences = compare_with_published(task)
    if not differences:
        return task
    finding = Finding("warning", f"differs from the published dataset: {', '.join(differences)}", task.source)
    return replace(task, differences=differences, findings=(*task.findings, finding))
