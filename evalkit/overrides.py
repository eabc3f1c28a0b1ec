"""Command-line overrides before Hydra reads them: free text gets the quotes that Hydra's grammar wants."""

from __future__ import annotations

import re

FREE_TEXT = re.compile(r"^(\+{0,2}[\w./@-]*(?:path|prompt|_dir))=(.*)$", re.DOTALL)
NULL = "null"


def quote_free_text(arguments: list[str]) -> list[str]:
    """Quote the values of `…path=`, `…prompt=` and `…_dir=`, whatever characters are in them.

    A value that already stands in quotes is left alone, and so is `null`. In a multirun (`-m`) commas separate values.
    """
    multirun = any(argument in ("-m", "--multirun") for argument in arguments)
    return [_quote_override(argument, multirun) for argument in arguments]


def _quote_override(argument: str, multirun: bool) -> str:
    match = FREE_TEXT.match(argument)
    if match is None or argument.startswith("--"):
        return argument
    key, value = match.groups()
    if value == NULL or _is_quoted(value):
        return argument
    values = value.split(",") if multirun else [value]
    return f"{key}={','.join(quoted(part) for part in values)}"


def _is_quoted(value: str) -> bool:
    return len(value) >= 2 and value[0] == value[-1] and value[0] in "'\""


def quoted(value: str) -> str:
    r"""Put a value between Hydra's single quotes.

    A quote needs a backslash, and so do the backslashes before it or before the end; `${` would be an interpolation.
    """
    escaped = re.sub(r"(\\*)'", lambda found: found.group(1) * 2 + "\\'", value)
    escaped = re.sub(r"(\\+)$", lambda found: found.group(1) * 2, escaped)
    escaped = re.sub(r"(\\*)\$\{", lambda found: found.group(1) * 2 + "\\${", escaped)
    return f"'{escaped}'"
