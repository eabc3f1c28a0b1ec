"""Folders whose tokenizer's files say different things, and small decoders that classify."""

from __future__ import annotations

from pathlib import Path

from model_folders import edit_json
from real_models import write_random
from recipe_models import write_language_tokenizer


def read_by_class(folder: Path, class_name: str, **said: object) -> None:
    """Have tokenizer_config.json name a class and settings, of which transformers builds other tokens than tokenizer.json's."""
    edit_json(folder / "tokenizer_config.json", lambda config: config.update(tokenizer_class=class_name, **said))


def write_qwen3_classifier(folder: Path) -> None:
    """A Qwen3ForSequenceClassification; its tokenizer, which adds no token of its own, pads with id 2 as config.json says."""
    from transformers import Qwen3Config, Qwen3ForSequenceClassification

    tokens = write_language_tokenizer(folder, bos=False, padding_side="right")
    config = Qwen3Config(
        vocab_size=tokens, num_hidden_layers=2, num_labels=1, hidden_size=64, intermediate_size=128, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=512, pad_token_id=2,
    )  # fmt: skip
    write_random(Qwen3ForSequenceClassification, config, folder, 0, "score.weight")
