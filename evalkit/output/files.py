"""Files and standard output, written whole or not at all, whoever else writes there and whenever the process is killed.

Who writes has the folder's or file's lock meanwhile, and uses names that depend on the place alone: what a killed process left is
overwritten or deleted by the next one that writes there. Also names like those of files that are missing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from evalkit.errors import EvalkitError, nearest
from evalkit.interruption import postponed, scratch

BUSY_SECONDS = 60
_LOCK = ".evalkit.lock"
_UNFINISHED = ".evalkit.unfinished"
_READY = ".evalkit.ready"
UNFINISHED_FOLDERS = (_UNFINISHED, _READY)
"""The folders that hold files which are not in their place yet."""


def write_text(text: str, path: Path | None) -> None:
    """Write to a file (whole or not at all), or to standard output. Raises EvalkitError where the file can't be written."""
    if path is None:
        sys.stdout.write(text)  # as it is: a console would make spaces of tabs
        return
    try:
        if path.exists() and not path.is_file():  # such as a pipe
            path.write_text(text, encoding="utf-8")
        else:
            replace_file(path, text.encode("utf-8"))
    except OSError as error:
        raise EvalkitError(
            f"cannot write {path} ({error.strerror or error}); name a file in a folder that exists"
        ) from error


def write_bytes(content: bytes, path: Path) -> None:
    """Write a file, whole or not at all, and the folders above it. Raises EvalkitError where it can't be written."""
    try:
        path.resolve().parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content)
    except OSError as error:
        raise EvalkitError(
            f"cannot write {path} ({error.strerror or error}); mend that, or name another place"
        ) from error


def replace_file(path: Path, content: bytes) -> None:
    """Put content in a file's place, whole or not at all; a link stays one, and what it leads to is replaced. Raises OSError."""
    path = path.resolve()
    name = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32]
    with _locked(path.with_name(f".{name}.lock")), scratch(path.with_name(f".{name}.tmp")) as temporary:
        _write(temporary, content, like=path)
        with postponed():
            temporary.replace(path)


@contextmanager
def folder_locked(folder: Path) -> Iterator[None]:
    """Let nobody else replace files in the folder meanwhile; what a killed process left of that is finished or deleted first.

    The folder is made where there is none. Raises OSError, for one after a minute in which somebody else had the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / _LOCK):
        _move_ready(folder)
        shutil.rmtree(folder / _UNFINISHED, ignore_errors=True)
        yield


def replace_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Put files in a folder that belong together, by name: all of them or none. The folder is locked by the caller.

    They are made in a folder of their own below it, whose renaming decides: from then on they count, and who is killed while
    they take their places leaves the rest to `finish_replacing`. Where a JSON file lies, those beside it are its own: its
    older self goes before the others change, and it comes last. Each keeps the permissions of its older self.

    Raises OSError; then everything is as it was.
    """
    with scratch(folder / _UNFINISHED) as unfinished:
        unfinished.mkdir()
        for name, content in contents.items():
            if not (folder / name).is_file() or (folder / name).read_bytes() != content:
                _write(unfinished / name, content, like=folder / name)
        with postponed():
            unfinished.rename(folder / _READY)
            try:
                _move_ready(folder)
            except BaseException:  # such as Ctrl-C in a notebook: the rest follows all the same
                _move_ready(folder)
                raise


def finish_replacing(folder: Path) -> None:
    """Put the files in place that a killed process had made, but not moved. Raises OSError where that can't be done."""
    if (folder / _READY).is_dir():
        with folder_locked(folder):
            pass


def _move_ready(folder: Path) -> None:
    ready = folder / _READY
    if not ready.is_dir():
        return
    files = sorted(ready.iterdir(), key=lambda file: (file.suffix == ".json", file.name))
    for file in files:
        if file.suffix == ".json":
            (folder / file.name).unlink(missing_ok=True)
    for file in files:
        file.replace(folder / file.name)
    ready.rmdir()


def _write(path: Path, content: bytes, like: Path) -> None:
    """Write a new file to the disk itself, with the permissions of another where that exists."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    if like.exists():
        shutil.copymode(like, path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock file, which is gone afterwards: FileLock looks again where it has locked a file that is deleted."""
    path.parent.stat()  # FileLock would make a folder that is missing
    with FileLock(path, timeout=BUSY_SECONDS):
        try:
            yield
        finally:
            with suppress(OSError):  # Windows does not delete what is open
                path.unlink()


def similar_path(said: str) -> str:
    """Return what to add to the message that the path of that spelling is missing: names like its own beside it, or nothing."""
    path = Path(said).expanduser()
    try:
        found = nearest(path.name, [one.name for one in path.parent.iterdir()])
    except OSError:
        return ""
    above = said.rstrip("/\\")[: -len(path.name)]
    return f"; did you mean {' or '.join(above + name for name in found)}?" if found else ""
