"""What a folder says of itself to sentence-transformers: `modules.json`, and the configurations of its pooling and its encoder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.errors import EvalkitError
from evalkit.models.settings import ModelSettings

KNOWN = ("Transformer", "Pooling", "Normalize")
POOLING_MODES = {"cls": "cls", "mean": "mean", "last": "lasttoken"}  # evalkit's names, and theirs
OLD_POOLING_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True, slots=True)
class FolderModules:
    """The parts of a SentenceTransformer in a folder; a folder without `modules.json` is taken for one with mean pooling."""

    names: tuple[str, ...]
    pooling: str
    pools_prompt: bool


@dataclass(frozen=True, slots=True)
class FolderEncoder:
    """How a SentenceTransformer's first part reads texts: cut to `max_length` tokens (None: it does not say), in small letters."""

    max_length: int | None
    lower_case: bool


def read_encoder(folder: Path) -> FolderEncoder:
    """Read it where there is a `modules.json`; otherwise nobody asks. Raises EvalkitError where the file is damaged."""
    path = folder / "sentence_bert_config.json"
    if not path.is_file() or not (folder / "modules.json").is_file():
        return FolderEncoder(None, False)
    config = _read(path)
    if not isinstance(config, dict):
        raise EvalkitError(f"{path} must hold an object; copy it from the model's origin")
    return FolderEncoder(config.get("max_seq_length"), bool(config.get("do_lower_case")))


def read_modules(folder: Path) -> FolderModules:
    """Read what the folder says. Raises EvalkitError where a file of it is damaged."""
    path = folder / "modules.json"
    if not path.is_file():
        return FolderModules(("Transformer", "Pooling"), "mean", True)
    modules = _read(path)
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise EvalkitError(f"{path} must hold a list of modules; copy it from the model's origin")
    names = tuple(str(module.get("type", "")).rpartition(".")[2] for module in modules)
    places = [
        folder / str(module.get("path", "")) for module, name in zip(modules, names, strict=True) if name == "Pooling"
    ]
    config = _read(places[0] / "config.json") if places else {}
    old = [mode for key, mode in OLD_POOLING_KEYS.items() if config.get(key)]
    pooling = config.get("pooling_mode") or (old[0] if len(old) == 1 else "mean" if not old else "+".join(old))
    return FolderModules(names, str(pooling), bool(config.get("include_prompt", True)))


def refuse_other_modules(settings: ModelSettings, folder: Path) -> None:
    """Raise EvalkitError where the folder's model has parts that no recipe has a place for."""
    others = [name for name in read_modules(folder).names if name not in KNOWN]
    if others:
        raise EvalkitError(
            f"{settings.name}'s modules.json names {', '.join(others)}, which evalkit's recipe of an embedder has no place for; a "
            "copy without modules.json is run without"
        )


def refuse_other_recipe(settings: ModelSettings, folder: Path) -> None:
    """Raise EvalkitError where what the folder says of itself, which a library goes by, is not the recipe."""
    refuse_other_modules(settings, folder)
    modules = read_modules(folder)
    advice = "; say so too, or backend=sentence-transformers or torch, which follow the recipe"
    if modules.pooling != POOLING_MODES[settings.pooling]:
        raise EvalkitError(
            f"{settings.name}'s own modules.json pools by {modules.pooling}, and the recipe says "
            f"model.pooling={settings.pooling}{advice}"
        )
    if not modules.pools_prompt and (settings.query_prompt or settings.document_prompt):
        raise EvalkitError(f"{settings.name}'s own modules.json leaves the prompt out of the pooling{advice}")
    if "Normalize" in modules.names and settings.similarity == "dot":
        raise EvalkitError(
            f"{settings.name}'s own modules.json normalises, and the recipe says model.similarity=dot{advice}"
        )


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EvalkitError(f"{path} is missing; copy it from the model's origin") from None
    except ValueError as error:
        raise EvalkitError(f"{path} is not JSON: {error}; copy it from the model's origin") from None
