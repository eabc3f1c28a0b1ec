"""The JavaScript that draws the charts: Vega, Vega-Lite and Vega-Embed, out of the package vl-convert-python."""

from __future__ import annotations

import contextlib
import importlib.metadata
from functools import cache

from evalkit.cache import cache_folder
from evalkit.output.files import replace_file
from evalkit.report.html.embedding import inline_script


@cache
def chart_library() -> str:
    """Give the libraries as one script. Putting them together takes seconds, so they are kept in the user's cache folder."""
    path = cache_folder(None) / "charts" / f"vega-{importlib.metadata.version('vl-convert-python')}.js"
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        code = _bundle()
        with contextlib.suppress(OSError):  # a cache that can't be written costs time alone
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, code.encode())
        return code


def _bundle() -> str:
    import vl_convert

    bundle = vl_convert.javascript_bundle(None)  # type: ignore[arg-type] # its default
    return inline_script(bundle)
