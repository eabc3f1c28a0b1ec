"""The prompts that a model wants, as far as can be told: from its recipe, from its folder, from the family of its name."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from evalkit.configuration.files import option_names
from evalkit.doctor.records import Prompts
from evalkit.models.settings import ModelSettings, read_model

SENTENCE_TRANSFORMERS = "config_sentence_transformers.json"
# the keys under which model authors keep the two prompts
QUERY_KEYS = ("query", "retrieval.query", "search_query", "s2p_query")
DOCUMENT_KEYS = ("document", "passage", "retrieval.passage", "search_document", "corpus")
E5 = Prompts("the e5 family", "query: ", "passage: ", declared=False)
BGE_ZH = Prompts("the bge-*-zh family", "为这个句子生成表示以用于检索相关文章：", "", declared=False)
# how the names of a family's members look, and whether their cards say that prompts are a must (bge v1.5 works without);
# e5's instruct models want an instruction of the task's own, which nobody can guess
FAMILIES = (
    (re.compile(r"(^|[^a-z0-9])e5(?!.*(instruct|mistral))([^a-z0-9]|$)"), E5, True),
    (re.compile(r"(^|[^a-z0-9])bge-.*zh"), BGE_ZH, False),
)


def wanted_prompts(settings: ModelSettings) -> tuple[Prompts, ...]:
    """Prompts that the model's recipe, folder or name declares, or else those of known families, to be tried.

    Empty for what is no embedder, for a model whose own recipe has no prompts, and for a recipe that was chosen by name.
    """
    if settings.kind != "embedder" or settings.backends or settings.recipe is not None:
        return ()
    folder = Path(settings.path).expanduser() if settings.path else None
    names = _names(settings, folder)
    own = [name for name in option_names("model") if name.lower() in names and read_model(name).hub_id]
    if own:
        recipe = read_model(own[0])
        prompts = Prompts(f"the recipe of {own[0]}", recipe.query_prompt, recipe.document_prompt, declared=True)
        return (prompts,) if prompts.query or prompts.document else ()
    declared = [*(_of_folder(folder) if folder else []), *_of_family(names)]
    return tuple(declared) or (E5, BGE_ZH)


def are_missing(settings: ModelSettings, prompts: Prompts) -> bool:
    """Whether the run lacks a prompt that these say."""
    return bool((prompts.query and not settings.query_prompt) or (prompts.document and not settings.document_prompt))


def _names(settings: ModelSettings, folder: Path | None) -> list[str]:
    """All that the model is called: by its settings, by its folder, and by the configuration that it was saved with."""
    names = [settings.name, (settings.hub_id or "").rpartition("/")[2]]
    if folder is not None:
        saved = str(_read(folder / "config.json").get("_name_or_path") or "")
        names += [folder.resolve().name, saved.rstrip("/").rpartition("/")[2]]
    return [name.lower() for name in names if name]


def _of_family(names: list[str]) -> list[Prompts]:
    return [
        Prompts(f"its name is of {prompts.source}, which", prompts.query, prompts.document, declared=must)
        for pattern, prompts, must in FAMILIES
        if any(pattern.search(name) for name in names)
    ]


def _of_folder(folder: Path) -> list[Prompts]:
    """What sentence-transformers would put before the texts."""
    prompts = _read(folder / SENTENCE_TRANSFORMERS).get("prompts")
    if not isinstance(prompts, dict):
        return []
    query = next((str(prompts[key]) for key in QUERY_KEYS if prompts.get(key)), "")
    document = next((str(prompts[key]) for key in DOCUMENT_KEYS if prompts.get(key)), "")
    return [Prompts(SENTENCE_TRANSFORMERS, query, document, declared=True)] if query or document else []


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none: loading the model says what is wrong with its own files."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
