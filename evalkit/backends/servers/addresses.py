"""A server's address and key: neither may end up where the other can be read."""

from __future__ import annotations

import ipaddress
import os
import re
from urllib.parse import SplitResult, urlsplit

from evalkit.errors import EvalkitError


def checked_url(backend: str, url: str | None) -> str:
    """Return the address without a closing slash.

    Raises EvalkitError, which repeats nothing that may be a secret, where it is none or holds a user, password, query or fragment.
    """
    if not url:
        raise EvalkitError(f"backend={backend} needs the address of its server: backend.url=http://HOST:PORT")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
        parts = SplitResult("", "", "", "", "")
    if "@" in url or parts.query or parts.fragment or _is_odd(parts.netloc):
        raise EvalkitError(
            "backend.url holds more than an address (user, password, ?query or #fragment), and would be written into results; "
            "put the key into an environment variable and name it: backend.key_variable=NAME"
        )
    if not usable or re.search(r"\s", url):
        raise EvalkitError("backend.url is not an address such as http://127.0.0.1:8080 or https://api.example.org/v1")
    return url.rstrip("/")


def _is_odd(host: str) -> bool:
    """Return whether a host holds signs of none: a percent sign may stand for the one behind a password (a zone has one too)."""
    return bool(re.search(r"[;,&=]" if host.startswith("[") else r"[;,&=%]", host))


def endpoint(url: str, path: str) -> str:
    """Return the address of a call. A version in the server's own address counts: `…/v1` and `/v1/rerank` make `…/v1/rerank`."""
    version = re.match(r"/v\d+(?=/)", path)
    if version and re.search(r"/v\d+$", url):
        path = path[version.end() :]
    return url + path


def is_loopback(url: str) -> bool:
    """Return whether the address is this machine itself."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def plain_location(location: str) -> str:
    """Return where a redirect leads, without user, password, query and fragment; empty where that is no plain address."""
    try:
        parts = urlsplit(location)
    except ValueError:
        return ""
    host = parts.netloc.rpartition("@")[2]
    if "@" in parts.path or _is_odd(host):
        return ""
    return SplitResult(parts.scheme, host, parts.path, "", "").geturl()


def read_key(backend: str, variable: str | None, *, required: bool) -> str | None:
    """Return the key in that environment variable; None where there is none.

    Raises EvalkitError, without the key, where it can't be a header, or where there is none and it is required.
    """
    key = os.environ.get(variable, "").strip() if variable else ""
    if not key and required:
        raise EvalkitError(
            f"backend={backend} needs a key: put it into the environment variable {variable}, or name another with "
            "backend.key_variable=NAME"
        )
    if not (key.isascii() and key.isprintable()):
        raise EvalkitError(
            f"the environment variable {variable} holds what can't be a key: characters other than plain ASCII"
        )
    return key or None
