"""Follow values through a run of evalkit: which of its functions hold each, and in what.

    python -P follow.py OUT.json CHECKOUT '{"text": ["walked document"]}' task=demo model=bm25 …

runs the evalkit that Python finds, in this process, and writes one trail per value. It imports nothing of either tree itself,
so that it follows any checkout; `walks` calls it.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import runpy
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

DEPTH = 8
WIDTH = 200  # entries of a container that are looked at
CLOSE = 1e-6  # relative: float32 keeps as much
BARE = "bare value"


class Trail:
    """What some values met: functions in the order in which they first held one, and the forms that it had in each.

    A function holds a value where an argument, a variable of an enclosing function, or what it gives back has it inside. The
    *form* is what the value stands in directly (a class, a kind of text, or `bare value`), the *carrier* the outermost object.
    """

    def __init__(self, values: list[str | float]) -> None:
        self.values = values
        self.functions: dict[tuple[str, str], None] = {}
        self.forms: dict[str, None] = {}
        self.carriers: dict[str, tuple[str, ...]] = {}

    def look(self, module: str, function: str, held: list[Any]) -> None:
        """Note the function if what it holds has one of the followed values inside."""
        found = [
            (form, type(value).__name__) for value in held for wanted in self.values for form in forms(value, wanted)
        ]
        if found:
            self.functions.setdefault((module, function))
        for form, carrier in found:
            self.carriers.setdefault(carrier, tuple(self.forms))
            self.forms.setdefault(form)

    def content(self) -> dict[str, Any]:
        """Return all of it as plain values; `carriers` has, for each, the forms that came before it."""
        return {"functions": [*self.functions], "forms": [*self.forms], "carriers": self.carriers}


def forms(value: Any, wanted: str | float, holder: str = BARE, depth: int = DEPTH) -> Iterator[str]:
    """Yield the form of each occurrence of the wanted value in another, to a bounded depth and width."""
    if isinstance(value, str | bool | int | float):
        if (form := _form_of_scalar(value, wanted, holder)) is not None:
            yield form
        return
    if depth == 0 or value is None or isinstance(value, type):
        return
    name = type(value).__name__
    if hasattr(value, "to_numpy"):  # a table or column of pandas
        columns = [value[column] for column in value] if hasattr(value, "columns") else [value]
        if any(_in_array(column.to_numpy(), wanted) for column in columns):
            yield name
    elif hasattr(getattr(value, "dtype", None), "kind"):
        if _in_array(value, wanted):
            yield name
    else:
        for part in _parts(value):
            yield from forms(part, wanted, name, depth - 1)


def _form_of_scalar(value: Any, wanted: str | float, holder: str) -> str | None:
    if isinstance(value, float):
        alike = isinstance(wanted, float) and math.isclose(value, wanted, rel_tol=CLOSE)
        return holder if alike else None
    if not isinstance(value, str):
        return holder if type(value) is type(wanted) and value == wanted else None
    if value == wanted:
        return holder
    if not any(re.search(rf"(?<![\w.]){text}(?!\w)", value) for text in _written(wanted)):
        return None
    if value.lstrip().startswith(("{", "[")):
        return "JSON text"
    return "word" if re.match(r"\+*[\w.@]+=", value) else "text"


def _written(wanted: str | float) -> tuple[str, ...]:
    """Return patterns of how texts write the value; a metric is a fraction, and in print a percentage with two decimals."""
    if isinstance(wanted, float):
        return rf"{str(wanted)[:8]}\d*", f"{100 * wanted:.2f}"
    return (re.escape(str(wanted)),)


def _in_array(values: Any, wanted: str | float) -> bool:
    if values.dtype.kind == "f" and isinstance(wanted, float):
        return bool((abs(values - wanted) <= CLOSE * abs(wanted)).any())
    if values.dtype.kind == "O":
        return any(True for entry in values.ravel()[:WIDTH].tolist() for _ in forms(entry, wanted, depth=2))
    return False


def _parts(value: Any) -> list[Any]:
    """Return what a container or record holds, without running code of its own."""
    if isinstance(value, dict):
        return [*value.values()][:WIDTH]
    if isinstance(value, list | tuple | set | frozenset):
        return [*value][:WIDTH]
    if type(value).__module__.startswith("omegaconf."):
        content = value.__dict__.get("_content", value.__dict__.get("_val"))
        inner = content if isinstance(content, dict | list) else [content]
        return [_plain_node(node) for node in (inner.values() if isinstance(inner, dict) else inner)]
    if dataclasses.is_dataclass(value):
        return [getattr(value, field.name, None) for field in dataclasses.fields(value)]
    if hasattr(type(value), "model_fields"):
        return [*value.__dict__.values(), *(value.__dict__.get("__pydantic_extra__") or {}).values()]
    if type(value).__name__ == "Namespace":
        return [*vars(value).values()]
    if type(value).__name__ == "mappingproxy":
        return [*value.values()][:WIDTH]
    return []


def _plain_node(node: Any) -> Any:
    return node.__dict__.get("_val", node) if type(node).__module__.startswith("omegaconf.nodes") else node


def watch(package: Path, trails: list[Trail]) -> Callable[[FrameType, str, Any], None]:
    """Return the function that the interpreter calls on each call and return."""
    start = f"{package}/"

    def look(frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if event not in ("call", "return") or not code.co_filename.startswith(start):
            return
        if code.co_name.startswith("<"):  # a module's body, a comprehension, a lambda
            return
        values = [*frame.f_locals.values()] if event == "call" else [argument]
        module = code.co_filename.removeprefix(start).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for trail in trails:
            trail.look(module, code.co_qualname.replace(".<locals>", ""), values)

    return look


def main(out: str, checkout: str, wanted: str, *arguments: str) -> None:
    """Run evalkit with the arguments, and write the trails however it ends."""
    trails = {name: Trail(values) for name, values in json.loads(wanted).items()}
    look = watch((Path(checkout) / "evalkit").resolve(), list(trails.values()))
    sys.argv = ["evalkit", *arguments]
    threading.setprofile(look)
    sys.setprofile(look)
    try:
        runpy.run_module("evalkit", run_name="__main__", alter_sys=True)
    finally:
        sys.setprofile(None)
        content = {name: trail.content() for name, trail in trails.items()}
        Path(out).write_text(json.dumps(content), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
