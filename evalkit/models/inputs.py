"""An encoder's inputs out of a model's folder, checked against its network before any weights load."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import transformers

from evalkit.errors import EvalkitError
from evalkit.models.findings import report_once
from evalkit.models.folders.files import tensor_shapes
from evalkit.models.networks import load_config, position_limit, report_stored_type
from evalkit.models.settings import ModelSettings
from evalkit.models.tokenization import InputBuilder
from evalkit.models.tokenizers import largest_id, read_from, read_tokenizer

# how networks name the table of their positions' vectors
POSITION_TABLES = ("position_embeddings.weight", "embed_positions.weight", "wpe.weight")
# how networks name the table of their tokens' vectors
WORD_TABLES = (
    *("word_embeddings.weight", "word_embedding.weight", "tok_embeddings.weight"),
    *("embed_tokens.weight", "embed_in.weight", "wte.weight", "shared.weight"),
)


def load_inputs(settings: ModelSettings, folder: Path) -> InputBuilder:
    """Return what builds an encoder's inputs with the model's own tokenizer.

    Raises EvalkitError where the tokenizer makes tokens or segments that the network has no vectors for, and where nothing stands
    between the two texts of a pair.
    """
    report_stored_type(settings, folder)
    key = settings.model_dump_json(), read_from(folder)
    inputs = _IN_USE.get(key)
    if inputs is None:
        loaded = read_tokenizer(settings, folder)
        # what is computed, as rotary positions are, ends nowhere
        bounded = not settings.max_length or _has_position_table(folder)
        longest = position_limit(settings, folder) if bounded else None
        config = load_config(settings, folder)
        inputs = checked_inputs(loaded.tokenizer, settings, config, longest=longest, rows=_rows(folder, config))
        inputs = _IN_USE[key] = replace(inputs, findings=loaded.findings + inputs.findings)
    else:
        report_once(settings.name, inputs.findings)
    return inputs


# a network that is compared with the same weights in another system has its inputs, which take seconds to load
_IN_USE: WeakValueDictionary[object, InputBuilder] = WeakValueDictionary()


def checked_inputs(
    tokenizer: Any, settings: ModelSettings, config: Any, *, longest: int | None, rows: int | None
) -> InputBuilder:
    """Return what builds a network's inputs with a tokenizer, once the two fit each other; `config` is the network's.

    `longest` is the most positions that it has, `rows` how many tokens it has vectors for; None where that has no end. Raises
    EvalkitError as `load_inputs`.
    """
    if "attention_mask" not in tokenizer.model_input_names:
        raise EvalkitError(
            f"{settings.name}: its tokenizer_config.json leaves attention_mask out of model_input_names, so that padding would be "
            "read as text; name it there"
        )
    inputs = InputBuilder.create(tokenizer, settings, longest)
    _refuse_last_position(settings, config)
    _refuse_unknown_tokens(settings, rows, tokenizer)
    inputs = replace(inputs, with_types=inputs.with_types and _takes_segments(config))
    _refuse_unknown_segments(settings, config, inputs)
    _refuse_joined_texts(settings, inputs)
    findings = (
        *_missing_end(settings, inputs),
        *_equal_segments(config, inputs),
        *_other_padding(settings, config, tokenizer),
    )
    report_once(settings.name, findings)
    return replace(inputs, findings=findings)


def refuse_unknown_tokens(settings: ModelSettings, folder: Path, config: Any, tokenizer: Any) -> None:
    """Raise EvalkitError where the tokenizer can make an id that the network's table of tokens has no row for.

    The weights count where they say another number of rows than `config`, a configuration of transformers.
    """
    _refuse_unknown_tokens(settings, _rows(folder, config), tokenizer)


def _rows(folder: Path, config: Any) -> int | None:
    return embedding_rows(folder) or getattr(config.get_text_config(), "vocab_size", None)


def _refuse_unknown_tokens(settings: ModelSettings, rows: int | None, tokenizer: Any) -> None:
    if rows is None or (most := largest_id(tokenizer)) < rows:
        return
    token = tokenizer.convert_ids_to_tokens(most)
    raise EvalkitError(
        f"{settings.name}: its tokenizer makes ids up to {most} ({token!r}), and its network has {rows} rows for tokens; take "
        "the tokenizer that the model was trained with, or resize the network's embeddings (transformers: resize_token_embeddings)"
    )


def embedding_rows(folder: Path) -> int | None:
    """Return how many tokens have a vector, as the headers of the safetensors files say; None where none tells."""
    shapes = tensor_shapes(folder)
    return max(
        (shape[0] for name, shape in shapes.items() if name.endswith(WORD_TABLES) and len(shape) == 2), default=None
    )


def _has_position_table(folder: Path) -> bool:
    """Return whether the network has a table of positions, as the headers of the safetensors files say; True where none tells."""
    shapes = tensor_shapes(folder)
    return not shapes or any(name.endswith(POSITION_TABLES) for name in shapes)


def _takes_segments(config: Any) -> bool:
    """Return whether the network takes segment ids; a tokenizer may give them to one that does not (DistilBERT, decoders)."""
    names = getattr(config, "architectures", None) or []
    network = getattr(transformers, str(names[0]), None) if names else None
    return network is None or "token_type_ids" in inspect.signature(network.forward).parameters


def _refuse_last_position(settings: ModelSettings, config: Any) -> None:
    """Refuse a classifier that scores by the last position of its row, which in a batch may be padding."""
    if settings.kind == "cross-encoder" and getattr(config, "summary_type", None) == "last":
        raise EvalkitError(
            f"{settings.name} is a {config.model_type} whose score is read at the last position of a batch (summary_type=last), "
            "where shorter texts have padding: its scores would depend on the batch, and evalkit does not run it"
        )


def _refuse_unknown_segments(settings: ModelSettings, config: Any, inputs: InputBuilder) -> None:
    segments = getattr(config, "type_vocab_size", None)
    template = inputs.pair or inputs.single
    most = max((*template.text_types, *(kind for part in template.special_types for kind in part)), default=0)
    if inputs.with_types and segments and most >= segments:
        raise EvalkitError(
            f"{settings.name}: its tokenizer tells {most + 1} segments apart, and its network knows {segments} (type_vocab_size); "
            'leave token_type_ids out in tokenizer_config.json: "model_input_names": ["input_ids", "attention_mask"]'
        )


def _refuse_joined_texts(settings: ModelSettings, inputs: InputBuilder) -> None:
    """Refuse a template that puts nothing between a query and a document, unless the recipe does."""
    if inputs.pair and not inputs.pair.special[1] and not settings.document_prompt:
        raise EvalkitError(
            f"{settings.name}: its tokenizer puts nothing between the two texts of a pair, which the network can't tell apart; "
            "say what its authors put there: model.document_prompt=TEXT"
        )


def _missing_end(settings: ModelSettings, inputs: InputBuilder) -> tuple[str, ...]:
    if settings.kind != "embedder" or settings.pooling != "last" or inputs.single.special[-1]:
        return ()
    return (
        "the last token is pooled, and the tokenizer puts no token of its own behind a text: the vector is that of the text's last "
        "word, or of where it was cut",
    )


def _equal_segments(config: Any, inputs: InputBuilder) -> tuple[str, ...]:
    """Report a network that tells two segments apart, whose tokenizer does not."""
    segments = getattr(config, "type_vocab_size", None) or 0
    if inputs.pair is None or segments < 2 or not _takes_segments(config):
        return ()
    if inputs.with_types and len(set(inputs.pair.text_types)) > 1:
        return ()
    why = (
        "gives both texts of a pair segment 0"
        if inputs.with_types
        else "gives no segment ids (model_input_names in tokenizer_config.json)"
    )
    return (
        f"the network tells {segments} segments apart (type_vocab_size), and the tokenizer {why}: all tokens are in segment 0",
    )


def _other_padding(settings: ModelSettings, config: Any, tokenizer: Any) -> tuple[str, ...]:
    """Report where a classifier, which may look for its last token by the padding id, is configured with another one."""
    said = config.get_text_config().pad_token_id
    if settings.kind != "cross-encoder" or said == tokenizer.pad_token_id:
        return ()
    return (
        f"config.json says pad_token_id {'null' if said is None else said}, and the tokenizer pads with {tokenizer.pad_token_id}: "
        "the tokenizer's counts",
    )
