"""sentence-transformers' CrossEncoder, SentenceTransformer and MultiVectorEncoder, with evalkit's recipe.

A SentenceTransformer is built of the recipe's parts (Transformer, Pooling, and whatever the recipe has behind them), whatever
`modules.json` says; so is a CrossEncoder whose head is made of such parts. A language model that reranks (LogitScore) is loaded as
its folder says, and must then read the recipe's tokens and words. A MultiVectorEncoder is what the library makes of the folder,
with the recipe's prompts, lengths, expansion and mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evalkit.backends.libraries import (
    CheckedModel,
    Open,
    as_scores,
    follow_files,
    library_model,
    quiet,
    refuse_stripping,
    refuse_truncation,
    within_memory,
)
from evalkit.errors import EvalkitError
from evalkit.machine import installed_version
from evalkit.models.folders.files import read_folder
from evalkit.models.folders.judges import is_judge
from evalkit.models.interfaces import RunnableModel, Runtime
from evalkit.models.local import Inputs
from evalkit.models.parts import parts_within
from evalkit.models.settings import ModelSettings
from evalkit.models.tails import load_part
from evalkit.models.tokenization import PROBE
from evalkit.records import Role

NAME = "sentence-transformers"
BATCH_SIZE = 32
# how version 3 ends the names of its switches for a pooling mode
OLD_ENDINGS = {
    "cls": "_token", "mean": "_tokens", "max": "_tokens", "mean_sqrt_len_tokens": "", "weightedmean": "_tokens", "lasttoken": "",
}  # fmt: skip
OLD, NEW = 3, 6  # versions; those between had still other arguments
# the network's output for either kind, and what sentence-transformers' next part calls it
POOLING_MODES = {
    "mean_sqrt_len": "mean_sqrt_len_tokens",
    "last": "lasttoken",
}  # the others have the same names here and there
OUTPUTS = {"cross-encoder": ("logits", "scores"), "embedder": ("last_hidden_state", "token_embeddings")}


class CrossEncoderScorer:
    """A PairScorer: CrossEncoder.predict, opened without the sigmoid that it puts on a single label."""

    def __init__(self, model: Any, query_prompt: str, document_prompt: str, label: int) -> None:
        self._model = model
        self._prompts = query_prompt, document_prompt
        self._label = label

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        query_prompt, document_prompt = self._prompts
        # the library puts a prompt before the first text itself, and so knows which tokens are the prompt's; version 3 has none
        options = {"prompt": query_prompt} if query_prompt and _major_version() >= NEW else {}
        before = "" if options else query_prompt
        inputs = [(before + query, document_prompt + document) for query, document in pairs]

        def call(batch_size: int) -> NDArray[np.float32]:
            found = self._model.predict(inputs, batch_size=batch_size, show_progress_bar=False, **options)
            return as_scores(found if found.ndim == 1 else found[:, self._label])

        return within_memory(call, BATCH_SIZE)


class SentenceTransformerEmbedder:
    """A TextEmbedder: SentenceTransformer.encode with the role's prompt."""

    def __init__(self, model: Any, query_prompt: str, document_prompt: str) -> None:
        self._model = model
        self._prompts = {"query": query_prompt, "document": document_prompt}

    def embed(self, texts: Sequence[str], role: Role) -> NDArray[np.float32]:
        def call(batch_size: int) -> NDArray[np.float32]:
            vectors = self._model.encode(
                list(texts), prompt=self._prompts[role], batch_size=batch_size, show_progress_bar=False
            )
            return np.asarray(vectors, np.float32)

        return within_memory(call, BATCH_SIZE)


class MultiVectorScorer:
    """A PairScorer: MultiVectorEncoder's similarity of a query's and a document's token vectors; one call embeds a text once."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        queries, documents = (list(dict.fromkeys(texts)) for texts in zip(*pairs, strict=True))

        def call(batch_size: int) -> NDArray[np.float32]:
            options = {"batch_size": batch_size, "show_progress_bar": False}
            of_query = dict(zip(queries, self._model.encode_query(queries, **options), strict=True))
            of_document = dict(zip(documents, self._model.encode_document(documents, **options), strict=True))
            vectors = [of_query[query] for query, _ in pairs], [of_document[document] for _, document in pairs]
            return as_scores(self._model.similarity_pairwise(*vectors).float().cpu())

        return within_memory(call, BATCH_SIZE)


def prepare(settings: ModelSettings, runtime: Runtime) -> RunnableModel:
    """Find the model. Raises EvalkitError for a truncation that the library does not have."""
    _refuse_versions_between()
    refuse_truncation(
        settings, NAME, "longest_first", "model.truncation=longest_first, or backend=torch or flagembedding"
    )
    open_scorer, class_name = OPENED[settings.kind]
    if settings.kind == "multi-vector" and find_spec("sentence_transformers.multi_vector_encoder") is None:
        raise EvalkitError(
            f"{settings.name} is a multi-vector model, and sentence-transformers {installed_version(NAME)} has no "
            "MultiVectorEncoder: "
            f'pip install "{NAME}>=6.2"'
        )
    return library_model(
        settings,
        runtime,
        open_scorer,
        name=NAME,
        package=NAME,
        class_name=class_name,
        check=_refuse_plain_language_models if settings.kind == "llm-reranker" else None,
        check_inputs=_refuse_stripping if _major_version() == OLD else None,
    )


def open_cross_encoder(model: CheckedModel) -> CrossEncoderScorer:
    """Load a CrossEncoder."""
    load = _load_old_cross_encoder if _major_version() == OLD else _load_cross_encoder
    settings = model.settings
    return CrossEncoderScorer(load(model), settings.query_prompt, settings.document_prompt, settings.label or 0)


def open_judge(model: CheckedModel) -> CrossEncoderScorer:
    """Load a language model with LogitScore as its folder says.

    Raises EvalkitError where the library reads other tokens than the recipe, or scores by other words.
    """
    from sentence_transformers import CrossEncoder

    from evalkit.models.language_models import word_tokens

    settings = model.settings
    with quiet("sentence_transformers"):
        loaded = CrossEncoder(
            str(model.folder),
            device=str(model.device),
            trust_remote_code=settings.trust_remote_code,
            local_files_only=True,
            model_kwargs={"dtype": model.dtype},
            activation_fn=torch.nn.Identity(),
        )
    follow_files(model, loaded)
    loaded.max_seq_length = model.inputs.max_length
    words = word_tokens(settings, model.inputs.tokenizer)
    own = list(words.values())
    theirs = [token for token in (loaded[1].true_token_id, loaded[1].false_token_id) if token is not None]
    if own != theirs:
        raise EvalkitError(
            f"{model.folder} scores by the tokens {theirs}, and {settings.name}'s recipe by {own} ({', '.join(words)})"
        )
    _refuse_other_inputs(model, loaded)
    return CrossEncoderScorer(loaded, "", "", 0)


def _refuse_other_inputs(model: CheckedModel, loaded: Any) -> None:
    """Compare what the library reads of some pairs, short and too long, with evalkit's inputs."""
    inputs = model.inputs
    long = "1) " + PROBE * (1 + inputs.max_length // 8)
    prompt = loaded.prompts.get(loaded.default_prompt_name) if loaded.default_prompt_name else None
    for query, document in ((PROBE, PROBE), ("", " \n(x) \n"), (" \n(x) \n", ""), (PROBE, long), (long, long)):
        pieces = inputs.tokenize([query], "query")[0], inputs.tokenize([document], "document")[0]
        own = inputs.encode_pair(*pieces).token_ids.tolist()
        theirs = loaded.preprocess([(query, document)], prompt=prompt)["input_ids"][0].tolist()
        if own != theirs:
            raise EvalkitError(
                f"{NAME} reads {len(theirs)} tokens of {query[:12]!r} and {document[:12]!r} within its chat template, and "
                f"{model.settings.name}'s recipe has {len(own)}, or others; backend=torch follows the recipe"
            )


def _refuse_plain_language_models(settings: ModelSettings, folder: Path) -> None:
    if _major_version() == OLD or not is_judge(read_folder(folder)):
        raise EvalkitError(
            f"backend={NAME} runs language models that rerank from version {NEW} on, where their modules.json has LogitScore; it "
            f"would not heed the recipe of {settings.name}: backend=torch"
        )
    # what LogitScore and the template's truncation can't be told
    for name, built_in in (("temperature", 1.0), ("truncation", "end")):
        if (said := getattr(settings, name)) != built_in:
            raise EvalkitError(
                f"backend={NAME} scores with model.{name}={built_in}, and {settings.name}'s recipe says {said}; backend=torch"
            )


def open_embedder(model: CheckedModel) -> SentenceTransformerEmbedder:
    """Build a SentenceTransformer of the recipe's parts."""
    load = _load_old_embedder if _major_version() == OLD else _load_embedder
    return SentenceTransformerEmbedder(load(model), model.settings.query_prompt, model.settings.document_prompt)


def open_multi_vector(model: CheckedModel) -> MultiVectorScorer:
    """Have the library read the folder, and put the recipe's fields in the place of what it read.

    Raises EvalkitError where a length is more than the network can read, and where a prompt's tokens or what is left out of a score
    can't be had.
    """
    from sentence_transformers import MultiVectorEncoder

    settings = model.settings
    for name in ("query_length", "document_length"):
        if (getattr(settings, name) or 0) > model.inputs.max_length:
            raise EvalkitError(
                f"model.{name}={getattr(settings, name)}: {settings.name} can read {model.inputs.max_length} tokens"
            )
    given = {"trust_remote_code": settings.trust_remote_code, "local_files_only": True}
    from evalkit.models.networks import reporting_load_errors

    with quiet("sentence_transformers"), reporting_load_errors(f"{model.folder}: sentence-transformers can't load it"):
        loaded = MultiVectorEncoder(
            str(model.folder),
            device=str(model.device),
            model_kwargs={"dtype": model.dtype},
            processor_kwargs={"model_max_length": model.inputs.max_length},
            similarity_fn_name=settings.interaction,
            prompts={"query": settings.query_prompt, "document": settings.document_prompt},
            **given,
        )
    _follow_recipe(settings, loaded)
    before = [loaded.tokenizer.tokenize(prompt) for prompt in loaded.prompts.values()]
    follow_files(model, loaded)
    if before != [loaded.tokenizer.tokenize(prompt) for prompt in loaded.prompts.values()]:
        raise EvalkitError(
            f"{settings.name}: its tokenizer.json makes other tokens of the prompts {', '.join(map(repr, loaded.prompts.values()))}"
            " than sentence-transformers; say there that they are special tokens"
        )
    return MultiVectorScorer(loaded.to(model.dtype).eval())


def _follow_recipe(settings: ModelSettings, loaded: Any) -> None:
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    transformer = loaded[0]
    transformer.query_expansion = None  # it and a length are checked against each other when they are set
    transformer.query_length, transformer.document_length = settings.query_length, settings.document_length
    try:
        transformer.query_expansion = settings.query_expansion
    except ValueError as error:
        raise EvalkitError(f"model.query_expansion={settings.query_expansion}: {error}") from None
    masks = [module for module in loaded if isinstance(module, MultiVectorMask)]
    if not masks and (settings.skiplist or settings.query_expansion):
        raise EvalkitError(
            f"{settings.name} has no MultiVectorMask, which model.skiplist and model.query_expansion are read by"
        )
    for mask in masks:
        mask.skiplist_words, mask.skiplist_tasks = list(settings.skiplist), list(settings.skiplist_roles)
        mask.resolve_with_tokenizer(loaded.tokenizer)


OPENED: dict[str, tuple[Open, str]] = {
    "cross-encoder": (open_cross_encoder, "CrossEncoder"),
    "llm-reranker": (open_judge, "CrossEncoder"),
    "embedder": (open_embedder, "SentenceTransformer"),
    "multi-vector": (open_multi_vector, "MultiVectorEncoder"),
}


def _major_version() -> int:
    return int(installed_version(NAME).partition(".")[0])


def _refuse_versions_between() -> None:
    if OLD < _major_version() < NEW:
        raise EvalkitError(
            f"backend={NAME} runs version {OLD} and those from {NEW} on, and {installed_version(NAME)} is installed: "
            f'pip install "{NAME}>={NEW}"'
        )


def _refuse_stripping(settings: ModelSettings, _: Path, inputs: Inputs) -> None:
    refuse_stripping(settings, inputs, f"{NAME} {OLD}", f"version {NEW} does not, nor backend=torch")


def _load_cross_encoder(model: CheckedModel) -> Any:
    from sentence_transformers import CrossEncoder

    modules = model.settings.modules
    transformer = _transformer(model, "feature-extraction" if modules else "sequence-classification")
    parts = [transformer, *(_parts(model, transformer.get_embedding_dimension()) if modules else [])]
    return CrossEncoder(modules=parts, device=str(model.device), activation_fn=torch.nn.Identity())


def _load_embedder(model: CheckedModel) -> Any:
    from sentence_transformers import SentenceTransformer

    transformer = _transformer(model, "feature-extraction")
    parts = [transformer, *_parts(model, transformer.get_embedding_dimension())]
    return SentenceTransformer(modules=parts, device=str(model.device), truncate_dim=model.settings.dimensions)


def _parts(model: CheckedModel, dimensions: int) -> list[torch.nn.Module]:
    """Return the recipe's parts behind the network, which gives vectors of so many dimensions, as the library's own modules."""
    settings = model.settings
    own = {"Pooling": lambda: _pooling(settings, dimensions), "Normalize": _normalisation}
    names = settings.modules or parts_within(settings)
    return [
        own[name]() if name in own else load_part(name, model.folder / place, settings)
        for name, _, place in (part.partition(":") for part in names)
    ]


def _pooling(settings: ModelSettings, dimensions: int) -> Any:
    modes = [POOLING_MODES.get(mode, mode) for mode in settings.pooling_modes]
    if _major_version() == OLD:
        from sentence_transformers.models import Pooling as OldPooling

        return OldPooling(
            dimensions,
            **{f"pooling_mode_{mode}{OLD_ENDINGS[mode]}": mode in modes for mode in OLD_ENDINGS},
            include_prompt=settings.pool_prompt,
        )
    from sentence_transformers.sentence_transformer.modules import Pooling

    return Pooling(dimensions, tuple(modes), include_prompt=settings.pool_prompt)


def _normalisation() -> Any:
    from sentence_transformers.models import Normalize

    return Normalize()


def _transformer(model: CheckedModel, task: str) -> Any:
    """Return the network with its tokenizer, for text alone: a tokenizer with a chat template would have it take messages."""
    from sentence_transformers.sentence_transformer.modules import Transformer

    output, name = OUTPUTS["embedder" if model.settings.modules else model.settings.kind]
    given = {"trust_remote_code": model.settings.trust_remote_code, "local_files_only": True}
    with quiet("sentence_transformers"):
        transformer = Transformer(
            str(model.folder),
            transformer_task=task,
            model_kwargs={"dtype": model.dtype, **given},
            processor_kwargs={"model_max_length": model.inputs.max_length, **given},
            config_kwargs=given,
            modality_config={"text": {"method": "forward", "method_output_name": output}},
            module_output_name=name,
            do_lower_case=model.settings.lower_case,
        )
    follow_files(model, transformer)
    return transformer


def _load_old_cross_encoder(model: CheckedModel) -> Any:
    """Return a CrossEncoder that gives raw logits."""
    from sentence_transformers import CrossEncoder

    with quiet("sentence_transformers"):
        cross_encoder = CrossEncoder(
            str(model.folder),
            max_length=model.inputs.max_length,
            device=str(model.device),
            automodel_args={"torch_dtype": model.dtype},
            trust_remote_code=model.settings.trust_remote_code,
            local_files_only=True,
            default_activation_function=torch.nn.Identity(),
        )
    follow_files(model, cross_encoder)
    return cross_encoder


def _old_transformer(model: CheckedModel) -> Any:
    """Return the first part of a SentenceTransformer: the network with its tokenizer."""
    from sentence_transformers.models import Transformer

    given = {"trust_remote_code": model.settings.trust_remote_code, "local_files_only": True}
    with quiet("sentence_transformers"):
        transformer = Transformer(
            str(model.folder),
            max_seq_length=model.inputs.max_length,
            do_lower_case=model.settings.lower_case,
            model_args={"torch_dtype": model.dtype, **given},
            tokenizer_args=dict(given),
            config_args=given,
        )
    follow_files(model, transformer)
    return transformer


def _load_old_embedder(model: CheckedModel) -> Any:
    """Return a SentenceTransformer of the recipe's parts."""
    from sentence_transformers import SentenceTransformer

    transformer = _old_transformer(model)
    parts = [transformer, *_parts(model, transformer.get_word_embedding_dimension())]
    return SentenceTransformer(modules=parts, device=str(model.device), truncate_dim=model.settings.dimensions)
