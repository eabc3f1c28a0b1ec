"""The recipe of a multi-vector model (ColBERT and its kin) as its folder states it, and as MultiVectorEncoder reads it.

Three layouts: sentence-transformers' own (`MultiVectorMask` among the modules), PyLate's (its settings at the top of
`config_sentence_transformers.json`), and Stanford's (`HF_ColBERT` in `config.json`, settings in `artifact.metadata`).
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any

from evalkit.errors import EvalkitError, WrongWeightsError
from evalkit.models.folders.files import MODULES, SETTINGS, FolderFiles, read_object

STANFORD = "HF_ColBERT"
METADATA = "artifact.metadata"
PYLATE_DENSE = "pylate.models.Dense.Dense"
SAVED_AS = frozenset({"ColBERT", "MultiVectorEncoder"})
INTERACTIONS = ("maxsim", "meanmaxsim")
# how PyLate's settings at the top of config_sentence_transformers.json are known
PYLATE_KEYS = frozenset({
    "query_length", "document_length", "query_expansion", "do_query_expansion", "attend_to_expansion_tokens",
    "attend_to_mask_tokens", "query_prefix", "document_prefix", "skiplist_words",
})  # fmt: skip
MASK_KEYS = frozenset({"skiplist_words", "skiplist_tasks", "keep_only_token_ids"})
CANONICAL_LENGTH = 32
Said = dict[str, tuple[Any, str]]


def named_multi_vector(files: FolderFiles) -> tuple[str, str] | None:
    """Return what names the folder as a multi-vector model's, and the file that says so; None where nothing does."""
    colbert = [name for name in files.architectures if "colbert" in name.lower()]
    saved_as = files.settings.model_type if files.settings is not None else ""
    if colbert:
        return ", ".join(colbert), "config.json"
    if saved_as in SAVED_AS:
        return saved_as, SETTINGS
    if any(module.type.partition(".")[0] == "pylate" for module in files.modules or ()):
        return "pylate", MODULES
    if METADATA in files.names:
        return METADATA, METADATA
    return None


def read_multi_vector(files: FolderFiles) -> Said:
    """Return the fields of the recipe that the folder states, each with the file that says so.

    Raises WrongWeightsError where the library would put a random projection in place of one that the folder lacks, and EvalkitError
    for modules and settings that it can't honour.
    """
    if files.network != files.folder:
        raise EvalkitError(
            f"{files.folder / MODULES} has the network of a multi-vector model in a folder of its own; save the model again with "
            "sentence-transformers, which puts it beside modules.json"
        )
    if files.modules is None:
        return _stanford(files)
    _refuse_other_modules(files)
    top = files.settings.model_dump() if files.settings is not None else {}
    said = _prompts(top)
    said |= _lengths(top, SETTINGS)
    if PYLATE_KEYS & set(top) and "query_expansion" not in top:
        said |= _pylate_expansion(top)
    said |= _encoder(files)
    said |= _mask(files, top)
    similarity = top.get("similarity_fn_name")
    if similarity in INTERACTIONS:
        said["interaction"] = similarity, SETTINGS
    said["modules"] = tuple(module.name for module in files.modules[1:]), MODULES
    return said


def _stanford(files: FolderFiles) -> Said:
    if STANFORD not in files.architectures:
        raise WrongWeightsError(
            f"{files.folder} has no modules.json and is no {STANFORD} by its config.json: as a multi-vector model it would get a "
            "random projection"
        )
    metadata = read_object(files.network / METADATA)
    origin = "default" if metadata is None else METADATA
    said = metadata or {}
    expansion = {
        "strategy": "fixed",
        "attend": bool(said.get("attend_to_mask_tokens")),
        "length": said.get("query_maxlen") or CANONICAL_LENGTH,
    }
    found: Said = {
        "query_prompt": ((said.get("query_token_id") or "[unused0]") + " ", origin),
        "document_prompt": ((said.get("doc_token_id") or "[unused1]") + " ", origin),
        "query_expansion": (expansion, origin),
        "skiplist": (tuple(string.punctuation) if said.get("mask_punctuation", True) else (), origin),
    }
    if said.get("doc_maxlen") is not None:
        found["document_length"] = said["doc_maxlen"], origin
    return found


def _refuse_other_modules(files: FolderFiles) -> None:
    modules = files.modules or ()
    for module in modules:
        if not module.type.startswith("sentence_transformers.") and module.type != PYLATE_DENSE:
            raise EvalkitError(
                f"{files.folder / MODULES} names {module.type}, a module of Python code of its own; evalkit runs those of "
                "sentence-transformers alone, whoever is trusted"
            )
    projected = any(module.name == "Dense" for module in modules)
    saved_as = files.settings.model_type if files.settings is not None else "SentenceTransformer"
    if saved_as not in SAVED_AS and (named_multi_vector(files) is None or not projected):
        raise WrongWeightsError(
            f"{files.folder} is an embedder by its {MODULES}: as a multi-vector model its pooling would be dropped, and what it "
            "lacks would be random. model.kind=embedder, or model=local-embedder"
        )


def _prompts(top: Mapping[str, Any]) -> Said:
    prompts = dict(top.get("prompts") or {})
    for role in ("query", "document"):
        prefix = top.get(f"{role}_prefix")
        if prefix is not None:
            prompts[role] = prefix + (prompts.get(role) or "").removeprefix(prefix)
    return {f"{role}_prompt": (prompts[role] or "", SETTINGS) for role in ("query", "document") if role in prompts}


def _lengths(said: Mapping[str, Any], origin: str) -> Said:
    found: Said = {name: (said[name], origin) for name in ("query_length", "document_length") if said.get(name)}
    if "query_expansion" in said:
        found["query_expansion"] = said["query_expansion"], origin
    return found


def _pylate_expansion(top: Mapping[str, Any]) -> Said:
    """Return what PyLate's flat settings say of the expansion: on unless they say otherwise, to the query's length."""
    if top.get("do_query_expansion") is False:
        return {"query_expansion": (None, SETTINGS)}
    attend = top.get("attend_to_expansion_tokens", top.get("attend_to_mask_tokens"))
    length = top.get("query_length") or CANONICAL_LENGTH
    return {
        "query_length": (None, SETTINGS),  # the expansion has it
        "query_expansion": ({"strategy": "fixed", "attend": bool(attend), "length": length}, SETTINGS),
    }


def _encoder(files: FolderFiles) -> Said:
    file = files.encoder
    if file is None:
        return {}
    extra = file.model_extra or {}
    found = _lengths(extra, files.encoder_name)
    if file.max_seq_length is not None:
        found["max_length"] = file.max_seq_length, files.encoder_name
    if file.do_lower_case:
        found["lower_case"] = True, files.encoder_name
    return found


def _mask(files: FolderFiles, top: Mapping[str, Any]) -> Said:
    """Return which tokens are no part of a score: those of the mask's own file, else PyLate's, which leaves punctuation out."""
    masks = [module for module in files.modules or () if module.name == "MultiVectorMask"]
    if not masks:
        words = top.get("skiplist_words")
        pylate = top.get("model_type") == "ColBERT" or bool({"query_prefix", "document_prefix"} & set(top))
        if words is None and not pylate:
            return {}
        return {"skiplist": (tuple(string.punctuation if words is None else words), SETTINGS)}
    origin = f"{masks[-1].path}/config.json"
    config = read_object(files.folder / origin) or {}
    if unknown := sorted(config.keys() - MASK_KEYS):
        raise EvalkitError(
            f"{files.folder / origin}: unknown {', '.join(unknown)}; a mask has {', '.join(sorted(MASK_KEYS))}"
        )
    if config.get("keep_only_token_ids"):
        raise EvalkitError(
            f"{files.folder / origin}: keep_only_token_ids is for models that read images, which evalkit has none of"
        )
    roles = config.get("skiplist_tasks") or ["document"]
    roles = [roles] if isinstance(roles, str) else roles
    return {
        "skiplist": (tuple(config.get("skiplist_words") or ()), origin),
        "skiplist_roles": (tuple(roles), origin),
    }
