"""A model on a Ray cluster: the same model to all that see it, with a crew of actors for a network."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace
from functools import partial
from pathlib import Path

from evalkit.backends import AUTO, backends_for, prepare_model, read_backend
from evalkit.cluster.settings import RaySettings
from evalkit.errors import EvalkitError
from evalkit.models.interfaces import RunnableModel, Runtime
from evalkit.models.settings import ModelSettings

# they need the whole task, and cost next to nothing
HERE = ("baseline", "lexical", "run")
logger = logging.getLogger("evalkit")


def runs_here(backend: str, settings: ModelSettings) -> bool:
    """Whether the model runs in this process even so."""
    return bool(set(_chosen(backend, settings)) & set(HERE))


def check_on_ray(backend: str, settings: ModelSettings) -> None:
    """Raise EvalkitError for a backend that is a server."""
    for name in _chosen(backend, settings):
        if read_backend(name).server:
            raise EvalkitError(
                f"runner=ray says nothing to backend={name}: the server decides what runs at once; runner=local, with "
                "backend.concurrency=N requests to it"
            )


def model_on_ray(ray: RaySettings, backend: str, settings: ModelSettings, runtime: Runtime) -> RunnableModel:
    """Let an actor choose the backend and find the model; all the others then need the very same.

    Raises EvalkitError as `prepare_model` does, and for whatever is wrong with the cluster.
    """
    from evalkit.cluster.crew import RayScorer, crew_of
    from evalkit.cluster.work import Job

    settings, runtime = _anywhere(settings), _on_an_actor(runtime, ray)
    key = hashlib.sha256(repr((backend, settings.model_dump_json(), runtime)).encode()).hexdigest()
    job = Job(settings.name, key, partial(prepare_model, backend, settings, runtime))
    found = crew_of(ray).describe(job)
    if backend == AUTO and found.backend.get("why"):
        logger.info("backend=auto takes %s: %s", found.backend["name"], found.backend["why"])
    prepare = partial(prepare_model, str(found.backend["name"]), settings, runtime)
    job = replace(job, expected=found, prepare=prepare)
    return RunnableModel(found.identity, found.backend, found.way, open=lambda: RayScorer(ray, job))


def _chosen(backend: str, settings: ModelSettings) -> tuple[str, ...]:
    if backend != AUTO:
        return (backend,)
    able = backends_for(settings)
    return () if "torch" in able else able[:1]


def _anywhere(settings: ModelSettings) -> ModelSettings:
    """Make the model's path absolute: an actor's current folder is another one."""
    if not settings.path:
        return settings
    return settings.model_copy(update={"path": str(Path(settings.path).expanduser().absolute())})


def _on_an_actor(runtime: Runtime, ray: RaySettings) -> Runtime:
    folder = runtime.cache_dir
    return replace(
        runtime,
        threads=runtime.threads or ray.cpus_per_actor,
        cache_dir=None if folder is None else folder.expanduser().absolute(),
    )
