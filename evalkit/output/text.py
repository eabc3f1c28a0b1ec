"""Text of other people's making (names, texts, what servers say), fit for a terminal and for text files."""

from __future__ import annotations

import codecs
import io
import logging
import os
import re
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote

# what a terminal may obey (but for tabs and line breaks), what writes backwards, and what is no character: halves of some, which
# UTF-8 can't hold, and U+FFFE and U+FFFF, which XML can't
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


# what ASCII has a sign for that reads the same
_IN_ASCII = dict(zip("–—−‑─━│…×±→·", ("-", "-", "-", "-", "-", "-", "|", "...", "x", "+-", "->", "."), strict=True))
HIDDEN = "***"
# a percent sign may stand for the colon or the at sign
_USER = re.compile(r"(?<=://)[^\s/?#'\"<>]+(?:@|%40)", re.I)
_USER_OF_PORT = re.compile(r"(?<![^\s='\"(])[^\s/:@'\"=(]+:[^\s/@'\"]+@(?=[\w.-]+:\d)")
_QUERY = re.compile(
    r"([?&#][\w.-]*(?:token|key|secret|signature|sig|password|passwd|credential|auth)[\w.-]*=)[^&\s#'\"]+", re.I
)
_QUERY_OF_ADDRESS = re.compile(r"(?<=://)([^\s?#'\"<>]*\?)([^\s#'\"<>]*[^\s#'\"<>.,:;)\]}])")
_PLAIN_VALUE = re.compile(r"(?:\d{1,9}|true|false|\*+)?", re.I)  # of a page, a limit, a choice: nobody's secret
# variables that hold addresses, whose user, password and query are secrets, and those that are one
_ADDRESSES = ("HF_ENDPOINT", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "RAY_ADDRESS")
_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN")
_NAMED_KEY = re.compile(r"\w+_(?:API_?KEY|TOKEN|SECRET|PASSWORD)", re.I)  # of any service; a word alone is none
SHORTEST_SECRET = 8
"""What is shorter stands in common words too, and is no secret to anyone who tries."""
_SHORTEST_PASSWORD = 4


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


def without_secrets(text: str) -> str:
    """Strike out what may be a secret: users, passwords and queries of addresses, and such of the environment, with its keys.

    Of a query numbers and choices remain.
    """
    text = _QUERY_OF_ADDRESS.sub(_without_query, text)
    for pattern, instead in ((_USER, f"{HIDDEN}@"), (_USER_OF_PORT, f"{HIDDEN}@"), (_QUERY, rf"\1{HIDDEN}")):
        text = pattern.sub(instead, text)
    for secret in sorted(set(_secrets_of_environment()), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def _without_query(found: re.Match[str]) -> str:
    pairs = (pair.partition("=") for pair in found[2].split("&"))
    said = (
        name + sign + (value if _PLAIN_VALUE.fullmatch(value) else HIDDEN) if sign else HIDDEN
        for name, sign, value in pairs
    )
    return found[1] + "&".join(said)


def _secrets_of_environment() -> Iterator[str]:
    """Yield passwords and queries' values of addresses, as they are and as addresses write them, and tokens."""
    for name in _ADDRESSES:
        for value in filter(None, (os.environ.get(name), os.environ.get(name.lower()))):
            before, _, user = value.rpartition("@")[0].rpartition("//")
            said, _, password = (user or before).partition(":")
            queried = (pair.rpartition("=")[2] for pair in value.partition("?")[2].split("&"))
            for secret in (password or unquote(said).partition(":")[2] or said, *queried):
                if len(secret) >= _SHORTEST_PASSWORD and not _PLAIN_VALUE.fullmatch(secret):
                    yield from (secret, unquote(secret), quote(secret, safe=""))
    for name in _TOKENS:
        token = os.environ.get(name, "").strip()
        if len(token) >= SHORTEST_SECRET:
            yield token
    for name, value in os.environ.items():
        if _NAMED_KEY.fullmatch(name) and len(value) >= SHORTEST_SECRET and re.search(r"\d", value):
            yield value.strip()


def fit_streams() -> None:
    """Let standard output and errors take any text: what their encoding lacks is written with ASCII's signs."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_IN_ASCII_HANDLER)


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(
        _IN_ASCII.get(sign) or sign.encode("ascii", "backslashreplace").decode() for sign in lacking
    ), error.end


_IN_ASCII_HANDLER = "evalkit.in_ascii"
codecs.register_error(_IN_ASCII_HANDLER, _in_ascii)


def homeless(content: Any) -> Any:
    """Write the home folder as `~` in all texts of a JSON value, and strike out the secrets of addresses."""
    if isinstance(content, dict):
        return {key: homeless(value) for key, value in content.items()}
    if isinstance(content, list):
        return [homeless(value) for value in content]
    return without_secrets(without_home(content)) if isinstance(content, str) else content


class Told(logging.Filter):
    """Let each warning through once, and keep in `lines` what was: of a sweep every run would say the same of its task."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether the message is new, or no warning."""
        line = record.getMessage()
        known = line in self.lines
        self.lines.add(line)
        return not known or record.levelno < logging.WARNING


def is_one_stream() -> bool:
    """Tell whether standard output and errors end in one place, so that one reader has both."""
    try:
        out, errors = (os.fstat(stream.fileno()) for stream in (sys.stdout, sys.stderr))
    except (OSError, ValueError, AttributeError):  # replaced by what is no file
        return False
    return (out.st_dev, out.st_ino) == (errors.st_dev, errors.st_ino)


class MessageFormatter(logging.Formatter):
    """Messages alone, printable, without the home folder's path and secrets of addresses."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the message."""
        return printable(without_secrets(without_home(super().format(record))))
