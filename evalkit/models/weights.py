"""Finds a model's files, on the Hub or in a folder, and names them by their content."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from evalkit.errors import EvalkitError
from evalkit.hub_access import is_unreachable, reason, snapshot, unreachable
from evalkit.models.choosing import UNNAMED
from evalkit.models.folders.files import network_folder
from evalkit.models.identity import (
    FileState,
    content_hashes,
    deciding_files,
    file_states,
    first_changed,
    hash_files,
    model_identity,
    named_paths,
)
from evalkit.models.settings import ModelSettings
from evalkit.output.files import similar_path
from evalkit.records import ModelIdentity

Opened = TypeVar("Opened")
SAFE_WEIGHTS = "*.safetensors"
PICKLED_WEIGHTS = "*.bin"
TEXT_FILES = ("*.json", "*.txt", "*.model", "*.jinja", "artifact.metadata")
M3_HEADS = ("colbert_linear.pt", "sparse_linear.pt")
# of a model's settings, where it lies and who may load it; all the others are its recipe, and can change a score
NO_RECIPE = {"name", "hub_id", "revision", "path", "onnx_file", "parameters", "backends", "recipe", "recipes"}
ORDER = {"order_seed", "permutations"}
"""What decides in which order a list is shown, which is part of the key of each of its scores."""
LISTS = {"max_query_length", "block_size"}
"""What listwise models alone read."""
REVISION_DIGITS = 12
CONSENT = {"needs_remote_code", "trust_remote_code", "allow_pickle", "unverified_loader"}


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The folder of a model's network on this machine (see models/folders/files.py), and the identity that its results carry.

    `digest` is the hash over all that decides a score (see models/identity.py), whatever the folder's name or a revision;
    `contents` are the hashes of the files that it covers, `states` what they were on the disk before they were hashed, and `listed`
    gives the files that it would cover now.
    """

    folder: Path
    identity: ModelIdentity
    digest: str
    contents: Mapping[Path, str] = field(default_factory=dict, repr=False)
    states: Mapping[Path, FileState] = field(default_factory=dict, repr=False)
    listed: Callable[[], Iterable[Path]] = field(default=tuple, repr=False, compare=False)


def find_model(
    settings: ModelSettings,
    *,
    offline: bool,
    cache_dir: Path | None,
    also: Sequence[str] = (),
    facts: Mapping[str, object] | None = None,
) -> ModelFiles:
    """Return the folder of `model.path`, or a snapshot of `model.hub_id` at its revision (with the files that `also` names).

    Where `model.onnx_file` is set, that is the model's weights, and no others are looked for. The revision of a folder is the
    beginning of its `digest`; `facts` decide scores beside the files, and are part of it. What large files and tokenizers were
    found to be is kept in evalkit's cache, at `cache_dir` or the user's own.

    Raises EvalkitError where neither is given, the files can't be had, or the weights are not safetensors; and, before anything is
    fetched, where the model needs code that the user does not trust.
    """
    if settings.needs_remote_code and not settings.trust_remote_code:
        raise EvalkitError(
            f"{settings.name} needs Python code that comes with its weights, and evalkit runs none unasked; if you trust its "
            "author: model.trust_remote_code=true"
        )
    root = _local_folder(settings) if settings.path else _hub_snapshot(settings, offline, also)
    folder = network_folder(root)
    weights = _onnx_files(settings, folder) if settings.onnx_file else weight_files(folder, settings.allow_pickle)
    if not weights:
        pickled = sorted(path.name for path in folder.glob(PICKLED_WEIGHTS))
        advice = (
            f"only {', '.join(pickled)}, which can run code when loaded; if you trust its author: model.allow_pickle=true"
            if pickled
            else "no weights at all; is this the folder of a Hugging Face model?"
        )
        raise EvalkitError(f"{folder} has no *.safetensors: {advice}")
    if settings.kind == "bge-m3":
        weights += [folder / name for name in M3_HEADS if (folder / name).is_file()]

    def listed() -> tuple[Path, ...]:
        found = deciding_files(root, named_paths(settings, root), cache_dir)
        return found if settings.path else _downloaded(found, root, settings, also)

    decisive = listed()
    states = file_states(decisive)
    contents = content_hashes(decisive, cache_dir)
    digest = model_identity(settings, root, contents, cache_dir, facts)
    weights_hash = hash_files(root, weights, contents)
    name, hub_id, revision = settings.name, str(settings.hub_id), root.name
    if settings.path:
        place = root.resolve().name
        name = place if settings.name in UNNAMED else name
        hub_id, revision = f"local/{place if settings.hub_id is not None else name}", digest[:REVISION_DIGITS]
    identity = ModelIdentity(name, hub_id, revision, settings.kind, weights_hash)
    return ModelFiles(folder, identity, digest, contents, states, listed)


def refuse_changed_files(files: ModelFiles) -> None:
    """Raise EvalkitError where the files that decide scores are no longer those that the model's identity was made of.

    Their scores would go under another model's name. A file whose time alone is another one is read again, and may be the same.
    """
    now = set(files.listed())
    odd = sorted(now.symmetric_difference(files.contents))
    changed = odd[0] if odd else first_changed(files.contents, files.states)
    if changed is not None:
        what = "changed" if changed in now and changed in files.contents else "is new" if changed in now else "is gone"
        raise EvalkitError(
            f"{changed} {what} since the files of {files.identity.name} were read, and scores would be kept under what was there "
            "before: run again (in Python: load the model again)"
        )


def opening(files: ModelFiles, load: Callable[[], Opened]) -> Callable[[], Opened]:
    """Return `load` for a RunnableModel's `open`: files that change before or while they are loaded are refused by name."""

    def load_unchanged() -> Opened:
        refuse_changed_files(files)
        opened = load()
        refuse_changed_files(files)
        return opened

    return load_unchanged


def way_of_scoring(settings: ModelSettings, files: ModelFiles, backend: Mapping[str, object]) -> dict[str, object]:
    """Return all that can change a score: the model's identity, its recipe, and the backend's own description."""
    without = NO_RECIPE | CONSENT | (ORDER if settings.kind == "listwise" else ORDER | LISTS)
    recipe = settings.model_dump(mode="json", exclude=without)
    return {**who_scores(files), **recipe, "backend": dict(backend)}


def who_scores(files: ModelFiles) -> dict[str, object]:
    """Return what a way of scoring says of the model: its identity; on the Hub its name too, a folder's decides nothing."""
    own: dict[str, object] = {"identity": files.digest}
    return own if files.identity.hub_id.startswith("local/") else {"model": files.identity.hub_id, **own}


def weight_files(folder: Path, allow_pickle: bool) -> list[Path]:
    """Return the weight files that loading will read: safetensors, or pickles where those are allowed and alone."""
    safe = sorted(folder.glob(SAFE_WEIGHTS))
    return safe or (sorted(folder.glob(PICKLED_WEIGHTS)) if allow_pickle else [])


def _onnx_files(settings: ModelSettings, folder: Path) -> list[Path]:
    """Return the file of `model.onnx_file`, and what lies beside it where its weights take more than 2 GB."""
    name = str(settings.onnx_file)
    path = folder / name
    if not path.is_file() or not path.resolve().is_relative_to(folder.resolve()):
        found = sorted(str(file.relative_to(folder)) for file in folder.rglob("*.onnx"))
        raise EvalkitError(
            f"model.onnx_file={name}: {folder} has no such file; its ONNX files: {', '.join(found) or 'none'}"
        )
    return sorted(path.parent.glob(f"{path.name}*"))


def read_config(folder: Path) -> dict[str, object]:
    """Return the model's config.json."""
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EvalkitError(f"{folder} has no config.json: is this the folder of a Hugging Face model?") from None
    except ValueError as error:
        raise EvalkitError(f"{folder / 'config.json'} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise EvalkitError(f"{folder / 'config.json'} holds a {type(content).__name__}, not an object")
    return content


def described_folder(settings: ModelSettings, *, offline: bool) -> Path:
    """Return the folder with the model's configuration: its own, or a snapshot of its Hub repository without the weights.

    Raises EvalkitError where it can't be had.
    """
    return _local_folder(settings) if settings.path else _hub_snapshot(settings, offline, (), weights=False)


def _local_folder(settings: ModelSettings) -> Path:
    folder = Path(str(settings.path)).expanduser()
    if folder.is_file():
        raise EvalkitError(
            f"model.path={settings.path}: there is no such folder, it is a file; name the folder that it is in"
        )
    if not folder.is_dir():
        raise EvalkitError(f"model.path={settings.path}: there is no such folder{similar_path(str(settings.path))}")
    return folder


def _hub_snapshot(settings: ModelSettings, offline: bool, also: Sequence[str], *, weights: bool = True) -> Path:
    if not settings.hub_id:
        raise EvalkitError(
            f"model={settings.name} needs a folder or a Hub id: model.path=FOLDER, or model.hub_id=ORGANISATION/NAME"
        )
    from huggingface_hub import constants

    wanted, unwanted = _patterns(settings, also, weights=weights)
    what = f"{settings.hub_id} at revision {settings.revision or 'main'}"
    try:
        return snapshot(
            settings.hub_id,
            offline=offline,
            revision=settings.revision,
            allow_patterns=wanted,
            ignore_patterns=unwanted,
        )
    except Exception as error:  # of huggingface_hub and the HTTP library that it is built on
        if not is_unreachable(error):
            raise EvalkitError(f"{what} can't be downloaded: {reason(error)}") from error
        why = "this run is offline" if offline or constants.HF_HUB_OFFLINE else f"the Hub at {unreachable(error)}"
        raise EvalkitError(
            f"{what} is not in the Hub cache and {why}; download it on a machine that reaches the Hub, set HF_ENDPOINT to a "
            "mirror, or name a folder: model=./FOLDER"
        ) from error


def _patterns(settings: ModelSettings, also: Sequence[str], *, weights: bool = True) -> tuple[list[str], list[str]]:
    """Return which files of a repository are downloaded, and which of these are not."""
    wanted = [*TEXT_FILES, *(["*.py"] if settings.trust_remote_code else [])]
    if weights:
        wanted += [*([f"{settings.onnx_file}*"] if settings.onnx_file else [SAFE_WEIGHTS]), *also]
        wanted += M3_HEADS if settings.kind == "bge-m3" else []
        wanted += [PICKLED_WEIGHTS] if settings.allow_pickle else []
    return wanted, [] if also or settings.onnx_file else ["onnx/*", "openvino/*"]


def _downloaded(files: Sequence[Path], folder: Path, settings: ModelSettings, also: Sequence[str]) -> tuple[Path, ...]:
    """Return those of a snapshot's files that this run asks for: another backend may have fetched more."""
    from huggingface_hub.utils import filter_repo_objects

    wanted, unwanted = _patterns(settings, also)
    names = {path.relative_to(folder).as_posix(): path for path in files}
    kept = filter_repo_objects(names, allow_patterns=wanted, ignore_patterns=unwanted)
    return tuple(names[name] for name in kept)
