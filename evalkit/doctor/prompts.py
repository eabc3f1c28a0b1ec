"""The prompts that a model wants (by its recipe, its folder, the family of its name), and whether a run has them."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from evalkit.configuration.files import option_names
from evalkit.doctor.figures import chance_of_difference, interval
from evalkit.doctor.records import Evidence, Opinion, Prompts, PromptTrial
from evalkit.models.settings import ModelSettings, read_model
from evalkit.output.numbers import counted, percent, points
from evalkit.records import Task
from evalkit.tasks.content import script_of

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
LANGUAGES = {"Han": "Chinese", "Latin": "English"}  # of prompts, which no family has in another one
CHANCE = 0.01  # that a gain or a loss by prompts is none: several are tried
LEAST_GAIN = 0.005
CLOSE = 0.6
"""Models trained at a low temperature, as e5 is, put all texts so close together that no cosine is below this."""


def wanted_prompts(settings: ModelSettings) -> tuple[Prompts, ...]:
    """Return the prompts that the model's recipe, folder or name declares, or else those of known families, to be tried.

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
    """Return whether the run lacks a prompt that these say."""
    return bool((prompts.query and not settings.query_prompt) or (prompts.document and not settings.document_prompt))


def judge_prompts(evidence: Evidence) -> Opinion:
    """Judge whether the run has the prompts that the model was trained with."""
    settings, wanted = evidence.settings, evidence.found.wanted_prompts
    if not wanted:
        return Opinion("skipped", "the model takes none, or its recipe was chosen by name")
    trials = {trial.prompts: trial for trial in evidence.found.prompt_trials}
    for prompts in wanted:
        if prompts.declared and are_missing(settings, prompts):
            seen = (
                f"{prompts.source} says {_quoted(prompts)}, the run has {_own(settings)}{_effect(trials.get(prompts))}"
            )
            if _harms(trials.get(prompts)):
                return Opinion(
                    "warning", f"prompts that are said to be needed do harm here: {seen}", "look at the model's card"
                )
            return Opinion("fault", f"prompts are missing: {seen}", _set(prompts, evidence.task))
    by_gain = sorted(trials.values(), key=_gain, reverse=True)
    if by_gain and _helps(by_gain[0]):
        prompts = by_gain[0].prompts
        seen = f"those of {prompts.source} ({_quoted(prompts)}) raise MAP{_effect(by_gain[0])}"
        return Opinion(
            "fault", f"prompts are missing: the run has {_own(settings)}, and {seen}", _set(prompts, evidence.task)
        )
    lowest = float(evidence.found.scores.min())
    if by_gain and settings.similarity == "cosine" and lowest >= CLOSE:
        seen = f"no cosine lies below {lowest:.2f}, as with the e5 family, which was trained with 'query: ' and 'passage: '"
        return Opinion("warning", f"prompts may be missing: {seen}{_effect(by_gain[0])}", "look at the model's card")
    return _with_prompts(settings, wanted, by_gain, evidence.task)


def _with_prompts(
    settings: ModelSettings, wanted: tuple[Prompts, ...], trials: list[PromptTrial], task: Task
) -> Opinion:
    declared = [prompts for prompts in wanted if prompts.declared]
    own = (settings.query_prompt, settings.document_prompt)
    if declared and own not in [(prompts.query, prompts.document) for prompts in declared]:
        seen = f"the run has {_own(settings)}, {declared[0].source} says {_quoted(declared[0])}"
        return Opinion("warning", f"other prompts than declared: {seen}", _set(declared[0], task))
    tried = f"; tried: {', '.join(f'{trial.prompts.source}{_effect(trial)}' for trial in trials)}" if trials else ""
    return Opinion("ok", f"the run has {_own(settings)}{tried}")


def _names(settings: ModelSettings, folder: Path | None) -> list[str]:
    """Return all that the model is called: by its settings, by its folder, and by the configuration that it was saved with."""
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
    """Return what sentence-transformers would put before the texts."""
    prompts = _read(folder / SENTENCE_TRANSFORMERS).get("prompts")
    if not isinstance(prompts, dict):
        return []
    query = next((str(prompts[key]) for key in QUERY_KEYS if prompts.get(key)), "")
    document = next((str(prompts[key]) for key in DOCUMENT_KEYS if prompts.get(key)), "")
    return [Prompts(SENTENCE_TRANSFORMERS, query, document, declared=True)] if query or document else []


def _read(path: Path) -> dict[str, Any]:
    """Return a JSON object; empty where there is none: loading the model says what is wrong with its own files."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _differences(trial: PromptTrial) -> np.ndarray:
    return trial.values - trial.values_without


def _gain(trial: PromptTrial) -> float:
    return float(_differences(trial).mean())


def _helps(trial: PromptTrial) -> bool:
    return _gain(trial) >= LEAST_GAIN and chance_of_difference(_differences(trial)) < CHANCE


def _harms(trial: PromptTrial | None) -> bool:
    return trial is not None and _gain(trial) <= -LEAST_GAIN and chance_of_difference(_differences(trial)) < CHANCE


def _effect(trial: PromptTrial | None) -> str:
    if trial is None:
        return ""
    low, high = interval(_differences(trial), 1 - CHANCE)
    between = "" if math.isnan(low) else f", {100 * (1 - CHANCE):g} %: {points(low)} to {points(high)}"
    return (
        f" ({points(_gain(trial))} points on {counted(len(trial.values), 'query')}{between}; "
        f"{percent(float(trial.values_without.mean()))} without)"
    )


def _own(settings: ModelSettings) -> str:
    if not settings.query_prompt and not settings.document_prompt:
        return "none"
    return f"{settings.query_prompt!r} and {settings.document_prompt!r}"


def _quoted(prompts: Prompts) -> str:
    return f"{prompts.query!r} before queries and {prompts.document!r} before documents"


def _set(prompts: Prompts, task: Task) -> str:
    """Return the settings that give a run these prompts, and in which language those are."""
    settings = f"model.query_prompt='{prompts.query}' model.document_prompt='{prompts.document}'"
    language = LANGUAGES.get(script_of(prompts.query + prompts.document))
    if language is None:
        return settings
    of_queries = LANGUAGES.get(script_of("".join(text for one in task.requests for text in one.query.texts)))
    others = f", the queries are in {of_queries}" if of_queries not in (None, language) else ""
    return f"{settings} (the prompts are in {language}, as the model had them in training{others})"
