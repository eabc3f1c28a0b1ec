"""What makes a page safe that holds other people's texts: data that can't end their element, and a policy.

The browser reads a data element as text up to `</script`, and `<!--` changes how it goes on; no `<` is left in the data. The policy
(https://www.w3.org/TR/CSP3/) lets run the page's own scripts and styles alone, known by their hashes, and nothing be fetched.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable

from evalkit.output.json import escaped_json, plain_json

_ESCAPES = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


def json_data(content: object) -> str:
    """Write content as JSON that may stand in an element of HTML: it holds no `<`, `>`, `&`, nor line separators."""
    text = json.dumps(plain_json(content), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return escaped_json(text.translate(_ESCAPES))


def inline_script(code: str) -> str:
    r"""Prepare JavaScript to stand in an element: `</script` and `<!--` get a backslash, which strings and patterns ignore.

    Line ends become those that the browser's parser makes of them, so that the hash is that of what it sees.
    """
    code = code.replace("\r\n", "\n").replace("\r", "\n")
    return re.sub(r"<(/script|!--)", r"<\\\1", code, flags=re.IGNORECASE)


def content_policy(scripts: Iterable[str], styles: Iterable[str]) -> str:
    """Allow these scripts and styles, as they stand in the page, and nothing else."""
    allowed = {"script-src": scripts, "style-src": styles}
    sources = "; ".join(f"{name} {' '.join(map(_hash, contents))}" for name, contents in allowed.items())
    return f"default-src 'none'; {sources}; img-src data:; base-uri 'none'; form-action 'none'"


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
