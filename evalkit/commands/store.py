"""The store of `evalkit cache`: what it holds, whether it is whole, and how to be rid of it."""

from __future__ import annotations

import math
import re
import shutil
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from evalkit.backends.conversions import conversion_bytes, is_conversion_of, kept_conversions
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
    networks = [(made, conversion_bytes(made)) for made in kept_conversions(folder)]
    lines = [
        f"converted network {made}: {size / MEBIBYTE:,.1f} MiB, last used {_day(made.stat().st_mtime)}"
        for made, size in networks
    ]
    if networks:
        total = sum(size for _, size in networks)
        lines.append(f"{counted(len(networks), 'converted network')}: {total / MEBIBYTE:,.1f} MiB")
    print_lines(lines, console)
    if not path.is_file():
        print_lines([f"no scores are stored in {folder}"], console)
        return
    print_sheets([_sheet(_described(folder))], console)
    print_lines([f"{path}: {path.stat().st_size / MEBIBYTE:.1f} MiB"], console)


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().date().isoformat()


def _sheet(ways: Iterable[tuple[WayInfo, dict[str, Any]]]) -> Sheet:
    titles = ("model", "identity", "backend", "dtype", "max_length", "scores", "MiB", "used")
    rows = []
    for info, said in ways:
        size = f"{info.output_bytes / MEBIBYTE:.1f}"
        cells = (
            f"{said['model']} (refreshed since)" if info.replaced else said["model"],
            (said["identity"] or said["weights_hash"])[:12],
            said["backend"],
            said["dtype"],
            str(said["max_length"] or ""),
        )
        rows.append((*cells, f"{info.rows:,}", size, _day(info.last_used)))
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
    """Return what a way of scoring says of itself; empty where it says nothing."""
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
        "ways": [
            {
                **said,
                "scores": info.rows,
                "bytes": info.output_bytes,
                "last_used": _day(info.last_used),
                "replaced": info.replaced,
            }
            for info, said in _described(folder)
        ],
        "conversions": [
            {"file": str(made), "bytes": conversion_bytes(made), "last_used": _day(made.stat().st_mtime)}
            for made in kept_conversions(folder)
        ],
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


@dataclass(frozen=True)
class Kept:
    """One thing of the cache that can be deleted: a way of scoring, a converted network, or a damaged store's file."""

    thing: WayInfo | Path
    names: tuple[str, ...]
    size: int
    last_used: float


def prune_store(
    chosen: Path | None,
    models: list[str],
    everything: bool,
    max_size: str | None = None,
    older_than: str | None = None,
) -> None:
    """Delete scores and converted networks: of some models, of an age, what is beyond a size, or all that is kept.

    Models whose files are the same share them, so whichever name is given, they go. Raises EvalkitError for a model without any,
    and where nothing says what is to go.
    """
    folder = cache_folder(chosen)
    most = None if max_size is None else _read_amount("--max-size", max_size, SIZES, "500MB or 2GB")
    age = None if older_than is None else _read_amount("--older-than", older_than, AGES, "12h, 30d or 8w")
    if everything and (models or most is not None or age is not None):
        raise EvalkitError("--all deletes everything: leave out --model, --max-size and --older-than, or --all")
    aside = _set_aside_files(folder) if everything else sorted(folder.glob(f"{FILE_NAME}.damaged-*"))
    kept = _kept(folder, aside)
    names = sorted({name for one in kept for name in one.names})
    if not models and not everything and most is None and age is None:
        raise EvalkitError(
            f"say what to delete: --model NAME, --older-than AGE, what is beyond --max-size SIZE, or --all; stored: "
            f"{', '.join(names) or 'none'}"
        )
    for name in models:
        if name not in names:
            raise unknown_name("stored model", name, names)
    found = [one for one in kept if not models or set(one.names) & set(models)]
    _delete(folder, found if most is None and age is None else _beyond(found, most, age))


def _kept(folder: Path, aside: Iterable[Path]) -> list[Kept]:
    """List what is kept in a cache. Whatever a refresh has replaced was used longest ago."""
    known = names_by_identity(folder)
    kept = []
    for info in _ways(folder):
        last_used = 0.0 if info.replaced else info.last_used
        kept.append(Kept(info, tuple(_models(info, known)), info.stored_bytes, last_used))
    for made in kept_conversions(folder):
        names = {
            name for one in kept if isinstance(one.thing, WayInfo) for name in one.names if _is_of(made, one.thing)
        }
        names |= {
            name.removeprefix("local/")
            for identity, found in known.items()
            if is_conversion_of(made, identity)
            for name in found
        }
        kept.append(Kept(made, tuple(sorted(names)), conversion_bytes(made), made.stat().st_mtime))
    return [*kept, *(Kept(path, (), path.stat().st_size, path.stat().st_mtime) for path in aside)]


def _is_of(made: Path, info: WayInfo) -> bool:
    return any(is_conversion_of(made, str(info.description.get(key, ""))) for key in ("identity", "weights_hash"))


def _beyond(kept: Sequence[Kept], most: float | None, age: float | None) -> list[Kept]:
    """Choose what was last used longer ago than `age` seconds, and then, by last use, what is beyond `most` bytes."""
    limit = -math.inf if age is None else time.time() - age
    doomed = [one for one in kept if one.last_used < limit]
    left = sorted((one for one in kept if one.last_used >= limit), key=lambda one: one.last_used)
    size = sum(one.size for one in left)
    for one in left:
        if most is None or size <= most:
            break
        doomed.append(one)
        size -= one.size
    return doomed


def _delete(folder: Path, doomed: Sequence[Kept]) -> None:
    """Delete these things, and report how much that was."""
    ways = [one.thing for one in doomed if isinstance(one.thing, WayInfo)]
    if (folder / FILE_NAME).is_file():
        try:
            prune(folder, [info.way for info in ways])
        except sqlite3.DatabaseError as error:
            raise _told(folder, error) from error
    paths = [one.thing for one in doomed if isinstance(one.thing, Path)]
    networks = [path for path in paths if path.is_dir()]
    for network in networks:
        shutil.rmtree(network)
    files = [path for path in paths if path not in networks]
    for path in files:
        path.unlink()
    deleted = [f"deleted {sum(info.rows for info in ways):,} scores"]
    deleted += [counted(len(networks), "converted network")] if networks else []
    deleted += [counted(len(files), "damaged file")] if files else []
    print_lines([", ".join(deleted)], OutputConsole())


SIZES = {"B": 1, **{f"{letter}B": 1_000**n for n, letter in enumerate("KMGT", 1)}}
SIZES |= {f"{letter}IB": 1_024**n for n, letter in enumerate("KMGT", 1)}
AGES = {"S": 1, "M": 60, "H": 3_600, "D": 86_400, "W": 604_800}


def _read_amount(option: str, text: str, units: Mapping[str, int], examples: str) -> float:
    """Read a number with its unit, in capitals or not. Raises EvalkitError for anything else."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]+)\s*", text, re.ASCII)
    if found is None or found[2].upper() not in units:
        raise EvalkitError(f"{option}={text!r}: a number and its unit, such as {examples}")
    return float(found[1]) * units[found[2].upper()]


def _models(info: WayInfo, known: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the names of a way's model: its own, or those under which its identity was met, or what that begins with."""
    identity = str(info.description.get("identity", ""))
    own = info.description.get("model")
    names = [str(own)] if own else known.get(identity) or [identity[:REVISION_DIGITS]]
    return [name.removeprefix("local/") for name in names]


def _set_aside_files(folder: Path) -> list[Path]:
    """Return the files that runs set aside, and the store's own where it is as broken."""
    path = folder / FILE_NAME
    try:
        if path.is_file():
            damaged_rows(folder)
    except sqlite3.DatabaseError as error:
        if not is_damage(error, path):
            raise refusal(path, error) from error
        set_aside(path)
    return sorted(folder.glob(f"{FILE_NAME}.damaged-*"))


def _ways(folder: Path) -> list[WayInfo]:
    try:
        return ways(folder)
    except sqlite3.DatabaseError as error:
        raise _told(folder, error) from error


def _told(folder: Path, error: sqlite3.DatabaseError) -> EvalkitError:
    """Return the damage as one line; raises EvalkitError where the file is whole and circumstances are against it."""
    path = folder / FILE_NAME
    if not is_damage(error, path):
        raise refusal(path, error) from error
    return EvalkitError(
        f"{path} is damaged: {error}; the next run keeps what can be read of it, evalkit cache prune --all deletes it"
    )
