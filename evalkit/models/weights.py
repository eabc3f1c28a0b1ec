"""Finds a model's files, on the Hub or in a folder, and names them by their content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evalkit.errors import EvalkitError
from evalkit.models.settings import ModelSettings
from evalkit.records import ModelIdentity

SAFE_WEIGHTS = "*.safetensors"
PICKLED_WEIGHTS = "*.bin"
TEXT_FILES = ("*.json", "*.txt", "*.model")
M3_HEADS = ("colbert_linear.pt", "sparse_linear.pt")
# of a model's settings, where it lies and who may load it; all the others are its recipe, and can change a score
NO_RECIPE = {"name", "hub_id", "revision", "path", "parameters", "backends", "recipe", "recipes"}
CONSENT = {"needs_remote_code", "trust_remote_code", "allow_pickle"}


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model's folder on this machine, and the identity that its results carry."""

    folder: Path
    identity: ModelIdentity


def find_model(settings: ModelSettings, *, offline: bool, also: Sequence[str] = ()) -> ModelFiles:
    """The folder of `model.path`, or a snapshot of `model.hub_id` at its revision (with the files that `also` names).

    Raises EvalkitError where neither is given, the files can't be had, or the weights are not safetensors; and, before
    anything is fetched, where the model needs code that the user does not trust.
    """
    if settings.needs_remote_code and not settings.trust_remote_code:
        raise EvalkitError(
            f"{settings.name} needs Python code that comes with its weights, and evalkit runs none unasked; if you trust its "
            "author: model.trust_remote_code=true"
        )
    folder = _local_folder(settings) if settings.path else _hub_snapshot(settings, offline, also)
    weights = weight_files(folder, settings.allow_pickle)
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
        name, revision = folder.resolve().name, digest[:12]
        return ModelFiles(
            folder,
            ModelIdentity(
                name if settings.hub_id is None else settings.name, f"local/{name}", revision, settings.kind, digest
            ),
        )
    return ModelFiles(folder, ModelIdentity(settings.name, str(settings.hub_id), folder.name, settings.kind, digest))


def way_of_scoring(settings: ModelSettings, files: ModelFiles, backend: Mapping[str, object]) -> dict[str, object]:
    """All that can change a score: weights, architecture, tokenizer, recipe, and the backend's own description."""
    texts = sorted(path for pattern in (*TEXT_FILES, "*.py") for path in files.folder.glob(pattern))
    return {
        "model": files.identity.hub_id,
        "weights_hash": files.identity.weights_hash,
        "configuration": hash_files(files.folder, texts),
        **settings.model_dump(mode="json", exclude=NO_RECIPE | CONSENT),
        "backend": dict(backend),
    }


def weight_files(folder: Path, allow_pickle: bool) -> list[Path]:
    """The weight files that loading will read: safetensors, or pickles where those are allowed and alone."""
    safe = sorted(folder.glob(SAFE_WEIGHTS))
    return safe or (sorted(folder.glob(PICKLED_WEIGHTS)) if allow_pickle else [])


def hash_files(folder: Path, files: list[Path]) -> str:
    """Sha256 over the files' names (relative to the folder) and contents, as hex."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{path.relative_to(folder)}\0{content}\n".encode())
    return digest.hexdigest()


def read_config(folder: Path) -> dict[str, object]:
    """The model's config.json."""
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EvalkitError(f"{folder} has no config.json: is this the folder of a Hugging Face model?") from None
    except ValueError as error:
        raise EvalkitError(f"{folder / 'config.json'} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise EvalkitError(f"{folder / 'config.json'} holds a {type(content).__name__}, not an object")
    return content


def _local_folder(settings: ModelSettings) -> Path:
    folder = Path(str(settings.path)).expanduser()
    if not folder.is_dir():
        raise EvalkitError(f"model.path={settings.path}: there is no such folder")
    return folder


def _hub_snapshot(settings: ModelSettings, offline: bool, also: Sequence[str]) -> Path:
    if not settings.hub_id:
        raise EvalkitError(
            f"model={settings.name} needs model.path=FOLDER, the folder with its config.json and weights"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = [*TEXT_FILES, SAFE_WEIGHTS, *also]
    patterns += M3_HEADS if settings.kind == "bge-m3" else []
    patterns += [PICKLED_WEIGHTS] if settings.allow_pickle else []
    patterns += ["*.py"] if settings.trust_remote_code else []
    what = f"{settings.hub_id} at revision {settings.revision or 'main'}"
    try:
        folder = snapshot_download(
            settings.hub_id,
            revision=settings.revision,
            allow_patterns=patterns,
            ignore_patterns=[pattern for pattern in ("onnx/*", "openvino/*") if not also],
            local_files_only=offline,
        )
    except LocalEntryNotFoundError as error:
        raise EvalkitError(
            f"{what} is not in the Hub cache and the Hub can't be reached (or offline=true); download it on a machine that reaches "
            "the Hub, set HF_ENDPOINT to a mirror, or name a folder: model=local-cross-encoder (or local-embedder) "
            "model.path=FOLDER"
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise EvalkitError(f"{what} can't be downloaded: {str(error).splitlines()[0]}") from error
    return Path(folder)
