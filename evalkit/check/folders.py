"""The two folders of a check: what can be read of each, and which results belong together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from evalkit.errors import EvalkitError
from evalkit.output.numbers import listed
from evalkit.results.folders import experiment_of, find_results, revision_folder
from evalkit.results.reading import read_result
from evalkit.results.result import Result

Key = tuple[str, str, str]
"""What makes two results comparable: the model's hub_id, mteb's name of the task, and the settings that differ."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file (or the whole folder) that can't be compared, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Side:
    """What one folder holds. `results` are whole: their tables were read."""

    folder: Path
    results: tuple[Result, ...]
    unreadable: tuple[Unreadable, ...]

    @property
    def is_lost(self) -> bool:
        """Whether nothing at all could be read."""
        return any(one.path == self.folder for one in self.unreadable)

    def has_unreadable(self, place: tuple[str, str, str]) -> bool:
        """Whether a file at this place can't be read."""
        return any(place_of(one.path) == place for one in self.unreadable)


@dataclass(frozen=True, slots=True)
class Pair:
    """Results of one model, task and settings; revisions may differ."""

    before: Result
    after: Result


@dataclass(frozen=True, slots=True)
class Pairing:
    """Which results belong together. `ambiguous` are those (the baseline's, the results') that could be paired in several ways."""

    pairs: tuple[Pair, ...]
    missing: tuple[Result, ...]
    new: tuple[Result, ...]
    ambiguous: tuple[tuple[tuple[Result, ...], tuple[Result, ...]], ...]


def load_side(folder: Path, other: Path, revisions: Sequence[str] = ()) -> Side:
    """Read all results in a folder that can be read. What lies in the `other` folder, inside this one, is the other's.

    With `revisions` only results whose revision begins with one of them are read. Raises EvalkitError, naming some that there are,
    where a revision is none of theirs.
    """
    try:
        paths = find_results([folder])
    except EvalkitError as error:
        return Side(folder, (), (Unreadable(folder, str(error)),))
    if folder.resolve() in other.resolve().parents:
        paths = [path for path in paths if other.resolve() not in path.resolve().parents]
    if not paths:
        return Side(folder, (), (Unreadable(folder, f"no results in {folder} but those in {other}"),))
    paths = _of_revisions(folder, paths, revisions)
    results, unreadable = [], []
    for path in paths:
        try:
            result = read_result(path)
            _ = result.queries, result.candidates
            results.append(result)
        except EvalkitError as error:
            unreadable.append(Unreadable(path, str(error)))
    return Side(folder, tuple(results), tuple(unreadable))


def _of_revisions(folder: Path, paths: Sequence[Path], revisions: Sequence[str]) -> list[Path]:
    """Choose the files of these revisions, by the folders that results lie in, which are named after them."""
    there = [revision_folder(path).name for path in paths]
    for revision in revisions:
        if not any(one.startswith(revision) for one in there):
            raise EvalkitError(
                f"--revision {revision}: no result in {folder} is of it; there are {listed(dict.fromkeys(there))}"
            )
    return [
        path
        for path, one in zip(paths, there, strict=True)
        if not revisions or any(one.startswith(revision) for revision in revisions)
    ]


def pair_results(before: Iterable[Result], after: Iterable[Result]) -> Pairing:
    """Pair results by model, task and settings; where several have these, by revision too."""
    old, new = _grouped(before), _grouped(after)
    pairs: list[Pair] = []
    missing: list[Result] = []
    added: list[Result] = []
    ambiguous = []
    for key in sorted({*old, *new}):
        found, old_rest, new_rest = _paired(old.get(key, []), new.get(key, []))
        pairs += found
        if new_rest and key in old:
            ambiguous.append((tuple(old[key]), tuple(new_rest)))
        else:
            missing += old_rest
            added += new_rest
    return Pairing(tuple(pairs), tuple(missing), tuple(added), tuple(ambiguous))


def place_of(path: Path) -> tuple[str, str, str]:
    """Where a result lies, apart from its revision: the folder of its model, its settings, its file's name."""
    return revision_folder(path).parent.name, experiment_of(path), path.name.removesuffix(".json")


def _grouped(results: Iterable[Result]) -> dict[Key, list[Result]]:
    groups: dict[Key, list[Result]] = {}
    for result in results:
        key = (result.model.hub_id, result.task.mteb_name, result.experiment)
        groups.setdefault(key, []).append(result)
    return groups


def _paired(old: list[Result], new: list[Result]) -> tuple[list[Pair], list[Result], list[Result]]:
    """Pair the results of one key; then come those of either side that are left."""
    if len(old) == len(new) == 1:
        return [Pair(old[0], new[0])], [], []
    pairs = [
        Pair(ours, theirs)
        for ours in old
        for theirs in new
        if ours.model.revision == theirs.model.revision and _alone(ours, old) and _alone(theirs, new)
    ]
    taken = {id(result) for pair in pairs for result in (pair.before, pair.after)}
    return pairs, list(_without(old, taken)), list(_without(new, taken))


def _alone(result: Result, results: list[Result]) -> bool:
    return sum(other.model.revision == result.model.revision for other in results) == 1


def _without(results: list[Result], taken: set[int]) -> Iterator[Result]:
    return (result for result in results if id(result) not in taken)
