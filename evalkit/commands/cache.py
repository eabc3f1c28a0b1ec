"""`evalkit cache`: what the score store holds, whether it is whole, and how to be rid of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from evalkit.backends.conversions import conversion_bytes, delete_conversions, kept_conversions
from evalkit.cache import cache_folder
from evalkit.errors import EvalkitError, unknown_name
from evalkit.output.console import OutputConsole, print_lines
from evalkit.output.json import write_json
from evalkit.output.numbers import counted
from evalkit.output.sheets import Sheet, print_sheets
from evalkit.scoring.store import FILE_NAME, WayInfo, damaged_rows, prune, ways
from evalkit.scoring.store_file import is_damage, refusal, set_aside

MEBIBYTE = 2**20


def print_info(chosen: Path | None, as_json: bool = False) -> None:
    """Print a row per way of scoring (a model, its recipe, backend and precision) in the store, and what else is kept."""
    folder = cache_folder(chosen)
    if as_json:
        write_json(_content(folder))
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
    print_sheets([_sheet(_ways(folder))], console)
    print_lines([f"{path}: {path.stat().st_size / MEBIBYTE:.1f} MiB"], console)


def _sheet(ways: Iterable[WayInfo]) -> Sheet:
    titles = ("model", "weights", "backend", "dtype", "max_length", "scores", "MiB")
    rows = []
    for info in ways:
        said = _said(info)
        size = f"{info.output_bytes / MEBIBYTE:.1f}"
        cells = (
            said["model"],
            said["weights_hash"][:12],
            said["backend"],
            said["dtype"],
            str(said["max_length"] or ""),
        )
        rows.append((*cells, f"{info.rows:,}", size))
    return Sheet(
        title="",
        columns=tuple((title, "number" if title in ("max_length", "scores", "MiB") else "name") for title in titles),
        rows=tuple(rows),
    )


def _said(info: WayInfo) -> dict[str, Any]:
    """What a way of scoring says of itself; empty where it says nothing."""
    said = info.description
    backend = said.get("backend")
    system = backend if isinstance(backend, dict) else said
    return {
        "model": _model(info),
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
        "ways": [{**_said(info), "scores": info.rows, "bytes": info.output_bytes} for info in _ways(folder)],
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
    """Delete the scores of some models, or all that is kept. Raises EvalkitError for a model that has none."""
    folder = cache_folder(chosen)
    aside = _set_aside_files(folder) if everything else []
    found = _ways(folder)
    names = sorted({_model(info) for info in found})
    if not models and not everything:
        raise EvalkitError(f"say whose scores to delete: --model NAME or --all; stored: {', '.join(names) or 'none'}")
    for name in models:
        if name not in names:
            raise unknown_name("stored model", name, names)
    doomed = [info for info in found if everything or _model(info) in models]
    if (folder / FILE_NAME).is_file():
        try:
            prune(folder, [info.way for info in doomed])
        except sqlite3.DatabaseError as error:
            raise _told(folder, error) from error
    for path in aside:
        path.unlink()
    conversions = delete_conversions(folder) if everything else 0
    rows = sum(info.rows for info in doomed)
    deleted = [f"deleted {rows:,} scores"]
    deleted += [counted(conversions, "converted network")] if conversions else []
    deleted += [counted(len(aside), "damaged file")] if aside else []
    print_lines([", ".join(deleted)], OutputConsole())


def _model(info: WayInfo) -> str:
    return str(info.description.get("model", "")).removeprefix("local/")


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
