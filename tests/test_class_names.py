"""One name, one thing: no two classes of the package share a name, nor two public functions but for those named here."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "evalkit"

# what a backend's module gives under the name that `evalkit/backends` asks for, or that its like has in other systems
BACKENDS = {
    "prepare",
    "complete",
    "open_network",
    "open_embedder",
    "open_embeddings",
    "open_cross_encoder",
    "embed_codec",
}
# a command's function has the name of its word (`evalkit compare`), whatever the function below it is called
COMMANDS = {"compare", "prune", "check", "report", "run"}
ENTRIES = {"main"}  # of `python -m evalkit` and of the command line itself


def places_of(*kinds: type[ast.AST]) -> dict[str, list[str]]:
    places = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, kinds) and not node.name.startswith("_"):  # type: ignore[attr-defined]
                places[node.name].append(str(path.relative_to(PACKAGE)))  # type: ignore[attr-defined]
    return places


@pytest.fixture(scope="module")
def functions() -> dict[str, list[str]]:
    return places_of(ast.FunctionDef, ast.AsyncFunctionDef)


def test_no_public_class_has_the_name_of_another() -> None:
    places = places_of(ast.ClassDef)
    assert len(places) > 100
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_no_public_function_has_the_name_of_another(functions: dict[str, list[str]]) -> None:
    assert len(functions) > 300
    allowed = BACKENDS | COMMANDS | ENTRIES
    assert {name: found for name, found in functions.items() if len(found) > 1 and name not in allowed} == {}


def test_the_names_that_may_be_shared_are_shared_for_their_reason(functions: dict[str, list[str]]) -> None:
    for name in BACKENDS:
        assert len(functions[name]) > 1, name
        assert all(place.startswith("backends/") for place in functions[name]), name
    for name in COMMANDS:
        assert len(functions[name]) == 2, name
        assert sum(place.startswith("commands/") for place in functions[name]) == 1, name
    assert functions["main"] == ["__main__.py", "commands/main.py"]
