"""Files and standard output, written whole or not at all."""

from __future__ import annotations

import shutil
import sys
import uuid
from pathlib import Path

from evalkit.errors import EvalkitError
from evalkit.interruption import scratch


def write_text(text: str, path: Path | None) -> None:
    """Write to a file (whole or not at all), or to standard output. Raises EvalkitError where the file can't be written."""
    if path is None:
        sys.stdout.write(text)  # as it is: a console would make spaces of tabs
        return
    try:
        if path.exists() and not path.is_file():  # such as a pipe
            path.write_text(text, encoding="utf-8")
        else:
            _replace(path, text.encode("utf-8"))
    except OSError as error:
        raise EvalkitError(f"cannot write {path} ({error.strerror}); name a file in a folder that exists") from error


def write_bytes(content: bytes, path: Path) -> None:
    """Write a file, whole or not at all, and the folders above it. Raises EvalkitError where it can't be written."""
    try:
        path.resolve().parent.mkdir(parents=True, exist_ok=True)
        _replace(path, content)
    except OSError as error:
        raise EvalkitError(f"cannot write {path} ({error.strerror}); mend that, or name another place") from error


def _replace(path: Path, content: bytes) -> None:
    place = path.resolve()  # a link stays one
    with scratch(place.with_name(f".{uuid.uuid4().hex}.tmp")) as temporary:
        temporary.write_bytes(content)
        if place.exists():
            shutil.copymode(place, temporary)
        temporary.replace(place)
