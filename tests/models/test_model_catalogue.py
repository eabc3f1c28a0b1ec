"""The models that have a file: where they come from, what is published of them, and what mteb's registry says."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest

from evalkit.backends import backends_for
from evalkit.configuration.files import configs_dir, option_names
from evalkit.models.settings import ModelSettings, model_settings, read_model
from evalkit.results import published

MODELS = {name: read_model(name) for name in option_names("model") if name != "base"}
# a model in the form of an ONNX file is in another's repository, and compared with that one by test_onnx
ON_THE_HUB = {name: model for name, model in MODELS.items() if model.hub_id and not model.onnx_file}
PINNED = {name: model for name, model in ON_THE_HUB.items() if model.revision}
REGISTERED = "mteb's registry"

BGE_ZH = "为这个句子生成表示以用于检索相关文章："
BGE_EN = "Represent this sentence for searching relevant passages: "
LLM_EMBEDDER = {
    "qa": ("Represent this query for retrieving relevant documents: ", "Represent this document for retrieval: "),
    "icl": (
        "Convert this example into vector to look for useful examples: ",
        "Convert this example into vector for retrieval: ",
    ),
    "chat": (
        "Embed this dialogue to find useful historical dialogues: ",
        "Embed this historical dialogue for retrieval: ",
    ),
    "lrlm": (
        "Embed this text chunk for finding useful historical chunks: ",
        "Embed this historical text chunk for retrieval: ",
    ),
    "tool": (
        "Transform this user request for fetching helpful tool descriptions: ",
        "Transform this tool description for retrieval: ",
    ),
    "convsearch": (
        "Encode this query and context for searching relevant passages: ",
        "Encode this passage for retrieval: ",
    ),
}
# what mteb's registry counts otherwise: positions with RoBERTa's two reserved ones, what the network could read, or nothing
OTHER_LENGTHS = {
    "multilingual-e5-base": 514,
    "multilingual-e5-large": 514,
    "text2vec-base-chinese": 512,
    "Qwen3-Embedding-0.6B": 32768,
    "Qwen3-Embedding-4B": 32768,
    "Qwen3-Embedding-8B": 32768,
    "multilingual-e5-large-instruct": 514,
    "bge-multilingual-gemma2": 8192,
}
# whose loaders ask the task for an instruction, or the model's own files for its prompts
OWN_PROMPTS = ("q3e_instruct_loader", "InstructSentenceTransformerModel")
PROMPTS_IN_FILES = ("bge-multilingual-gemma2",)
QWEN3_EMBEDDING = tuple(f"Qwen3-Embedding-{size}" for size in ("0.6B", "4B", "8B"))


def comment(name: str) -> str:
    """The words of a model file's comments."""
    lines = (configs_dir() / "model" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    return " ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))


def recipe(name: str, variant: str | None = None) -> ModelSettings:
    return model_settings(MODELS[name].model_dump() | {"recipe": variant})


@cache
def registry() -> dict[str, Any]:
    from mteb.models.model_implementations import MODEL_REGISTRY

    return dict(MODEL_REGISTRY)


@pytest.mark.parametrize("name", ON_THE_HUB)
def test_a_model_of_the_hub_names_its_commit_and_its_sources(name: str) -> None:
    model, words = ON_THE_HUB[name], comment(name)
    assert model.hub_id is not None
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", model.hub_id)
    assert model.hub_id.split("/")[1] == name
    assert words.startswith("Recipe: ")
    if model.revision is None:
        assert "no weights and so no revision" in words
    else:
        assert re.fullmatch(r"[0-9a-f]{40}", model.revision)
        assert re.search(r"[Rr]evision: ", words)
    assert (model.max_length or 0) >= 128


def test_revisions_are_each_of_one_repository() -> None:
    revisions = [model.revision for model in PINNED.values()]
    assert len(set(revisions)) == len(revisions)


def test_every_model_of_the_card_and_of_c_mteb_has_a_file() -> None:
    figures = [figure for figure in published.all_figures() if not figure.task.startswith("NanoCMTEB")]
    told = {figure.model for figure in figures if figure.source in ("model-index", "table")}
    assert len(told) == 18 + 7
    assert told <= {model.hub_id for model in ON_THE_HUB.values()}


def test_figures_are_found_under_the_very_id_of_the_file() -> None:
    ids = {figure.model for figure in published.all_figures()}
    by_name = {hub_id.split("/")[-1].lower(): hub_id for hub_id in ids if "/" in hub_id}
    expected = {name: by_name[name.lower()] for name in ON_THE_HUB if name.lower() in by_name}
    assert {name: MODELS[name].hub_id for name in expected} == expected
    assert len(expected) >= 22


@pytest.mark.parametrize("name", [name for name in PINNED if f"revision: {REGISTERED}" in comment(name).lower()])
def test_mtebs_registry_says_the_same(name: str) -> None:
    model = MODELS[name]
    meta = registry()[str(model.hub_id)]
    assert model.revision == meta.revision
    if model.kind != "embedder":
        return
    prompts = meta.loader_kwargs.get("model_prompts", {})
    if meta.loader.__name__ not in OWN_PROMPTS and name not in PROMPTS_IN_FILES:
        assert model.query_prompt == prompts.get("query", "")
        assert model.document_prompt == prompts.get("document", "")
    assert meta.max_tokens == OTHER_LENGTHS.get(name, model.max_length)
    assert model.similarity == getattr(meta.similarity_fn_name, "value", meta.similarity_fn_name)
    # mteb takes some numbers from cards, and bge-small-zh's from bge-small-en
    if meta.n_parameters and "small-zh" not in name:
        assert model.parameters == pytest.approx(meta.n_parameters / 1e6, rel=0.07)


@pytest.mark.parametrize("name", [name for name in PINNED if f"{REGISTERED} has none" in comment(name)])
def test_mtebs_registry_has_none_where_the_file_says_so(name: str) -> None:
    assert MODELS[name].hub_id not in registry()


@pytest.mark.parametrize("name", sorted(set(ON_THE_HUB) - set(PINNED)))
def test_a_model_without_a_revision_is_behind_an_api(name: str) -> None:
    model = MODELS[name]
    meta = registry()[str(model.hub_id)]
    assert list(meta.framework) == ["API"]
    assert (model.backends, model.max_length) == (("openai",), meta.max_tokens)
    assert (model.query_prompt, model.document_prompt, meta.loader_kwargs.get("model_prompts")) == ("", "", None)


def test_each_pinned_model_says_what_mtebs_registry_has() -> None:
    assert [name for name in PINNED if REGISTERED not in comment(name)] == []


@pytest.mark.parametrize("name", MODELS)
def test_a_backend_can_run_each_model(name: str) -> None:
    assert set(MODELS[name].backends) <= set(option_names("backend"))
    assert backends_for(MODELS[name]) or MODELS[name].kind == "auto"


def test_prompts_of_bge() -> None:
    for name, model in MODELS.items():
        if re.fullmatch(r"bge-(small|base|large)-zh(-v1\.5)?", name):
            assert (model.query_prompt, model.document_prompt, model.pooling) == (BGE_ZH, "", "cls")
        if re.fullmatch(r"bge-(small|base|large)-en(-v1\.5)?", name):
            assert (model.query_prompt, model.document_prompt, model.pooling) == (BGE_EN, "", "cls")
            assert recipe(name, "no-instruction").query_prompt == ""
    for name in ("bge-large-zh-noinstruct", "bge-m3"):
        assert (MODELS[name].query_prompt, MODELS[name].document_prompt, MODELS[name].pooling) == ("", "", "cls")


@pytest.mark.parametrize("task", LLM_EMBEDDER)
def test_prompts_of_llm_embedder(task: str) -> None:
    found = recipe("llm-embedder", None if task == "qa" else task)
    assert (found.query_prompt, found.document_prompt) == LLM_EMBEDDER[task]


@pytest.mark.parametrize(
    ("name", "pooling", "between"),
    [
        *((name, "last", "\nQuery:") for name in QWEN3_EMBEDDING),
        ("multilingual-e5-large-instruct", "mean", "\nQuery: "),
    ],
)
def test_instructions_are_the_cards_and_the_tasks_own_in_mteb(name: str, pooling: str, between: str) -> None:
    import mteb

    card = f"Instruct: Given a web search query, retrieve relevant passages that answer the query{between}"
    assert (MODELS[name].query_prompt, MODELS[name].document_prompt, MODELS[name].pooling) == (card, "", pooling)
    variants = {
        "mteb-search": ("T2Reranking", "MMarcoReranking"),
        "mteb-medical": ("CMedQAv1-reranking", "CMedQAv2-reranking"),
    }
    for variant, tasks in variants.items():
        for task in tasks:
            instruction = mteb.get_task(task).metadata.prompt
            assert recipe(name, variant).query_prompt == f"Instruct: {instruction}{between}"


@pytest.mark.parametrize("name", [f"multilingual-e5-{size}" for size in ("small", "base", "large")])
def test_prompts_of_multilingual_e5(name: str) -> None:
    prompts = {variant: recipe(name, variant) for variant in (None, "query-both-sides", "no-prompts")}
    assert {variant: (found.query_prompt, found.document_prompt) for variant, found in prompts.items()} == {
        None: ("query: ", "passage: "),
        "query-both-sides": ("query: ", "query: "),
        "no-prompts": ("", ""),
    }


@pytest.mark.parametrize("name", [f"Qwen3-Reranker-{size}" for size in ("0.6B", "4B", "8B")])
def test_instructions_of_qwen3_reranker_are_the_tasks_own_in_mteb(name: str) -> None:
    import mteb

    variants = {
        "qwen-web": ("T2Reranking", "MMarcoReranking"),
        "qwen-medical": ("CMedQAv1-reranking", "CMedQAv2-reranking"),
    }
    for variant, tasks in variants.items():
        for task in tasks:
            instruction = mteb.get_task(task).metadata.prompt
            assert recipe(name, variant).query_prompt == f"<Instruct>: {instruction}\n\n<Query>: "


def test_models_of_one_family_differ_in_their_weights_alone() -> None:
    families = ("Qwen3-Reranker-", "Qwen3-Embedding-", "mxbai-rerank-", "zerank-", "ettin-reranker-", "stella-", "gte-")
    own = {"name", "hub_id", "revision", "parameters"}
    for family in families:
        members = [model for name, model in MODELS.items() if re.fullmatch(rf"{family}[\w.-]+", name)]
        members = [model for model in members if model.kind != "cross-encoder" or family == "ettin-reranker-"]
        recipes = [model.model_dump(exclude=own) for model in members]
        assert len(members) >= 2, family
        assert recipes == recipes[:1] * len(recipes), family


def test_who_may_load_a_pickle_and_who_needs_code() -> None:
    assert {name for name, model in MODELS.items() if model.allow_pickle} == {
        "bce-reranker-base_v1",
        "bge-base-zh-v1.5",
        "bge-large-zh-noinstruct",
        "bge-large-zh-v1.5",
        "bge-m3",
        "bge-small-zh",
        "m3e-large",
        "stella-base-zh-v3-1792d",
        "stella-large-zh-v3-1792d",
        "xiaobu-embedding-v2",
    }
    assert {name for name, model in MODELS.items() if model.needs_remote_code} == {
        "ListConRanker",
        "gte-multilingual-reranker-base",
        "jina-colbert-v2",
        "jina-reranker-v2-base-multilingual",
    }
    assert not any(model.trust_remote_code for model in MODELS.values())


def test_no_variant_repeats_another() -> None:
    for name, model in MODELS.items():
        variants = [recipe(name, variant).model_dump(exclude={"recipe"}) for variant in (None, *model.recipes)]
        assert [variants.count(variant) for variant in variants] == [1] * len(variants), name
