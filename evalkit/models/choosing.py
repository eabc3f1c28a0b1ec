"""Which model a word names: a configured one, a folder, or a repository on the Hub."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evalkit.configuration.files import option_names, read_option
from evalkit.errors import EvalkitError

AUTO = "auto"
UNNAMED = ("", AUTO, "local-embedder", "local-cross-encoder", "local-llm-reranker")
"""Options that run whatever model they are given, so that it goes by its folder's name or its Hub id."""
FOLDERS = ("./", "../", "/", "~", ".\\", "..\\")
logger = logging.getLogger("evalkit")


@dataclass(frozen=True, slots=True)
class NamedModel:
    """An option of `configs/model`, and the settings that a word gives it besides."""

    option: str
    settings: Mapping[str, str] = field(default_factory=dict)


def choose_model(word: str, folders: Sequence[Path] = ()) -> NamedModel:
    """Return what `model=WORD` stands for: a folder needs `./` or a slash, `ORGANISATION/NAME` is a Hub id, a bare word an option.

    A Hub id that evalkit has a file for is run by that file. Where a folder and a name collide, the log says which was taken.
    `folders` are the user's own configs folders. Raises EvalkitError for a path where there is no folder.
    """
    if word in (".", "..") or word.startswith(FOLDERS):
        return NamedModel(AUTO, {"path": word})
    is_folder = names_folder(word)
    if "/" not in word:
        if is_folder and word not in option_names("model", folders):
            raise EvalkitError(f"there is no model {word!r}, but a folder of that name: model=./{word}")
        if is_folder:
            logger.warning("model=%s is evalkit's own; the folder of that name is model=./%s", word, word)
        return NamedModel(word)
    if is_folder:
        logger.warning("model=%s is the folder here; the Hub's model is model=auto model.hub_id=%s", word, word)
        return NamedModel(AUTO, {"path": f"./{word}"})
    if word.count("/") > 1:
        raise EvalkitError(f"model={word}: there is no such folder, and a Hub id is ORGANISATION/NAME")
    named = named_by_hub_id(word)
    if named is not None:
        logger.info("%s is run by evalkit's own file for it, model=%s", word, named)
        return NamedModel(named)
    return NamedModel(AUTO, {"hub_id": word})


def names_folder(word: str) -> bool:
    """Return whether there is a folder of that name; what no file can be called is none."""
    try:
        return bool(word) and Path(word).is_dir()
    except (OSError, ValueError):
        return False


def named_by_hub_id(hub_id: str) -> str | None:
    """Return the option of evalkit's own that is this model on the Hub; None where there is none."""
    for name in option_names("model"):
        content = read_option("model", name)
        if content.get("hub_id") == hub_id and not content.get("onnx_file"):
            return name
    return None


def is_whole_recipe(own: Mapping[str, object]) -> bool:
    """Whether a model's own settings are those of evalkit's file for one model on the Hub: that file is a whole recipe.

    The files of folders and of the user's own are completed from what the model's folder says.
    """
    name = own.get("name")
    if not own.get("hub_id") or not isinstance(name, str) or name not in option_names("model"):
        return False
    content = read_option("model", name)
    return all(own.get(key) == value for key, value in content.items())
