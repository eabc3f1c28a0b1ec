"""Where a report goes: a file that is not a result, or standard output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evalkit.console import OutputConsole
from evalkit.errors import EvalkitError
from evalkit.results import plain_json
from evalkit.stored_results import read_result


def json_text(content: object) -> str:
    """Write content as JSON, with null for NaN and infinities."""
    plain: Any = plain_json(content)
    return json.dumps(plain, ensure_ascii=False, allow_nan=False, indent=2) + "\n"


def write_text(text: str, path: Path | None) -> None:
    """Write to a file, or to standard output. Raises EvalkitError where the file can't be written."""
    if path is None:
        OutputConsole(soft_wrap=True, highlight=False).print(text, end="")
        return
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise EvalkitError(f"cannot write {path} ({error.strerror}); name a file in a folder that exists") from error


def refuse_result(path: Path | None, option: str) -> None:
    """Raise EvalkitError where a file that is about to be written holds a result."""
    if path is None or not path.is_file():
        return
    try:
        read_result(path)
    except EvalkitError:
        return
    raise EvalkitError(f"{option} {path} would replace a result; name another file")
