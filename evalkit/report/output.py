"""Where a report goes: a file that is not a result, or standard output."""

from __future__ import annotations

import json
import shutil
import sys
import uuid
from pathlib import Path
from typing import Any

from evalkit.errors import EvalkitError
from evalkit.interruption import scratch
from evalkit.results import plain_json
from evalkit.stored_results import read_result
from evalkit.terminal import escaped_json


def json_text(content: object) -> str:
    """Write content as JSON, with null for NaN and infinities, and control characters escaped."""
    plain: Any = plain_json(content)
    return escaped_json(json.dumps(plain, ensure_ascii=False, allow_nan=False, indent=2) + "\n")


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


def refuse_result(path: Path | None, option: str) -> None:
    """Raise EvalkitError where a file that is about to be written holds a result."""
    if path is None or not path.is_file():
        return
    try:
        read_result(path)
    except EvalkitError:
        return
    raise EvalkitError(f"{option} {path} would replace a result; name another file")


_BEGINNINGS = {
    "markdown": "### ",
    "csv": "tasks,limit,protocol,metric,",
    "json": '{\n  "alpha": ',
    "latex": "% evalkit report",
    "html": "<!doctype html>",
}


def refuse_other_kind(path: Path | None, format_name: str) -> None:
    """Raise EvalkitError where a report is about to replace a file that is no report of its format, nor empty."""
    beginning = _BEGINNINGS.get(format_name)
    if path is None or beginning is None or not path.is_file():
        return
    with path.open("rb") as file:
        found = file.read(len(beginning.encode()))
    if found not in (b"", beginning.encode()):
        raise EvalkitError(
            f"-o {path} exists and holds no report as {format_name}; name another file, or take it away first"
        )
