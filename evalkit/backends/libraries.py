"""What backends have in common that hand a model's folder to another library: found, described and checked here."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evalkit.backends.torch import DTYPES, choose_device, device_name
from evalkit.errors import EvalkitError
from evalkit.machine import installed_version
from evalkit.models.folders.files import read_folder
from evalkit.models.folders.recipes import plain_parts, read_recipe
from evalkit.models.interfaces import PairScorer, RunnableModel, Runtime, TextEmbedder
from evalkit.models.local import Inputs, is_out_of_memory
from evalkit.models.settings import ModelSettings
from evalkit.models.weights import ModelFiles, find_model, opening, way_of_scoring

# white space of all kinds around a text and line breaks within, large letters and small ones
CHANGEABLE = "\u3000 \t甲\n乙 A\nb\u00a0\r\n"


@dataclass(frozen=True, slots=True)
class CheckedModel:
    """A model that a library may load: its recipe, its folder, where and how precisely to run it, and evalkit's own inputs.

    The recipe's kind fits the architecture, its weights are whole, and `inputs.max_length` is the length to cut to.
    """

    settings: ModelSettings
    folder: Path
    device: torch.device
    dtype: torch.dtype
    inputs: Inputs


Open = Callable[[CheckedModel], PairScorer | TextEmbedder]
Check = Callable[[ModelSettings, Path], None]
CheckInputs = Callable[[ModelSettings, Path, Inputs], None]


def library_model(
    settings: ModelSettings,
    runtime: Runtime,
    open_scorer: Open,
    *,
    name: str,
    package: str,
    class_name: str,
    check: Check | None = None,
    check_inputs: CheckInputs | None = None,
) -> RunnableModel:
    """Find the model for a backend that runs it with `class_name` of the distribution `package`.

    Raises EvalkitError where the files or the device are not there, and whatever `check` finds in the folder. `check_inputs` may
    raise it before the weights load.
    """
    device = choose_device(runtime.device)
    files = find_model(settings, offline=runtime.offline, cache_dir=runtime.cache_dir)
    if check:
        check(settings, files.folder)
    description: dict[str, object] = {
        "name": name,
        "device": device_name(device),
        "dtype": runtime.dtype,
        "class": class_name,
        "version": installed_version(package),
    }
    return RunnableModel(
        identity=files.identity,
        description=description,
        way=way_of_scoring(settings, files, description),
        open=opening(files, lambda: open_scorer(_checked(settings, files, device, runtime, check_inputs))),
    )


def _checked(
    settings: ModelSettings, files: ModelFiles, device: torch.device, runtime: Runtime, check: CheckInputs | None
) -> CheckedModel:
    """Load the model once as the torch backend does, so that what that one refuses no library scores at random."""
    from evalkit.models.recipes import recipe_inputs, recipe_network

    if runtime.threads:
        torch.set_num_threads(runtime.threads)
    inputs = recipe_inputs(settings, files.folder)
    if check:
        check(settings, files.folder, inputs)
    recipe_network(settings, files.folder, inputs)
    return CheckedModel(settings, files.folder, device, DTYPES[runtime.dtype], inputs)


def follow_files(model: CheckedModel, loaded: Any) -> None:
    """Have what a library has loaded make the tokens that the model's files say, and pad as its tokenizer does.

    `loaded` has a `tokenizer` and a `model`, or is one of sentence-transformers' objects. Raises EvalkitError where the tokenizer
    makes other tokens and can't be set.
    """
    from evalkit.models.tokenizers import follow_file, share_padding

    first = loaded._first_module() if hasattr(loaded, "_first_module") else loaded
    # sentence-transformers since 6 has the tokenizer write small letters; before, it wrote the texts so
    lower_case = hasattr(first, "processor") and getattr(first, "do_lower_case", False)
    follow_file(first.tokenizer, model.folder, lower_case=lower_case)
    share_padding(loaded if isinstance(loaded, torch.nn.Module) else loaded.model, first.tokenizer)


def refuse_truncation(settings: ModelSettings, backend: str, truncation: str, advice: str) -> None:
    """Raise EvalkitError where a cross-encoder's pairs are to be cut in another way than the library can."""
    if settings.kind == "cross-encoder" and settings.truncation != truncation:
        raise EvalkitError(
            f"backend={backend} cuts long pairs by {truncation}, and {settings.name}'s recipe says {settings.truncation}: {advice}"
        )


def refuse_parts(settings: ModelSettings, backend: str, *, poolings: Collection[str] = ("cls", "mean", "last")) -> None:
    """Raise EvalkitError where a recipe has parts that the library's own code has no place for."""
    wanted = {
        "modules": ", ".join(settings.modules),
        "pooling": "" if settings.kind != "embedder" or settings.pooling in poolings else settings.pooling,
        "pool_prompt": "" if settings.pool_prompt else "false",
        "lower_case": "true" if settings.lower_case else "",
        "dimensions": settings.dimensions,
        "label": settings.label,
    }
    for field, value in wanted.items():
        if value:
            raise EvalkitError(
                f"backend={backend} has no place for {field}={value} of {settings.name}'s recipe; backend=torch and "
                "sentence-transformers have"
            )


def refuse_other_recipe(settings: ModelSettings, folder: Path) -> None:
    """Raise EvalkitError where what the folder says of itself, which a library goes by, is not the recipe."""
    own = read_recipe(read_folder(folder), settings.kind)
    for field in ("pooling", "pool_prompt", "lower_case", "dimensions", "modules"):
        stated = own.fields.get(field)
        value = ModelSettings.model_fields[field].default if stated is None else stated.value
        if field == "modules":
            value = plain_parts(value, settings.similarity, settings.kind)
        if value != getattr(settings, field):
            origin = "modules.json" if stated is None else stated.origin
            raise EvalkitError(
                f"the library goes by {settings.name}'s own files, whose {origin} says {field}={value}, and the recipe says "
                f"{getattr(settings, field)}: make them agree, or take backend=sentence-transformers or torch, which follow the "
                "recipe"
            )


def refuse_changed_texts(
    settings: ModelSettings, inputs: Inputs, change: Callable[[str], str], habit: str, advice: str
) -> None:
    """Raise EvalkitError where the tokenizer sees a difference between texts and what the library makes of them."""
    given, changed = (
        inputs.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (CHANGEABLE, change(CHANGEABLE))
    )
    if list(given) != list(changed):
        raise EvalkitError(f"{habit}, which {settings.name}'s tokenizer tells apart; {advice}")


def refuse_stripping(settings: ModelSettings, inputs: Inputs, library: str, advice: str) -> None:
    """Raise EvalkitError where the tokenizer heeds the white space around texts, which a library takes away."""
    refuse_changed_texts(settings, inputs, str.strip, f"{library} takes away white space around texts", advice)


def within_memory(call: Callable[[int], NDArray[np.float32]], batch_size: int) -> NDArray[np.float32]:
    """Return what `call` gives with that batch size, halved for as long as a batch does not fit into memory.

    Raises EvalkitError where one input alone does not.
    """
    while True:
        try:
            return call(batch_size)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if batch_size == 1:
                reason = " ".join(str(error).split())[:200]
                raise EvalkitError(
                    f"one text alone does not fit into memory ({reason}); lower model.max_length"
                ) from error
            batch_size //= 2


def as_scores(values: Any) -> NDArray[np.float32]:
    """Return a library's scores as float32, shape (pairs,)."""
    return np.asarray(values, np.float32).reshape(-1)


@contextmanager
def quiet(library: str) -> Iterator[None]:
    """Without the remarks of the library's logger, its warnings, and transformers' bars: what matters is checked before."""
    from evalkit.models.networks import quiet_transformers

    logger = logging.getLogger(library)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with quiet_transformers(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
