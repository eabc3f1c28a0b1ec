"""Finds a model's files, on the Hub or in a folder, and names them by their content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evalkit.errors import EvalkitError
from evalkit.hub_access import limit_waits, unreachable
from evalkit.models.choosing import UNNAMED
from evalkit.models.settings import ModelSettings
from evalkit.records import ModelIdentity

SAFE_WEIGHTS = "*.safetensors"
PICKLED_WEIGHTS = "*.bin"
TEXT_FILES = ("*.json", "*.txt", "*.model", "*.jinja")
M3_HEADS = ("colbert_linear.pt", "sparse_linear.pt")
# of a model's settings, where it lies and who may load it; all the others are its recipe, and can change a score
NO_RECIPE = {"name", "hub_id", "revision", "path", "onnx_file", "parameters", "backends", "recipe", "recipes"}
CONSENT = {"needs_remote_code", "trust_remote_code", "allow_pickle"}


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model's folder on this machine, and the identity that its results carry."""

    folder: Path
    identity: ModelIdentity


def find_model(settings: ModelSettings, *, offline: bool, also: Sequence[str] = ()) -> ModelFiles:
    """Return the folder of `model.path`, or a snapshot of `model.hub_id` at its revision (with the files that `also` names).

    Where `model.onnx_file` is set, that is the model's weights, and no others are looked for. Raises EvalkitError where neither is
    given, the files can't be had, or the weights are not safetensors; and, before anything is fetched, where the model needs code
    that the user does not trust.
    """
    if settings.needs_remote_code and not settings.trust_remote_code:
        raise EvalkitError(
            f"{settings.name} needs Python code that comes with its weights, and evalkit runs none unasked; if you trust its "
            "author: model.trust_remote_code=true"
        )
    folder = _local_folder(settings) if settings.path else _hub_snapshot(settings, offline, also)
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
    digest = hash_files(folder, weights)
    if settings.path:
        place = folder.resolve().name
        name = place if settings.name in UNNAMED else settings.name
        own = place if settings.hub_id is not None else name
        return ModelFiles(folder, ModelIdentity(name, f"local/{own}", digest[:12], settings.kind, digest))
    return ModelFiles(folder, ModelIdentity(settings.name, str(settings.hub_id), folder.name, settings.kind, digest))


def way_of_scoring(settings: ModelSettings, files: ModelFiles, backend: Mapping[str, object]) -> dict[str, object]:
    """Return all that can change a score: weights, architecture, tokenizer, recipe, and the backend's own description."""
    texts = sorted(path for pattern in (*TEXT_FILES, "*.py") for path in files.folder.glob(pattern))
    return {
        "model": files.identity.hub_id,
        "weights_hash": files.identity.weights_hash,
        "configuration": hash_files(files.folder, texts),
        **settings.model_dump(mode="json", exclude=NO_RECIPE | CONSENT),
        "backend": dict(backend),
    }


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


def hash_files(folder: Path, files: list[Path]) -> str:
    """Return the sha256 over the files' names (relative to the folder) and contents, as hex."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{path.relative_to(folder)}\0{content}\n".encode())
    return digest.hexdigest()


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
    if not folder.is_dir():
        raise EvalkitError(f"model.path={settings.path}: there is no such folder")
    return folder


def _hub_snapshot(settings: ModelSettings, offline: bool, also: Sequence[str], *, weights: bool = True) -> Path:
    if not settings.hub_id:
        raise EvalkitError(
            f"model={settings.name} needs a folder or a Hub id: model.path=FOLDER, or model.hub_id=ORGANISATION/NAME"
        )
    from huggingface_hub import is_offline_mode, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = [*TEXT_FILES, *(["*.py"] if settings.trust_remote_code else [])]
    if weights:
        patterns += [*([f"{settings.onnx_file}*"] if settings.onnx_file else [SAFE_WEIGHTS]), *also]
        patterns += M3_HEADS if settings.kind == "bge-m3" else []
        patterns += [PICKLED_WEIGHTS] if settings.allow_pickle else []
    limit_waits()
    what = f"{settings.hub_id} at revision {settings.revision or 'main'}"
    try:
        folder = snapshot_download(
            settings.hub_id,
            revision=settings.revision,
            allow_patterns=patterns,
            ignore_patterns=[pattern for pattern in ("onnx/*", "openvino/*") if not (also or settings.onnx_file)],
            local_files_only=offline,
        )
    except LocalEntryNotFoundError as error:
        why = "this run is offline" if offline or is_offline_mode() else f"the Hub at {unreachable(error)}"
        raise EvalkitError(
            f"{what} is not in the Hub cache and {why}; download it on a machine that reaches the Hub, set HF_ENDPOINT to a "
            "mirror, or name a folder: model=./FOLDER"
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise EvalkitError(f"{what} can't be downloaded: {str(error).splitlines()[0]}") from error
    return Path(folder)
