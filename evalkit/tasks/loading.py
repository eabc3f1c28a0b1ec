"""From a task's settings to a Task: read, check, measure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from evalkit.errors import EvalkitError
from evalkit.records import Finding, Request, Task
from evalkit.tasks.content import compare_with_published, fingerprint, has_both, task_statistics
from evalkit.tasks.findings import FindingLog, tell
from evalkit.tasks.first_stage import FirstStageRun, read_first_stage
from evalkit.tasks.hub import UNPINNED, read_hub
from evalkit.tasks.layouts import RawDataset, read_path
from evalkit.tasks.parts import requests_from_parts, rerank_rows
from evalkit.tasks.rows import requests_from_rows
from evalkit.tasks.settings import TaskSettings

_BUNDLED = Path(__file__).parent / "demo"

UNNAMED = ("", "local")  # such a task is named after its folder or file


def load_task(settings: TaskSettings, *, limit: int | None = None, offline: bool = False) -> Task:
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
    settings = _completed(settings)
    raw, source, revision = _read(settings, offline=offline)
    log = FindingLog()
    if raw.layout == "cmteb":
        requests = requests_from_rows(raw.parts["rows"], raw.split, log)
        log.raise_errors()
        requests = requests if first_stage is None else rerank_rows(requests, first_stage, log)
    else:
        requests = requests_from_parts(raw.parts, log, first_stage)
    log.raise_errors()
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
    tell(task.name, task.findings)
    return task


def _completed(settings: TaskSettings) -> TaskSettings:
    """The settings, with what the task's registry knows."""
    if settings.registry is None or settings.path is not None:
        return settings
    from evalkit.tasks.registered import complete  # imports mteb, which takes seconds

    return complete(settings)


def _read(settings: TaskSettings, *, offline: bool) -> tuple[RawDataset, str, str]:
    """The dataset as read, where it is from, and its revision."""
    if settings.path is not None:
        return _read_local(Path(settings.path).expanduser(), settings.split), settings.path, UNPINNED
    if settings.bundled is not None:
        return _read_local(_BUNDLED / settings.bundled, settings.split), "bundled", UNPINNED
    if settings.registry is not None:
        from evalkit.tasks.registered import read_registered

        return read_registered(settings, offline=offline)
    location = settings.cmteb if settings.source == "cmteb" else settings.mteb
    if location is None:
        raise EvalkitError(_no_source(settings))
    return read_hub(location, settings.source, settings.split, offline=offline)


def _read_local(path: Path, split: str) -> RawDataset:
    try:
        return read_path(path, split)
    except OSError as error:
        raise EvalkitError(f"{path} cannot be read: {error.strerror or error}; check task.path") from error


def _no_source(settings: TaskSettings) -> str:
    if settings.cmteb is None and settings.mteb is None:
        return f"task={settings.name} needs a file or folder: task.path=PATH"
    other = "cmteb" if settings.source == "mteb" else "mteb"
    return f"task={settings.name} has no copy in the layout task.source={settings.source}; use task.source={other}"


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
            "so nothing can be scored; add the documents that are missing (in mteb 2's layout through top_ranked)"
        )
    return requests if limit is None else tuple(scorable[:limit])


def _name_of(path: str | None) -> str:
    if path is None:
        return ""
    place = Path(path).expanduser().resolve()
    return place.stem if place.is_file() else place.name


def _compared(task: Task) -> Task:
    """The task, with what differs from the published dataset of its name."""
    differences = compare_with_published(task)
    if not differences:
        return task
    finding = Finding("warning", f"differs from the published dataset: {', '.join(differences)}", task.source)
    return replace(task, differences=differences, findings=(*task.findings, finding))
