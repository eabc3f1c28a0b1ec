"""A model's recipe, completed before it is run: by evalkit's own file where that is one, else from the model's files."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from evalkit.backends import read_backend
from evalkit.configuration.files import option_names
from evalkit.errors import EvalkitError
from evalkit.models.choosing import is_whole_recipe
from evalkit.models.folders.resolving import RECIPE, Recipe, StatedBy, compare_with_folder, resolve, stated_recipe
from evalkit.models.interfaces import RunnableModel, Runtime
from evalkit.models.settings import ModelSettings
from evalkit.models.weights import described_folder

logger = logging.getLogger("evalkit")
SAID: set[tuple[str, str]] = set()
"""Differences between a model's own file and its folder's that were reported already, by folder."""


def stated_fields(
    own: Mapping[str, Any], settings: ModelSettings, content: Mapping[str, Any], said: Mapping[str, Any]
) -> dict[str, StatedBy]:
    """Return who states each setting of a model: the user (`said`) or the option's file (`content`).

    evalkit's own file of one model is a whole recipe; `own` are that file's settings over the defaults.
    """
    stated: dict[str, StatedBy] = dict.fromkeys(content, "file")
    if is_whole_recipe(own):
        stated |= dict.fromkeys(("kind", *RECIPE.get(settings.kind, ())), "file")
    stated |= dict.fromkeys(settings.recipes.get(settings.recipe or "", {}), "file")
    return stated | dict.fromkeys(said, "user")


def complete_recipe(settings: ModelSettings, stated: Mapping[str, StatedBy], backend: str, runtime: Runtime) -> Recipe:
    """Return the whole recipe of a model, with what its files say where nobody else says it.

    Raises EvalkitError for what the files leave open or would be scored wrong in silence, and where there are none to read.
    """
    open_fields = {"kind", *RECIPE.get(settings.kind, ())} - set(stated)
    is_open = settings.kind == "auto" or (
        settings.kind in ("embedder", "cross-encoder", "llm-reranker") and open_fields
    )
    if settings.backends or settings.onnx_file or not is_open:
        if settings.path and settings.kind in RECIPE and not settings.backends:
            report_differences(settings, Path(settings.path).expanduser())
        return stated_recipe(settings, stated)
    served = backend in option_names("backend") and read_backend(backend).server
    if served and not settings.path and settings.kind != "auto":
        return stated_recipe(settings, stated)
    if not settings.path and not settings.hub_id:
        raise EvalkitError(
            f"model={settings.name} needs a folder or a Hub id: model.path=FOLDER, or model.hub_id=ORGANISATION/NAME"
        )
    recipe = resolve(settings, stated, described_folder(settings, offline=runtime.offline))
    for finding in recipe.findings:
        logger.warning("%s: %s", settings.path or settings.hub_id, finding)
    return recipe


def report_differences(settings: ModelSettings, folder: Path) -> None:
    """Say once where a named model's own file and its folder's files differ; the model's file leads."""
    if not folder.is_dir():
        return
    for difference in compare_with_folder(settings, folder):
        if (str(folder), difference) not in SAID:
            SAID.add((str(folder), difference))
            logger.warning("model=%s leads where its folder says otherwise: %s", settings.name, difference)


def with_recipe(model: RunnableModel, recipe: Recipe) -> RunnableModel:
    """Return the model under a revision of its own, where a file of settings states its recipe otherwise than its folder does.

    Two such files for one folder are two systems; neither is the folder's own.
    """
    if not recipe.differing:
        return model
    content = json.dumps(dict(recipe.differing), sort_keys=True, ensure_ascii=False, default=list)
    digest = hashlib.sha256(content.encode()).hexdigest()[:8]
    for_task = model.for_task
    return replace(
        model,
        identity=replace(model.identity, revision=f"{model.identity.revision}+{digest}"),
        for_task=None if for_task is None else lambda task: with_recipe(for_task(task), recipe),
    )
