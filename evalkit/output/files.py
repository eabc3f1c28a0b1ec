"""Files and standard output, written whole or not at all; and names like those of files that are missing."""

from __future__ import annotations

import os
import shutil
import sys
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from evalkit.errors import EvalkitError, nearest
from evalkit.interruption import postponed, scratch


def write_text(text: str, path: Path | None) -> None:
    """Write to a file (whole or not at all), or to standard output. Raises EvalkitError where the file can't be written."""
    if path is None:
        sys.stdout.write(text)  # as it is: a console would make spaces of tabs
        return
    try:
        if path.exists() and not path.is_file():  # such as a pipe
            path.write_text(text, encoding="utf-8")
        else:
            replace_file(path, text.encode("utf-8"))
    except OSError as error:
        raise EvalkitError(f"cannot write {path} ({error.strerror}); name a file in a folder that exists") from error


def write_bytes(content: bytes, path: Path) -> None:
    """Write a file, whole or not at all, and the folders above it. Raises EvalkitError where it can't be written."""
    try:
        path.resolve().parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content)
    except OSError as error:
        raise EvalkitError(f"cannot write {path} ({error.strerror}); mend that, or name another place") from error


def replace_file(path: Path, content: bytes) -> None:
    """Put content in a file's place, whole or not at all; a link stays one, and what it leads to is replaced. Raises OSError."""
    replace_files({path.resolve(): content})


def replace_files(contents: Mapping[Path, bytes], last: Path | None = None) -> None:
    """Put files in place that belong together, none of them half: all are complete on disk before the first is renamed.

    Where there is a `last` one, its older self goes before anything else changes: where it lies, the others beside it are its own.
    Each keeps the permissions of its older self. Raises OSError; then everything is as it was, but for what was renamed already.
    """
    with ExitStack() as scratches:
        temporary = {
            path: scratches.enter_context(scratch(path.with_name(f".{uuid.uuid4().hex}.tmp"))) for path in contents
        }
        for path, content in contents.items():
            with temporary[path].open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if path.exists():
                shutil.copymode(path, temporary[path])
        with postponed():
            if last is not None:
                last.unlink(missing_ok=True)
            for path in contents:
                temporary[path].replace(path)


def similar_path(said: str) -> str:
    """Return what to add to the message that the path of that spelling is missing: names like its own beside it, or nothing."""
    path = Path(said).expanduser()
    try:
        found = nearest(path.name, [one.name for one in path.parent.iterdir()])
    except OSError:
        return ""
    above = said.rstrip("/\\")[: -len(path.name)]
    return f"; did you mean {' or '.join(above + name for name in found)}?" if found else ""
