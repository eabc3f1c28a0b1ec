r"""Tables for papers, in LaTeX; they need the package booktabs."""

from __future__ import annotations

import re
from collections.abc import Iterable

from evalkit.output.sheets import Sheet, SheetCell
from evalkit.output.text import printable

# what LaTeX would read as its own, in any of its engines and font encodings
_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "`": r"\textasciigrave{}",
    "\0": "{}",
    # after \\ these would be its arguments
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    **{sign: f"\\{sign}" for sign in "#$%&_{}"},
}


def sheet_as_latex(sheet: Sheet) -> str:
    """Write a table whose caption is the sheet's title, with the lines below it as notes under its last rule.

    What is strong is bold, and asides stand in brackets in a smaller type.
    """
    columns = "".join("r" if kind == "number" else "l" for _, kind in sheet.columns)
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{latex_text(sheet.title)}.}}",
        rf"  \begin{{tabular}}{{{columns}}}",
        r"    \toprule",
        _row(latex_text(title) for title, _ in sheet.columns),
        r"    \midrule",
        *(_row(map(_cell, row)) for row in sheet.rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        *_notes(sheet.below),
        r"\end{table}",
    ]
    return "".join(f"{line}\n" for line in lines)


def _notes(lines: Iterable[str]) -> list[str]:
    """Write lines as paragraphs in a smaller type, which a reader of the typeset table sees."""
    notes = [rf"    {latex_text(line)}\par" for line in lines]
    return [r"  \par\smallskip", r"  {\footnotesize\raggedright", *notes, "  }"] if notes else []


def latex_text(text: str) -> str:
    """Take from a text what LaTeX would read as its own, and line breaks; Chinese stays, and wants XeLaTeX or LuaLaTeX."""
    plain = " ".join(printable(text, instead=" ").split())
    # two hyphens would become a dash
    return "--".join(
        "".join(_ESCAPES.get(sign, sign) for sign in re.sub("-(?=-)", "-\0", part)) for part in plain.split("–")
    )


def _row(cells: Iterable[str]) -> str:
    return f"    {' & '.join(cells)} \\\\"


def _cell(cell: str | SheetCell) -> str:
    if isinstance(cell, str):
        return latex_text(cell)
    text = latex_text(cell.text)
    shown = rf"\textbf{{{text}}}" if cell.tone == "strong" else text
    return rf"{shown} {{\footnotesize ({latex_text(cell.aside)})}}" if cell.aside else shown
