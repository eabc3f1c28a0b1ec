"""Networks converted for another system, each kept in the cache: converting takes longer than loading."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from evalkit.cache import cache_folder
from evalkit.interruption import scratch
from evalkit.machine import package_version
from evalkit.models.interfaces import Runtime
from evalkit.models.parts import graph_name
from evalkit.models.settings import ModelSettings
from evalkit.models.weights import ModelFiles
from evalkit.version import __version__

SYSTEMS = {"openvino": ("openvino",), "onnx": ("onnxruntime", "onnx")}
"""The systems that networks are converted for, each with its packages. Each has a folder of the cache."""
UNFINISHED = ".unfinished"
# digits of the two hashes that a conversion's name begins with: of what made it, and of the model
CIRCUMSTANCES, IDENTITY = 12, 20


def conversion_folder(
    system: str,
    settings: ModelSettings,
    files: ModelFiles,
    runtime: Runtime,
    precision: str = "fp32",
    made_of: Sequence[str] = (),
) -> Path:
    """Return where the conversion of this model lies, or will: named by its identity, and all else that can change it.

    `made_of` says what that is beside the model, its recipe and the packages. One that is there counts as used now.
    """
    made_by = [f"{package} {package_version(package)}" for package in (*SYSTEMS[system], "torch", "transformers")]
    circumstances = hashlib.sha256("\n".join([*made_by, f"evalkit {__version__}", *made_of]).encode()).hexdigest()
    name = f"{circumstances[:CIRCUMSTANCES]}{files.digest[:IDENTITY]}-{graph_name(settings)}-{precision}"
    folder = cache_folder(runtime.cache_dir) / system / name
    with suppress(OSError):  # it is not there yet, or may only be read
        os.utime(folder)
    return folder


def keep_conversion(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill an empty folder, which becomes this one when it is complete. Raises OSError.

    One process at a time: what a killed one left half made is deleted, and what another made meanwhile is taken.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"), scratch(folder.with_name(folder.name + UNFINISHED)) as made:
        if folder.is_dir():
            return
        if made.is_dir():
            shutil.rmtree(made)
        made.mkdir()
        write(made)
        made.rename(folder)


def kept_conversions(cache: Path) -> list[Path]:
    """Return the folders of all conversions in a cache, with what is left of one whose process was killed."""
    return sorted(path for system in SYSTEMS for path in (cache / system).glob("*") if path.is_dir())


def conversion_bytes(folder: Path) -> int:
    """Return what a conversion takes on the disk."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def is_conversion_of(folder: Path, identity: str) -> bool:
    """Tell whether a conversion is of the model with this identity, or in an earlier evalkit with these weights."""
    own = folder.name[CIRCUMSTANCES : CIRCUMSTANCES + IDENTITY]
    return len(identity) >= IDENTITY and own == identity[:IDENTITY]
