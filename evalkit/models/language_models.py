"""Rerankers that are language models: what scores behind them.

That is the logit of a word as the next token, a head behind one of the layers (layerwise), or vectors behind a projector (listwise;
models/listwise.py has the recipe).

Layerwise ones may make the document shorter on the way there. BAAI publishes their networks with Python code of its own,
which was written for transformers before 4.48 and does not run with later ones, so none of it is used: MiniCPM is transformers'
Granite under other names, the lightweight reranker is Gemma 2, and what they add is here. Source: FlagEmbedding's
`modeling_minicpm_reranker.py` and `gemma_model.py`.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma2Model, GraniteConfig, GraniteModel, Qwen3Model
from transformers.models.gemma2.modeling_gemma2 import Gemma2PreTrainedModel
from transformers.models.granite.modeling_granite import GranitePreTrainedModel
from transformers.models.qwen3.modeling_qwen3 import Qwen3PreTrainedModel

from evalkit.errors import EvalkitError, WrongWeightsError
from evalkit.models.findings import report_once
from evalkit.models.networks import load_weights, refuse_incomplete, reporting_load_errors
from evalkit.models.prompted import DOCUMENT, PROMPT, QUERY
from evalkit.models.settings import ModelSettings
from evalkit.models.weights import read_config

PROJECTED = 512
"""Numbers of a listwise ranker's vectors."""
MINICPM, GEMMA = "LayerWiseMiniCPMForCausalLM", "CostWiseGemmaForCausalLM"
# what transformers' configurations call the same; anything else is the same under another name, or no matter here
SHARED = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "rms_norm_eps"),
    *("attention_bias", "max_position_embeddings", "pad_token_id", "bos_token_id", "eos_token_id"),
)
GEMMA_FIELDS = ("head_dim", "query_pre_attn_scalar", "attn_logit_softcapping", "hidden_activation", "sliding_window")


class LanguageModelNetwork(torch.nn.Module):
    """Gives the logit of the positive word behind each input, shape (inputs,), less that of the negative one, if any.

    Both are divided by the temperature.

    Inputs are padded on the left, so that one position is the last of all of them; the logits of no other are computed.
    """

    def __init__(self, model: torch.nn.Module, positive: int, negative: int | None, temperature: float) -> None:
        super().__init__()
        self.model = model
        self.positive = positive
        self.negative = negative
        self.temperature = temperature

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: torch.Tensor) -> torch.Tensor:
        logits = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=(attention_mask.cumsum(1) - 1).clamp(min=0),  # padding moves no token
            use_cache=False,
            logits_to_keep=1,
        ).logits[:, -1]
        score: torch.Tensor = logits[:, self.positive].float()
        if self.negative is not None:
            score = score - logits[:, self.negative].float()
        return score / self.temperature


def load_language_model(settings: ModelSettings, folder: Path, tokenizer: Any) -> LanguageModelNetwork:
    """Load the weights in their own precision.

    Raises EvalkitError where the model is no language model, its weights are not complete, or a word has no token.
    """
    _refuse_unknown_kinds(settings, read_config(folder))
    positive, *others = word_tokens(settings, tokenizer).values()
    model, report = load_weights(AutoModelForCausalLM, settings, folder)
    refuse_incomplete(settings, folder, report)
    if "logits_to_keep" not in inspect.signature(model.forward).parameters:
        raise EvalkitError(
            f"{settings.name} is a {type(model).__name__}, which can't give the last token's logits alone"
        )
    return LanguageModelNetwork(model, positive, others[0] if others else None, settings.temperature).eval()


def _refuse_unknown_kinds(settings: ModelSettings, config: dict[str, Any]) -> None:
    architectures = [str(name) for name in config.get("architectures") or []]
    if architectures and not any(name.endswith("ForCausalLM") for name in architectures):
        raise WrongWeightsError(
            f"{settings.name} is a {', '.join(architectures)}, which predicts no next token: as an {settings.kind} it would score "
            "at random. If it has a scoring head, it is a cross-encoder; else an embedder"
        )


def word_tokens(settings: ModelSettings, tokenizer: Any) -> dict[str, int]:
    """Return the first token of each word of a recipe, as FlagEmbedding takes it: of the one that counts, then of the other.

    A word of several tokens is reported. Raises EvalkitError where a word has no token, and where both begin with one, so that
    every score would be 0.
    """
    words = [settings.positive_word, *([] if settings.negative_word is None else [settings.negative_word])]
    tokens = {word: _token_of(settings, tokenizer, word) for word in words}
    if len(set(tokens.values())) < len(words):
        raise EvalkitError(f"{settings.name}: the words {words[0]!r} and {words[1]!r} begin with one token")
    return tokens


def _token_of(settings: ModelSettings, tokenizer: Any, word: str) -> int:
    ids: list[int] = tokenizer(word, add_special_tokens=False)["input_ids"]
    if not ids or ids[0] == tokenizer.unk_token_id:
        raise EvalkitError(f"{settings.name}: its tokenizer has no token for the word {word!r}")
    if len(ids) > 1:
        pieces = tokenizer.convert_ids_to_tokens(ids)
        report_once(
            settings.name,
            [
                f"the word {word!r} is {len(ids)} tokens to its tokenizer ({' '.join(pieces)}): only {pieces[0]!r} counts"
            ],
        )
    return ids[0]


@dataclass(frozen=True)
class LayerwiseConfig:
    """A network that ends at the layer asked for: transformers' configuration, and which of the checkpoint's heads it has.

    Embeddings are multiplied by `embedding_scale`; a score s becomes `softcap` · tanh(s / `softcap`), where that is not None.
    """

    architecture: str
    layers: Any
    head: int
    positions: int
    embedding_scale: float
    softcap: float | None


class ScalarHead(torch.nn.Module):
    """One number per position, under the checkpoint's name."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.linear_head = torch.nn.Linear(size, 1, bias=False)


class MiniCPMLayers(GranitePreTrainedModel):  # type: ignore[misc]
    """MiniCPM up to the layer asked for, and its head."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model = GraniteModel(config)
        self.lm_head = torch.nn.ModuleDict({str(config.layerwise_head): ScalarHead(config.hidden_size)})
        self.post_init()


class GemmaLayers(Gemma2PreTrainedModel):  # type: ignore[misc]
    """Gemma 2 up to the layer asked for, and its head."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model = Gemma2Model(config)
        self.lm_head = torch.nn.ModuleDict({str(config.layerwise_head): ScalarHead(config.hidden_size)})
        self.post_init()


class LayerwiseNetwork(torch.nn.Module):
    """Gives the head's number at each input's last token, shape (inputs,). Inputs are padded on the right."""

    def __init__(self, layers: Any, config: LayerwiseConfig, settings: ModelSettings) -> None:
        super().__init__()
        self.decoder = layers.model
        self.head = layers.lm_head[str(config.head)].linear_head
        self.config = config
        self.ratio = settings.compress_ratio
        self.compress_layers = settings.compress_layers if self.ratio > 1 else ()

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> torch.Tensor:
        hidden = torch.nn.functional.embedding(input_ids, self.decoder.embed_tokens.weight)
        hidden = hidden * torch.tensor(self.config.embedding_scale, dtype=hidden.dtype, device=hidden.device)
        present, parts = attention_mask.bool(), token_type_ids
        surroundings = self._surroundings(hidden)
        for number, layer in enumerate(self.decoder.layers):
            if number in self.compress_layers:
                hidden, present, parts = compress(hidden, present, parts, self.ratio)
                surroundings = self._surroundings(hidden)
            hidden = layer(hidden, **surroundings)
        last = hidden[torch.arange(len(hidden), device=hidden.device), present.sum(1) - 1]
        score: torch.Tensor = self.head(self.decoder.norm(last)).squeeze(-1)
        softcap = self.config.softcap
        return (score if softcap is None else softcap * torch.tanh(score / softcap)).float()

    def _surroundings(self, hidden: torch.Tensor) -> dict[str, Any]:
        """Return positions, and who attends to whom: whatever stands before it. So the padding behind needs no mask of its own."""
        length = hidden.shape[1]
        positions = torch.arange(length, device=hidden.device)[None]
        mask = torch.full((length, length), torch.finfo(hidden.dtype).min, dtype=hidden.dtype, device=hidden.device)
        return {
            "attention_mask": mask.triu(1)[None, None],
            "position_ids": positions,
            "position_embeddings": self.decoder.rotary_emb(hidden, positions),
        }


def compress(
    hidden: torch.Tensor, present: torch.Tensor, parts: torch.Tensor, ratio: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Put the mean of each `ratio` tokens of a document (the last may be of fewer) in their place.

    `hidden` has the shape (inputs, tokens, dimensions), `present` (False for padding) and `parts` (inputs, tokens); so have the
    three that are returned, with fewer tokens.
    """
    document = present & (parts == DOCUMENT)
    place = document.cumsum(1) - 1
    length = document.sum(1, keepdim=True)
    groups = (length + ratio - 1) // ratio
    start = (present & (parts == QUERY)).sum(1, keepdim=True)
    target = torch.arange(hidden.shape[1], device=hidden.device) - (parts == PROMPT) * (length - groups)
    target = torch.where(document, start + place // ratio, target)
    longest = int((present.sum(1, keepdim=True) - length + groups).max())
    target = torch.where(present, target, longest)  # padding goes into a column of its own, which is dropped
    members = torch.where(document, (length - place // ratio * ratio).clamp(max=ratio), 1)
    shape = (len(hidden), longest + 1)
    means = torch.zeros(*shape, hidden.shape[2], dtype=hidden.dtype, device=hidden.device)
    means = means.scatter_add(1, target[..., None].expand_as(hidden), hidden / members[..., None].to(hidden.dtype))
    new_present = torch.zeros(shape, dtype=torch.bool, device=hidden.device).scatter(1, target, present)
    new_parts = torch.zeros(shape, dtype=parts.dtype, device=hidden.device).scatter(1, target, parts)
    return means[:, :longest], new_present[:, :longest], new_parts[:, :longest]


class RankingLayers(Qwen3PreTrainedModel):  # type: ignore[misc]
    """jina-reranker-v3's weights under their names: Qwen3, and a projector."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model = Qwen3Model(config)
        middle = config.hidden_size // 2
        self.projector = torch.nn.Sequential(
            torch.nn.Linear(config.hidden_size, middle, bias=False),
            torch.nn.ReLU(),
            torch.nn.Linear(middle, PROJECTED, bias=False),
        )
        self.post_init()


class RankingNetwork(torch.nn.Module):
    """Gives the projected vectors at some positions of one input, shape (positions, PROJECTED)."""

    def __init__(self, layers: Any) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, input_ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        hidden = self.layers.model(input_ids=input_ids, use_cache=False).last_hidden_state[0, positions]
        vectors: torch.Tensor = self.layers.projector(hidden)
        return vectors


def load_ranking_network(settings: ModelSettings, folder: Path) -> RankingNetwork:
    """Load a listwise ranker's network in its own precision. Raises EvalkitError where weights are missing or of another shape."""
    layers, report = load_weights(RankingLayers, settings, folder)
    refuse_incomplete(settings, folder, report)
    return RankingNetwork(layers).eval()


def read_layerwise_config(settings: ModelSettings, folder: Path) -> LayerwiseConfig:
    """Return what config.json says of the network, up to the layer in `cutoff_layers`.

    Raises EvalkitError where the architecture is another one, or has no head behind that layer.
    """
    if int(transformers.__version__.split(".")[0]) < 5:
        raise EvalkitError(f"{settings.name} needs transformers 5 or later: pip install -U transformers")
    config: dict[str, Any] = read_config(folder)
    architecture = ", ".join(map(str, config.get("architectures") or []))
    if architecture not in (MINICPM, GEMMA):
        raise WrongWeightsError(
            f"{settings.name} is a {architecture or 'model that names no architecture'}, not one of {MINICPM}, {GEMMA}"
        )
    with reporting_load_errors(str(folder / "config.json")):
        return _minicpm(settings, config) if architecture == MINICPM else _gemma(settings, config)


def load_layerwise(settings: ModelSettings, folder: Path, config: LayerwiseConfig) -> LayerwiseNetwork:
    """Load the layers that are needed and their head, in their own precision. Raises EvalkitError where one is missing."""
    if config.architecture == MINICPM:
        layers, report = load_weights(MiniCPMLayers, settings, folder, config=config.layers)
    else:
        layers, report = load_weights(GemmaLayers, settings, folder, config=config.layers)
    refuse_incomplete(settings, folder, report)
    return LayerwiseNetwork(layers, config, settings).eval()


def _minicpm(settings: ModelSettings, config: dict[str, Any]) -> LayerwiseConfig:
    if (
        config.get("rope_scaling")
        or not config.get("head_multi", True)
        or config.get("head_type", "simple") != "simple"
    ):
        raise EvalkitError(
            f"{settings.name}: only MiniCPM with a scalar head per layer and without rope_scaling is known here"
        )
    depth, start = int(config["num_hidden_layers"]), int(config.get("start_layer", 8))
    cutoff = _cutoff(settings, range(start, depth + 1))
    scale = float(config.get("scale_emb", 1))
    layers = GraniteConfig(
        **{name: config[name] for name in SHARED if name in config},
        num_hidden_layers=cutoff,
        hidden_act=config.get("hidden_act", "silu"),
        rope_parameters={"rope_type": "default", "rope_theta": float(config.get("rope_theta", 10_000))},
        embedding_multiplier=scale,
        residual_multiplier=float(config.get("scale_depth", 1)) / sqrt(depth),
        attention_multiplier=(int(config["hidden_size"]) // int(config["num_attention_heads"])) ** -0.5,
        layerwise_head=cutoff - start,
    )
    return LayerwiseConfig(MINICPM, layers, cutoff - start, int(config["max_position_embeddings"]), scale, None)


def _gemma(settings: ModelSettings, config: dict[str, Any]) -> LayerwiseConfig:
    if not config.get("layer_wise"):
        raise WrongWeightsError(
            f"{settings.name} has no heads behind its layers (layer_wise is not true in its config.json)"
        )
    depth, start = int(config["num_hidden_layers"]), int(config.get("start_layer", 28))
    cutoff = _cutoff(settings, range(start, depth + 1, int(config.get("layer_sep", 28))))
    # its own code numbers heads by their place among the layers asked for, so that the first head scores whichever layer
    layers = Gemma2Config(
        **{name: config[name] for name in (*SHARED, *GEMMA_FIELDS) if name in config},
        num_hidden_layers=cutoff,
        rope_parameters={"rope_type": "default", "rope_theta": float(config.get("rope_theta", 10_000))},
        layerwise_head=0,
    )
    softcap = config.get("final_logit_softcapping", 30.0)
    scale = sqrt(int(config["hidden_size"]))
    return LayerwiseConfig(GEMMA, layers, 0, int(config["max_position_embeddings"]), scale, softcap)


def _cutoff(settings: ModelSettings, there: range) -> int:
    """Return the one layer in `cutoff_layers`, or the last that has a head."""
    chosen = settings.cutoff_layers or (there[-1],)
    if len(chosen) != 1 or chosen[0] not in there:
        raise EvalkitError(
            f"model.cutoff_layers={list(chosen)}: {settings.name} scores behind one of the layers {there.start} to {there[-1]}"
            + (f" (every {there.step}th)" if there.step > 1 else "")
        )
    return chosen[0]
