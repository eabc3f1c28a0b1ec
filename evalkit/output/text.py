"""Text of other people's making (names, texts, what servers say), fit for a terminal and for text files."""

from __future__ import annotations

import logging
import os
import re
from typing import Any

# what a terminal may obey (but for tabs and line breaks), what writes backwards, and what is no character: halves of some, which
# UTF-8 can't hold, and U+FFFE and U+FFFF, which XML can't
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def printable(text: str, instead: str = "\ufffd") -> str:
    """Replace each control character, so that a text can be shown and nothing more."""
    return OBEYED.sub(instead, text)


def one_line(text: str, instead: str = "\ufffd") -> str:
    """Make a text printable and put it on one line: white space of any kind and length becomes a single space."""
    return printable(" ".join(text.split()), instead)


def without_home(text: str) -> str:
    """Write the home folder as `~`: its path names a person."""
    home = os.path.expanduser("~").rstrip(os.sep)
    if home.count(os.sep) < 1 or not home.startswith(os.sep):
        return text
    return re.sub(rf"(?<![\w.~-]){re.escape(home)}(?![\w.-])", "~", text)


def homeless(content: Any) -> Any:
    """Write the home folder as `~` in all texts of a JSON value."""
    if isinstance(content, dict):
        return {key: homeless(value) for key, value in content.items()}
    if isinstance(content, list):
        return [homeless(value) for value in content]
    return without_home(content) if isinstance(content, str) else content


class MessageFormatter(logging.Formatter):
    """Messages alone, printable, and without the home folder's path."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the message."""
        return printable(without_home(super().format(record)))
