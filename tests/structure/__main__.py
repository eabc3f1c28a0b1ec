"""`python -m structure`: the table of one checkout, or of two side by side."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from structure.imports import measure
from structure.walks import walk

ROOT = Path(__file__).parents[2]
TITLES = {
    "modules": "modules",
    "flat": "modules at the top level, beside __init__",
    "rooms": "rooms: packages and modules at the top level",
    "arrows": "import arrows between rooms",
    "back": "import arrows that run back up",
    "circles": "circles of rooms",
    "single": "modules that exactly one other imports",
    "twice": "class names defined in several modules",
    "lines": "lines of code",
}
Table = Mapping[str, Sequence[str] | int]


def main(words: Sequence[str] | None = None) -> int:
    """Print the table that the words of the command line ask for."""
    parser = argparse.ArgumentParser(prog="structure", description=__doc__)
    parser.add_argument("checkouts", nargs="*", type=Path, default=[ROOT])
    parser.add_argument("--walks", action="store_true", help="follow the three walks too")
    parser.add_argument("--tests", action="store_true", help="count the collected tests too")
    parser.add_argument("--names", action="store_true", help="list what was counted")
    chosen = parser.parse_args(words)
    checkouts = [path.resolve() for path in chosen.checkouts]
    tables = [_table(path, walks=chosen.walks, tests=chosen.tests) for path in checkouts]
    width = max(len(title) for title in tables[0])
    for title in tables[0]:
        print(f"{title:{width}}", *(f"{_count(table[title]):>8,}" for table in tables))
    if chosen.names:
        for path, table in zip(checkouts, tables, strict=True):
            for title, names in table.items():
                if not isinstance(names, int):
                    print(f"\n{path}: {title}", *names, sep="\n    ")
    return 0


def _table(checkout: Path, *, walks: bool, tests: bool) -> Table:
    """Return each row's title with a number or with the names of what is counted."""
    structure = measure(checkout)
    table: dict[str, Sequence[str] | int] = {}
    for field, title in TITLES.items():
        value = getattr(structure, field)
        table[title] = value if isinstance(value, int) else [_named(entry) for entry in value]
    for name, taken in walk(checkout).items() if walks else ():
        table |= {
            f"{name}: functions that hold it": [".".join(function) for function in taken.functions],
            f"{name}: their modules": taken.modules,
            f"{name}: forms": taken.forms,
        }
        if taken.to_model:
            table[f"{name}: forms up to the model"] = taken.to_model
    if tests:
        table["tests collected"] = collected(checkout)
    return table


def collected(checkout: Path) -> int:
    """Count the tests that pytest collects. Raises RuntimeError where it can't import one."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"],
        env=os.environ | {"PYTHONPATH": str(checkout)},
        cwd=checkout,
        capture_output=True,
        text=True,
    )
    found = re.search(r"^(\d+) tests collected", done.stdout, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"pytest collects nothing in {checkout}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return int(found.group(1))


def _count(value: Sequence[str] | int) -> int:
    return value if isinstance(value, int) else len(value)


def _named(entry: str | Sequence[str]) -> str:
    return entry if isinstance(entry, str) else " -> ".join(entry)


if __name__ == "__main__":
    sys.exit(main())
