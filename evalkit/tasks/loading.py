"""From a task's settings to a Task: read, check, measure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from evalkit.errors import EvalkitError
from evalkit.published_statistics import mteb_task_names, published_statistics
from evalkit.records import OTHER_DATA, SAMPLE_SEED, Finding, Request, Task, TaskSample
from evalkit.tasks.content import compare_with_published, fingerprint, has_both, task_statistics
from evalkit.tasks.findings import Cell, FindingLog, log_findings
from evalkit.tasks.first_stage import FirstStageRun, Retriever, read_first_stage
from evalkit.tasks.layouts import corpus_of, requests_of, with_scores
from evalkit.tasks.layouts.reading import RawDataset
from evalkit.tasks.sampling import draw_queries
from evalkit.tasks.settings import TOP_K, TaskSettings, read_settings, task_names
from evalkit.tasks.sources import complete_task, read_source
from evalkit.tasks.tables import data_stem

UNNAMED = ("", "local")  # such a task is named after its folder or file


def read_task(
    settings: TaskSettings,
    *,
    limit: int | None = None,
    sample: int | None = None,
    sample_seed: int = SAMPLE_SEED,
    offline: bool = False,
    retrieve: Retriever | None = None,
) -> Task:
    """Load and check one task. `retrieve` lets the models of `settings.first_stage` search its corpus, where some are named.

    `limit` keeps the first so many queries that can be scored, `sample` draws so many of them by `sample_seed`, or leaves the task
    whole where there are no more; statistics and fingerprint are those of what is kept. Findings go to the logger `evalkit`, a line
    per kind. A benchmark's data whose sizes differ from the published ones are reported, not refused; data under a benchmark's name
    that are not known to be its own get another name.

    Raises EvalkitError where the dataset cannot be had, breaks its layout, or has no query that can be scored.
    """
    if settings.suite:
        raise EvalkitError(f"{settings.name} is a suite; load one of its tasks: {', '.join(settings.suite)}")
    _refuse_cut(limit, sample, sample_seed)
    first_stage = read_first_stage(settings)
    said = settings.model_dump(mode="json")
    settings = complete_task(settings)
    _refuse_without_candidates(settings)
    raw, source, revision = read_source(settings, offline=offline)
    raw = with_scores(raw) if settings.type == "retrieval" else raw
    _refuse_without_candidates(settings, raw)
    log = FindingLog()
    first_stage = _retrieved(settings, raw, retrieve, log) or first_stage
    requests = requests_of(raw, log, first_stage, ignore_identical_ids=settings.ignore_identical_ids)
    name = settings.name if settings.mteb_name or settings.name not in UNNAMED else _name_of(settings.path)
    mteb_name = settings.mteb_name or name
    # a first stage's candidates are not the benchmark's: its data are compared without them
    differences, is_other = _compared(
        settings,
        name,
        mteb_name,
        lambda: requests if first_stage is None else requests_of(raw, FindingLog(), None),
    )
    findings = log.findings()
    asked = settings.split != TaskSettings.defaults()["split"] and _is_folder(settings.path)
    if asked and raw.split not in ("", settings.split):
        why = f"task.split={settings.split}: the data have one split, {raw.split}, and that is read"
        findings += (Finding("warning", why, source),)
    if is_other:
        why = f"these data are not known to be {name}'s ({', '.join(differences)}): their figures are those of"
        name, mteb_name = f"{name} {OTHER_DATA}", f"{mteb_name} {OTHER_DATA}"
        findings += (Finding("warning", f"{why} {name!r}, and compared with none of the benchmark's", source),)
    elif differences:
        findings += (Finding("warning", f"differs from the published dataset: {', '.join(differences)}", source),)
    if first_stage is not None and settings.type != "retrieval":  # whose candidates always are a first stage's
        differences += (f"the candidates of {first_stage.describe().name}",)
    scorable = _scorable(requests, source, first_stage, is_retrieval=settings.type == "retrieval")
    drawn: TaskSample | None = None
    strata: tuple[int, ...] = ()
    if limit is not None:  # of no fewer the task is whole, with the queries that only some protocols count
        requests = scorable[:limit] if limit < len(scorable) else requests
    elif sample is not None:
        drawn, kept, strata = draw_queries(scorable, sample, sample_seed, len(requests) - len(scorable))
        requests = requests if drawn.is_whole else kept
    task = Task(
        name=name,
        mteb_name=mteb_name,
        split=raw.split,
        languages=settings.languages,
        layout=raw.layout,
        source=source,
        revision=revision,
        requests=requests,
        fingerprint=fingerprint(requests),
        statistics=task_statistics(requests),
        findings=findings,
        limit=limit,
        subset=settings.subset or "default",
        first_stage=None if first_stage is None else first_stage.describe(),
        differences=differences,
        sample=drawn,
        strata=strata,
        settings=said,
    )
    log_findings(task.name, task.findings)
    return task


def _retrieved(
    settings: TaskSettings, raw: RawDataset, retrieve: Retriever | None, log: FindingLog
) -> FirstStageRun | None:
    """Return what the models of `settings.first_stage` find in the corpus; None where none are named."""
    if not settings.first_stages:
        return None
    if retrieve is None:
        raise TypeError("task.first_stage needs somebody who retrieves")
    found = retrieve(settings.first_stages, corpus_of(raw), settings.top_k or TOP_K)
    for finding in found.made.get("findings", ()):
        log.add("warning", f"first stage: {finding}", Cell(str(found.file.path)))
    return found


def _refuse_without_candidates(settings: TaskSettings, raw: RawDataset | None = None) -> None:
    """Raise EvalkitError where a retrieval task has nothing to rerank; without `raw`, where that is known before it is read."""
    if settings.type != "retrieval" or settings.candidates is not None or settings.first_stages:
        return
    is_of_hub = settings.path is None and settings.bundled is None and settings.registry is None
    lacks = (
        is_of_hub and not settings.top_ranked if raw is None else raw.layout == "mteb" and "top_ranked" not in raw.parts
    )
    if lacks:
        raise EvalkitError(
            f"{settings.name} is a retrieval task, a corpus without candidates: say who retrieves them (task.first_stage=MODEL, as "
            "task.first_stage=bm25), or give a first stage's run with task.candidates=FILE"
        )


def with_deviations(task: Task, deviations: Mapping[str, Any]) -> Task:
    """Return the task with the settings, by name, that its own file does not say.

    A first stage's run is named by the digest of what it holds: a path says less than what lies there. One that evalkit made is
    named by the digest of who retrieved and how, which a suite's tasks share.
    """
    first = task.first_stage
    for setting in ("candidates", "first_stage"):
        if first is not None and setting in deviations:
            recipe = json.dumps(first.made.get("stages", ()), sort_keys=True, ensure_ascii=False)
            digest = hashlib.sha256(recipe.encode()).hexdigest() if first.made else first.digest
            deviations = {**deviations, setting: f"{first.name}-{digest[:12]}"}
    if deviations.get("top_k") == TOP_K and "first_stage" in deviations:
        deviations = {name: value for name, value in deviations.items() if name != "top_k"}  # said, and so anyway
    return replace(task, deviations=deviations)


def _compared(
    settings: TaskSettings, name: str, mteb_name: str, whole: Callable[[], Sequence[Request]]
) -> tuple[tuple[str, ...], bool]:
    """Say how a whole task differs from the benchmark of its name, and whether it must not be called so.

    A benchmark's data are those of the place that evalkit's own file or mteb names, and those whose sizes are the published ones.
    """
    known = benchmarks()
    benchmark = known.get(mteb_name.casefold()) or known.get(name.casefold())
    if benchmark is None and settings.registry is None:
        return (), False
    differences = () if benchmark is None else compare_with_published(benchmark.mteb_name, whole())
    if settings.path is None and (benchmark is None or settings.registry or _place(settings) == _place(benchmark)):
        return differences, False
    if benchmark is None or differences or benchmark.mteb_name not in published_statistics():
        return differences or ("the sizes of its data are not known",), True
    return (), False


def _place(settings: TaskSettings) -> tuple[object, ...]:
    location = settings.cmteb if settings.source == "cmteb" else settings.mteb
    return settings.path, settings.bundled, settings.source, location, settings.split, settings.subset


@cache
def benchmarks() -> Mapping[str, TaskSettings]:
    """Return the settings of each public benchmark by its names in small letters: evalkit's own, else the name that mteb knows."""
    own = [read_settings(name) for name in task_names()]
    public = {one.mteb_name: one for one in own if one.cmteb or one.mteb}
    known = {name: public.get(name, TaskSettings(name=name, mteb_name=name)) for name in (*mteb_task_names(), *public)}
    return {name.casefold(): one for one in known.values() for name in (one.name, one.mteb_name)}


def _refuse_cut(limit: int | None, sample: int | None, sample_seed: int) -> None:
    """Raise EvalkitError where it can't be told which queries to keep."""
    for name, said in {"limit": limit, "sample": sample, "sample_seed": sample_seed}.items():
        if (said is not None or name == "sample_seed") and (isinstance(said, bool) or not isinstance(said, int)):
            raise EvalkitError(f"{name}={said!r}: a whole number")
    for name, number in (("limit", limit), ("sample", sample)):
        if number is not None and number < 1:
            raise EvalkitError(f"{name}={number}: the number of queries to keep must be at least 1")
    if limit is not None and sample is not None:
        raise EvalkitError(
            f"limit={limit} takes the first queries and sample={sample} draws any: leave one of them out"
        )
    if sample_seed < 0:
        raise EvalkitError(f"sample_seed={sample_seed}: a whole number, 0 or more")
    if sample is None and sample_seed != SAMPLE_SEED:
        raise EvalkitError(f"sample_seed={sample_seed} has no effect without sample=N")


def _scorable(
    requests: tuple[Request, ...], source: str, first_stage: FirstStageRun | None, *, is_retrieval: bool
) -> tuple[Request, ...]:
    """Return the queries that can be scored. Raises EvalkitError where there is none.

    A query whose relevant documents a first stage missed counts among these: leaving it out would flatter every figure. So does one
    that has found nothing else: leaving it out would do the opposite. Of a retrieval task every query counts, as in mteb.
    """
    scorable = [request for request in requests if has_both(request)]
    if not scorable and first_stage is not None:
        raise EvalkitError(
            f"{first_stage.file.path}: for none of the {len(requests)} queries of {source} it has both a relevant and an "
            "irrelevant document among those that are taken, without which cmteb-v1 has no MAP and MRR; look at its ids, or "
            "raise task.top_k"
        )
    if is_retrieval:
        return requests
    if not scorable:
        raise EvalkitError(
            f"{source}: none of its {len(requests)} queries has both a positive and a negative candidate, "
            "so nothing can be scored; add the documents that are missing (through top_ranked or task.candidates)"
        )
    counts = has_both if first_stage is None else _has_relevant
    return tuple(one for one in requests if counts(one) or any(one.unretrieved_gains))


def _has_relevant(request: Request) -> bool:
    return any(request.unretrieved_gains) or any(candidate.gain > 0 for candidate in request.candidates)


def _is_folder(path: str | None) -> bool:
    return path is not None and Path(path).expanduser().is_dir()


def _name_of(path: str | None) -> str:
    if path is None:
        return ""
    place = Path(path).expanduser().resolve()
    return data_stem(place) if place.is_file() else place.name
