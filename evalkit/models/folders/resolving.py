"""A model's settings with every open field filled in from its folder, and where each of them comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from evalkit.configuration.files import settings_error
from evalkit.errors import EvalkitError
from evalkit.models.choosing import UNNAMED
from evalkit.models.folders.files import FolderFiles, read_folder
from evalkit.models.folders.judges import PROMPTS
from evalkit.models.folders.kinds import (
    MULTI_VECTOR,
    find_kind,
    refuse_files,
    refuse_formats,
    refuse_other_kind,
    refuse_unknown_kinds,
)
from evalkit.models.folders.recipes import FolderRecipe, plain_parts, read_recipe, refuse_causal_first_token
from evalkit.models.settings import ModelSettings, refuse_ignored

StatedBy = Literal["user", "file"]
RECIPE: Mapping[str, tuple[str, ...]] = {
    "embedder": (
        *("pooling", "pool_prompt", "query_prompt", "document_prompt", "max_length", "lower_case"),
        *("similarity", "dimensions", "modules"),
    ),
    "cross-encoder": ("query_prompt", "document_prompt", "max_length", "truncation", "lower_case", "label", "modules"),
    "multi-vector": (
        *("query_prompt", "document_prompt", "query_length", "document_length", "max_length", "lower_case"),
        *("query_expansion", "skiplist", "skiplist_roles", "interaction", "modules"),
    ),
    "llm-reranker": (
        *("bos", "system_prompt", "query_prompt", "separator", "document_prompt", "document_ending", "prompt", "strip"),
        *("positive_word", "negative_word", "temperature", "max_length", "truncation"),
    ),
    "listwise": ("max_length", "max_query_length", "block_size", "order_seed", "permutations"),
}
"""The fields that decide a score, by kind, in the order in which they are shown."""


@dataclass(frozen=True)
class Recipe:
    """A model's settings as they are run.

    `origins` says of each field of its recipe who states it, `findings` what is worth a word. `as_folder` are the fields that the
    user states as the folder's own files do; `differing` those that a file of settings states otherwise. `named` says that
    evalkit's
    own file of a model on the Hub is the whole recipe.
    """

    settings: ModelSettings
    origins: Mapping[str, str] = field(default_factory=dict)
    findings: tuple[str, ...] = ()
    as_folder: frozenset[str] = frozenset()
    differing: Mapping[str, Any] = field(default_factory=dict)
    named: bool = False

    @property
    def fields(self) -> Mapping[str, Any]:
        """The fields that decide a score, with their values."""
        names = ("kind", *RECIPE.get(self.settings.kind, ()))
        return {name: getattr(self.settings, name) for name in names if name in self.origins}


def resolve(settings: ModelSettings, stated: Mapping[str, StatedBy], folder: Path) -> Recipe:
    """Fill in what neither the user nor a file of settings states from the files in the model's folder, else by a default.

    Raises EvalkitError, before any weights load, for what the folder's files leave open and for what can't be honoured.
    """
    files = read_folder(folder)
    kind, kind_origin = _kind_of(files, settings, stated)
    refuse_ignored(settings, kind, {name for name, by in stated.items() if by == "user"} - {"kind"})
    found = _recipe_of(files, kind, stated)
    fields = {name: one.value for name, one in found.fields.items() if name not in stated}
    if kind == "llm-reranker" and not {"truncation"} & {*stated, *found.fields}:
        fields["truncation"] = "only_second"
    if settings.name in UNNAMED:
        fields["name"] = (settings.hub_id or "").rpartition("/")[2] if not settings.path else folder.resolve().name
    try:
        resolved = ModelSettings.model_validate({**settings.model_dump(), **fields, "kind": kind})
    except ValidationError as error:
        raise settings_error("model", error) from error
    resolved = resolved.model_copy(update={"modules": plain_parts(resolved.modules, resolved.similarity, kind)})
    refuse_files(files, kind, label=resolved.label, trusts_code=resolved.trust_remote_code)
    if kind == "embedder":
        refuse_causal_first_token(files, resolved.pooling)
    origins = {"kind": kind_origin}
    for name in RECIPE.get(kind, ()):
        if name in stated:
            origins[name] = _speaker(stated[name], settings)
        elif name in found.fields:
            origins[name] = found.fields[name].origin
        else:
            origins[name] = "default"
    own = {name: _folder_value(found, name) for name in stated if name in origins and name != "kind"}
    values = {name: getattr(resolved, name) for name in own}
    return Recipe(
        resolved,
        origins,
        findings=(*found.findings, *_findings(files, resolved)),
        as_folder=frozenset(name for name in own if stated[name] == "user" and own[name] == values[name]),
        differing={name: values[name] for name in own if stated[name] == "file" and own[name] != values[name]},
    )


def _kind_of(files: FolderFiles, settings: ModelSettings, stated: Mapping[str, StatedBy]) -> tuple[str, str]:
    """Return the model's kind and who says it. Raises EvalkitError where the folder holds none that can be run as that."""
    for name in ("revision", "hub_id"):
        if settings.path and stated.get(name) == "user":
            raise EvalkitError(
                f"model.{name} says nothing to a folder, whose revision is its content; model.name=NAME names the system"
            )
    refuse_formats(files)
    if settings.kind == "auto":
        return find_kind(files)
    if settings.kind in ("embedder", "cross-encoder"):
        refuse_unknown_kinds(files)
        refuse_other_kind(files, settings.kind)
    if settings.kind == MULTI_VECTOR:
        refuse_unknown_kinds(files, MULTI_VECTOR)
    return settings.kind, _speaker(stated.get("kind"), settings)


def _folder_value(found: FolderRecipe, name: str) -> Any:
    """Return a field's value by the folder's own files, or its default."""
    one = found.fields.get(name)
    return ModelSettings.model_fields[name].default if one is None else one.value


def compare_with_folder(settings: ModelSettings, folder: Path) -> tuple[str, ...]:
    """Return where a named model's own file and the files of its folder say different things; the model's file leads.

    Raises EvalkitError for a folder that holds what would be scored wrong in silence.
    """
    files = read_folder(folder)
    refuse_formats(files)
    refuse_unknown_kinds(files, settings.kind)
    refuse_files(files, settings.kind, label=settings.label, trusts_code=settings.trust_remote_code)
    try:
        found = read_recipe(files, settings.kind)
    except EvalkitError as error:
        return (f"its folder can't be compared with it: {error}",)
    differences = []
    for name, one in found.fields.items():
        own = getattr(settings, name)
        value = plain_parts(one.value, settings.similarity, settings.kind) if name == "modules" else one.value
        if one.origin != "default" and own != value:
            differences.append(f"{name}: {own!r} here, {value!r} in {one.origin}")
    return tuple(differences)


def stated_recipe(settings: ModelSettings, stated: Mapping[str, StatedBy]) -> Recipe:
    """Return the recipe of a model whose settings are complete, without a look at its files."""
    names = ("kind", *RECIPE.get(settings.kind, ()))
    origins = {
        name: _speaker("user" if stated.get(name) == "user" else "file", settings)
        for name in names
        if name in stated or getattr(settings, name) != ModelSettings.model_fields[name].default or name == "kind"
    }
    return Recipe(settings, {**dict.fromkeys(names, "default"), **origins})


def _recipe_of(files: FolderFiles, kind: str, stated: Mapping[str, StatedBy]) -> FolderRecipe:
    if kind == "llm-reranker" and set(PROMPTS) & set(stated):
        return FolderRecipe({})  # the template is another one than the folder's, and so is all that goes with it
    found = read_recipe(files, kind)
    undecided = {name: why for name, why in found.undecided.items() if name not in stated}
    if undecided:
        whys = "; ".join(dict.fromkeys(undecided.values()))
        settings = " ".join(f"model.{name}=…" for name in undecided)
        copied = "" if files.modules is not None else "; or copy modules.json, if the model's origin has one"
        raise EvalkitError(
            f"{files.folder}: {whys}. So authors and library may mean different things, and you decide: {settings}{copied}"
        )
    return found


def _speaker(by: StatedBy | None, settings: ModelSettings) -> str:
    return "you" if by == "user" else f"model={settings.name}" if settings.name else "your file"


def _findings(files: FolderFiles, settings: ModelSettings) -> tuple[str, ...]:
    if files.code and settings.kind == "listwise":
        return ("it comes with Python code of its own, which is never run: evalkit follows its published recipe",)
    if files.code and not settings.trust_remote_code:
        places = ", ".join(sorted(set(files.code.values())))
        return (
            f"its config.json names Python code of its own ({places}), which is not run: transformers' own class is; "
            "model.trust_remote_code=true runs it",
        )
    return ()
