"""`python -m folder_shapes`: every shape on every backend, and docs/models.md."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from folder_shapes.comparison import BACKENDS, named, outcome
from folder_shapes.page import PAGE, render
from folder_shapes.shapes import SHAPES


def main(words: Sequence[str] | None = None) -> int:
    """Write the page, or print what comes out for the shapes that are named; 1 where a cell is not as it should be."""
    parser = argparse.ArgumentParser(prog="folder_shapes", description=__doc__)
    parser.add_argument("shapes", nargs="*", metavar="NAME")
    parser.add_argument("--backends", default=",".join(BACKENDS), help="some of them (no page is written then)")
    parser.add_argument("-o", "--output", type=Path, default=PAGE)
    chosen = parser.parse_args(words)
    backends = chosen.backends.split(",")
    logging.getLogger("evalkit").setLevel(logging.ERROR)
    cells, wrong = {}, 0
    for shape in [named(name) for name in chosen.shapes] or SHAPES:
        for backend in backends:
            with tempfile.TemporaryDirectory() as cache_dir:
                found = outcome(shape, backend, Path(cache_dir))
            cells[shape.name, backend] = found.cell
            bad = not found.is_expected_of(shape, backend)
            wrong += bad
            if chosen.shapes or chosen.backends != ",".join(BACKENDS) or bad:
                print(f"{'!' if bad else ' '} {shape.name} {backend}: {found.cell}", file=sys.stderr)
    if len(cells) == len(SHAPES) * len(BACKENDS):
        chosen.output.write_text(render(cells), encoding="utf-8")
    print(f"{len(cells) - wrong} of {len(cells)} cells are as they should be", file=sys.stderr)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
