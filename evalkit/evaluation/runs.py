"""One `run`: its tasks checked before any weights load, its results written as each is done."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from evalkit.cache import cache_folder
from evalkit.cluster.settings import RaySettings
from evalkit.configuration.files import Origin
from evalkit.errors import EvalkitError
from evalkit.evaluation.certificates import find_certificate
from evalkit.evaluation.certifying import CertificateGuard
from evalkit.evaluation.evaluate import (
    FULL_PRECISION,
    Model,
    build_model,
    checked_refinement,
    deviations_of,
    evaluate,
    load_first_stage,
)
from evalkit.evaluation.first_stages import FirstStages
from evalkit.evaluation.goldens import check_golden_scores, refuse_other_weights
from evalkit.evaluation.model_recipes import recipe_fields, recipe_line
from evalkit.evaluation.score_memory import Cache, stored_under
from evalkit.metrics import Measure
from evalkit.metrics.measures import choose_protocol
from evalkit.models.folders.resolving import RECIPE, StatedBy
from evalkit.models.interfaces import Runtime
from evalkit.models.settings import ModelSettings
from evalkit.models.weights import REVISION_DIGITS
from evalkit.output.json import plain_json
from evalkit.output.numbers import counted
from evalkit.output.text import homeless
from evalkit.records import Task
from evalkit.results.folders import experiment_slug, result_folder
from evalkit.results.result import Result
from evalkit.results.writing import refuse_other_result, result_file, write_result
from evalkit.scoring.store import descriptions
from evalkit.tasks.content import warn_of_changed_data
from evalkit.tasks.loading import read_task, with_deviations
from evalkit.tasks.settings import TaskSettings, suite_settings

logger = logging.getLogger("evalkit")
_latest: list[Model] = []  # at most one: its weights fill the memory
_compared: list[Model] = []  # at most one: the latest whose files were compared with its certificate


@dataclass(frozen=True)
class RunSettings:
    """All that a run is told.

    `model_deviations` are the settings of the model, its backend, precision and seed that differ from its own, `task_deviations`
    those of the task and its limit, both by name; `config_folders` hold the user's own options.
    With `ray` a cluster runs the model. With `reproduce` the run starts with the golden scores of the model, if it has any.
    `origins` says of each setting, by its name on the command line, whether the user said it, a file, or nobody; `stated` the same
    of the model's fields, for its recipe.
    """

    task: TaskSettings
    model: ModelSettings
    backend: str
    runtime: Runtime
    protocol: str
    measures: Sequence[Measure]
    limit: int | None
    sample: int | None
    sample_seed: int
    texts: bool
    reproduce: bool
    cache: Cache
    refine: str | None
    results_dir: Path
    config_folders: Sequence[Path]
    model_deviations: Mapping[str, Any]
    task_deviations: Mapping[str, Any]
    origins: Mapping[str, Origin]
    ray: RaySettings | None = None
    stated: Mapping[str, StatedBy] = field(default_factory=dict)


def run(settings: RunSettings) -> Iterator[Result]:
    """Evaluate the model on the task, or on each task of the suite; yield each result as soon as its files are written.

    Raises EvalkitError for whatever is wrong: settings first, then data, then weights; MismatchError where the weights or the
    tokenizer are not those of the model's certificate, or with `reproduce` miss its golden scores.
    """
    choose_protocol(settings.protocol, misses=False)
    _refuse_unwritable(settings.results_dir)
    model = model_of(settings, held_to_certificate=True)
    checked_refinement(settings.refine, model)
    tasks = tasks_of(settings)
    _compare_files_once(model)
    golden = check_golden_scores(model) if settings.reproduce else ()
    refuse_other_weights(golden, model.settings)
    names = [measure.name for measure in settings.measures]
    _tell_of_older(model, settings)
    for task in tasks:
        queries = counted(task.statistics.queries, "query")
        logger.info("%s: %s, %s", task.name, queries, counted(task.statistics.pairs, "pair"))
        folder = _refuse_taken(model, task, settings)
        result = evaluate(
            model,
            task,
            protocol=settings.protocol,
            measures=names,
            seed=settings.runtime.seed,
            texts=settings.texts,
            cache=settings.cache,
            refine=settings.refine,
        )
        if settings.reproduce:
            result = replace(result, config={**result.config, "reproduce": True})
        if golden:
            checks = plain_json([{**asdict(check), "matches": check.matches} for check in golden])
            result = replace(result, provenance={**result.provenance, "golden_scores": checks})
        yield replace(result, path=write_result(result, folder, with_texts=settings.texts))


def _refuse_taken(model: Model, task: Task, settings: RunSettings) -> Path:
    """Return the folder that the result will lie in. Raises EvalkitError, before anything is scored, where another lies there."""
    runnable = model.runnable_on(task)
    refine = checked_refinement(settings.refine, model)
    deviations = deviations_of(model, runnable, task, settings.runtime.seed, refine)
    folder = result_folder(settings.results_dir, runnable.identity, experiment_slug(deviations))
    recipe = {} if model.recipe is None else recipe_fields(model.recipe)
    pairs = [(request.query.query_id, one.doc_id) for request in task.requests for one in request.candidates]
    ids = [query_id for query_id, _ in pairs], [doc_id for _, doc_id in pairs]
    refuse_other_result(result_file(task, folder), runnable.identity, task.identity, ids, deviations, recipe)
    return folder


def _tell_of_older(model: Model, settings: RunSettings) -> None:
    """Say what an earlier evalkit left of the same weights: it named models by these alone, and other files decide scores too."""
    stored = () if settings.cache == "off" else descriptions(cache_folder(settings.runtime.cache_dir))
    way, now = plain_json(model.runnable.way), plain_json(stored_under(model.runnable))
    if way != now and way in stored and now not in stored:
        logger.info(
            "%s: an earlier evalkit left scores in the store, which are not used: it mixed those of limited runs with those of "
            "whole ones, whose last digits differ; evalkit cache prune deletes them",
            model.settings.name,
        )
    identity = model.runnable.identity
    older = identity.weights_hash[:REVISION_DIGITS]
    if not older or identity.revision == older:
        return
    left = []
    folder = result_folder(settings.results_dir, replace(identity, revision=older))
    if identity.hub_id.startswith("local/") and folder.is_dir():
        left.append(f"results in {homeless(str(folder))}")
    if any(
        "identity" not in one and (one.get("weights_hash") == identity.weights_hash or one.get("revision") == older)
        for one in stored
    ):
        left.append("scores in the store")
    if left:
        logger.info(
            "%s: an earlier evalkit left %s, which are not used: it told models apart by their weights alone, and tokenizer, "
            "configuration and code decide scores too",
            identity.name,
            " and ".join(left),
        )


def model_of(settings: RunSettings, *, held_to_certificate: bool = False) -> Model:
    """Return the model, checked but not loaded; a sweep that names the latest again finds it loaded, unless its files have changed.

    Held to its certificate, if it has one, it is compared with that when its weights load.
    """
    model = build_model(
        settings.model,
        settings.backend,
        settings.runtime,
        settings.ray,
        dict(settings.model_deviations),
        settings.stated,
    )
    if held_to_certificate:
        model = _held(model, settings.config_folders)
    if [model] != _latest or not _is_as_found(_latest[0], model):
        _latest[:] = [model]
        if model.recipe is not None and model.settings.kind in RECIPE:
            logger.info("%s: %s", model.settings.name, recipe_line(model.recipe, model.runtime.dtype))
    return _latest[0]


def _is_as_found(earlier: Model, again: Model) -> bool:
    """Whether what an earlier run found is what is there now: a model's files may change between two runs of one process."""
    if "runnable" not in vars(earlier):  # nothing was found yet: it will be when it is used
        return True
    return earlier.runnable.scores_as(again.runnable)


def _compare_files_once(model: Model) -> None:
    """Compare what needs no weights with the model's certificate, once for each model. Raises MismatchError as its guard does."""
    if isinstance(model.check, CertificateGuard) and [model] != _compared:
        model.check.check_files(model)
        _compared[:] = [model]


def tasks_of(settings: RunSettings) -> list[Task]:
    """Return the task, or the tasks of the suite, loaded and checked."""
    runtime = replace(settings.runtime, dtype=FULL_PRECISION, server=None)
    cut = (settings.limit, settings.sample, settings.sample_seed)
    told = (cut, runtime, settings.ray, tuple(settings.config_folders), settings.cache)
    tasks = [
        with_deviations(_task(task, *told), settings.task_deviations)
        for task in suite_settings(settings.task, settings.config_folders)
    ]
    for task in tasks:
        warn_of_changed_data(task, cache_folder(settings.runtime.cache_dir))
    return tasks


@cache
def _task(
    settings: TaskSettings,
    cut: tuple[int | None, int | None, int],
    runtime: Runtime,
    ray: RaySettings | None,
    folders: tuple[Path, ...],
    kept: Cache,
) -> Task:
    """Return the task, cut (limit, sample, its seed); a sweep over models loads it once, and its first stage searches once."""

    def load(name: str) -> Model:
        return _held(load_first_stage(name, runtime, ray, folders), folders)

    stages = FirstStages(load, runtime.cache_dir, kept)
    limit, sample, seed = cut
    return read_task(
        settings, limit=limit, sample=sample, sample_seed=seed, offline=runtime.offline, retrieve=stages.retrieve
    )


def _held(model: Model, folders: Sequence[Path]) -> Model:
    """Return the model held to its certificate, if it has one: compared with that when its weights load."""
    certificate = find_certificate(model.settings, folders)
    return model if certificate is None else replace(model, check=CertificateGuard(certificate[1]))


def _refuse_unwritable(folder: Path) -> None:
    """Better before the scoring than after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:  # of a name of its own, and gone with the process
            probe.write(b"evalkit")
    except OSError as error:
        raise EvalkitError(f"results_dir={folder} can't be written: {error.strerror}; choose another folder") from error
