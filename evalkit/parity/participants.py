"""The backends that take part: chosen, checked and prepared before any weights load."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import packages_distributions

from evalkit.backends import AUTO, backends_for, is_installed, read_backend
from evalkit.errors import EvalkitError
from evalkit.evaluation.evaluate import Model, build_model
from evalkit.evaluation.model_recipes import complete_recipe
from evalkit.evaluation.runs import RunSettings
from evalkit.machine import package_version
from evalkit.models.settings import ModelSettings
from evalkit.parity.records import Participant
from evalkit.parity.words import ParityWords

REFERENCES = ("transformers", "torch")
Compose = Callable[[list[str]], RunSettings]
logger = logging.getLogger("evalkit")


@dataclass(frozen=True)
class Contender:
    """A backend with its own run's settings, and the model as it found it."""

    name: str
    settings: RunSettings
    model: Model

    @property
    def probabilities(self) -> bool:
        """Whether it says that it has probabilities alone to give."""
        return self.model.runnable.description.get("outputs") == "probabilities"

    def participant(self) -> Participant:
        """Return what there is to say of the backend, after its weights were loaded."""
        runnable = self.model.runnable
        said = runnable.description.get("version")
        return Participant(
            name=self.name,
            description=dict(runnable.description),
            identity=runnable.identity,
            version=str(said) if said else _version(self.settings.backend),
            dtype=self.settings.runtime.dtype,
        )


def choose_candidates(words: ParityWords, compose: Compose) -> list[Contender]:
    """Return the backends that were named, or all that can run the model here; the first is the reference.

    Raises EvalkitError where one that was named can't run the model or is not there, and where there are not two.
    """
    if words.backends:
        return [_candidate(name, words, compose) for name in words.backends]
    composed = compose(list(words.common))
    settings = complete_recipe(composed.model, composed.stated, AUTO, composed.runtime).settings
    names = _local_backends(settings)
    if not names:
        raise EvalkitError(
            f"{settings.name}: say backends=a,b,…; these can run it: {', '.join(backends_for(settings))}"
        )
    candidates = []
    for name in names:
        try:
            candidates.append(_candidate(name, words, compose))
        except EvalkitError as error:
            if name == REFERENCES[-1]:  # which runs whatever can be run at all
                raise
            logger.info("left out: %s: %s", name, error)
    unused = [name for name in words.own if name not in [candidate.name for candidate in candidates]]
    if unused:
        raise EvalkitError(f"{unused[0]}.…= is for backend {unused[0]}; name it: backends=transformers,{unused[0]}")
    if len(candidates) < 2:
        raise EvalkitError(
            f"{settings.name} is run by {', '.join(c.name for c in candidates)} alone here; there is nothing to compare"
        )
    return candidates


def _local_backends(settings: ModelSettings) -> list[str]:
    """Return those that run the model in this process and are installed, the references first."""
    able = [
        name
        for name in backends_for(settings)
        if name != AUTO and not read_backend(name).server and is_installed(read_backend(name))
    ]
    return sorted(able, key=lambda name: REFERENCES.index(name) if name in REFERENCES else len(REFERENCES))


def _candidate(name: str, words: ParityWords, compose: Compose) -> Contender:
    try:
        settings = compose(words.overrides(name))
        model = build_model(settings.model, settings.backend, settings.runtime, stated=settings.stated)
        _ = model.runnable  # its files are found and its recipe is checked; nothing is loaded
    except EvalkitError as error:  # whose advice is for a run, where a server's settings begin with backend.
        raise EvalkitError(str(error).replace("backend.", f"{name}.")) from error
    return Contender(name, settings, model)


def _version(name: str) -> str:
    """Return the version of the package that a backend in this process stands on."""
    backend = read_backend(name)
    if backend.server:
        return ""
    package = backend.package or name
    return package_version(packages_distributions().get(package, [package])[0]) or ""
