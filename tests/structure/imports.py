"""Count the modules of a package and follow its imports, from the source alone: nothing is imported.

A *room* is a package or a flat module directly below the root package; `__main__` is one, and so is the *face*, the root
package's own `__init__`, which offers public names of the rooms. An *arrow* leads from one room to another that it imports.
"""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

Graph = Mapping[str, set[str]]


@dataclass(frozen=True)
class Structure:
    """How a package is built: counts, and what was counted where a reader would ask which.

    `flat` are the modules beside the root package's `__init__`. `arrows` are pairs of rooms, and `back` pairs of modules, as in
    `arrows_back`. `single` are the modules, no `__init__` or `__main__`, that exactly one other module imports: at the top of a
    file, within a function or for types alone. `twice` are the classes at the top of several modules.
    """

    modules: int
    flat: tuple[str, ...]
    rooms: tuple[str, ...]
    arrows: tuple[tuple[str, str], ...]
    back: tuple[tuple[str, str], ...]
    circles: tuple[tuple[str, ...], ...]
    single: tuple[str, ...]
    twice: tuple[str, ...]
    lines: int

    def counts(self) -> dict[str, int]:
        """Return the size of each field by its name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value if isinstance(value, int) else len(value) for name, value in values.items()}


def measure(checkout: Path, package: str = "evalkit") -> Structure:
    """Measure a package in a checkout's folder. Raises FileNotFoundError where it has none."""
    files = module_files(checkout, package)
    trees = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in files.items()}
    graph = {name: _imported(name, trees[name], files, with_types=True) for name in files}
    real = {name: _imported(name, trees[name], files, with_types=False) for name in files}
    classes = Counter(
        name for tree in trees.values() for name in {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    )
    return Structure(
        modules=len(files),
        flat=tuple(sorted(path.stem for path in (checkout / package).glob("*.py") if path.stem != "__init__")),
        rooms=tuple(sorted({room_of(name) for name in files})),
        arrows=tuple(sorted({(room_of(a), room_of(b)) for a, b in _crossings(graph)})),
        back=tuple(sorted(arrows_back(graph, package))),
        circles=tuple(circles(_rooms(real))),
        single=tuple(sorted(_single(graph, files))),
        twice=tuple(sorted(name for name, count in classes.items() if count > 1)),
        lines=sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files.values()),
    )


def module_files(checkout: Path, package: str) -> dict[str, Path]:
    """Return the file of each module, by its dotted name; a package's is its `__init__`."""
    if not (checkout / package / "__init__.py").is_file():
        raise FileNotFoundError(f"{checkout} has no package {package}: name the folder of a checkout")
    found = {}
    for path in sorted((checkout / package).rglob("*.py")):
        parts = path.relative_to(checkout).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def room_of(module: str) -> str:
    """Return the room that a module is in or is."""
    return ".".join(module.split(".")[:2])


def arrows_back(graph: Graph, face: str) -> set[tuple[str, str]]:
    """Return the imports that run back up: pairs of modules in different rooms.

    The face offers what lies on the upper floors, so it stands above every room that it reaches by imports, those for types
    alone included. An import runs back up where a module of such a room imports the face, or a module of another room that
    imports the face in its turn and so pulls the whole house under its own floor. The room `__main__` is above the face.
    """
    rooms = _rooms(graph)
    below = _reached(rooms, face) - {face, f"{face}.__main__"}
    pulled = {module for module in graph if face in graph[module] and room_of(module) in below}
    return {(a, b) for a, b in _crossings(graph) if room_of(a) in below and (b == face or b in pulled)}


def circles(rooms: Graph) -> list[tuple[str, ...]]:
    """Return the groups of rooms of which each reaches each other by imports that are real, not for types alone."""
    reached = {room: _reached(rooms, room) for room in rooms}
    groups = {tuple(sorted(b for b in reached[a] if a in reached[b])) for a in rooms if a in reached[a]}
    return sorted(group for group in groups if len(group) > 1)


def _rooms(graph: Graph) -> dict[str, set[str]]:
    rooms: dict[str, set[str]] = defaultdict(set)
    for module in graph:
        rooms[room_of(module)] |= {room_of(other) for other in graph[module]} - {room_of(module)}
    return dict(rooms)


def _reached(graph: Graph, start: str) -> set[str]:
    """Return what is reached in one step or more: the start too, where a circle leads back to it."""
    reached: set[str] = set()
    waiting = [start]
    while waiting:
        for following in graph[waiting.pop()] - reached:
            reached.add(following)
            waiting.append(following)
    return reached


def _crossings(graph: Graph) -> Iterator[tuple[str, str]]:
    return ((a, b) for a in graph for b in graph[a] if room_of(a) != room_of(b))


def _single(graph: Graph, files: Mapping[str, Path]) -> Iterator[str]:
    importers = Counter(imported for module in graph for imported in graph[module])
    return (
        name for name, count in importers.items() if count == 1 and files[name].stem not in ("__init__", "__main__")
    )


def _imported(name: str, tree: ast.Module, files: Mapping[str, Path], *, with_types: bool) -> set[str]:
    """Return the package's modules that a module imports, anywhere in its text; a name's module where it is a name."""
    package = name if files[name].stem == "__init__" else name.rpartition(".")[0]
    found = set()
    for node in _nodes(tree, lambda node: with_types or not _is_for_types(node)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            found |= {full if (full := f"{base}.{alias.name}") in files else base for alias in node.names}
    return (found & files.keys()) - {name}


def _nodes(node: ast.AST, wanted: Callable[[ast.AST], bool]) -> Iterator[ast.AST]:
    if not wanted(node):
        for other in getattr(node, "orelse", []):
            yield from _nodes(other, wanted)
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _nodes(child, wanted)


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
