"""The prompts that a model wants, as far as can be told: from its recipe, from its folder, from the family of its name."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from evalkit.configuration import option_names
from evalkit.diagnosis.records import Prompts
from evalkit.models.settings import ModelSettings, read_model

SENTENCE_TRANSFORMERS = "config_sentence_transformers.json"
# the keys under which model authors keep the two prompts
QUERY_KEYS = ("query", "retrieval.query", "search_query", "s2p_query")
DOCUMENT_KEYS = ("document", "passage", "retrieval.passage", "search_document", "corpus")
# families whose members were trained with prompts, and how their names look
FAMILIES = (
    (re.compile(r"(^|[^a-z0-9])e5([^a-z0-9]|$)"), Prompts("the e5 family", "query: ", "passage: ", False)),
    (
        re.compile(r"(^|[^a-z0-9])bge-.*zh"),
        Prompts("the bge-*-zh family", "为这个句子生成表示以用于检索相关文章：", "", False),
    ),
)


def wanted_prompts(settings: ModelSettings) -> tuple[Prompts, ...]:
    """Prompts that the model's recipe or folder declares, or else those that its family uses (or might: each is tried).

    Empty for what is no embedder and for a recipe that was chosen by name, since that is a choice.
    """
    if settings.kind != "embedder" or settings.backends or settings.recipe is not None:
        return ()
    folder = Path(settings.path).expanduser() if settings.path else None
    names = [settings.name.lower(), *([folder.resolve().name.lower()] if folder else [])]
    declared = [*_of_recipe(names), *(_of_folder(folder) if folder else [])]
    return tuple(declared) or tuple(prompts for _, prompts in FAMILIES)


def is_of_family(settings: ModelSettings, prompts: Prompts) -> bool:
    """Whether the model's name or its folder's says that it belongs to the family that wants these prompts."""
    folder = Path(settings.path).name if settings.path else None
    names = " ".join(filter(None, (settings.name, settings.hub_id, folder))).lower()
    return any(name.search(names) for name, family in FAMILIES if family.source == prompts.source)


def are_missing(settings: ModelSettings, prompts: Prompts) -> bool:
    """Whether the run lacks a prompt that these say."""
    return bool((prompts.query and not settings.query_prompt) or (prompts.document and not settings.document_prompt))


def _of_recipe(names: list[str]) -> list[Prompts]:
    """What a model of that name says in its own file."""
    for name in option_names("model"):
        if name.lower() in names:
            own = read_model(name)
            if own.query_prompt or own.document_prompt:
                return [Prompts(f"the recipe of {name}", own.query_prompt, own.document_prompt, True)]
    return []


def _of_folder(folder: Path) -> list[Prompts]:
    """What sentence-transformers would put before the texts."""
    try:
        content: Any = json.loads((folder / SENTENCE_TRANSFORMERS).read_text(encoding="utf-8"))
        prompts = dict(content.get("prompts") or {})
    except (OSError, ValueError, AttributeError, TypeError):  # a file of some other program's, or none
        return []
    query = next((str(prompts[key]) for key in QUERY_KEYS if prompts.get(key)), "")
    document = next((str(prompts[key]) for key in DOCUMENT_KEYS if prompts.get(key)), "")
    return [Prompts(SENTENCE_TRANSFORMERS, query, document, True)] if query or document else []
