"""The networks themselves: loaded by transformers, checked, and wrapped so that texts' scores or vectors come out."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig

from evalkit.errors import EvalkitError, WrongWeightsError
from evalkit.models.consent import guarded_by
from evalkit.models.findings import report_once
from evalkit.models.folders.files import tensor_types
from evalkit.models.folders.kinds import T5_ENCODERS
from evalkit.models.parts import network_output, parts_within
from evalkit.models.pooling import pool
from evalkit.models.settings import ModelSettings
from evalkit.models.tails import Tail
from evalkit.models.weights import read_config

# weights of what pretraining has and no recipe here: heads of language models, poolers; and buffers that are computed anyway
LEFTOVER = re.compile(
    r"(^|\.)(pooler|cls|lm_head|lm_predictions|vocab_(projector|transform|layer_norm)|generator(_lm_head|_predictions)?"
    r"|discriminator_predictions|predictions|mask_predictions|seq_relationship|sop_classifier|mlm_head)(\.|$)"
    r"|^(head\.(dense|norm)|decoder)\.(weight|bias)$|(position_ids|inv_freq|masked_bias|\.attn\.bias)$"
)
STORED = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
PROJECTION = "linear.weight"  # Stanford's ColBERT has it beside the network's own
logger = logging.getLogger("evalkit")


class CrossEncoderNetwork(torch.nn.Module):
    """A sequence classifier; gives one label's raw logit, shape (inputs,), without sigmoid."""

    def __init__(self, classifier: torch.nn.Module, label: int = 0) -> None:
        super().__init__()
        self.classifier = classifier
        self.label = label

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        logits: torch.Tensor = self.classifier(input_ids=input_ids, attention_mask=attention_mask, **types).logits
        return logits[:, self.label].float()


class EmbedderNetwork(torch.nn.Module):
    """An encoder with what its graph computes behind it (see models/tails.py).

    It gives vectors of shape (inputs, dimensions), of length one where a normalisation is part of it; without pooling one
    vector per token, (inputs, tokens, dimensions), or per layer and token, (inputs, layers, tokens, dimensions).
    """

    def __init__(self, encoder: torch.nn.Module, modes: tuple[str, ...], normalize: bool, layers: bool = False) -> None:
        super().__init__()
        self.encoder = encoder
        self.modes = modes
        self.normalize = normalize
        self.layers = layers

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
        pooled: torch.Tensor | None = None,
    ) -> torch.Tensor:
        types: dict[str, Any] = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        if self.layers:
            found = self.encoder(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True, **types)
            layers: torch.Tensor = torch.stack(found.hidden_states, dim=1).float()
            return layers
        found = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **types)
        hidden: torch.Tensor = found.last_hidden_state.float()
        if not self.modes:
            return hidden
        vectors = pool(hidden, attention_mask, pooled, self.modes)
        return torch.nn.functional.normalize(vectors, dim=-1) if self.normalize else vectors


class WholeNetwork(torch.nn.Module):
    """A network and its tail, for a system that runs both."""

    def __init__(self, network: torch.nn.Module, tail: Tail) -> None:
        super().__init__()
        self.network = network
        self.tail = tail

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **others: torch.Tensor) -> torch.Tensor:
        pooled = {"pooled": others["pooled"]} if "pooled" in others else {}
        output: torch.Tensor = self.tail(
            self.network(input_ids=input_ids, attention_mask=attention_mask, **others), attention_mask, **pooled
        )
        return output


def load_network(settings: ModelSettings, folder: Path) -> CrossEncoderNetwork | EmbedderNetwork:
    """Load the weights in their own precision, as the kind that the recipe says.

    Raises WrongWeightsError where the weights are of another kind or not complete: transformers fills what is missing with
    random numbers and only warns.
    """
    config = read_config(folder)
    refuse_wrong_kind(settings, config)
    network, report = load_weights(_auto_class(settings, config), settings, folder)
    refuse_incomplete(settings, folder, report)
    network.config.use_cache = False  # a decoder's keys and values are for the next token, and there is none
    if settings.kind == "cross-encoder" and not settings.modules:
        _refuse_labels(settings, network.config.num_labels)  # two where config.json is silent
        return CrossEncoderNetwork(network, settings.label or 0).eval()
    within = parts_within(settings)
    modes = settings.pooling_modes if within else ()
    return EmbedderNetwork(
        network, modes, "Normalize" in within, network_output(settings) == "all_layer_embeddings"
    ).eval()


def _auto_class(settings: ModelSettings, config: dict[str, Any]) -> Any:
    """Return transformers' class for the network: of T5 and its kin the encoder alone makes vectors.

    transformers imports a network's code with its class, which takes seconds that a converted network need not wait for.
    """
    if settings.kind == "cross-encoder" and not settings.modules:
        return transformers.AutoModelForSequenceClassification
    encoders = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel", "umt5": "UMT5EncoderModel"}
    return getattr(transformers, encoders.get(str(config.get("model_type")), "AutoModel"))


def refuse_wrong_kind(settings: ModelSettings, config: dict[str, Any]) -> None:
    """Compare the recipe's kind with the architecture that config.json names. Raises WrongWeightsError."""
    architectures = [str(name) for name in config.get("architectures") or []]
    named = ", ".join(architectures)
    classifier = any(name.endswith("ForSequenceClassification") for name in architectures)
    if settings.modules:  # its own files say what is made of the network
        return
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
    if labels != 1 and settings.label is None:
        raise WrongWeightsError(
            f"{settings.name} has {labels} labels; a cross-encoder for reranking has one score: model.label=NUMBER says which "
            "label's logit that is"
        )


def position_limit(settings: ModelSettings, folder: Path) -> int | None:
    """Return the most tokens that the network has positions for; None where its architecture has no such table."""
    return positions_of(load_config(settings, folder))


def positions_of(config: Any) -> int | None:
    """Return the most tokens that a network of this configuration has positions for; None where it has no such table."""
    positions: int | None = getattr(config, "max_position_embeddings", None)
    # RoBERTa and its kin count positions from the padding id + 1
    offset = config.pad_token_id + 1 if config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet") else 0
    # XLNet counts positions from each other, and says -1
    return positions - offset if positions and positions > 0 else None


def load_config(settings: ModelSettings, folder: Path) -> Any:
    """Return the configuration in config.json, with what transformers adds."""
    with guarded_by(settings, folder), reporting_load_errors(str(folder / "config.json")):
        return AutoConfig.from_pretrained(folder, trust_remote_code=settings.trust_remote_code)


def stored_wider(folder: Path) -> tuple[torch.dtype, torch.dtype | None] | None:
    """Return the type that the folder's safetensors hold weights in, and config.json's, where transformers would round to another.

    None for the latter says that config.json has none, so that the first weight's decides. None where nothing is rounded, or is
    known: of pickles, and of weights that are quantised.
    """
    kinds = {kind for kind in tensor_types(folder) if kind.startswith(("F", "BF"))}
    if not kinds or kinds - STORED.keys():
        return None
    config = read_config(folder)
    named = str(config.get("dtype") or config.get("torch_dtype") or "").removeprefix("torch.")
    said = getattr(torch, named, None) if named else None
    if named and not isinstance(said, torch.dtype):
        return None
    own = reduce(torch.promote_types, [STORED[kind] for kind in sorted(kinds)])
    rounded = len(kinds) > 1 if said is None else torch.promote_types(own, said) != said
    return (own, said) if rounded else None


def report_stored_type(settings: ModelSettings, folder: Path) -> None:
    """Report weights that are stored in another type than config.json says, to which libraries round them."""
    found = stored_wider(folder)
    if found is None:
        return
    own, said = (str(one).removeprefix("torch.") for one in found)
    named = f"config.json says {said}" if found[1] else "its first weight is of another type"
    report_once(
        settings.name,
        [
            f"its weights are stored in {own} and {named}, to which transformers rounds them unless told otherwise, so that "
            "published figures may be those of rounded weights; evalkit's own backends and sentence-transformers' run the stored"
        ],
    )


def load_weights(auto: Any, settings: ModelSettings, folder: Path, **options: Any) -> tuple[Any, dict[str, Any]]:
    """Return a network of transformers' class `auto` with the folder's weights, and transformers' report on them.

    Weights are loaded in the type that they are stored in, whatever config.json says; pickled ones in fp32, which holds any.
    """
    wider = stored_wider(folder)
    if wider is not None:
        options = {"dtype": wider[0], **options}
    elif not tensor_types(folder):
        options = {"dtype": torch.float32, **options}
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
    if settings.kind in ("embedder", "multi-vector") or settings.modules:  # the pooler is not part of any recipe here
        missing = [key for key in missing if not key.startswith("pooler.")]
    if not missing:
        if settings.kind != "layerwise-reranker":  # of which the layers above the one asked for are left out
            _refuse_unused(settings, folder, sorted(report["unexpected_keys"]))
        return
    head = not settings.makes_vectors and all(
        key.split(".")[0] in ("classifier", "score", "pooler", "lm_head") for key in missing
    )
    what = "the scoring head" if head else f"{len(missing)} of the network's weights"
    raise WrongWeightsError(
        f"{folder}: {what} ({', '.join(missing[:3])}{'…' if len(missing) > 3 else ''}) is missing from the weights and would be "
        "random. Is this an embedder, or a checkpoint saved without its head?"
    )


def _refuse_unused(settings: ModelSettings, folder: Path, unused: list[str]) -> None:
    """Refuse weights that no part of the network takes; what training leaves behind is reported."""
    decoder = settings.kind == "embedder" and read_config(folder).get("model_type") in T5_ENCODERS
    if settings.kind == "multi-vector":
        unused = [key for key in unused if key != PROJECTION]
    others = [key for key in unused if not (LEFTOVER.search(key) or (decoder and key.startswith("decoder.")))]
    if others:
        raise WrongWeightsError(
            f"{folder}: no part of the network takes {len(others)} of its weights ({', '.join(others[:3])}"
            f"{'…' if len(others) > 3 else ''}), so that it may be another model than its config.json says"
        )
    if unused:
        logger.info(
            "%s: %d of its weights are left over and have no effect (%s%s)",
            *(folder, len(unused), ", ".join(unused[:3]), "…" if len(unused) > 3 else ""),
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
    """Silence transformers' loading report and progress bar: what matters of them is checked and reported here."""
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
