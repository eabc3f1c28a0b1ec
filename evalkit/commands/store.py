"""The store of `evalkit cache`: what it holds, whether it is whole, and how to be rid of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evalkit.backends.conversions import conversion_bytes, delete_conversions, kept_conversions
from evalkit.cache import cache_folder
from evalkit.errors import EvalkitError, unknown_name
from evalkit.models.identity import names_by_identity
from evalkit.models.weights import REVISION_DIGITS
from evalkit.output.console import OutputConsole, print_lines
from evalkit.output.json import STDOUT, write_json
from evalkit.output.numbers import counted
from evalkit.output.sheets import Sheet, print_sheets
from evalkit.scoring.store import FILE_NAME, WayInfo, damaged_rows, prune, ways
from evalkit.scoring.store_file import is_damage, refusal, set_aside

MEBIBYTE = 2**20


def print_info(chosen: Path | None, json_file: Path | None) -> None:
    """Print a row per way of scoring (a model, its recipe, backend and precision) in the store, and what else is kept.

    JSON goes to a file beside the table, or to standard output in its place.
    """
    folder = cache_folder(chosen)
    if json_file is not None:
        write_json(_content(folder), json_file)
    if json_file == STDOUT:
        return
    console = OutputConsole()
    path = folder / FILE_NAME
    print_lines(
        (
            f"converted network {made}: {conversion_bytes(made) / MEBIBYTE:,.1f} MiB"
            for made in kept_conversions(folder)
        ),
        console,
    )
    if not path.is_file():
        print_lines([f"no scores are stored in {folder}"], console)
        return
    print_sheets([_sheet(_described(folder))], console)
    print_lines([f"{path}: {path.stat().st_size / MEBIBYTE:.1f} MiB"], console)


def _sheet(ways: Iterable[tuple[WayInfo, dict[str, Any]]]) -> Sheet:
    titles = ("model", "identity", "backend", "dtype", "max_length", "scores", "MiB")
    rows = []
    for info, said in ways:
        size = f"{info.output_bytes / MEBIBYTE:.1f}"
        cells = (
            said["model"],
            (said["identity"] or said["weights_hash"])[:12],
            said["backend"],
            said["dtype"],
            str(said["max_length"] or ""),
        )
        rows.append((*cells, f"{info.rows:,}", size))
    return Sheet(
        title="",
        columns=tuple((title, "number" if title in ("max_length", "scores", "MiB") else "name") for title in titles),
        rows=tuple(rows),
        keys=("model", "identity"),
    )


def _described(folder: Path) -> list[tuple[WayInfo, dict[str, Any]]]:
    known = names_by_identity(folder)
    return [(info, _said(info, known)) for info in _ways(folder)]


def _said(info: WayInfo, known: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """What a way of scoring says of itself; empty where it says nothing."""
    said = info.description
    backend = said.get("backend")
    system = backend if isinstance(backend, dict) else said
    return {
        "model": ", ".join(_models(info, known)),
        "identity": str(said.get("identity", "")),
        "weights_hash": str(said.get("weights_hash", "")),
        "backend": str(system.get("name", "")),
        "dtype": str(system.get("dtype", "")),
        "max_length": said.get("max_length"),
    }


def _content(folder: Path) -> dict[str, Any]:
    """All of it, for machines; sizes are bytes."""
    path = folder / FILE_NAME
    return {
        "folder": str(folder),
        "store": {"file": str(path), "bytes": path.stat().st_size} if path.is_file() else None,
        "ways": [{**said, "scores": info.rows, "bytes": info.output_bytes} for info, said in _described(folder)],
        "conversions": [{"file": str(made), "bytes": conversion_bytes(made)} for made in kept_conversions(folder)],
    }


def print_verification(chosen: Path | None) -> int:
    """Check every row. Gives the exit code: 1 where something is damaged (it counts as missing, and is scored again)."""
    folder = cache_folder(chosen)
    if not (folder / FILE_NAME).is_file():
        raise EvalkitError(f"no scores are stored in {folder}; name another folder with --cache-dir")
    console = OutputConsole()
    try:
        total, damaged = damaged_rows(folder)
    except sqlite3.DatabaseError as error:
        print_lines([str(_told(folder, error))], console)
        return 1
    print_lines([f"{folder / FILE_NAME}: {total:,} scores, {damaged:,} damaged"], console)
    return 1 if damaged else 0


def prune_store(chosen: Path | None, models: list[str], everything: bool) -> None:
    """Delete the scores and converted networks of some models, or all that is kept. Raises EvalkitError for a model without any.

    Models whose files are the same share them, so whichever name is given, they go.
    """
    folder = cache_folder(chosen)
    aside = _set_aside_files(folder) if everything else []
    found = _ways(folder)
    known = names_by_identity(folder)
    names = sorted({name for info in found for name in _models(info, known)})
    if not models and not everything:
        raise EvalkitError(f"say whose scores to delete: --model NAME or --all; stored: {', '.join(names) or 'none'}")
    for name in models:
        if name not in names:
            raise unknown_name("stored model", name, names)
    doomed = [info for info in found if everything or set(_models(info, known)) & set(models)]
    if (folder / FILE_NAME).is_file():
        try:
            prune(folder, [info.way for info in doomed])
        except sqlite3.DatabaseError as error:
            raise _told(folder, error) from error
    for path in aside:
        path.unlink()
    conversions = delete_conversions(folder, None if everything else _identities(doomed))
    rows = sum(info.rows for info in doomed)
    deleted = [f"deleted {rows:,} scores"]
    deleted += [counted(conversions, "converted network")] if conversions else []
    deleted += [counted(len(aside), "damaged file")] if aside else []
    print_lines([", ".join(deleted)], OutputConsole())


def _models(info: WayInfo, known: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the names of a way's model: its own, or those under which its identity was met, or what that begins with."""
    identity = str(info.description.get("identity", ""))
    own = info.description.get("model")
    names = [str(own)] if own else known.get(identity) or [identity[:REVISION_DIGITS]]
    return [name.removeprefix("local/") for name in names]


def _identities(doomed: Iterable[WayInfo]) -> list[str]:
    """Return what conversions are named by: the model's identity, or for an earlier evalkit its weights."""
    return [str(info.description.get(key, "")) for info in doomed for key in ("identity", "weights_hash")]


def _set_aside_files(folder: Path) -> list[Path]:
    """The files that runs set aside, and the store's own where it is as broken."""
    path = folder / FILE_NAME
    try:
        if path.is_file():
            damaged_rows(folder)
    except sqlite3.DatabaseError as error:
        if not is_damage(error, path):
            raise refusal(path, error) from error
        set_aside(path, error)
    return sorted(folder.glob(f"{FILE_NAME}.damaged-*"))


def _ways(folder: Path) -> list[WayInfo]:
    try:
        return ways(folder)
    except sqlite3.DatabaseError as error:
        raise _told(folder, error) from error


def _told(folder: Path, error: sqlite3.DatabaseError) -> EvalkitError:
    """The damage as one line; raises EvalkitError where the file is whole and circumstances are against it."""
    path = folder / FILE_NAME
    if not is_damage(error, path):
        raise refusal(path, error) from error
    return EvalkitError(
        f"{path} is damaged: {error}; the next run sets it aside and scores again, evalkit cache prune --all deletes it"
    )
