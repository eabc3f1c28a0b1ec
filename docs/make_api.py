"""Writes docs/api.md, the reference of the public names, from their docstrings: `make docs`."""

from __future__ import annotations

from pathlib import Path

import griffe
from griffe2md import render_object_docs

import evalkit

PAGE = Path(__file__).with_name("api.md")
INTRODUCTION = """# The API

What `import evalkit` offers; everything else may change without notice. Written by `make docs` from the docstrings. Fractions
are between 0 and 1, and every error that a user can mend is an `EvalkitError`.
"""
OPTIONS = {
    "heading_level": 2,
    "members": False,
    "inherited_members": False,
    "show_bases": False,
    "show_root_full_path": False,
    "show_signature_annotations": True,
    "summary": False,
}
JUDGING = ("score_run", "RunScores")  # of evalkit.metrics


def render() -> str:
    """Return the page: the names of `evalkit.__all__`, then what judges scores made elsewhere."""
    package = griffe.load("evalkit")
    names = [name for name in evalkit.__all__ if name != "metrics"]
    places = [f"{evalkit._PLACES[name].removeprefix('evalkit.')}.{name}" for name in names]
    places += [f"metrics.{name}" for name in JUDGING]
    documented = [package[place] for place in places]
    targets = [thing.final_target if thing.is_alias else thing for thing in documented]
    return "\n".join([INTRODUCTION, *(render_object_docs(target, OPTIONS).strip() + "\n" for target in targets)])


if __name__ == "__main__":
    PAGE.write_text(render(), "utf-8")
