"""The networks themselves: loaded by transformers, checked, and wrapped so that texts' scores or vectors come out."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from evalkit.errors import EvalkitError, WrongWeightsError
from evalkit.models.consent import guarded_by
from evalkit.models.settings import ModelSettings, Pooling
from evalkit.models.tokenization import InputBuilder
from evalkit.models.weights import read_config


class CrossEncoderNetwork(torch.nn.Module):
    """A sequence classifier with one label; gives its raw logit, shape (inputs,), without sigmoid."""

    def __init__(self, classifier: torch.nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        logits: torch.Tensor = self.classifier(input_ids=input_ids, attention_mask=attention_mask, **types).logits
        return logits[:, 0].float()


class EmbedderNetwork(torch.nn.Module):
    """An encoder with pooling; gives vectors of shape (inputs, dimensions), of length one where cosine is asked for.

    Inputs are padded on the right.
    """

    def __init__(self, encoder: torch.nn.Module, pooling: Pooling, normalize: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.pooling = pooling
        self.normalize = normalize

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **types).last_hidden_state.float()
        vectors = pool(hidden, attention_mask, self.pooling)
        return torch.nn.functional.normalize(vectors, dim=-1) if self.normalize else vectors


def pool(hidden: torch.Tensor, attention_mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """Return one vector per input out of its tokens' vectors, shape (inputs, tokens, dimensions)."""
    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "mean":
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * mask).sum(1) / mask.sum(1)
    last = attention_mask.sum(1) - 1
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), last]


def load_inputs(settings: ModelSettings, folder: Path) -> InputBuilder:
    """Return what builds an encoder's inputs with the model's own tokenizer."""
    return InputBuilder.create(load_tokenizer(settings, folder), settings, position_limit(settings, folder))


def load_tokenizer(settings: ModelSettings, folder: Path) -> Any:
    """Return the model's own tokenizer.

    Raises EvalkitError where its files are damaged or missing: transformers may then make one up that knows no words.
    """
    read_config(folder)  # which says what is wrong with a folder that is no model at all
    with (
        guarded_by(settings, folder),
        quiet_transformers(),
        reporting_load_errors(f"{folder}: the tokenizer can't be loaded"),
    ):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=settings.trust_remote_code)
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise EvalkitError(
            f"{folder} has no tokenizer (tokenizer.json or a vocabulary): copy it from the model's origin"
        )
    if tokenizer.pad_token_id is None:
        raise EvalkitError(
            f"{folder}: the tokenizer has no padding token; name one as pad_token in tokenizer_config.json"
        )
    return tokenizer


def load_network(settings: ModelSettings, folder: Path) -> CrossEncoderNetwork | EmbedderNetwork:
    """Load the weights in their own precision, as the kind that the recipe says.

    Raises WrongWeightsError where the weights are of another kind or not complete: transformers fills what is missing with
    random numbers and only warns.
    """
    refuse_wrong_kind(settings, read_config(folder))
    auto: Any = AutoModelForSequenceClassification if settings.kind == "cross-encoder" else AutoModel
    network, report = load_weights(auto, settings, folder)
    refuse_incomplete(settings, folder, report)
    if settings.kind == "cross-encoder":
        _refuse_labels(settings, network.config.num_labels)  # two where config.json is silent
        return CrossEncoderNetwork(network).eval()
    return EmbedderNetwork(network, settings.pooling, settings.similarity == "cosine").eval()


def refuse_wrong_kind(settings: ModelSettings, config: dict[str, Any]) -> None:
    """Compare the recipe's kind with the architecture that config.json names. Raises WrongWeightsError."""
    architectures = [str(name) for name in config.get("architectures") or []]
    named = ", ".join(architectures)
    classifier = any(name.endswith("ForSequenceClassification") for name in architectures)
    if settings.kind == "cross-encoder" and architectures and not classifier:
        raise WrongWeightsError(
            f"{settings.name} is a {named}, which has no scoring head: as a cross-encoder it would score at random. "
            "If it is an embedder: model=local-embedder (or kind: embedder)"
        )
    if settings.kind == "embedder" and classifier:
        raise WrongWeightsError(
            f"{settings.name} is a {named}: as an embedder its scoring head would be dropped and its vectors mean nothing. "
            "If it is a reranker: model=local-cross-encoder (or kind: cross-encoder)"
        )
    if settings.kind == "cross-encoder":
        _refuse_labels(settings, len(config.get("id2label") or {}) or config.get("num_labels") or 1)


def _refuse_labels(settings: ModelSettings, labels: int) -> None:
    if labels != 1:
        raise WrongWeightsError(f"{settings.name} has {labels} labels; a cross-encoder for reranking has one score")


def position_limit(settings: ModelSettings, folder: Path) -> int | None:
    """Return the most tokens that the network has positions for; None where its architecture has no such table."""
    config = load_config(settings, folder)
    positions: int | None = getattr(config, "max_position_embeddings", None)
    # RoBERTa and its kin count positions from the padding id + 1
    offset = config.pad_token_id + 1 if config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet") else 0
    return positions - offset if positions else None


def load_config(settings: ModelSettings, folder: Path) -> Any:
    """Return the configuration in config.json, with what transformers adds."""
    with guarded_by(settings, folder), reporting_load_errors(str(folder / "config.json")):
        return AutoConfig.from_pretrained(folder, trust_remote_code=settings.trust_remote_code)


def load_weights(auto: Any, settings: ModelSettings, folder: Path, **options: Any) -> tuple[Any, dict[str, Any]]:
    """Return a network of transformers' class `auto` with the folder's weights, and transformers' report on them."""
    with (
        guarded_by(settings, folder),
        quiet_transformers(),
        reporting_load_errors(f"{folder}: the weights can't be loaded"),
    ):
        network, report = auto.from_pretrained(
            folder,
            use_safetensors=None if settings.allow_pickle else True,
            trust_remote_code=settings.trust_remote_code,
            ignore_mismatched_sizes=True,  # so that the report names them
            output_loading_info=True,
            **options,
        )
    return network, report


def refuse_incomplete(settings: ModelSettings, folder: Path, report: dict[str, Any]) -> None:
    """Raise EvalkitError where the report names weights that are missing or of another shape."""
    # names in transformers 4.57, (name, shape, shape) before and since
    mismatched = sorted(key if isinstance(key, str) else key[0] for key in report["mismatched_keys"])
    if mismatched:
        raise WrongWeightsError(
            f"{folder}: weights of another shape than config.json says: {', '.join(mismatched[:3])}"
        )
    missing = sorted(key for key in report["missing_keys"] if "position_ids" not in key)
    if settings.kind == "embedder":  # the pooler is not part of any recipe here
        missing = [key for key in missing if not key.startswith("pooler.")]
    if not missing:
        return
    head = not settings.makes_vectors and all(
        key.split(".")[0] in ("classifier", "score", "pooler", "lm_head") for key in missing
    )
    what = "the scoring head" if head else f"{len(missing)} of the network's weights"
    raise WrongWeightsError(
        f"{folder}: {what} ({', '.join(missing[:3])}{'…' if len(missing) > 3 else ''}) is missing from the weights and would be "
        "random. Is this an embedder, or a checkpoint saved without its head?"
    )


@contextmanager
def reporting_load_errors(what: str) -> Iterator[None]:
    """Whatever goes wrong in transformers with a user's files (it raises all kinds of exceptions), as one line."""
    try:
        yield
    except Exception as error:
        code = "trust_remote_code" in str(error)  # code of the model's own, which transformers wants to run
        advice = "; if you trust its author: model.trust_remote_code=true" if code else ""
        raise EvalkitError(f"{what}: {_first_line(error)}{advice}") from error


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Transformers' loading report and progress bar: what matters of them is checked and reported here."""
    logger = logging.getLogger("transformers")
    level, bars = logger.level, transformers.utils.logging.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        logger.setLevel(level)
        if bars:
            transformers.utils.logging.enable_progress_bar()
