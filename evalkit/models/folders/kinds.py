"""Which kind of model a folder holds, and which kinds no recipe here can run."""

from __future__ import annotations

from collections.abc import Iterable

from evalkit.errors import EvalkitError, WrongWeightsError
from evalkit.machine import installed_version
from evalkit.models.folders.files import FolderFiles

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
COLBERT = frozenset({"ColBERT", "MultiVectorEncoder"})
LAYERWISE = {
    "LayerWiseMiniCPMForCausalLM": "bge-reranker-v2-minicpm-layerwise",
    "CostWiseGemmaForCausalLM": "bge-reranker-v2.5-gemma2-lightweight",
}
ASK = "model.kind=embedder, cross-encoder or llm-reranker says which"


def find_kind(files: FolderFiles) -> tuple[str, str]:
    """Return the kind of the folder's model, and the file that says so.

    Raises EvalkitError for kinds that nothing here runs, and where the files leave open which it is.
    """
    refuse_other_kinds(files)
    if files.modules is not None:
        if files.settings is not None and files.settings.model_type == "CrossEncoder":
            return "cross-encoder", "config_sentence_transformers.json"
        return "embedder", "modules.json"
    architectures = files.architectures
    if _ends(architectures, "ForSequenceClassification"):
        return "cross-encoder", "config.json"
    if _ends(architectures, "ForCausalLM"):
        raise EvalkitError(
            f"{files.folder} is a {', '.join(architectures)} without modules.json: it may be an embedder or a reranker, and its "
            f"files don't say; {ASK}"
        )
    if _ends(architectures, "Model") and not files.config.get("is_encoder_decoder"):
        return "embedder", "config.json"
    if _ends(architectures, "EncoderModel"):
        return "embedder", "config.json"
    what = f"is a {', '.join(architectures)}" if architectures else "has no architecture in its config.json"
    raise EvalkitError(f"{files.folder} {what} and has no modules.json: its files don't say what it is for; {ASK}")


def refuse_other_kinds(files: FolderFiles) -> None:
    """Raise WrongWeightsError, with the kind's name, for models that make neither one vector of a text nor one score of a pair."""
    names = {module.name for module in files.modules or ()}
    saved_as = files.settings.model_type if files.settings is not None else ""
    colbert = [name for name in files.architectures if "colbert" in name.lower()]
    packages = {module.type.partition(".")[0] for module in files.modules or ()}
    if colbert or saved_as in COLBERT or "pylate" in packages or "artifact.metadata" in files.names:
        raise WrongWeightsError(
            f"{files.folder} is a ColBERT model ({', '.join(colbert) or saved_as or 'by its files'}): it compares token by token, "
            "and "
            "one vector per text would mean nothing; evalkit does not run it"
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
    for architecture in files.architectures:
        if architecture in LAYERWISE:
            raise EvalkitError(
                f"{files.folder} is a {architecture}, which scores behind one of its layers: model={LAYERWISE[architecture]} "
                f"model.path={files.folder} runs it by its own recipe"
            )
    if "LogitScore" in names:
        raise EvalkitError(
            f"{files.folder} scores by the logit of a word (LogitScore in its modules.json) within the tokenizer's chat template, "
            "which evalkit does not read; state the prompts: model=local-llm-reranker model.path=FOLDER model.prompt=…"
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
