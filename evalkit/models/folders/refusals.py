"""What a folder holds that would load and score, but not as its authors mean it: refused by name, before weights load."""

from __future__ import annotations

from evalkit.errors import EvalkitError, WrongWeightsError
from evalkit.models.folders.files import FolderFiles
from evalkit.models.folders.kinds import DECODERS, ENCODER_DECODERS, T5_ENCODERS, reads_both_ways

BOTH_WAYS = (
    "use_bidirectional_attention", "bidirectional", "is_bidirectional", "use_bidirectional", "bidirectional_attention"
)  # fmt: skip
NLI = ("entail", "contradict", "neutral")
FULL_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def refuse_files(files: FolderFiles, kind: str, *, label: int | None, trusts_code: bool) -> None:
    """Raise EvalkitError for the first thing in the folder that a run would get wrong in silence.

    With `trusts_code` the architecture is the model's own Python code, where it has some, and nothing is known of it.
    """
    if not (trusts_code and files.code):
        _refuse_ignored_directions(files)
    if kind == "embedder":
        _refuse_half_models(files)
    if kind == "cross-encoder" and not _is_modular(files):
        _refuse_labels(files, label)


def refuse_formats(files: FolderFiles) -> None:
    """Raise EvalkitError for adapters, with or without the weights that they belong to, and for weights that no backend loads."""
    whole = any(name in files.names for name in FULL_WEIGHTS)
    if "adapter_config.json" in files.names:
        if whole:
            raise WrongWeightsError(
                f"{files.folder} holds whole weights and an adapter beside them (adapter_config.json): whether the adapter is in "
                "the "
                "weights already, its files don't say. If it is, take adapter_config.json and its weights out of the folder; if "
                "not, merge it"
            )
        raise WrongWeightsError(
            f"{files.folder} is an adapter (LoRA) without the weights that it belongs to: merge them first, with peft: "
            "AutoPeftModel….from_pretrained(FOLDER).merge_and_unload().save_pretrained(NEW), and copy the tokenizer's files "
            "beside them"
        )
    quantised = sorted(name for name in files.names if name.endswith(".gguf"))
    if quantised and not any(name.endswith((".safetensors", ".bin", ".onnx")) for name in files.names):
        raise EvalkitError(
            f"{files.folder} holds GGUF weights ({quantised[0]}), which no backend here loads: serve them, as with llama.cpp, and "
            "name "
            "the server: backend=openai backend.url=…; or take the model's safetensors"
        )


def _refuse_ignored_directions(files: FolderFiles) -> None:
    """Refuse a decoder whose files say that it reads both ways, where transformers' class would not."""
    if files.model_type not in DECODERS or reads_both_ways(files):
        return
    flags = [name for name in BOTH_WAYS if files.config.get(name)]
    if files.config.get("is_causal") is False:
        flags.append("is_causal=false")
    named = [name for name in files.architectures if "bidirectional" in name.lower() or "Bi" in name]
    if flags or named:
        raise WrongWeightsError(
            f"{files.folder} is a {files.model_type} that reads both ways ({', '.join([*flags, *named])} in its config.json), and "
            "transformers' class would read from left to right; if it comes with code of its own: model.trust_remote_code=true"
        )


def _refuse_half_models(files: FolderFiles) -> None:
    """Refuse half of an encoder-decoder as an embedder; T5's encoder is run where modules.json asks for it."""
    if files.model_type not in ENCODER_DECODERS or any(name.endswith("EncoderModel") for name in files.architectures):
        return
    if files.model_type not in T5_ENCODERS:
        raise WrongWeightsError(
            f"{files.folder} is a {files.model_type}, an encoder with a decoder: of its weights only half would make a vector, "
            "and which, "
            "its files don't say; evalkit runs the encoders of T5 and mT5"
        )
    if files.modules is None:
        raise WrongWeightsError(
            f"{files.folder} is a {', '.join(files.architectures) or files.model_type} without modules.json: of its weights only "
            "the "
            "encoder's half would be used; a folder that sentence-transformers saved says so"
        )


def _refuse_labels(files: FolderFiles, label: int | None) -> None:
    """Refuse a classifier of several classes unless the user says which is the score; one of NLI always."""
    labels = files.labels
    nli = [name for name in labels if name.lower().startswith(NLI)]
    if nli:
        raise WrongWeightsError(
            f"{files.folder} classifies inference between sentences ({', '.join(labels)}): none of its labels is relevance, and "
            "it is no "
            "reranker"
        )
    if label is not None and labels and label >= len(labels):
        raise EvalkitError(f"model.label={label}: {files.folder} has {len(labels)} labels, numbered from 0")
    if len(labels) > 1 and label is None:
        raise WrongWeightsError(
            f"{files.folder} has {len(labels)} labels ({', '.join(labels[:5])}); a cross-encoder for reranking has one score: "
            "model.label=NUMBER says which label's logit that is"
        )


def _is_modular(files: FolderFiles) -> bool:
    return files.modules is not None and any(module.name == "Pooling" for module in files.modules)
