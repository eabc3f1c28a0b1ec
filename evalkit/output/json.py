"""JSON as evalkit writes it: the same text for the same content, no NaN, nothing that a terminal obeys."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from evalkit.output.files import write_text
from evalkit.output.text import OBEYED

STDOUT = Path("-")
"""What `--json` without a file stands for."""
# JSON's strings hold no line break, so that none of them is met
_NUMBERS = re.compile(r"\[\n\s*(-?\d[-+.\de]*(?:,\n\s*-?\d[-+.\de]*)*)\n\s*\]")


def write_json(content: object, path: Path = STDOUT) -> None:
    """Write content as JSON to a file, whole or not at all, or to standard output.

    Raises EvalkitError where the file can't be written.
    """
    text = json_text(content)
    if path == STDOUT:
        write_text(_encodable(text), None)
    else:
        write_text(text, path)


def _encodable(text: str) -> str:
    """Escape a JSON text's characters beyond ASCII where standard output's encoding lacks some: it means the same."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(json.loads(text), indent=2) + "\n"
    return text


def json_text(content: object) -> str:
    """Write content as JSON, with null for NaN and infinities, and control characters escaped."""
    plain: Any = plain_json(content)
    return escaped_json(json.dumps(plain, ensure_ascii=False, allow_nan=False, indent=2) + "\n")


def compact_json(content: object) -> str:
    """Write content as `json_text` does, but with each list of numbers in one line."""
    return _NUMBERS.sub(_one_line, json_text(content))


def _one_line(found: re.Match[str]) -> str:
    return f"[{', '.join(number.strip() for number in found[1].split(','))}]"


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """Write a file's JSON: the same bytes for the same content, no bare NaN, and control characters escaped."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, indent=2, sort_keys=True) + "\n"
    # an undecodable byte of a file name is a lone surrogate, which UTF-8 can't hold and a JSON escape can
    return escaped_json(text).encode("utf-8")


def plain_json(value: Any) -> Any:
    """Convert a value to JSON's types."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if hasattr(value, "tolist"):  # numpy's arrays and numbers
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def escaped_json(text: str) -> str:
    """Escape a JSON text's control characters and halves of surrogates, which stand in its strings alone: it means the same."""
    return OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
