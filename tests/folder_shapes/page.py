"""docs/models.md: a row per shape, a column per backend, written and read again."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from folder_shapes.comparison import BACKENDS, EQUAL
from folder_shapes.shapes import CLASSIFIERS, ENCODERS, FILES, MODULES, POOLING, SETTINGS, TRAPS, Shape

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
Cells = Mapping[tuple[str, str], str]  # by the shape's name and the backend

SECTIONS: Mapping[str, Sequence[Shape]] = {
    "Pooling": POOLING,
    "Settings": SETTINGS,
    "Modules": MODULES,
    "Architectures of embedders": ENCODERS,
    "Files": FILES,
    "Cross-encoders": CLASSIFIERS,
    "Traps": TRAPS,
}
INTRODUCTION = """# What evalkit makes of a model's folder

Small folders of every shape that the Hub has, given by path alone, on four backends. `make models-table` writes this page anew
(some minutes), and the tests hold every cell of it.

* **equal**: each of twelve scores is what sentence-transformers' own loading of the same folder gives in float32, to within
  2e-5 of the largest score. Cross-encoders: raw scores, before any activation.
* **refused**: evalkit says why, in one line, before it scores anything. The last column has its first words, once where all
  backends that refuse say the same.
* A shape that says what the user has to give (`model.label=1`, consent to code) is run with it. Where nothing else is said, the
  folder is a small BERT with mean pooling, in the files that sentence-transformers 3 wrote; "saved by 6" are those of today's.
"""


def render(cells: Cells, *, escaped: bool = False) -> str:
    """The page; `escaped` says that reasons come out of a page."""
    if not escaped:
        cells = {place: as_in_the_page(cell) for place, cell in cells.items()}
    blocks = [INTRODUCTION]
    for title, shapes in SECTIONS.items():
        blocks.append(f"## {title}\n")
        blocks.append("\n".join([*_head(), *(_row(shape, cells) for shape in shapes)]) + "\n")
    return "\n".join(blocks)


def _head() -> list[str]:
    columns = ["shape", "folder", *BACKENDS, "why refused"]
    return [_line(columns), _line(["---"] * len(columns))]


def _line(columns: Sequence[str]) -> str:
    return f"| {' | '.join(columns)} |"


def _row(shape: Shape, cells: Cells) -> str:
    found = {backend: cells[shape.name, backend] for backend in BACKENDS}
    reasons: dict[str, list[str]] = {}
    for backend, cell in found.items():
        word, _, reason = cell.partition(": ")
        if reason:
            reasons.setdefault(reason, []).append(backend)
        found[backend] = word
    refusing = [backend for backend, word in found.items() if word != EQUAL]
    told = [
        reason if backends == refusing else f"{', '.join(backends)}: {reason}" for reason, backends in reasons.items()
    ]
    return _line([f"`{shape.name}`", shape.title, *found.values(), "<br>".join(told)])


def _escaped(reason: str) -> str:
    reason = reason.replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\|*_`])", r"\\\1", reason)


def rows_of(page: str) -> dict[str, str]:
    """The page's rows as they stand, by the shape's name."""
    return {found[1]: found[0] for found in re.finditer(r"^\| `(\S+)` \|.*$", page, re.M)}


def cells_of(row: str) -> dict[str, str]:
    """What `_row` wrote, backend by backend; reasons escaped as they stand."""
    columns = re.split(r"(?<!\\) \| ", row[2:-2])
    words = dict(zip(BACKENDS, columns[2:-1], strict=True))
    refusing = [backend for backend, word in words.items() if word != EQUAL]
    reasons = {}
    named = re.compile(rf"((?:{'|'.join(BACKENDS)})(?:, (?:{'|'.join(BACKENDS)}))*): (.*)")
    for told in filter(None, columns[-1].split("<br>")):
        found = named.fullmatch(told)
        for backend in found[1].split(", ") if found else refusing:
            reasons[backend] = found[2] if found else told
    return {backend: f"{word}: {reasons[backend]}" if backend in reasons else word for backend, word in words.items()}


def as_in_the_page(cell: str) -> str:
    """A cell as `cells_of` gives it."""
    word, colon, reason = cell.partition(": ")
    return word + colon + _escaped(reason)
