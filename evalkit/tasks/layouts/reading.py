"""Finds out what a file or folder holds: which layout, which files, which split."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from evalkit.errors import EvalkitError
from evalkit.output.files import similar_path
from evalkit.records import Layout
from evalkit.tasks.tables import READERS, Table, read_table, table_of

# the qrels of mteb 2 may go by three names: its Hub repositories keep the config `default` in `data/`
QRELS_NAMES = ("qrels", "default", "data")
_PART_NAMES = ("corpus", "queries", "top_ranked", *QRELS_NAMES)
_METADATA = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
_SPLITS = {"train", "dev", "test", "validation", "valid", "val"}
_SHARD = re.compile(r"(?P<split>.+?)-(?P<index>\d{5})-of-(?P<total>\d{5})(-[0-9a-f]+)?")
_SNIFFED_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class RawDataset:
    """A dataset as read, before any check: `rows` for C-MTEB; `corpus`, `queries`, `qrels`, `top_ranked` for mteb 2."""

    layout: Layout
    split: str
    parts: Mapping[str, tuple[Table, ...]]


def read_path(path: Path, split: str) -> RawDataset:
    """Read a file or folder in either layout; where several splits are there, the one asked for.

    Raises EvalkitError where there is nothing, nothing known, or more than one thing that it could be.
    """
    if path.is_file():
        table = read_table(path)
        if path.stem in ("corpus", "queries", "top_ranked", "qrels") and "positive" not in table.columns:
            raise EvalkitError(f"{path} is one part of a dataset in mteb 2's layout; give its folder, {path.parent}")
        return RawDataset("cmteb", path.stem if path.stem in _SPLITS else split, {"rows": (table,)})
    if not path.is_dir():
        raise EvalkitError(f"{path}: no such file or folder; check task.path{similar_path(str(path))}")
    parts = {name: places for name in _PART_NAMES if (places := _part_places(path, name))}
    if parts.keys() & {"corpus", "queries", "top_ranked"}:
        return _read_parts(path, parts, split)
    tables, found = _read_folder(path, split)
    return RawDataset("cmteb", found if found in _SPLITS else split, {"rows": tables})


def choose_split(where: str, available: Iterable[str], wanted: str) -> str:
    """Return the wanted split, or the only one there is; EvalkitError names the splits where neither holds."""
    names = list(available)
    if wanted in names or len(names) == 1:
        return wanted if wanted in names else names[0]
    found = ", ".join(sorted(filter(None, names)))
    raise EvalkitError(f"{where} has no split {wanted!r} but {found}; choose one with task.split=NAME")


def _part_places(folder: Path, name: str) -> list[Path]:
    places = [folder / name] if (folder / name).is_dir() else []
    return places + [file for suffix in READERS if (file := folder / f"{name}{suffix}").is_file()]


def _read_parts(folder: Path, places: Mapping[str, list[Path]], split: str) -> RawDataset:
    qrels_name = next((name for name in QRELS_NAMES if name in places), "qrels")
    _refuse_rows_beside_parts(folder, used={"corpus", "queries", "top_ranked", qrels_name})
    missing = [name for name in ("corpus", "queries", qrels_name) if name not in places]
    if missing:
        raise EvalkitError(
            f"{folder} has {', '.join(places)} but no {' and no '.join(missing)}: "
            "mteb 2's layout needs corpus, queries and qrels, each a folder or file of that name"
        )
    parts, found = {}, split
    for part, name in {
        "corpus": "corpus",
        "queries": "queries",
        "top_ranked": "top_ranked",
        "qrels": qrels_name,
    }.items():
        if name not in places:
            continue
        if len(places[name]) > 1:
            raise EvalkitError(f"{folder} has {name} twice ({', '.join(p.name for p in places[name])}): keep one")
        place = places[name][0]
        parts[part], found = ((read_table(place),), split) if place.is_file() else _read_folder(place, split)
    # the corpus may have a split of its own; the judgements' split is the task's
    return RawDataset("mteb", found if found in _SPLITS else split, parts)


def _refuse_rows_beside_parts(folder: Path, used: set[str]) -> None:
    others = [file for file in _data_files(folder) if file.stem not in used]
    if "data" not in used:
        others += _data_files(folder / "data")
    for file in others:
        if _holds_rows(file):
            raise EvalkitError(
                f"{folder} holds both layouts: {file.name} has query/positive/negative rows beside mteb 2's "
                "corpus and queries; give one of them a folder of its own"
            )


def _holds_rows(file: Path) -> bool:
    """Return whether a file seems to have C-MTEB's columns, from its beginning alone."""
    if file.suffix.lower() == ".parquet":
        try:
            return {"positive", "negative"} <= set(pq.read_schema(file).names)
        except (pa.ArrowException, OSError) as error:
            raise EvalkitError(f"{file} is no readable parquet file: fetch or write it again") from error
    with file.open("rb") as stream:
        head = stream.read(_SNIFFED_BYTES)
    return b"positive" in head and b"negative" in head


def _read_folder(folder: Path, split: str) -> tuple[tuple[Table, ...], str]:
    """Return one table's files, and the split they are of ("" where no name says)."""
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return _read_saved(folder, split)
    files = _data_files(folder) + _data_files(folder / "data")
    if not files:
        raise EvalkitError(_nothing_found(folder))
    by_split: dict[str, list[Path]] = {}
    for file in files:
        by_split.setdefault(_split_of(file), []).append(file)
    found = choose_split(str(folder), by_split, split)
    chosen = by_split[found]
    suffixes = sorted({file.suffix.lower() for file in chosen})
    if len(suffixes) > 1:
        raise EvalkitError(
            f"{folder} holds files of several types ({', '.join(suffixes)}); give one file, or keep one type"
        )
    refuse_missing_shards(chosen)
    return tuple(read_table(file) for file in chosen), found


def _data_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        file
        for file in folder.iterdir()
        if file.is_file()
        and file.suffix.lower() in READERS
        and file.name not in _METADATA
        and not file.name.startswith((".", "_"))
    )


def _split_of(file: Path) -> str:
    shard = _SHARD.fullmatch(file.stem)
    if shard:
        return shard["split"]
    return file.stem if file.stem in _SPLITS else ""


def refuse_missing_shards(files: Iterable[Path]) -> None:
    """Raise EvalkitError where files named NAME-00000-of-00003 are not all there: a part would pass for the whole."""
    for file in files:
        shard = _SHARD.fullmatch(file.stem)
        if shard is None:
            continue
        for index in range(int(shard["total"])):
            name = f"{shard['split']}-{index:05d}-of-{shard['total']}"
            if not any(file.parent.glob(f"{name}*")):
                raise EvalkitError(f"{file.parent}: shard {name} is missing; fetch the dataset again")


def _read_saved(folder: Path, split: str) -> tuple[tuple[Table, ...], str]:
    import datasets

    try:
        saved = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, TypeError, LookupError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise EvalkitError(
            f"{folder} is a damaged save_to_disk folder, or one without rows ({reason}); write it again"
        ) from error
    if not isinstance(saved, datasets.DatasetDict):
        return (table_of_dataset(str(folder), saved),), str(saved.split or "")
    found = choose_split(str(folder), saved, split)
    return (table_of_dataset(str(folder / found), saved[found]),), found


def table_of_dataset(file: str, dataset: object) -> Table:
    """Return a `datasets.Dataset` as a table."""
    rows = dataset.to_list()  # type: ignore[attr-defined]
    return table_of(file, rows) if rows else Table(file, tuple(dataset.column_names), (), ())  # type: ignore[attr-defined]


def _nothing_found(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    if not names:
        return f"{folder} is empty; task.path= wants a dataset's file or folder"
    shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    return f"{folder} holds no data files ({', '.join(READERS)}) but {shown}; give the folder or file with the data"
