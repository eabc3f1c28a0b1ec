"""Command-line overrides before Hydra reads them: free text gets the quotes that Hydra's grammar wants."""

from __future__ import annotations

import re
from collections.abc import Sequence

from evalkit.errors import EvalkitError

FREE_TEXT = re.compile(
    r"^(\+{0,2}[\w./@-]*(?:path|prompt|_dir|url|candidates|first_stage|name|revision|_file))=(.*)$", re.DOTALL
)
MEASURES = re.compile(r"^(\+{0,2}measures)=(.*)$", re.DOTALL)
QUOTED = r"""(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")"""
# one of a list of measures, whose own commas and brackets separate nothing: nDCG@20, AP(rel=2), 'RR@10'
MEASURE = re.compile(rf"\s*({QUOTED}|(?:[^,()]|\([^()]*\))*)\s*(?:,|$)", re.DOTALL)
# one of the values that commas separate in a multirun; a comma within quotes separates nothing
SWEPT = re.compile(rf"({QUOTED}(?=,|$)|[^,]*)(?:,|$)", re.DOTALL)
# what a value may hold outside quotes; the rest Hydra's grammar does not have
READABLE = re.compile(r"[A-Za-z0-9_\s/\\\-+.$%*@?|,:=()\[\]{}'\"~]*")
STRUCTURED = re.compile(r"[\[\]{}()'\"]|\$\{")
NULL = "null"


def quote_free_text(arguments: Sequence[str], *, multirun: bool = False) -> list[str]:
    """Quote measures, and the values of keys that hold free text (`…path=`, `…prompt=`, `…name=`, …), whatever is in them.

    Of other keys those values are quoted that hold signs which Hydra's grammar does not have, and no lists or quotes of their own.
    A value that already stands in quotes is left alone, and so is `null`. In a multirun commas separate values, but for measures,
    which are one list. Raises EvalkitError where they are several.
    """
    return [_quote_override(argument, multirun) for argument in arguments]


def _quote_override(argument: str, multirun: bool) -> str:
    asked = MEASURES.match(argument)
    if asked is not None:
        return f"{asked[1]}={_quoted_measures(asked[2])}"
    match = FREE_TEXT.match(argument)
    key, _, value = argument.partition("=")
    if match is None and (READABLE.fullmatch(value) or STRUCTURED.search(value)):
        return argument
    values = SWEPT.findall(f"{value},")[:-1] if multirun else [value]
    return f"{key}={','.join(map(_quoted_once, values))}"


def _quoted_measures(value: str) -> str:
    """Write measures as one list, each quoted: with or without brackets and quotes, in a multirun too."""
    listed = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    if value == NULL or "${" in value:
        return value
    if re.search(r"[\[\]]", re.sub(QUOTED, "", listed)):
        raise EvalkitError(f"measures={value}: give one list, as in measures=[nDCG@20,AP(rel=2)]")
    named = [name.strip() for name in MEASURE.findall(listed) if name.strip()]
    return f"[{','.join(map(_quoted_once, named))}]"


def _quoted_once(value: str) -> str:
    already = value == NULL or re.fullmatch(QUOTED, value, re.DOTALL)
    return value if already else quoted(value)


def quoted(value: str) -> str:
    r"""Put a value between Hydra's single quotes.

    A quote needs a backslash, and so do the backslashes before it or before the end; `${` would be an interpolation.
    """
    escaped = re.sub(r"(\\*)'", lambda found: found.group(1) * 2 + "\\'", value)
    escaped = re.sub(r"(\\+)\Z", lambda found: found.group(1) * 2, escaped)
    escaped = re.sub(r"(\\*)\$\{", lambda found: found.group(1) * 2 + "\\${", escaped)
    return f"'{escaped}'"
