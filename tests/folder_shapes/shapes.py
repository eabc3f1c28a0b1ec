"""The shapes of folders, one record each, and what is expected of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from folder_shapes import oddities as odd
from folder_shapes.layouts import (
    DROPOUT,
    LAYER_NORM,
    NORMALIZE,
    PROMPTS,
    WEIGHTED_LAYERS,
    Part,
    dense,
    write_classifier,
    write_embedder,
)
from folder_shapes.networks import write_network

EVERY = ("torch", "openvino", "onnx", "sentence-transformers")


def as_it_is(model: Any, folder: Path) -> None:
    """Leave sentence-transformers' model as it loaded it."""


@dataclass(frozen=True)
class Shape:
    """A folder that `write` makes, and what is expected of each backend.

    `refused` maps a backend to a word of its reason; a backend that it lacks must equal sentence-transformers. `model` is
    evalkit's name where the files alone leave the kind open, `recipe` the settings that a user has to give. `adjust` is what the
    reference needs to read the files as they stand. `unlike` names the shape with the same weights from whose scores these must
    differ.
    """

    name: str
    title: str
    kind: Literal["embedder", "cross-encoder", "multi-vector"]
    write: Callable[[Path], Any]
    refused: Mapping[str, str] = field(default_factory=dict)
    model: str = "auto"
    recipe: Mapping[str, Any] = field(default_factory=dict)
    adjust: Callable[[Any, Path], None] = as_it_is
    unlike: str = ""


def embedder(name: str, title: str, *, unlike: str = "", **arguments: Any) -> Shape:
    """An embedder that every backend runs; `arguments` are for `write_embedder`."""
    return Shape(name, title, "embedder", partial(write_embedder, **arguments), unlike=unlike)


def reranker(name: str, title: str, write: Callable[[Path], Any], **more: Any) -> Shape:
    """A cross-encoder that every backend runs."""
    return Shape(name, title, "cross-encoder", write, **more)


def multi_vector(name: str, title: str, write: Callable[[Path], Any], **more: Any) -> Shape:
    """A model whose texts are compared token by token, which sentence-transformers alone runs."""
    others = dict.fromkeys(EVERY[:-1], "multi-vector")
    return Shape(name, title, "multi-vector", write, others, **more)


def refused(
    name: str,
    title: str,
    kind: Literal["embedder", "cross-encoder", "multi-vector"],
    write: Callable[[Path], Any],
    word: str,
    **more: Any,
) -> Shape:
    """A folder that no backend runs, for a reason with this word."""
    return Shape(name, title, kind, write, dict.fromkeys(EVERY, word), **more)


def tokenizer_of_the_file(model: Any, folder: Path) -> None:
    """tokenizer.json as it stands, where transformers builds another one of the class that tokenizer_config.json names."""
    from transformers import PreTrainedTokenizerFast

    built = model.tokenizer
    special = {key: value for key, value in built.special_tokens_map.items() if isinstance(value, str)}
    model[0].processor = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), model_max_length=built.model_max_length, **special
    )


def one_padding_id(model: Any, folder: Path) -> None:
    """The network looks for the padding that the tokenizer writes."""
    model.config.pad_token_id = model.tokenizer.pad_token_id


TITLES = {
    "bert": "BERT", "roberta": "RoBERTa", "xlm-r": "XLM-R", "mpnet": "MPNet", "distilbert": "DistilBERT", "electra": "ELECTRA",
    "deberta-v2": "DeBERTa v2", "modernbert": "ModernBERT", "albert": "ALBERT", "qwen2": "Qwen2", "qwen3": "Qwen3",
    "llama": "Llama", "gemma": "Gemma", "gemma3": "Gemma 3", "t5": "T5", "mt5": "mT5",
}  # fmt: skip
DECODERS = ("qwen2", "qwen3", "llama", "gemma", "gemma3")
classifier = partial(partial, write_classifier)
NEW_ENCODER = odd.with_code(write_embedder, {"AutoModel": "NewModel"}, "new")
NEW_CLASSIFIER = odd.with_code(
    classifier(architecture="bert"), {"AutoModelForSequenceClassification": "NewForSequenceClassification"}, "new"
)
OVER_NATIVE = odd.with_code(write_embedder, {"AutoModel": "NewModel"}, "bert")
CONSENT = {"trust_remote_code": True}
NLI = {
    "id2label": {0: "contradiction", 1: "entailment", 2: "neutral"},
    "label2id": {"contradiction": 0, "entailment": 1, "neutral": 2},
}

POOLING = (
    embedder("mean", "mean pooling"),
    embedder("cls", "CLS pooling", pooling=["cls"], unlike="mean"),
    embedder("max", "max pooling", pooling=["max"], unlike="mean"),
    embedder(
        "mean-sqrt-len",
        "mean pooling by the root of the length, dot product",
        pooling=["mean_sqrt_len_tokens"],
        settings={"similarity_fn_name": "dot"},
        unlike="dot",
    ),
    embedder("weighted-mean", "position-weighted mean pooling", pooling=["weightedmean"], unlike="mean"),
    embedder("last-token", "last-token pooling", pooling=["lasttoken"], unlike="mean"),
    embedder("cls-and-mean", "CLS and mean pooling at once", pooling=["cls", "mean"], unlike="cls"),
    embedder("mean-new", "mean pooling, saved by sentence-transformers 6", new=True),
    embedder("cls-new", "CLS pooling, saved by 6", pooling=["cls"], new=True, unlike="mean"),
    embedder("max-new", "max pooling, saved by 6", pooling=["max"], new=True, unlike="mean"),
    embedder(
        "mean-sqrt-len-new",
        "mean pooling by the root of the length, Euclidean, saved by 6",
        pooling=["mean_sqrt_len_tokens"],
        settings={"similarity_fn_name": "euclidean"},
        new=True,
        unlike="euclidean",
    ),
    embedder(
        "weighted-mean-new",
        "position-weighted mean pooling, saved by 6",
        pooling=["weightedmean"],
        new=True,
        unlike="mean",
    ),
    embedder("last-token-new", "last-token pooling, saved by 6", pooling=["lasttoken"], new=True, unlike="mean"),
    embedder(
        "max-cls-new",
        "max and CLS pooling at once, then a projection (the order counts), saved by 6",
        pooling=["max", "cls"],
        after=[dense(64)],
        new=True,
        unlike="cls",
    ),
    embedder(
        "all-modes",
        "all six modes of pooling at once",
        pooling=["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"],
        unlike="mean",
    ),
)
SETTINGS = (
    embedder("prompts", "prompts for queries and documents", settings={"prompts": PROMPTS}, unlike="mean"),
    embedder("prompts-new", "prompts, saved by 6", settings={"prompts": PROMPTS}, new=True, unlike="mean"),
    embedder(
        "query-prompt",
        "a prompt for queries alone",
        settings={"prompts": {"query": "为这个句子生成表示："}},
        unlike="mean",
    ),
    embedder(
        "prompt-left-out",
        "mean pooling without the prompt's tokens (include_prompt: false)",
        settings={"prompts": PROMPTS},
        include_prompt=False,
        unlike="prompts",
    ),
    embedder(
        "prompt-left-out-new",
        "the same, saved by 6",
        settings={"prompts": PROMPTS},
        include_prompt=False,
        new=True,
        unlike="prompts",
    ),
    embedder(
        "prompt-left-out-weighted",
        "position-weighted mean and CLS without the prompt's tokens",
        pooling=["cls", "weightedmean"],
        settings={"prompts": PROMPTS},
        include_prompt=False,
        unlike="mean",
    ),
    Shape(
        "prompt-left-out-decoder",
        "last token and mean without the prompt's tokens, padding on the left",
        "embedder",
        partial(
            write_embedder,
            architecture="qwen3",
            spelling="decoder-left",
            pooling=["mean", "lasttoken"],
            settings={"prompts": PROMPTS},
            include_prompt=False,
        ),
    ),
    refused(
        "prompt-query-passage",
        "prompts named query and passage: documents stay bare in sentence-transformers",
        "embedder",
        partial(write_embedder, settings={"prompts": {"query": "query: ", "passage": "passage: "}}),
        "passage",
    ),
    embedder(
        "default-prompt",
        "prompts and a default prompt, which encode_query and encode_document do not take",
        settings={"prompts": PROMPTS, "default_prompt_name": "query"},
        unlike="mean",
    ),
    refused(
        "default-prompt-alone",
        "a default prompt that is neither for queries nor for documents",
        "embedder",
        partial(write_embedder, settings={"prompts": {"retrieval": "retrieve: "}, "default_prompt_name": "retrieval"}),
        "prompt",
    ),
    embedder("length-16", "max_seq_length 16", length=16, unlike="mean"),
    embedder("length-16-new", "max_seq_length 16, saved by 6", length=16, new=True, unlike="mean"),
    embedder("length-null", "max_seq_length null: the tokenizer's length", length=None),
    embedder("lower-case", "do_lower_case with a tokenizer that tells capitals apart", lower=True, unlike="mean"),
    embedder("lower-case-bytes", "the same on bytes (RoBERTa)", architecture="roberta", lower=True, unlike="roberta"),
    embedder("truncate-dim", "truncate_dim 8", settings={"truncate_dim": 8}, unlike="mean"),
    embedder(
        "truncate-dim-dot",
        "Normalize, then truncate_dim 8, dot product",
        after=[NORMALIZE],
        settings={"truncate_dim": 8, "similarity_fn_name": "dot"},
        unlike="truncate-dim",
    ),
    embedder("dot", "dot product", settings={"similarity_fn_name": "dot"}, unlike="mean"),
    embedder("dot-new", "dot product, saved by 6", settings={"similarity_fn_name": "dot"}, new=True, unlike="mean"),
    embedder("euclidean", "Euclidean distance", settings={"similarity_fn_name": "euclidean"}, unlike="mean"),
    embedder("manhattan", "Manhattan distance", settings={"similarity_fn_name": "manhattan"}, unlike="euclidean"),
    refused(
        "too-long",
        "max_seq_length beyond the table of positions",
        "embedder",
        partial(write_embedder, length=200),
        "position",
    ),
)
MODULES = (
    embedder("dense", "Dense behind the pooling", after=[dense(32, 16)], unlike="mean"),
    embedder("dense-new", "Dense, saved by 6", after=[dense(32, 16)], new=True, unlike="mean"),
    embedder(
        "dense-twice",
        "Dense twice, without bias and activation, then Normalize",
        after=[dense(32, 64, "Identity", bias=False), dense(64, 16, "Identity", bias=False), NORMALIZE],
        unlike="mean",
    ),
    embedder(
        "dense-twice-new",
        "the same, saved by 6",
        after=[dense(32, 64, "Identity", bias=False), dense(64, 16, "Identity", bias=False), NORMALIZE],
        new=True,
        unlike="mean",
    ),
    embedder("layer-norm", "LayerNorm behind the pooling", after=[LAYER_NORM], unlike="mean"),
    embedder("normalize", "Normalize, cosine", after=[NORMALIZE]),
    embedder(
        "normalize-dot",
        "Normalize, dot product",
        after=[NORMALIZE],
        settings={"similarity_fn_name": "dot"},
        unlike="dot",
    ),
    embedder(
        "normalize-euclidean",
        "Normalize, then Dense, Euclidean distance",
        after=[NORMALIZE, dense()],
        settings={"similarity_fn_name": "euclidean"},
        unlike="euclidean",
    ),
    embedder("dropout", "Dropout, which does nothing here", after=[DROPOUT]),
    Shape(
        "weighted-layers",
        "WeightedLayerPooling over the layers",
        "embedder",
        partial(write_embedder, before=[WEIGHTED_LAYERS], output_hidden_states=True),
        unlike="mean",
    ),
    refused("cnn", "CNN before the pooling", "embedder", odd.with_modules(odd.cnn), "CNN"),
    refused("lstm", "LSTM before the pooling", "embedder", odd.with_modules(odd.lstm), "LSTM"),
    refused("bag-of-words", "a bag of words", "embedder", odd.with_modules(odd.bag_of_words), "BoW"),
    refused("word-embeddings", "word embeddings", "embedder", odd.with_modules(odd.word_embeddings), "WordEmbeddings"),
    refused("static", "static embeddings", "embedder", odd.with_modules(odd.static), "StaticEmbedding"),
    refused("router", "a router of queries and documents", "embedder", odd.with_modules(odd.routed), "Router"),
    refused("asym", "a router by its older name", "embedder", odd.write_asymmetric, "Asym"),
    refused(
        "unknown-module",
        "a module that only a newer sentence-transformers has",
        "embedder",
        partial(write_embedder, after=[Part("sentence_transformers.sentence_transformer.modules.Folding", {})]),
        "Folding",
    ),
    refused(
        "module-with-code",
        "a module's class in the folder, without consent",
        "embedder",
        odd.write_module_with_code,
        "modeling_reader",
    ),
)
ENCODERS = (
    *(
        embedder(name, f"{TITLES[name]}, mean pooling", architecture=name)
        for name in ("roberta", "xlm-r", "mpnet", "distilbert", "electra", "deberta-v2", "modernbert", "albert")
    ),
    embedder("roberta-cls", "RoBERTa, CLS pooling", architecture="roberta", pooling=["cls"], unlike="roberta"),
    embedder(
        "modernbert-cls", "ModernBERT, CLS pooling", architecture="modernbert", pooling=["cls"], unlike="modernbert"
    ),
    *(embedder(name, f"{TITLES[name]}, last token", architecture=name, pooling=["lasttoken"]) for name in DECODERS),
    embedder(
        "qwen3-left",
        "Qwen3, last token, padding on the left",
        architecture="qwen3",
        spelling="decoder-left",
        pooling=["lasttoken"],
    ),
    Shape(
        "qwen3-chat",
        "the same with a chat template in the tokenizer's settings (as Qwen3-Embedding)",
        "embedder",
        odd.edited(
            partial(write_embedder, architecture="qwen3", spelling="decoder-left", pooling=["lasttoken"]),
            "tokenizer_config.json",
            chat_template=odd.CHAT_TEMPLATE,
        ),
    ),
    embedder(
        "qwen3-left-new",
        "the same with Normalize, saved by 6",
        architecture="qwen3",
        spelling="decoder-left",
        pooling=["lasttoken"],
        after=[NORMALIZE],
        new=True,
    ),
    embedder(
        "llama-weighted-mean",
        "Llama, position-weighted mean, padding on the left",
        architecture="llama",
        spelling="decoder-left",
        pooling=["weightedmean"],
        unlike="llama",
    ),
    embedder("qwen2-mean", "Qwen2, mean pooling", architecture="qwen2", unlike="qwen2"),
    embedder(
        "gemma3-bidirectional",
        "Gemma 3 with use_bidirectional_attention, mean, Dense twice (as EmbeddingGemma)",
        architecture="gemma3",
        after=[dense(32, 64, "Identity", bias=False), dense(64, 32, "Identity", bias=False), NORMALIZE],
        use_bidirectional_attention=True,
    ),
    embedder("qwen3-bidirectional", "Qwen3 with is_causal: false, mean pooling", architecture="qwen3", is_causal=False),
    embedder("llama-causal-mean", "Llama, mean pooling", architecture="llama", unlike="llama"),
    embedder(
        "llama-bidirectional",
        "Llama with is_causal: false, mean pooling",
        architecture="llama",
        is_causal=False,
        unlike="llama-causal-mean",
    ),
    refused(
        "decoder-cls",
        "CLS pooling of a causal decoder",
        "embedder",
        partial(write_embedder, architecture="qwen3", pooling=["cls"]),
        "causal",
    ),
    embedder(
        "t5",
        "T5's encoder with Dense and Normalize (as sentence-t5)",
        architecture="t5",
        after=[dense(32, 16, "Identity", bias=False), NORMALIZE],
    ),
    embedder("mt5", "mT5's encoder, mean pooling", architecture="mt5"),
    Shape("t5-whole", "T5 with its decoder, of which the encoder is run", "embedder", odd.write_decoder_weights),
    Shape("no-modules", "no modules.json: mean pooling", "embedder", partial(write_network, architecture="bert")),
    Shape("no-modules-xlm-r", "no modules.json, XLM-R", "embedder", partial(write_network, architecture="xlm-r")),
    Shape(
        "causal-no-modules",
        "…ForCausalLM without modules.json, said to be an embedder: last token",
        "embedder",
        partial(write_network, architecture="qwen3", head="ForCausalLM"),
        model="local-embedder",
    ),
    refused(
        "causal-unsaid",
        "…ForCausalLM without modules.json: embedder or reranker?",
        "embedder",
        partial(write_network, architecture="qwen3", head="ForCausalLM"),
        "kind",
    ),
    refused(
        "settings-without-modules",
        "config_sentence_transformers.json with prompts, and no modules.json",
        "embedder",
        odd.without(partial(write_embedder, settings={"prompts": PROMPTS}), "modules.json"),
        "modules.json",
    ),
)
FILES = (
    Shape("pretrained", "leftover heads and pooler of the pretraining (reported)", "embedder", odd.write_pretrained),
    Shape(
        "masked-language-model",
        "…ForMaskedLM without modules.json, said to be an embedder (head reported)",
        "embedder",
        partial(write_network, architecture="roberta", head="ForMaskedLM"),
        model="local-embedder",
    ),
    refused(
        "masked-language-model-unsaid",
        "…ForMaskedLM without modules.json: an embedder, or SPLADE",
        "embedder",
        partial(write_network, architecture="roberta", head="ForMaskedLM"),
        "kind",
    ),
    Shape("bf16", "weights in bf16", "embedder", odd.in_bf16(write_embedder)),
    Shape("shards", "weights in two files", "embedder", odd.sharded(write_embedder)),
    refused("pickle", "pytorch_model.bin alone", "embedder", odd.pickled(write_embedder), "pickle"),
    Shape(
        "pickle-allowed",
        "pytorch_model.bin alone, model.allow_pickle=true",
        "embedder",
        odd.pickled(write_embedder),
        recipe={"allow_pickle": True},
    ),
    refused("gguf", "GGUF alone", "embedder", odd.write_gguf, "GGUF"),
    refused("adapter", "a LoRA adapter alone", "embedder", odd.write_adapter, "adapter"),
    refused(
        "adapter-beside-weights",
        "an adapter left beside weights",
        "embedder",
        odd.write_adapter_beside_weights,
        "adapter",
    ),
    refused(
        "unused-weights",
        "weights that no part of the network takes",
        "embedder",
        odd.write_unused_weights,
        "linear.weight",
    ),
    multi_vector("colbert", "ColBERT (HF_ColBERT)", odd.write_colbert),
    multi_vector(
        "colbert-settings",
        "ColBERT (HF_ColBERT) with artifact.metadata",
        odd.write_colbert_with_settings,
        unlike="colbert",
    ),
    multi_vector("pylate", "ColBERT, saved by PyLate", odd.write_pylate),
    multi_vector(
        "pylate-3", "ColBERT, saved by PyLate 3, with lengths and a skiplist", odd.write_pylate_v3, unlike="pylate"
    ),
    multi_vector("multi-vector", "ColBERT, saved by sentence-transformers", odd.write_multi_vector),
    multi_vector(
        "multi-vector-settings",
        "the same with prompts, lengths, expansion, mask and meanmaxsim",
        odd.write_multi_vector_with_settings,
        unlike="multi-vector",
    ),
    refused(
        "multi-vector-passage",
        "the same with a prompt for documents named passage",
        "multi-vector",
        odd.write_multi_vector_with_other_prompts,
        "model.document_prompt=",
    ),
    refused(
        "colbert-as-embedder",
        "ColBERT (HF_ColBERT), as an embedder",
        "embedder",
        odd.write_colbert,
        "multi-vector model (HF_ColBERT)",
        model="local-embedder",
    ),
    refused("splade", "SPLADE", "embedder", odd.write_splade, "SPLADE"),
    refused("clip", "CLIP", "embedder", odd.write_clip, "CLIP"),
    refused(
        "few-words",
        "more tokens than rows in the table of words",
        "embedder",
        partial(write_embedder, vocab_size=900),
        "rows",
    ),
    Shape(
        "xlm-r-prefix",
        "a tokenizer.json that transformers 5 replaces (XLM-R, add_prefix_space: false)",
        "embedder",
        odd.edited(
            partial(write_embedder, architecture="xlm-r"),
            "tokenizer_config.json",
            tokenizer_class="XLMRobertaTokenizer",
            add_prefix_space=False,
        ),
        adjust=tokenizer_of_the_file,
    ),
    Shape("code-over-native", "code beside a native class, without consent: the native class", "embedder", OVER_NATIVE),
    Shape(
        "code-over-native-trusted",
        "code beside a native class, with consent: the code",
        "embedder",
        OVER_NATIVE,
        recipe=CONSENT,
        unlike="mean",
    ),
    refused(
        "code-alone",
        "code without a native class (as gte), without consent",
        "embedder",
        NEW_ENCODER,
        "trust_remote_code",
    ),
    Shape(
        "code-alone-trusted",
        "code without a native class (as gte), with consent",
        "embedder",
        NEW_ENCODER,
        recipe=CONSENT,
        unlike="mean",
    ),
    refused(
        "classifier-as-embedder",
        "a classifier, said to be an embedder: its head would be lost",
        "embedder",
        classifier(architecture="bert"),
        "head",
        model="local-embedder",
    ),
)
CLASSIFIERS = (
    *(
        reranker(f"{name}-classifier", f"{TITLES[name]} classifier", classifier(architecture=name))
        for name in TITLES
        if name != "mt5"
    ),
    reranker(
        "modernbert-classifier-mean",
        "ModernBERT classifier, classifier_pooling mean",
        classifier(architecture="modernbert", classifier_pooling="mean"),
        unlike="modernbert-classifier",
    ),
    reranker(
        "qwen3-classifier-left",
        "Qwen3 classifier, padding on the left",
        classifier(architecture="qwen3", spelling="decoder-left"),
    ),
    reranker("classifier-new", "BERT classifier, saved by sentence-transformers 6", odd.write_saved_classifier),
    reranker(
        "classifier-sigmoid",
        "an activation in config.json: raw scores count",
        odd.edited(
            classifier(architecture="bert"),
            "config.json",
            sentence_transformers={"activation_fn": "torch.nn.modules.activation.Sigmoid", "version": "5.0.0"},
        ),
    ),
    reranker(
        "classifier-length",
        "the tokenizer's model_max_length 24",
        odd.edited(classifier(architecture="bert"), "tokenizer_config.json", model_max_length=24),
        unlike="bert-classifier",
    ),
    reranker(
        "classifier-prompt",
        "a default prompt, before the query",
        partial(odd.write_saved_classifier, prompts={"query": "query: "}, default_prompt_name="query"),
        unlike="bert-classifier",
    ),
    reranker("classifier-bf16", "classifier in bf16", odd.in_bf16(classifier(architecture="roberta"))),
    reranker(
        "padding-elsewhere",
        "Qwen3 classifier, another pad_token_id than the tokenizer's",
        odd.edited(classifier(architecture="qwen3"), "config.json", pad_token_id=5),
        adjust=one_padding_id,
    ),
    reranker(
        "padding-null",
        "Qwen3 classifier, pad_token_id null",
        odd.edited(classifier(architecture="qwen3"), "config.json", pad_token_id=None),
        adjust=one_padding_id,
    ),
    refused(
        "no-separator",
        "a decoder's classifier whose tokenizer puts nothing between two texts",
        "cross-encoder",
        classifier(architecture="qwen3", spelling="decoder-bare"),
        "between",
    ),
    refused(
        "no-segments",
        "segments beyond type_vocab_size",
        "cross-encoder",
        classifier(architecture="bert", type_vocab_size=1),
        "segment",
    ),
    refused("two-labels", "two labels", "cross-encoder", classifier(architecture="bert", labels=2), "label"),
    reranker(
        "two-labels-chosen", "two labels, model.label=1", classifier(architecture="bert", labels=2), recipe={"label": 1}
    ),
    refused(
        "nli",
        "labels of inference (contradiction, entailment, neutral)",
        "cross-encoder",
        classifier(architecture="bert", **NLI),
        "label",
    ),
    refused(
        "nli-chosen",
        "the same with model.label=1",
        "cross-encoder",
        classifier(architecture="bert", **NLI),
        "entailment",
        recipe={"label": 1},
    ),
    refused(
        "no-head",
        "an encoder, said to be a cross-encoder: its head would be random",
        "cross-encoder",
        partial(write_network, architecture="bert"),
        "head",
        model="local-cross-encoder",
    ),
    refused(
        "code-classifier",
        "a classifier's code without a native class (as gte), without consent",
        "cross-encoder",
        NEW_CLASSIFIER,
        "trust_remote_code",
    ),
    reranker(
        "code-classifier-trusted", "the same with consent", NEW_CLASSIFIER, recipe=CONSENT, unlike="bert-classifier"
    ),
    reranker(
        "modular",
        "a cross-encoder of modules: ModernBERT, CLS pooling, Dense, LayerNorm, Dense (as ettin)",
        odd.write_reranker_of_parts,
    ),
    refused(
        "judge", "a language model with LogitScore: yes less no", "cross-encoder", odd.write_judge, "chat template"
    ),
    refused(
        "judge-one-token",
        "LogitScore of one token",
        "cross-encoder",
        partial(odd.write_judge, false_token=False),
        "chat template",
    ),
    reranker(
        "judge-chat",
        "LogitScore with a chat template",
        partial(odd.write_judge, chat=True),
        refused=dict.fromkeys(("openvino", "onnx"), "llm-reranker"),
    ),
)
# what sentence-transformers reads in a way that one would not think of
TRAPS = (
    refused(
        "classifier-chat",
        "a classifier without modules.json whose tokenizer has a chat template",
        "cross-encoder",
        odd.edited(classifier(architecture="bert"), "tokenizer_config.json", chat_template=odd.CHAT_TEMPLATE),
        "chat template",
    ),
    refused(
        "network-chat",
        "an encoder without modules.json whose tokenizer has a chat template",
        "embedder",
        odd.edited(
            partial(write_network, architecture="bert"), "tokenizer_config.json", chat_template=odd.CHAT_TEMPLATE
        ),
        "chat template",
    ),
    refused(
        "other-tokenizer",
        "a tokenizer in another folder",
        "embedder",
        odd.edited(write_embedder, "sentence_bert_config.json", tokenizer_name_or_path="../other"),
        "tokenizer_name_or_path",
    ),
    refused(
        "normalize-tokens",
        "a Normalize that reads the tokens' vectors",
        "embedder",
        partial(write_embedder, after=[replace(NORMALIZE, config={"module_input_name": "token_embeddings"})]),
        "Normalize",
    ),
    refused(
        "one-name-twice",
        "two modules of one name, of which the library keeps the last",
        "embedder",
        odd.renamed(partial(write_embedder, after=[dense(), dense()]), {3: "2"}),
        "one name",
    ),
    refused(
        "unknown-model-type",
        "a model_type that nobody knows",
        "embedder",
        partial(write_embedder, settings={"model_type": "Foo"}),
        "model_type",
    ),
    refused(
        "padding-left-bert",
        "BERT padded on the left: scores depend on the batch",
        "embedder",
        odd.edited(write_embedder, "tokenizer_config.json", padding_side="left"),
        "padding_side",
    ),
    refused(
        "no-attention-mask",
        "a tokenizer that gives no attention mask",
        "embedder",
        odd.edited(write_embedder, "tokenizer_config.json", model_input_names=["input_ids"]),
        "attention_mask",
    ),
    refused(
        "default-prompt-unknown",
        "a default_prompt_name that no prompt has",
        "embedder",
        partial(write_embedder, settings={"prompts": {"query": "q: "}, "default_prompt_name": "nothing"}),
        "default_prompt_name",
    ),
    refused(
        "classifier-of-no-score",
        "a cross-encoder of modules, none of which writes a score",
        "cross-encoder",
        partial(write_embedder, settings={"model_type": "CrossEncoder"}),
        "no scoring head",
    ),
    Shape(
        "settings-of-another-name",
        "sentence_bert_config.json empty, the length in sentence_roberta_config.json",
        "embedder",
        odd.with_settings_elsewhere(write_embedder),
        unlike="mean",
    ),
    Shape(
        "modular-without-prompt",
        "a cross-encoder of modules whose prompt is not pooled",
        "cross-encoder",
        odd.write_reranker_without_prompt,
    ),
    Shape(
        "rotary-length",
        "Qwen3, longer than its trained positions, of which there is no table",
        "embedder",
        partial(write_embedder, architecture="qwen3", pooling=["lasttoken"], length=96, max_position_embeddings=64),
    ),
)
# where a system can't run an architecture, with a word of the reason: OpenVINO's attention gives no number for a row that is all
# padding within a sliding window, and neither converter knows all operations
NO_NUMBER, NO_OPERATION = {"openvino": "no number"}, {"openvino": "can't run"}
LIMITED: Mapping[str, Mapping[str, str]] = {
    **dict.fromkeys(("modernbert", "modernbert-cls", "modernbert-classifier", "modernbert-classifier-mean"), NO_NUMBER),
    **dict.fromkeys(("modular", "gemma3", "gemma3-classifier"), NO_NUMBER),
    "gemma3-bidirectional": {**NO_OPERATION, "onnx": "can't run"},
    "t5-classifier": NO_OPERATION,
}
SHAPES: tuple[Shape, ...] = tuple(
    replace(shape, refused={**shape.refused, **LIMITED.get(shape.name, {})})
    for shape in (*POOLING, *SETTINGS, *MODULES, *ENCODERS, *FILES, *CLASSIFIERS, *TRAPS)
)
