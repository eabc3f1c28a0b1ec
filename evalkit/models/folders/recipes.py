"""The recipe that a model's folder states: what each field is, which file says so, and what its files leave open.

sentence-transformers is followed where it reads and applies a file, since that is what authors tried their folders with. Where it
would not (a settings file without modules.json, a prompt under a name that it never asks for), authors and library mean different
things, and the user has to decide.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from evalkit.errors import EvalkitError, WrongWeightsError
from evalkit.models.folders.files import MODULES, SETTINGS, FolderFiles, FolderModule, read_object
from evalkit.models.folders.judges import is_judge, read_judge
from evalkit.models.folders.kinds import is_causal
from evalkit.models.folders.multi_vector import read_multi_vector
from evalkit.models.settings import Similarity

OURS = ("Pooling", "Normalize")
# parts that sentence-transformers' own classes compute behind the network
BEHIND = ("Dense", "LayerNorm", "WeightedLayerPooling")
WITHOUT_EFFECT = ("Dropout",)
# sentence-transformers' names of the modes, and evalkit's where they differ
THEIR_MODES = {
    **dict.fromkeys(("cls", "mean", "max", "weightedmean"), ""),
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "lasttoken": "last",
}
SIMILARITIES = get_args(Similarity)
# names of prompts that say that they are for documents, though sentence-transformers asks for "document" alone
FOR_DOCUMENTS = ("passage", "doc", "corpus", "text")
# what an encoder's settings file may say beside its length that decides nothing here
ENCODER_HARMLESS = frozenset({"unpad_inputs", "backend", "module_output_name"})
ARGUMENTS = ("model_args", "model_kwargs", "tokenizer_args", "processor_kwargs", "config_args", "config_kwargs")
HARMLESS_ARGUMENTS = frozenset(
    {"torch_dtype", "dtype", "attn_implementation", "trust_remote_code", "padding_side", "cache_dir"}
)


@dataclass(frozen=True, slots=True)
class Stated:
    """A field's value, and the file that states it; `default` where no file does."""

    value: Any
    origin: str


@dataclass(frozen=True)
class FolderRecipe:
    """The fields that a folder's files state; per field that they leave to the user, why; and what is worth a word."""

    fields: Mapping[str, Stated]
    undecided: Mapping[str, str] = field(default_factory=dict)
    findings: tuple[str, ...] = ()


LIST_RECIPE = {"max_length": 2_048, "max_query_length": 512, "block_size": 125}
"""What jina-reranker-v3's own code reads of a document and of a query, in tokens, and of how many documents at once."""


def read_recipe(files: FolderFiles, kind: str) -> FolderRecipe:
    """Return what the folder states for a model of that kind. Raises EvalkitError for parts that can't be honoured, by name."""
    if kind == "listwise":
        return FolderRecipe({name: Stated(tokens, "default") for name, tokens in LIST_RECIPE.items()})
    if kind == "llm-reranker" and is_judge(files):
        return FolderRecipe({name: Stated(*said) for name, said in read_judge(files).fields.items()})
    if kind == "multi-vector":
        return _multi_vector(files)
    if kind not in ("embedder", "cross-encoder"):
        return FolderRecipe({})
    fields: dict[str, Stated] = {}
    undecided: dict[str, str] = {}
    findings: list[str] = []
    _read_encoder(files, fields, undecided)
    if files.modules is None:
        _refuse_other_padding(files)
        if kind == "embedder":
            fields["pooling"] = Stated("last" if is_causal(files) else "mean", "default")
        _leave_to_user(files, kind, undecided)
        return FolderRecipe(fields, undecided, tuple(findings))
    modules = _modules(files)
    _refuse_other_padding(files)
    if kind == "embedder":
        _read_pooling(files, modules, fields)
        _read_comparison(files, fields)
        _read_prompts(files, fields, undecided, findings)
        fields["modules"] = Stated(_names(files, modules), MODULES)
    else:
        _read_pair_prompts(files, fields, undecided)
        if modules:
            _refuse_no_scores(files, modules)
            _read_pooling(files, modules, fields)
            fields["modules"] = Stated(_names(files, modules), MODULES)
    return FolderRecipe(fields, undecided, tuple(findings))


def _multi_vector(files: FolderFiles) -> FolderRecipe:
    fields = {name: Stated(*said) for name, said in read_multi_vector(files).items()}
    undecided: dict[str, str] = {}
    findings: list[str] = []
    if files.modules is not None:  # without, the library reads no prompts but Stanford's
        _read_prompts(files, {}, undecided, findings)
    return FolderRecipe(fields, {name: why for name, why in undecided.items() if name not in fields}, tuple(findings))


def _modules(files: FolderFiles) -> tuple[FolderModule, ...]:
    """Return the modules behind the network. Raises EvalkitError for the first that nothing here can honour."""
    assert files.modules is not None  # noqa: S101 the caller looked
    known = (*OURS, *BEHIND, *WITHOUT_EFFECT)
    for place, module in enumerate(files.modules):
        if not module.type.startswith("sentence_transformers."):
            raise EvalkitError(
                f"{files.folder / MODULES} names {module.type}, a module of Python code of its own; evalkit runs those of "
                "sentence-transformers alone, whoever is trusted"
            )
        if place == 0 and module.name == "Transformer":
            continue
        if module.name not in known or place == 0:
            raise EvalkitError(
                f"{files.folder / MODULES} names {module.type}, which evalkit can't honour: it knows Transformer, then "
                f"{', '.join(known)}"
            )
        if module.name == "Normalize":
            _refuse_other_normalisation(files.folder, module)
        if module.kwargs:
            raise EvalkitError(
                f"{files.folder / MODULES}: {module.name} wants {', '.join(module.kwargs)} with each text, which evalkit does not "
                "give"
            )
    names = [module.given for module in files.modules]
    if len(set(names)) < len(names):
        raise EvalkitError(
            f"{files.folder / MODULES} gives two modules one name ({max(names, key=names.count)!r}), and sentence-transformers "
            "keeps the last of them alone"
        )
    behind = tuple(module for module in files.modules[1:] if module.name not in WITHOUT_EFFECT)
    if any(module.name == "WeightedLayerPooling" for module in behind) and not files.config.get("output_hidden_states"):
        raise EvalkitError(
            f"{files.folder}: WeightedLayerPooling has no effect in sentence-transformers without output_hidden_states in "
            "config.json, so what its authors measured is unknown; set it there, or take the module out of modules.json"
        )
    return behind


def _refuse_other_normalisation(folder: Path, module: FolderModule) -> None:
    """Refuse a Normalize that reads or writes anything but the text's vector."""
    config = read_object(folder / module.path / "config.json") or {}
    for key in ("module_input_name", "module_output_name"):
        if config.get(key) not in (None, "sentence_embedding"):
            raise EvalkitError(
                f"{folder / module.path / 'config.json'}: Normalize has {key}={config[key]!r}, and evalkit normalises the text's "
                "vector (sentence_embedding) alone"
            )


def _names(files: FolderFiles, modules: tuple[FolderModule, ...]) -> tuple[str, ...]:
    """Return how a recipe names modules: those of sentence-transformers' classes with their folder, seen from the network's."""
    return tuple(
        module.name
        if module.name in OURS
        else f"{module.name}:{os.path.relpath(files.folder / module.path, files.network)}"
        for module in modules
    )


def plain_parts(modules: tuple[str, ...], similarity: str, kind: str) -> tuple[str, ...]:
    """Return the parts as a recipe holds them: none where they are pooling, and the normalisation that the cosine does anyway."""
    plain = modules == ("Pooling",) or (modules == OURS and similarity == "cosine")
    return () if plain and kind == "embedder" else modules


def _read_pooling(files: FolderFiles, modules: tuple[FolderModule, ...], fields: dict[str, Stated]) -> None:
    places = [module.path for module in modules if module.name == "Pooling"]
    if len(places) != 1:
        raise EvalkitError(
            f"{files.folder / MODULES} has {'no' if not places else len(places)} Pooling; evalkit makes one vector of a text's "
            "tokens once"
        )
    if any(module.name == "Normalize" for module in modules[: [one.name for one in modules].index("Pooling")]):
        raise EvalkitError(
            f"{files.folder / MODULES} has Normalize before Pooling, where evalkit gives it nothing to normalise"
        )
    file = files.pooling[places[0]]
    origin = f"{places[0]}/config.json"
    modes = [THEIR_MODES.get(mode, "") or mode for mode in file.modes]
    unknown = [mode for mode in file.modes if mode not in THEIR_MODES]
    unknown += [name for name in file.model_extra or {} if name.startswith("pooling_mode")]
    if unknown:
        raise EvalkitError(f"{files.folder / origin}: pooling_mode={unknown[0]!r} is none of {', '.join(THEIR_MODES)}")
    if not modes or len(set(modes)) < len(modes):
        raise EvalkitError(
            f"{files.folder / origin}: pooling_mode={modes!r} must name one mode, or several different ones"
        )
    if not {"word_embedding_dimension", "embedding_dimension"} & set(file.model_extra or {}):
        raise EvalkitError(
            f"{files.folder / origin} does not say the vectors' dimension; copy it from the model's origin"
        )
    fields["pooling"] = Stated("+".join(modes), origin)
    fields["pool_prompt"] = Stated(file.include_prompt, origin)


def _read_encoder(files: FolderFiles, fields: dict[str, Stated], undecided: dict[str, str]) -> None:
    """Read length and small letters; without modules.json sentence-transformers does not, and the user decides."""
    file = files.encoder
    if file is None:
        return
    said = {"max_length": file.max_seq_length, "lower_case": file.do_lower_case or None}
    if files.modules is None:
        for name, value in said.items():
            if value is not None:
                undecided[name] = (
                    f"{files.encoder_name} says {value!r}, and sentence-transformers reads it beside modules.json alone"
                )
        return
    _refuse_other_arguments(files)
    for name, value in said.items():
        if value is not None:
            fields[name] = Stated(value, files.encoder_name)


def _refuse_other_arguments(files: FolderFiles) -> None:
    """Raise EvalkitError for what the encoder's settings file says that evalkit would not do."""
    assert files.encoder is not None  # noqa: S101 the caller looked
    path = files.network / files.encoder_name
    for name, value in (files.encoder.model_extra or {}).items():
        if value is None or value is False or value in ({}, [], "") or name in ENCODER_HARMLESS:
            continue
        left = set(value) - HARMLESS_ARGUMENTS if name in ARGUMENTS and isinstance(value, dict) else {name}
        if left:
            raise EvalkitError(
                f"{path}: {name} ({', '.join(sorted(left))}) changes how texts are read in a way that evalkit does not"
            )
    if files.encoder.transformer_task not in (None, "feature-extraction", "sequence-classification"):
        raise EvalkitError(f"{path}: transformer_task={files.encoder.transformer_task!r} is none that evalkit runs")
    modalities = files.encoder.modality_config or {}
    if "message" in modalities:
        raise EvalkitError(
            f"{path}: texts are put into the tokenizer's chat template (modality_config), which evalkit does not do"
        )
    text = modalities.get("text")
    output = text.get("method_output_name") if isinstance(text, dict) else None
    method = text.get("method") if isinstance(text, dict) else None
    if method not in (None, "forward"):
        raise EvalkitError(f"{path}: the network's {method} is called (modality_config), and evalkit calls forward")
    if output not in (None, "last_hidden_state", "logits", ["last_hidden_state"], ["logits"]):
        raise EvalkitError(
            f"{path}: the network's {output} is read (modality_config), and evalkit reads last_hidden_state or logits"
        )


def _read_comparison(files: FolderFiles, fields: dict[str, Stated]) -> None:
    settings = files.settings
    similarity = settings.similarity_fn_name if settings is not None else None
    if similarity is not None and similarity not in SIMILARITIES:
        raise EvalkitError(
            f"{files.folder / SETTINGS}: similarity_fn_name={similarity!r} is none of {', '.join(SIMILARITIES)}; "
            "model.similarity=… decides"
        )
    fields["similarity"] = Stated(similarity or "cosine", SETTINGS if similarity else "default")
    if settings is not None and settings.truncate_dim is not None:
        fields["dimensions"] = Stated(settings.truncate_dim, SETTINGS)


def _read_prompts(
    files: FolderFiles, fields: dict[str, Stated], undecided: dict[str, str], findings: list[str]
) -> None:
    """Read the prompts that `encode_query` and `encode_document` take: those named "query" and "document", else none."""
    settings = files.settings
    if settings is None:
        return
    said, prompts = settings.said, settings.prompts
    others = {name: prompt for name, prompt in said.items() if name not in ("query", "document")}
    default = settings.default_prompt_name
    if default is not None and default not in {"query", "document", *prompts}:
        raise EvalkitError(f"{files.folder / SETTINGS}: default_prompt_name={default!r} is none of its prompts")
    for name in ("query", "document"):
        if prompts.get(name) is not None:
            fields[f"{name}_prompt"] = Stated(prompts[name], SETTINGS)
    if "query" not in prompts and others:
        undecided["query_prompt"] = (
            f'{SETTINGS} names the prompts {_named(others)}, and sentence-transformers asks for "query"'
        )
    for_documents = [name for name in others if name == default or any(word in name.lower() for word in FOR_DOCUMENTS)]
    if "document" not in prompts and for_documents:
        undecided["document_prompt"] = (
            f"{SETTINGS} names the prompt {_named({name: others[name] for name in for_documents})}, and sentence-transformers "
            "asks for "
            '"document", so that documents stay bare'
        )
    if default and said.get(default) and not undecided:
        findings.append(
            f"default_prompt_name={default!r} reaches neither queries nor documents, as in encode_query and encode_document"
        )


def _read_pair_prompts(files: FolderFiles, fields: dict[str, Stated], undecided: dict[str, str]) -> None:
    """Read a cross-encoder's prompt: the default one, which sentence-transformers puts before the first text."""
    settings = files.settings
    if settings is None or not settings.said:
        return
    default = settings.default_prompt_name
    if default is not None and default not in settings.prompts:
        raise EvalkitError(f"{files.folder / SETTINGS}: default_prompt_name={default!r} is none of its prompts")
    if default is None:
        undecided["query_prompt"] = (
            f"{SETTINGS} names the prompts {_named(settings.said)}, and none of them as the default"
        )
    else:
        fields["query_prompt"] = Stated(settings.prompts[default] or "", SETTINGS)


def _leave_to_user(files: FolderFiles, kind: str, undecided: dict[str, str]) -> None:
    """Leave to the user what settings files say without a modules.json, since sentence-transformers reads none of it."""
    settings = files.settings
    alone = "sentence-transformers reads it beside modules.json alone"
    if settings is not None:
        if settings.said:
            for name in ("query_prompt", "document_prompt"):
                undecided[name] = f"{SETTINGS} names the prompts {_named(settings.said)}, and {alone}"
        if kind == "embedder" and settings.similarity_fn_name not in (None, "cosine"):
            undecided["similarity"] = f"{SETTINGS} says {settings.similarity_fn_name}, and {alone}"
        if kind == "embedder" and settings.truncate_dim is not None:
            undecided["dimensions"] = f"{SETTINGS} says truncate_dim={settings.truncate_dim}, and {alone}"
    if kind == "cross-encoder" and _has_chat_template(files):
        undecided["query_prompt"] = (
            "without modules.json sentence-transformers would put the tokenizer's chat template around query and document, and "
            "plain pairs are read here"
        )
    if kind == "embedder":
        pooling = sorted(path.name for path in files.folder.glob("*_Pooling") if path.is_dir())
        if pooling:
            undecided["pooling"] = f"there is a {pooling[0]} and no modules.json, without which nobody reads it"
        elif _has_chat_template(files):
            undecided["pooling"] = (
                "without modules.json sentence-transformers would put the tokenizer's chat template around each text, which "
                "evalkit does not"
            )


def _refuse_no_scores(files: FolderFiles, modules: tuple[FolderModule, ...]) -> None:
    """Refuse a cross-encoder of parts whose last Dense writes no scores: what it would be scored by is no score."""
    last = next((module for module in reversed(modules) if module.name == "Dense"), None)
    written = read_object(files.folder / last.path / "config.json") if last is not None else None
    if (written or {}).get("module_output_name") != "scores":
        raise WrongWeightsError(
            f"{files.folder / MODULES} is a cross-encoder's, and no part of it writes a score (a Dense with module_output_name "
            "scores): it has no scoring head"
        )


# networks that count positions from the left edge of a batch, so that padding on the left moves a text
COUNTING = frozenset({"bert", "electra", "distilbert", "albert", "ernie", "nezha", "big_bird", "convbert", "layoutlm"})


def _refuse_other_padding(files: FolderFiles) -> None:
    """Refuse padding on the left where the network's positions are counted from there: scores would depend on the batch."""
    said = [
        files.tokenizer,
        *((files.encoder.model_extra or {}).get(name) for name in ARGUMENTS if files.encoder is not None),
    ]
    left = any(isinstance(one, Mapping) and one.get("padding_side") == "left" for one in said)
    if left and files.model_type in COUNTING:
        raise EvalkitError(
            f"{files.folder}: padding_side=left, and a {files.model_type} counts positions from the left edge of a batch: "
            "sentence-transformers' scores of a text then depend on the batch that it is in; say padding_side=right"
        )


def _has_chat_template(files: FolderFiles) -> bool:
    return bool(files.tokenizer.get("chat_template")) or bool(
        files.names & {"chat_template.jinja", "chat_template.json"}
    )


def _named(prompts: Mapping[str, str]) -> str:
    return ", ".join(f'"{name}"' for name in sorted(prompts))


def refuse_causal_first_token(files: FolderFiles, pooling: str) -> None:
    """Raise WrongWeightsError where the first token's vector, which has read nothing of a text, would stand for it."""
    if "cls" in pooling.split("+") and is_causal(files):
        raise WrongWeightsError(
            f"{files.folder} is a {files.model_type}, a causal network: its first token (pooling cls) has seen nothing of the "
            "text; model.pooling=last or mean decides otherwise"
        )
