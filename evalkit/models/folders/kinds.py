"""Which kind of model a folder holds, and what would load and score but not as its authors mean it: refused by name.

Nothing here reads weights or runs code.
"""

from __future__ import annotations

from collections.abc import Iterable

from evalkit.errors import EvalkitError, WrongWeightsError
from evalkit.machine import installed_version
from evalkit.models.folders.files import SETTINGS, FolderFiles
from evalkit.models.folders.judges import is_judge
from evalkit.models.folders.multi_vector import SAVED_AS, named_multi_vector

# families whose networks read a text from left to right alone
DECODERS = frozenset({
    "bloom", "cohere", "cohere2", "exaone4", "falcon", "gemma", "gemma2", "gemma3", "gemma3_text", "glm", "glm4",
    "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gptj", "granite", "lfm2", "llama", "ministral", "mistral",
    "mixtral", "mpt", "olmo", "olmo2", "olmo3", "opt", "phi", "phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe",
    "smollm3", "stablelm", "starcoder2",
})  # fmt: skip
# of families with a decoder beside their encoder: those whose encoder alone is known to make vectors
T5_ENCODERS = frozenset({"t5", "mt5", "umt5"})
ENCODER_DECODERS = T5_ENCODERS | {
    "bart", "blenderbot", "led", "longt5", "m2m_100", "marian", "mbart", "mvp", "pegasus", "plbart", "prophetnet",
    "switch_transformers", "t5gemma",
}  # fmt: skip
LAYERWISE = {
    "LayerWiseMiniCPMForCausalLM": "bge-reranker-v2-minicpm-layerwise",
    "CostWiseGemmaForCausalLM": "bge-reranker-v2.5-gemma2-lightweight",
}
JINA_LISTS = "JinaForRanking"
"""The architecture of the listwise rerankers that evalkit runs itself."""
MULTI_VECTOR = "multi-vector"
ASK = "model.kind=embedder, cross-encoder or llm-reranker says which"
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


def find_kind(files: FolderFiles) -> tuple[str, str]:
    """Return the kind of the folder's model, and the file that says so.

    Raises EvalkitError for kinds that nothing here runs, and where the files leave open which it is.
    """
    named = named_multi_vector(files)
    refuse_unknown_kinds(files, "" if named is None else MULTI_VECTOR)
    if named is not None:
        return MULTI_VECTOR, named[1]
    if files.modules is not None:
        return _kind_of_modules(files)
    architectures = files.architectures
    if not files.config:
        raise EvalkitError(
            f"{files.folder} has no config.json and no modules.json: is this the folder of a Hugging Face model?"
        )
    if JINA_LISTS in architectures:
        return "listwise", "config.json"
    if _ends(architectures, "ForSequenceClassification"):
        return "cross-encoder", "config.json"
    if _ends(architectures, "ForCausalLM"):
        raise EvalkitError(
            f"{files.folder} is a {', '.join(architectures)} without modules.json: it may be an embedder or a reranker, and its "
            f"files don't say; {ASK}"
        )
    decodes = files.config.get("is_encoder_decoder")
    if _ends(architectures, "EncoderModel") or (_ends(architectures, "Model") and not decodes):
        return "embedder", "config.json"
    if files.config.get("is_encoder_decoder") and _ends(architectures, "ForConditionalGeneration"):
        raise WrongWeightsError(
            f"{files.folder} is a {', '.join(architectures)}, an encoder with a decoder: evalkit runs none as a reranker "
            "(KaLM-Reranker-V1, monoT5); where mteb's registry has the model, its own loader does: model=mteb model.name=ORG/NAME "
            "(KaLM: and model.unverified_loader=true). Its encoder alone as an embedder: model.kind=embedder"
        )
    what = f"is a {', '.join(architectures)}" if architectures else "has no architecture in its config.json"
    raise EvalkitError(f"{files.folder} {what} and has no modules.json: its files don't say what it is for; {ASK}")


def _kind_of_modules(files: FolderFiles) -> tuple[str, str]:
    """Return the kind of what sentence-transformers has saved, and the file that says so."""
    if is_judge(files):
        return "llm-reranker", "modules.json"
    if files.settings is not None and files.settings.model_type == "CrossEncoder":
        return "cross-encoder", "config_sentence_transformers.json"
    return "embedder", "modules.json"


def refuse_unknown_kinds(files: FolderFiles, kind: str = "") -> None:
    """Raise WrongWeightsError, with its name, for a folder of a model that evalkit does not run, or not as `kind`."""
    names = {module.name for module in files.modules or ()}
    saved_as = files.settings.model_type if files.settings is not None else ""
    named = named_multi_vector(files)
    if named is not None and kind != MULTI_VECTOR:
        raise WrongWeightsError(
            f"{files.folder} is a multi-vector model ({named[0]}): it compares token by token, and one vector per text would mean "
            "nothing; model.kind=multi-vector backend=sentence-transformers runs it"
        )
    if saved_as == "SparseEncoder" or names & {
        "SpladePooling",
        "MLMTransformer",
        "SparseAutoEncoder",
        "SparseStaticEmbedding",
    }:
        raise WrongWeightsError(
            f"{files.folder} is a sparse encoder (SPLADE, by its {'settings' if saved_as == 'SparseEncoder' else 'modules.json'}): "
            "as a dense embedder its vectors would mean nothing; evalkit does not run it"
        )
    if saved_as not in ("", "SentenceTransformer", "CrossEncoder", *SAVED_AS):
        raise WrongWeightsError(
            f"{files.folder / SETTINGS}: model_type={saved_as!r} is none that evalkit knows (SentenceTransformer, CrossEncoder, "
            "MultiVectorEncoder); sentence-transformers would leave out its modules and prompts"
        )
    for architecture in files.architectures:
        if architecture in LAYERWISE:
            raise EvalkitError(
                f"{files.folder} is a {architecture}, which scores behind one of its layers: model={LAYERWISE[architecture]} "
                f"model.path={files.folder} runs it by its own recipe"
            )


def refuse_other_kind(files: FolderFiles, kind: str) -> None:
    """Raise WrongWeightsError where the model is listwise, or modules.json says that it is of the other of the two kinds."""
    if JINA_LISTS in files.architectures:
        raise WrongWeightsError(
            f"{files.folder} is a {JINA_LISTS}, which ranks whole lists: it makes neither a score of a single pair nor a vector of "
            f"a text; model={files.folder} runs it as that"
        )
    if files.modules is None:
        return
    if is_judge(files):
        raise WrongWeightsError(
            f"{files.folder} is a language model that scores by the logits of words (LogitScore in its modules.json): "
            "model.kind=llm-reranker, or model=local-llm-reranker"
        )
    if files.settings is None and kind == "embedder":
        return
    saved_as = "SentenceTransformer" if files.settings is None else files.settings.model_type
    alone = len(files.modules) == 1 and _ends(files.architectures, "ForSequenceClassification")
    if kind == "cross-encoder" and saved_as != "CrossEncoder" and not alone:
        raise WrongWeightsError(
            f"{files.folder} is an embedder by its modules.json: it has no scoring head. model.kind=embedder, or "
            "model=local-embedder"
        )
    if kind == "embedder" and saved_as == "CrossEncoder":
        raise WrongWeightsError(
            f"{files.folder} is a cross-encoder by its {SETTINGS}: as an embedder its scoring head would be dropped. "
            "model.kind=cross-encoder, or model=local-cross-encoder"
        )


def is_causal(files: FolderFiles) -> bool:
    """Whether the network reads from left to right alone, as far as its files tell."""
    decoder = files.model_type in DECODERS or _ends(files.architectures, "ForCausalLM")
    return decoder and not reads_both_ways(files)


def reads_both_ways(files: FolderFiles) -> bool:
    """Whether a decoder's flag makes transformers attend in both directions, in the families where it heeds the flag.

    Run with transformers 5.23: `is_causal: false` is heeded by all that were tried (Qwen 2 and 3, Llama, Mistral, Gemma 1 to 3),
    `use_bidirectional_attention` by Gemma 3 alone: Gemma heeds it in batches without padding, the others never.
    """
    gemma3 = files.model_type in ("gemma3", "gemma3_text") and bool(files.config.get("use_bidirectional_attention"))
    return gemma3 or (
        files.config.get("is_causal") is False and int(installed_version("transformers").partition(".")[0]) >= 5
    )


def _ends(names: Iterable[str], ending: str) -> bool:
    return any(name.endswith(ending) for name in names)


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
                "the weights already, its files don't say. If it is, take adapter_config.json and its weights out of the folder; "
                "if not, merge it"
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
            "name the server: backend=openai backend.url=…; or take the model's safetensors"
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
            "and which, its files don't say; evalkit runs the encoders of T5 and mT5"
        )
    if files.modules is None:
        raise WrongWeightsError(
            f"{files.folder} is a {', '.join(files.architectures) or files.model_type} without modules.json: of its weights only "
            "the encoder's half would be used; a folder that sentence-transformers saved says so"
        )


def _refuse_labels(files: FolderFiles, label: int | None) -> None:
    """Refuse a classifier of several classes unless the user says which is the score; one of NLI always."""
    labels = files.labels
    nli = [name for name in labels if name.lower().startswith(NLI)]
    if nli:
        raise WrongWeightsError(
            f"{files.folder} classifies inference between sentences ({', '.join(labels)}): none of its labels is relevance, and "
            "it is no reranker"
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
