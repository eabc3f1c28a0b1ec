"""A model's recipe, completed before it is run: by evalkit's own file where that is one, else from the model's files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from evalkit.backends import read_backend
from evalkit.cache import cache_folder, read_entries, store_entry
from evalkit.configuration.files import option_names
from evalkit.errors import EvalkitError
from evalkit.models.choosing import is_whole_recipe
from evalkit.models.folders.resolving import RECIPE, Recipe, StatedBy, compare_with_folder, resolve, stated_recipe
from evalkit.models.interfaces import RunnableModel, Runtime
from evalkit.models.settings import ModelSettings
from evalkit.models.weights import described_folder
from evalkit.output.json import plain_json
from evalkit.output.sheets import Sheet
from evalkit.records import RecipeField

FINDINGS = "findings.json"
UNLIMITED = {
    "max_length": "all that it can read",
    "query_length": "all that it can read",
    "document_length": "all that it can read",
    "query_expansion": "none",
    "skiplist": "none",
    "dimensions": "all",
    "label": "the only one",
    "modules": "pooling alone",
    "max_query_length": "as the model's own code does",
    "block_size": "whole lists",
}
"""What it means that a field says nothing."""
SHOWN = {
    "embedder": ("pooling", "query_prompt", "document_prompt", "max_length", "similarity"),
    "cross-encoder": ("max_length", "truncation"),
    "multi-vector": (
        *("query_prompt", "document_prompt", "query_length", "document_length"),
        *("query_expansion", "skiplist", "interaction"),
    ),
    "llm-reranker": ("prompt", "positive_word", "negative_word", "max_length", "truncation"),
    "listwise": ("max_length", "max_query_length", "block_size", "order_seed", "permutations"),
}
"""The fields of a kind that are shown even where they are defaults."""


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


def complete_recipe(
    settings: ModelSettings, stated: Mapping[str, StatedBy] | None, backend: str, runtime: Runtime
) -> Recipe:
    """Return the whole recipe of a model, with what its files say where nobody else says it.

    Raises EvalkitError for what the files leave open or would be scored wrong in silence, and where there are none to read.
    """
    if stated is None:
        return stated_recipe(settings, {})
    open_fields = {"kind", *RECIPE.get(settings.kind, ())} - set(stated)
    is_open = settings.kind == "auto" or (
        settings.kind in ("embedder", "cross-encoder", "multi-vector", "llm-reranker") and open_fields
    )
    if settings.backends or settings.onnx_file or not is_open:
        named = stated_recipe(settings, stated)
        if settings.backends or settings.onnx_file or settings.kind not in RECIPE:
            return named
        if settings.path:
            return replace(named, findings=differences_from(settings, Path(settings.path).expanduser()))
        return replace(named, named=bool(settings.hub_id))
    served = backend in option_names("backend") and read_backend(backend).server
    if served and not settings.path and settings.kind != "auto":
        return stated_recipe(settings, stated)
    if not settings.path and not settings.hub_id:
        raise EvalkitError(
            f"model={settings.name} needs a folder or a Hub id: model.path=FOLDER, or model.hub_id=ORGANISATION/NAME"
        )
    return resolve(settings, stated, described_folder(settings, offline=runtime.offline))


def differences_from(settings: ModelSettings, folder: Path) -> tuple[str, ...]:
    """Return where a named model's own file and its folder's files differ, as findings; the model's file leads."""
    if not folder.is_dir():
        return ()
    differences = compare_with_folder(settings, folder)
    return tuple(f"evalkit's own file leads where the model's folder says otherwise: {one}" for one in differences)


def recipe_fields(recipe: Recipe) -> dict[str, RecipeField]:
    """Return the fields that decide a score, with who states them, as JSON holds them."""
    return {name: RecipeField(plain_json(value), recipe.origins[name]) for name, value in recipe.fields.items()}


def findings_of(
    recipe: Recipe | None, model: RunnableModel, backend: str, runtime: Runtime, cache: str
) -> tuple[str, ...]:
    """Return what is worth a word of a model's files and of how it was loaded.

    The latter is kept in the cache beside the scores, so that scores from the store come with the same words: those of every
    loading whose scores may be among them, and of this one alone where `cache` is `refresh` or `off`.
    """
    own = () if recipe is None else (*recipe.findings, *snapshot_findings(recipe, backend))
    path = cache_folder(runtime.cache_dir) / FINDINGS
    key = hashlib.sha256(json.dumps(model.way, sort_keys=True, default=str).encode()).hexdigest()
    entry = read_entries(path).get(key) if cache == "on" else None
    kept = tuple(map(str, entry if isinstance(entry, list) else ()))
    found = tuple(dict.fromkeys(kept + (model.findings or ())))
    if model.way is not None and model.findings is not None and cache != "off" and (found or cache == "refresh"):
        with suppress(OSError):  # a run from the store then lacks these words
            store_entry(path, key, list(found))
    return own + found


def recipe_line(recipe: Recipe, dtype: str) -> str:
    """Return a model's recipe in one line: what is not a default, and where each part of it comes from."""
    parts = [f"{recipe.settings.kind} ({recipe.origins['kind']})" if "kind" in recipe.origins else recipe.settings.kind]
    for name, value in recipe.fields.items():
        usual = value == ModelSettings.model_fields[name].default
        told = name in SHOWN.get(recipe.settings.kind, ()) or not usual
        if name != "kind" and told:
            parts.append(f"{name} {_shown(name, value)} ({recipe.origins[name]})")
    return ", ".join([*parts, dtype])


def recipe_sheet(
    title: str, fields: Mapping[str, RecipeField], findings: Sequence[str], above: Sequence[str] = ()
) -> Sheet:
    """Return a table of a recipe: a row per field, with who states it, and below it what is worth a word.

    What runs behind the pooling is no field of a model that pools nothing, unless it has it all the same.
    """
    pools = "pooling" in fields
    return Sheet(
        title=title,
        columns=(("field", "name"), ("value", "text"), ("from", "text")),
        above=tuple(above),
        rows=tuple(
            (name, _shown(name, _tupled(one.value)), one.origin)
            for name, one in fields.items()
            if pools or name != "modules" or one.value
        ),
        below=tuple(findings),
    )


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _shown(name: str, value: Any) -> str:
    if value in ((), None) and name in UNLIMITED:
        return UNLIMITED[name]
    if name == "skiplist":
        return " ".join(value)
    if isinstance(value, tuple):
        return " + ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if (isinstance(value, str) and not value.isascii()) or not str(value).isprintable() or " " in str(value):
        return repr(value)
    return "none" if value in ("", None) else str(value)


def snapshot_findings(recipe: Recipe, backend: str) -> tuple[str, ...]:
    """Return where a named model's own file differs from those of its Hub repository, where they are on this machine."""
    settings = recipe.settings
    if not recipe.named or (backend in option_names("backend") and read_backend(backend).server):
        return ()
    try:
        folder = described_folder(settings, offline=True)
    except EvalkitError:
        return ()
    return differences_from(settings, folder)


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
