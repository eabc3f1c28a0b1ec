"""The way of the data, from a model and a task to a result: what the commands call, and Python users too."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, get_args
from uuid import uuid4

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evalkit import machine
from evalkit.backends import (
    AUTO,
    as_served,
    backends_for,
    check_backend,
    choose_server,
    complete_settings,
    prepare_model,
    read_backend,
)
from evalkit.backends.in_memory import ObjectKind, ObjectOptions, keep_object
from evalkit.cluster.models import check_on_ray, model_on_ray, runs_here
from evalkit.cluster.settings import RaySettings, ray_settings
from evalkit.configuration.files import config_folders, default_settings, read_option
from evalkit.errors import EvalkitError
from evalkit.evaluation.first_stages import FirstStages
from evalkit.evaluation.model_recipes import (
    complete_recipe,
    findings_of,
    recipe_fields,
    snapshot_findings,
    stated_fields,
    with_recipe,
)
from evalkit.evaluation.precision import GradedCandidates, compare_precisions, noise_of, refine_scores, sample_of
from evalkit.evaluation.score_memory import Cache, score_memory
from evalkit.evaluation.settings import backend_settings, find_deviations, recorded_settings
from evalkit.metrics import (
    CandidateLists,
    Measure,
    lists_of_task,
    query_table,
    read_measures,
    score_lists,
    with_noise,
)
from evalkit.metrics.lists import best_possible, candidates_cut
from evalkit.metrics.measures import AUTO_PROTOCOL, all_measures, choose_protocol, find_measure
from evalkit.metrics.query_scores import values_by_chance
from evalkit.models.choosing import choose_model
from evalkit.models.findings import report_once
from evalkit.models.folders.resolving import Recipe, StatedBy
from evalkit.models.interfaces import RunnableModel, Runtime, Scorer
from evalkit.models.server_settings import ServerSettings
from evalkit.models.settings import ModelSettings, Similarity, default_model, model_settings, refuse_order
from evalkit.output.json import plain_json
from evalkit.output.numbers import percent
from evalkit.records import (
    IN_MEMORY,
    SAMPLE_SEED,
    UNIDENTIFIED,
    Finding,
    PrecisionCheck,
    QueryScores,
    Refinement,
    Run,
    SampledMean,
    StageScores,
    Task,
    Usage,
    WithoutSafeguard,
)
from evalkit.results.result import WITHOUT_MODEL, Result, TablesInMemory, split_usage
from evalkit.results.tables import STAGE_COLUMN
from evalkit.results.training import Card, mark_training, read_card
from evalkit.scoring.engine import ChosenScores, score_task
from evalkit.statistics import bootstrap_intervals, sampled_means
from evalkit.tasks.content import script_of
from evalkit.tasks.loading import read_task, with_deviations
from evalkit.tasks.settings import TaskSettings, read_settings

FULL_PRECISION, AUTO_PRECISION = "fp32", "auto"
REFINE_LISTS = (
    "{what} has no effect on {name}, which ranks whole lists: a candidate can't be scored again without the others; "
    "name one precision, dtype=fp32 for the most digits"
)
FEWEST_QUERIES, CERTAIN = 20, 0.999
"""From how many queries on an order is called worse than chance, and at which level: 10,000 resamples bear out no higher one."""
logger = logging.getLogger("evalkit")


@dataclass(frozen=True)
class Model:
    """A model and the backend that runs it, in this process or with `ray` on a cluster. Weights are loaded when first needed.

    `deviations` are the settings, by name, that are not the model's own: a result made with them must not stand for the model's.
    `recipe` says where each field of the settings comes from; None for a model that was not chosen by name.
    `find_object` reads a wrapped object (see `wrap`) as it is at that moment; None where the backend finds the model.
    `check` looks at the model when its weights have loaded, before they score anything else; it raises where they must not.
    `precision_chosen` says why the precision is what it is, where `dtype="auto"` chose it for runs that are refined.
    """

    settings: ModelSettings
    backend: str
    runtime: Runtime
    ray: RaySettings | None = None
    deviations: Mapping[str, Any] = field(default_factory=dict)
    recipe: Recipe | None = None
    find_object: Callable[[], RunnableModel] | None = None
    check: Callable[[Model, RunnableModel], None] | None = None
    precision_chosen: str = ""

    def __repr__(self) -> str:
        """Name the model and what runs it, in one line."""
        return f"Model({self.settings.name!r}, {self.settings.kind}, backend {self.backend}, {self.runtime.dtype})"

    @cached_property
    def runnable(self) -> RunnableModel:
        """The model as its backend found it."""
        if self.find_object is not None:
            return self.find_object()
        if self.ray is not None and not runs_here(self.backend, self.settings):
            found = model_on_ray(self.ray, self.backend, self.settings, self.runtime)
        else:
            found = prepare_model(self.backend, self.settings, self.runtime)
        if self.recipe is not None:
            report_once(self.settings.name, snapshot_findings(self.recipe, self.backend))
            found = with_recipe(found, self.recipe)
        return found if self.check is None else replace(found, open=partial(self._open_checked, found))

    def _open_checked(self, found: RunnableModel) -> Scorer:
        """Open the model's scorer, and let `check` look at it."""
        scorer = found.open()
        if self.check is not None:
            self.check(self, replace(found, open=lambda: scorer))
        return scorer

    def runnable_on(self, task: Task) -> RunnableModel:
        """Return the model as it runs on one task, with whatever its backend does for that task alone."""
        runnable = self.runnable if self.find_object is None else self.find_object()
        return runnable if runnable.for_task is None else runnable.for_task(task)


def load_model(
    name: str,
    /,
    *,
    backend: str = "auto",
    device: str | None = None,
    dtype: str = "fp32",
    threads: int | None = None,
    seed: int = 42,
    offline: bool = False,
    cache_dir: Path | str | None = None,
    server: ServerSettings | Mapping[str, Any] | None = None,
    ray: RaySettings | Mapping[str, Any] | None = None,
    config_dir: Path | str | None = None,
    **recipe: Any,
) -> Model:
    """Choose a model by name, folder (`"./my-model"`) or Hub id (`"ORGANISATION/NAME"`), and what runs it.

    Of a folder or a Hub repository without a file of evalkit's own, kind and recipe are read from the model's files.

    `cache_dir` is where scores and exported networks are kept (None: the user's cache folder). `server` says how a backend
    that is a server is reached: `ServerSettings(url="http://127.0.0.1:8080")` or a mapping of the same. `ray` lets actors of a
    Ray cluster run the model: `RaySettings(address="auto")` or a mapping; `RaySettings()` starts one on this machine.
    `config_dir` is a folder with models and backends of your own, beside evalkit's. `recipe` overrides fields of the model's
    settings: `path`, `revision`, `pooling`, `query_prompt`, `max_length`, … Raises EvalkitError for unknown names and for a backend
    that can't run the model, before any weights load.
    """
    folders = config_folders(config_dir)
    choice = choose_model(name, folders)
    overrides = {**choice.settings, **{key: _plain(value) for key, value in recipe.items()}}
    own = default_model() | read_option("model", choice.option, folders)
    settings = model_settings(own, overrides)
    system, reached = choose_server(backend, server or {}, folders)
    runtime = Runtime(device, dtype, threads, seed, offline, None if cache_dir is None else Path(cache_dir), reached)
    said = {"model": own | overrides, "backend": backend_settings(system, reached), "dtype": dtype, "seed": seed}
    usual = {"model": own, "backend": read_backend(system).model_dump(mode="json"), **default_settings()}
    deviations = find_deviations(said, usual)
    stated = stated_fields(own, settings, read_option("model", choice.option, folders), overrides)
    return build_model(settings, system, runtime, None if ray is None else ray_settings(ray), deviations, stated)


def load_first_stage(
    name: str, runtime: Runtime, ray: RaySettings | None = None, folders: Sequence[Path] = ()
) -> Model:
    """Choose a model that searches a corpus, as `load_model` does: by its own recipe, with backend `auto`, in fp32.

    Of the run's `runtime` it heeds the device and threads where its backends have a choice, seed, offline and the cache folder.
    Raises EvalkitError as `load_model` does.
    """
    choice = choose_model(name, folders)
    content = read_option("model", choice.option, folders)
    own = default_model() | content
    settings = model_settings(own, choice.settings)
    able = [read_backend(backend) for backend in backends_for(settings)]
    runtime = replace(
        runtime,
        device=runtime.device if not able or any(backend.devices for backend in able) else None,
        threads=runtime.threads if not able or any(backend.threads for backend in able) else None,
        dtype=FULL_PRECISION,
        server=None,
    )
    stated = stated_fields(own, settings, content, choice.settings)
    return build_model(settings, AUTO, runtime, ray, {}, stated)


def _plain(value: Any) -> Any:
    """Return a setting as a file holds it."""
    return str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value


def build_model(
    settings: ModelSettings,
    backend: str,
    runtime: Runtime,
    ray: RaySettings | None = None,
    deviations: Mapping[str, Any] | None = None,
    stated: Mapping[str, StatedBy] | None = None,
) -> Model:
    """Complete a model's recipe from its files, and check that the backend can run it with that precision.

    `stated` says of each setting that is not a default whether the user states it or a file; without it the settings are whole.
    Raises EvalkitError where the backend can't run the model, and where its files leave open what it is.
    """
    if runtime.threads is not None and runtime.threads < 1:
        raise EvalkitError(f"runner.threads={runtime.threads}: at least 1, or null for the backend's own choice")
    recipe = complete_recipe(as_served(settings, backend, runtime.server), stated, backend, runtime)
    report_once(recipe.settings.name, recipe.findings)
    said, chosen = dict(deviations or {}), ""
    if runtime.dtype == AUTO_PRECISION:
        check_backend(backend, recipe.settings, replace(runtime, dtype=FULL_PRECISION))
        if ray is not None:
            raise EvalkitError("dtype=auto times this machine, and runner=ray runs on others: name the precision")
        from evalkit.backends.auto import fastest_precision

        if recipe.settings.kind == "listwise":
            raise EvalkitError(REFINE_LISTS.format(what="dtype=auto", name=recipe.settings.name))
        dtype, chosen = fastest_precision(complete_settings(recipe.settings, backend), backend, runtime)
        logger.info("dtype=auto takes %s: %s", dtype, chosen)
        runtime = replace(runtime, dtype=dtype)
        said.pop("dtype", None)
        said |= {} if dtype == FULL_PRECISION else {"dtype": dtype}
    check_backend(backend, recipe.settings, runtime)
    if ray is not None:
        check_on_ray(backend, recipe.settings)
    recipe = replace(recipe, settings=complete_settings(recipe.settings, backend))
    refuse_order(recipe.settings)
    own = {name: value for name, value in said.items() if name not in recipe.as_folder}
    return Model(recipe.settings, backend, runtime, ray, own, recipe, precision_chosen=chosen)


def wrap(
    x: Any,
    /,
    *,
    kind: ObjectKind | None = None,
    name: str | None = None,
    identity: str | None = None,
    tokenizer: Any = None,
    pooling: str | None = None,
    similarity: Similarity | None = None,
    max_length: int | None = None,
    query_prompt: str | None = None,
    document_prompt: str | None = None,
    label: int | None = None,
    cache_dir: Path | str | None = None,
) -> Model:
    """Make a model of an object in memory: `evaluate(wrap(x), task)`. The object is run as it is and stays as it is.

    `x` is one of these, or of a subclass of theirs:

    * a CrossEncoder of sentence-transformers: ranked by raw logits, whatever its activation; where it has several labels, `label`
      is the number of the one that counts;
    * a SentenceTransformer: `encode_query` and `encode_document` with its own prompts, compared by its own similarity or by
      `similarity`;
    * a transformers …ForSequenceClassification with its `tokenizer`, or an encoder with `tokenizer`, `pooling` and `similarity`;
      `max_length` (None: as much as both bear), `query_prompt` and `document_prompt` (None: none) are the recipe's;
    * with `kind="cross-encoder"` a function of pairs: `f([(query, document), …])` gives a number for each;
    * with `kind="embedder"` a function of texts: `f([text, …])`, or `f([text, …], role="query")` where it has a parameter `role`
      ("query" or "document"), gives a vector for each; `similarity` says how they are compared.

    A function gets up to 256 items at once. What it gives is read as float32: an array, a tensor or lists.

    `identity` is your word that scores under it are this object's: it is the result's revision, and under it scores are stored
    and served, as long as the object's weights and what else can be read off it are the same: of a function its code, defaults,
    captured variables and the globals that it reads. A function that uses what can't be read, such as a connection, is scored anew
    each time, and the result says so. Without `identity` nothing is stored, and
    the revision is one that no other wrapped object has. `name` (None: the class's or function's own) stands in tables.
    `cache_dir` is where scores are kept. Raises EvalkitError for what can't be run, for what only you can say, and for options that
    would have no effect.
    """
    name, revision = _object_name(x, name), _object_revision(identity)
    if cache_dir is not None and identity is None:
        raise EvalkitError("cache_dir= has no effect without identity=: nothing is stored")
    options = ObjectOptions(kind, tokenizer, pooling, similarity, max_length, query_prompt, document_prompt, label)
    kept = keep_object(x, name, identity, revision, options)
    runtime = Runtime(dtype=kept.dtype, cache_dir=None if cache_dir is None else Path(cache_dir))
    return Model(kept.settings, IN_MEMORY, runtime, find_object=kept.find)


def _object_name(x: Any, name: str | None) -> str:
    """Return what a wrapped object is called. Raises EvalkitError for a name that can't be a model's."""
    if name is None:
        return str(getattr(x, "__name__", type(x).__name__)).strip("<>")
    if not isinstance(name, str) or not name.strip() or "/" in name:
        raise EvalkitError(f"name={name!r}: a name is some text without a slash; the result's owner is always local")
    return name


def _object_revision(identity: str | None) -> str:
    """Return a wrapped object's revision. Raises EvalkitError for an identity that could be another object's."""
    if identity is None:
        return f"{UNIDENTIFIED}{uuid4().hex[:12]}"
    if not isinstance(identity, str) or not identity.strip() or identity.startswith(UNIDENTIFIED):
        raise EvalkitError(f"identity={identity!r}: some text of your own, such as 'step-4000'")
    return identity


def load_task(
    name: str | None = None,
    /,
    *,
    path: Path | str | None = None,
    limit: int | None = None,
    sample: int | None = None,
    sample_seed: int = SAMPLE_SEED,
    offline: bool = False,
    config_dir: Path | str | None = None,
    cache_dir: Path | str | None = None,
    **settings: Any,
) -> Task:
    """Load a task by name, or one of your own from a file or folder: `load_task(path="data/")`.

    `limit` keeps the first so many queries that can be scored. `sample` draws so many of them by `sample_seed`, in proportion from
    strata by number of candidates and by characters, which a larger sample of the same seed contains; the result then says what
    it knows of the whole task's figures. `config_dir` is a folder with tasks of your own, beside evalkit's. `settings` overrides
    fields of the task's settings: `source`, `split`, `candidates` (the run of a first stage) or `first_stage` (the names of an
    embedder, `bm25` or several, which search the task's corpus), `top_k`, … What a first stage finds is kept in `cache_dir` (None:
    the user's cache folder). Raises EvalkitError where the data are not to be had or not valid, and for a suite, whose tasks are
    loaded one by one.
    """
    folders = config_folders(config_dir)
    own = read_settings(name or "local", folders)
    if own.suite:
        raise EvalkitError(f"{name} is a suite; load one of its tasks: {', '.join(own.suite)}")
    if path is not None:  # else the place that the task's own file names
        settings["path"] = path
    given = {key: _plain(value) for key, value in settings.items()}
    chosen = TaskSettings.from_mapping({**own.model_dump(), **given})
    kept_in = None if cache_dir is None else Path(cache_dir)
    runtime = Runtime(offline=offline, cache_dir=kept_in)
    stages = FirstStages(lambda stage: load_first_stage(stage, runtime, folders=folders), kept_in, "on")
    cut = {"limit": limit, "sample": sample, "sample_seed": sample_seed}
    task = read_task(
        chosen, limit=limit, sample=sample, sample_seed=sample_seed, offline=offline, retrieve=stages.retrieve
    )
    said = {"task": chosen.model_dump(mode="json"), **cut}
    usual = {"task": own.model_dump(mode="json"), **default_settings()}
    return with_deviations(task, find_deviations(said, usual))


def evaluate(
    model: Model | str,
    task: Task | str,
    *,
    protocol: str = AUTO_PROTOCOL,
    measures: str | Sequence[str] = (),
    seed: int = 42,
    texts: bool = False,
    cache: Cache = "on",
    refine: str | None = None,
    config: Mapping[str, Any] | None = None,
) -> Result:
    """Score a task with a model and judge the scores by every protocol; `protocol` says which one leads.

    `auto` leads with cmteb-v1, or, where candidates are a first stage's or relevant documents are missing among them, with
    mteb-v2, which counts those as missed; of a retrieval task with mteb-retrieval, whose main score is nDCG@10.

    A name stands for `load_model(name)` or `load_task(name)`; an object in memory needs `wrap`.

    `measures` are further ones, in the field's notation and by trec_eval's rules: `["nDCG@20", "AP(rel=2)", "RR@10"]`.

    `cache` says whether scores are taken from and kept in the store; with `refresh` they are made again, and what was stored of
    this model is no longer read: after an interrupted refresh, `on` goes on with it. With `refine="fp32"` a run in low precision
    is followed by one in fp32 of the candidates that could stand in another order in it, and of those alone.

    `texts` puts the texts into the result's tables. The result records the settings at hand as its configuration; `config` is for
    whoever wants to record something else, and decides nothing. Its folder is named after what deviates, which the model and the
    task say.
    Raises EvalkitError where the model can't be loaded, its output is not finite, or the protocol can score none of the queries.
    """
    choose_protocol(protocol, misses=False)  # a wrong name is refused before data and weights are read
    asked = read_measures(measures)
    reported = all_measures(asked)
    if cache not in get_args(Cache):
        raise EvalkitError(f"cache={cache!r} is none of {', '.join(get_args(Cache))}")
    task = _loaded_task(task)
    model = _loaded_model(model)
    refine = checked_refinement(refine, model)
    misses = any(request.unretrieved_gains for request in task.requests)
    leading = choose_protocol(
        protocol, misses or task.first_stage is not None, task.settings.get("type") == "retrieval"
    )
    some_are_zero = leading.counts_missed and task.statistics.queries_without_positives > 0
    runnable = model.runnable_on(task)
    with score_memory(model.runtime.cache_dir, runnable, cache) as kept:
        run = score_task(runnable, model.settings, task, kept)
    # an object in memory has the one precision that it has
    comparable = model.runtime.dtype != FULL_PRECISION and model.find_object is None and refine is None
    precision = _check_precision(model, task, run, cache) if comparable else None
    run, refinement = (run, None) if refine is None else _refine(model, task, run, cache, seed)
    lists = lists_of_task(task, run.scores)
    ungraded = _measures_without_grades(task, asked)
    for text in ungraded:
        logger.warning("%s: %s", task.name, text)
    again = None if refinement is None or run.refined is None else (refinement, run.refined)
    noise = noise_of(lists, runnable.description, precision, _stated_noise(model, runnable), again)
    judged = score_lists(lists if noise is None else with_noise(lists, noise[1]), reported)
    stage = _judge_first_stage(task, reported)
    without = _judge_without_safeguard(task, lists, reported, seed)
    intervals = bootstrap_intervals(np.column_stack(list(judged.values.values())), seed=seed)
    queries = _query_table(task, run, lists, reported, judged, stage, texts)
    candidates = _candidate_table(task, run, texts)
    usage, timing = split_usage(run.usage, len(candidates), has_model=runnable.identity.kind not in WITHOUT_MODEL)
    if config is None:
        config = recorded_settings(model, task, leading.name, [measure.name for measure in asked], seed, refine)
    return Result(
        model=runnable.identity,
        task=replace(task.identity, findings=(*task.findings, *(Finding("warning", text) for text in ungraded))),
        protocol=leading.name,
        main_score=leading.main_score,
        scores=dict(judged.means),
        intervals={name: _ends(low, high) for name, (low, high) in zip(judged.values, intervals, strict=True)},
        estimates=_estimates(task, judged),
        ties=dict(judged.ties),
        noise=None if noise is None else noise[0],
        bands=dict(judged.bands),
        ceilings=dict(score_lists(best_possible(lists), reported).means) if misses or some_are_zero else {},
        tables=TablesInMemory(queries, candidates),
        usage=usage,
        timing=timing,
        backend=plain_json(_described(model, runnable)),
        config=plain_json(config),
        deviations=deviations_of(model, runnable, task, seed, refine),
        provenance=plain_json({**machine.collect(), **_object_provenance(model, runnable)}),
        recipe={} if model.recipe is None else recipe_fields(model.recipe),
        findings=(
            *findings_of(model.recipe, runnable, model.backend, model.runtime, cache),
            *_order_shown(model.settings),
            *(
                ()
                if runnable.identity.kind == "baseline"
                else _worse_than_chance(lists, judged, leading.main_score, seed)
            ),
        ),
        precision=precision,
        refinement=refinement,
        first_stage=None if stage is None else _stage_scores(judged, stage, seed),
        without_safeguard=without,
        training=mark_training(runnable.identity, task, task.settings, _card_of(model)),
    )


def _estimates(task: Task, judged: QueryScores) -> dict[str, SampledMean]:
    """Return what a sampled task says of the whole one's means, by metric name; nothing where the task is whole or a head."""
    if task.sample is None or task.sample.is_whole:
        return {}
    # queries that are no part of what was drawn from count in some measures' means
    names = [name for name in judged.values if not task.sample.unscorable or find_measure(name).rules.needs_both_kinds]
    if not names:
        return {}
    values = np.column_stack([judged.values[name] for name in names])
    found = sampled_means(values, task.strata, [stratum.population for stratum in task.sample.strata])
    rows = [[math.nan if math.isnan(number) else float(number) for number in row] for row in found.tolist()]
    return {name: SampledMean(*row) for name, row in zip(names, rows, strict=True)}


def _order_shown(settings: ModelSettings) -> tuple[str, ...]:
    """Say in which orders a listwise model was shown the candidates, which its figures depend on."""
    if settings.kind != "listwise":
        return ()
    seed, orders = settings.order_seed, settings.permutations
    if orders == 1:
        said = "in one shuffled order"
        more = "another seed gives other scores, and model.permutations=K the mean of K orders"
    else:
        said, more = f"in {orders} shuffled orders", "the scores are their mean"
    return (f"each query's candidates were shown {said} (model.order_seed={seed}): {more}",)


def _worse_than_chance(lists: CandidateLists, judged: QueryScores, main_score: str, seed: int) -> tuple[str, ...]:
    """Say where the order is surely worse than a random one, as that of negated scores is."""
    measure = find_measure(main_score)
    chance = values_by_chance(lists, measure)
    differences = judged.values[measure.name] - chance
    if np.count_nonzero(~np.isnan(differences)) < FEWEST_QUERIES:
        return ()
    ((low, high),) = bootstrap_intervals(differences[:, None], seed=seed, level=CERTAIN)
    if not high < 0:
        return ()
    at_random = percent(float(np.nanmean(chance)))
    return (
        f"{measure.title} {percent(judged.means[measure.name])} is worse than chance: random orders of the candidates have "
        f"{at_random} ({100 * CERTAIN:g} % interval of the difference: {percent(low)} to {percent(high)}); "
        "scores may be negated, distances, or those of other texts",
    )


def _described(model: Model, runnable: RunnableModel) -> Mapping[str, object]:
    """Return what ran the model, with why in that precision where that was chosen."""
    chosen = {"dtype_chosen": model.precision_chosen} if model.precision_chosen else {}
    return {**runnable.description, **chosen}


def _stated_noise(model: Model, runnable: RunnableModel) -> float | None:
    """How far the file of the backend that scored says that its scores may lie off; None where it does not say."""
    return None if model.find_object is not None else read_backend(str(runnable.description["name"])).noise


def _card_of(model: Model) -> Card | None:
    """Return the card of a model in a folder; None for one that is known by its name."""
    settings = model.settings
    if settings.kind == "run" or settings.object is not None or model.find_object is not None:
        return Card(problem="nothing is known of its training")
    return None if settings.path is None else read_card(Path(settings.path).expanduser())


def _loaded_task(task: object) -> Task:
    if isinstance(task, str):
        return load_task(task)
    if not isinstance(task, Task):
        raise EvalkitError(f"a {type(task).__name__} is no task: give load_task(NAME), load_task(path=PATH) or a name")
    return task


def _loaded_model(model: object) -> Model:
    if isinstance(model, str):
        return load_model(model)
    if not isinstance(model, Model):
        raise EvalkitError(
            f"a {type(model).__name__} is no model: give load_model(NAME), a name, or for an object in memory evalkit.wrap(x)"
        )
    return model


def _object_provenance(model: Model, runnable: RunnableModel) -> dict[str, Any]:
    """Say of an object in memory that it is one, and whether its revision is an identity that the user gave."""
    if model.find_object is None:
        return {}
    revision = runnable.identity.revision
    identity = None if revision.startswith(UNIDENTIFIED) else revision
    return {"object_in_memory": {"class": runnable.description["class"], "identity": identity}}


def _ends(low: float, high: float) -> tuple[float, float]:
    """Return an interval's ends; no interval is the one NaN of `math`, as it is read back, so that equal results are equal."""
    return (math.nan, math.nan) if math.isnan(low) else (float(low), float(high))


def _measures_without_grades(task: Task, asked: Sequence[Measure]) -> tuple[str, ...]:
    """Say which measures count documents from a grade on which the task has none."""
    gains = (candidate.gain for request in task.requests for candidate in request.candidates)
    missed = (gain for request in task.requests for gain in request.unretrieved_gains)
    highest = max((*gains, *missed), default=0)
    return tuple(
        f"no document has a grade of {measure.rel} or more, so {measure.name} is 0"
        for measure in asked
        if measure.rel > highest
    )


def _judge_first_stage(task: Task, measures: Sequence[Measure]) -> QueryScores | None:
    """Return the measures of the first stage's own scores of the same candidates; None where none chose them."""
    if task.first_stage is None:
        return None
    scores = np.array([score for request in task.requests for score in request.first_stage_scores], np.float64)
    return score_lists(lists_of_task(task, scores), measures)


def _judge_without_safeguard(
    task: Task, lists: CandidateLists, measures: Sequence[Measure], seed: int
) -> WithoutSafeguard | None:
    """Judge the run without the relevant documents that the dataset appended at `safeguard_rank`; None where it appends none.

    One is the last of so many candidates, and relevant where none before it is.
    """
    rank = task.settings.get("safeguard_rank")
    if rank is None or task.first_stage is not None:  # whose candidates have none
        return None
    kept: list[bool] = []
    for request in task.requests:
        gains = [candidate.gain for candidate in request.candidates]
        is_safeguarded = len(gains) == rank and gains[-1] > 0 and not any(gain > 0 for gain in gains[:-1])
        kept += [True] * (len(gains) - is_safeguarded) + [False] * is_safeguarded
    judged = score_lists(candidates_cut(lists, np.array(kept, np.bool_)), measures)
    intervals = bootstrap_intervals(np.column_stack(list(judged.values.values())), seed=seed)
    return WithoutSafeguard(
        rank=rank,
        queries=kept.count(False),
        scores=dict(judged.means),
        intervals={name: _ends(low, high) for name, (low, high) in zip(judged.values, intervals, strict=True)},
    )


def _stage_scores(judged: QueryScores, stage: QueryScores, seed: int) -> StageScores:
    names = list(judged.values)
    own = np.column_stack([stage.values[name] for name in names])
    gained = np.column_stack([judged.values[name] - stage.values[name] for name in names])
    intervals = bootstrap_intervals(own, seed=seed)
    gains = zip(np.nanmean(gained, axis=0), bootstrap_intervals(gained, seed=seed), strict=True)
    return StageScores(
        scores=dict(stage.means),
        intervals={name: _ends(low, high) for name, (low, high) in zip(names, intervals, strict=True)},
        differences={
            name: (float(mean), *_ends(low, high)) for name, (mean, (low, high)) in zip(names, gains, strict=True)
        },
    )


def checked_refinement(refine: str | None, model: Model) -> str | None:
    """Return whether the run is refined: not where `dtype="auto"` found that fp32 alone is as fast.

    Raises EvalkitError where it can't be: a run in fp32, or by what has no two precisions; and where `dtype="auto"` has chosen a
    precision for a refined run, and this is none.
    """
    if refine is None:
        if model.precision_chosen:
            raise EvalkitError("dtype=auto chooses by speed, for runs that are refined: say refine=fp32 too")
        return None
    if refine != FULL_PRECISION:
        raise EvalkitError(
            f"refine={refine}: scores are made again in {FULL_PRECISION} alone; say refine={FULL_PRECISION}"
        )
    if model.find_object is not None:
        raise EvalkitError("refine=fp32 has no effect on an object in memory, which has the one precision that it has")
    if model.settings.kind == "listwise":
        raise EvalkitError(REFINE_LISTS.format(what="refine=fp32", name=model.settings.name))
    backend = read_backend(model.backend)
    if backend.server or model.settings.kind in WITHOUT_MODEL:
        what = f"backend={model.backend}" if backend.server else model.settings.kind
        raise EvalkitError(f"refine=fp32 has no effect on {what}, whose precision is not evalkit's to choose")
    if model.runtime.dtype != FULL_PRECISION:
        return refine
    if not model.precision_chosen:
        raise EvalkitError("refine=fp32 has no effect with dtype=fp32: say dtype=bf16, fp16 or int8 too, or dtype=auto")
    return None


def _refine(model: Model, task: Task, run: Run, cache: Cache, seed: int) -> tuple[Run, Refinement]:
    """Score again in fp32 what could stand in another order in it. Those scores are stored apart from a whole run's in fp32."""
    full = _in_full_precision(model)
    runnable = full.runnable_on(task)
    with score_memory(full.runtime.cache_dir, runnable, cache, {"refines": True}) as kept:
        chosen = ChosenScores(runnable, full.settings, task, kept)
        scores, refined, refinement = refine_scores(
            GradedCandidates.of(task, run.scores), chosen.score, model.runtime.dtype, seed
        )
    low, again = run.usage, chosen.usage()
    usage = Usage(
        **{
            name: getattr(low, name) + getattr(again, name)
            for name in ("seconds", "items", "items_from_store", "tokens", "padding_tokens", "truncated_items")
        },
        latencies=low.latencies,
    )
    return replace(run, scores=scores, refined=refined, usage=usage), refinement


def _in_full_precision(model: Model) -> Model:
    """Return the same model in fp32, with the same backend (the one that `auto` took)."""
    backend = str(model.runnable.description["name"])
    return replace(model, backend=backend, runtime=replace(model.runtime, dtype=FULL_PRECISION))


def _check_precision(model: Model, task: Task, run: Run, cache: Cache) -> PrecisionCheck:
    """Score a sample in fp32 too.

    A refresh is of the scores that were asked for: those of the sample are then made again, and not kept.
    """
    sample = sample_of(task)
    full = _in_full_precision(model)
    runnable = full.runnable_on(sample)
    with score_memory(full.runtime.cache_dir, runnable, "off" if cache == "refresh" else cache) as kept:
        expected = score_task(runnable, full.settings, sample, kept).scores
    return compare_precisions(sample, run.scores[: len(expected)], expected, model.runtime.dtype)


def _query_table(
    task: Task,
    run: Run,
    lists: CandidateLists,
    measures: Sequence[Measure],
    judged: QueryScores,
    stage: QueryScores | None,
    texts: bool,
) -> pd.DataFrame:
    """One row per query: what it is like, and its value of each measure, for some with what ties and noise can do to it.

    Where relevant documents are no candidates, `unretrieved_ids` and `unretrieved_gains` list them. A first stage's own values
    have its name before theirs.
    """
    queries = [" ".join(request.query.texts) for request in task.requests]
    table = query_table(lists, replace(judged, values={}))
    table.insert(1, "query_characters", [len(query) for query in queries])
    table.insert(2, "query_script", [script_of(query) for query in queries])
    if texts:
        table.insert(1, "query", [" | ".join(request.query.texts) for request in task.requests])
    table = pd.concat([table, pd.DataFrame(_value_columns(measures, judged))], axis=1)
    if task.strata:
        table["stratum"] = np.array(task.strata, np.int64)
    if run.truncated is not None:
        sums = np.concatenate([[0], np.cumsum(run.truncated)])
        table["truncated_pairs"] = sums[lists.offsets[1:]] - sums[lists.offsets[:-1]]
    if any(request.unretrieved_gains for request in task.requests):
        table["unretrieved_ids"] = [list(request.unretrieved_ids) for request in task.requests]
        table["unretrieved_gains"] = [list(request.unretrieved_gains) for request in task.requests]
    if stage is not None:
        firsts = {f"first_stage_{measure.column}": stage.values[measure.name] for measure in measures}
        table = pd.concat([table, pd.DataFrame(firsts)], axis=1)
    return table


def _value_columns(measures: Sequence[Measure], judged: QueryScores) -> dict[str, NDArray[np.float64]]:
    """Name the columns of the measures' values; those of ties and of noise follow those of their protocol."""
    columns: dict[str, NDArray[np.float64]] = {}
    with_ties = [measure for measure in measures if measure.ties_per_query]
    others = [measure for measure in measures if not measure.ties_per_query]
    columns |= {measure.column: judged.values[measure.name] for measure in with_ties}
    for measure in with_ties:
        for part, amounts in zip(("expected", "low", "high"), judged.tie_values[measure.name], strict=True):
            columns[f"{measure.column}_{part}"] = amounts
        for part, amounts in zip(("noise_low", "noise_high"), judged.band_values.get(measure.name, ()), strict=False):
            columns[f"{measure.column}_{part}"] = amounts
    return columns | {measure.column: judged.values[measure.name] for measure in others}


def _candidate_table(task: Task, run: Run, texts: bool) -> pd.DataFrame:
    """One row per candidate: query_id, doc_id, label, score, and where they are known tokens, truncated and refined."""
    rows = [(request.query.query_id, candidate) for request in task.requests for candidate in request.candidates]
    columns: dict[str, Any] = {
        "query_id": [query_id for query_id, _ in rows],
        "doc_id": [candidate.doc_id for _, candidate in rows],
        "label": np.array([candidate.gain for _, candidate in rows], np.int64),
        "score": run.scores,
    }
    if run.tokens is not None:
        columns |= {"tokens": run.tokens, "truncated": run.truncated}
    if run.refined is not None:
        columns["refined"] = run.refined
    if task.first_stage is not None:
        columns[STAGE_COLUMN] = [score for request in task.requests for score in request.first_stage_scores]
    if texts:
        columns["text"] = [candidate.text for _, candidate in rows]
    return pd.DataFrame(columns)


def deviations_of(
    model: Model, runnable: RunnableModel, task: Task, seed: int, refine: str | None = None
) -> dict[str, Any]:
    """Return what was said otherwise of the model, of the task and of refining, and the bootstrap's seed where it is another one's.

    They are as JSON holds them, by the setting's name, and name the result's folder. A server's address is among them, unless the
    server says which revision it runs and the result is named after that: the same name elsewhere may be another model.
    """
    own: dict[str, Any] = {} if seed == model.runtime.seed else {"bootstrap_seed": seed}
    own |= {} if refine is None else {"refine": refine}
    deviations: dict[str, Any] = plain_json({**model.deviations, **task.deviations, **own})
    says = runnable.description.get("revision")
    if says and says == runnable.identity.revision:
        deviations.pop("url", None)
    return deviations
