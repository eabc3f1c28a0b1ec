"""Finds out what a file or folder holds: which layout, which files, which split."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from evalkit.errors import EvalkitError
from evalkit.output.files import similar_path
from evalkit.output.numbers import listed
from evalkit.records import Finding, Layout
from evalkit.tasks.delimited import read_records
from evalkit.tasks.layouts.columns import holds_rows
from evalkit.tasks.tables import (
    READERS,
    Row,
    Table,
    data_stem,
    data_suffix,
    peeked_columns,
    read_table,
    read_text,
    table_of,
)

# the qrels of mteb 2 may go by three names: its Hub repositories keep the config `default` in `data/`
QRELS_NAMES = ("qrels", "default", "data")
# each part of a dataset, and the names that mteb, BEIR, TREC and MS MARCO give it
_PARTS = {
    "corpus": ("corpus", "collection"),
    "queries": ("queries", "topics"),
    "top_ranked": ("top_ranked", "top1000"),
    "qrels": QRELS_NAMES,
    "instruction": ("instruction",),
}
_TYPES = "|".join(suffix[1:] for suffix in READERS)
_PART_FILE = re.compile(
    rf"(?P<name>corpus|collection|queries|topics|top_ranked|top1000|qrels|instruction)(\.(?P<split>[\w.-]+?))?\.({_TYPES}|txt|trec|qrels)"
    r"|(?P<bare>qrels|top1000)(\.(?P<bare_split>train|dev|eval|test))?"
)
_METADATA = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
_SPLITS = {"train", "dev", "test", "validation", "valid", "val", "eval"}
_SHARD = re.compile(r"(?P<split>.+?)-(?P<index>\d{5})-of-(?P<total>\d{5})(-[0-9a-f]+)?")
_NUMBER = re.compile(r"[-_. ]?\d+$")
# what Spark calls the files of one write: part-00000-UUID-c000.snappy.parquet, on Databricks part-00000-tid-ID-UUID-7-1-c000
_SPARK = re.compile(
    r"part-(r-)?(?P<part>\d{5,})-(?P<write>(tid-\d+-)?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})(-\d+)*(_\d+)?([-.]c\d{3,})?(\.[a-z0-9]+)?",
    re.IGNORECASE,
)
# files whose columns no first line names: MS MARCO's texts and candidates, TREC's judgements
_HEADERS = {
    "corpus": {"id", "_id", "text", "title"},
    "queries": {"id", "_id", "text"},
    "qrels": {"query-id", "corpus-id", "score"},
    "top_ranked": {"query-id", "corpus-ids"},
}
_ID_NAME = re.compile(r"_?id|[qpd]id|docno|(query|doc|document|passage|corpus|topic)[-_]?id", re.IGNORECASE)
# an id may hold white space that is not ASCII, as in runs
_BLANKS = re.compile(r"[ \t\v\f\r]+")
_NAMED = (".parquet", ".jsonl", ".json", ".csv")
_FIELDS = {"corpus": (2,), "queries": (2,), "qrels": (4,), "top_ranked": (2, 4)}
_DUE = {
    "corpus": "a document's id, a tab and its text",
    "queries": "a query's id, a tab and its text",
    "qrels": "TREC's four columns, query 0 document grade",
    "top_ranked": "query id, document id, query and document, with tabs between them (a TREC run: task.candidates=FILE)",
}


@dataclass(frozen=True, slots=True)
class RawDataset:
    """A dataset as read, before any check: `rows`, or `corpus`, `queries`, `qrels`, `top_ranked`, `instruction`.

    `findings` say which files of its folder were not read.
    """

    layout: Layout
    split: str
    parts: Mapping[str, tuple[Table, ...]]
    findings: tuple[Finding, ...] = ()


def read_path(path: Path, split: str) -> RawDataset:
    """Read a file or folder in any layout; where several splits are there, the one asked for.

    Raises EvalkitError where there is nothing, nothing known, or more than one thing that it could be.
    """
    if path.is_file():
        table = read_table(path)
        if _PART_FILE.fullmatch(_unpacked(path)) and not holds_rows(table.columns):
            raise EvalkitError(f"{path} is one part of a dataset of several files; give its folder, {path.parent}")
        stem = data_stem(path)
        return RawDataset("cmteb", stem if stem in _SPLITS else split, {"rows": (table,)})
    if not path.is_dir():
        raise EvalkitError(f"{path}: no such file or folder; check task.path{similar_path(str(path))}")
    places = {part: found for part in _PARTS if (found := _places(path, part))}
    if places.keys() & {"corpus", "queries", "top_ranked"}:
        raw = _read_parts(path, places, split)
    else:
        tables, read_split = _read_folder(path, split)
        raw = RawDataset("cmteb", read_split if read_split in _SPLITS else split, {"rows": tables})
    return replace(raw, findings=_unread(path, raw))


def _unread(folder: Path, raw: RawDataset) -> tuple[Finding, ...]:
    """Return which data files of a folder and two levels below were not read: a warning for those that may be other data.

    Files of other splits beside those that were read, and files of other kinds, are worth a note.
    """
    read = list(dict.fromkeys(Path(table.file) for tables in raw.parts.values() for table in tables))
    if not all(file.is_file() for file in read):  # `save_to_disk` wrote it, and its files are of no type known here
        return ()
    folders = {file.parent for file in read}
    doubtful: list[str] = []
    others: list[str] = []
    for file in _files_below(folder, 2):
        if file not in read:
            is_split = file.parent in folders and _is_of_a_split(file)
            (others if is_split or not _may_be_a_dataset(file) else doubtful).append(os.path.relpath(file, folder))
    names = listed([os.path.relpath(file, folder) for file in read])
    said = f"read: {names}; not read:"
    findings = [Finding("warning", f"{said} {listed(doubtful)}", str(folder))] if doubtful else []
    findings += [Finding("note", f"{said} {listed(others)}", str(folder))] if others else []
    return tuple(findings)


def _files_below(folder: Path, depth: int) -> list[Path]:
    """Return the files of a folder, and of those so many levels below, whose names are those of data."""
    if not os.access(folder, os.R_OK | os.X_OK):  # `lost+found`
        return []
    files = set(_data_files(folder))
    for entry in folder.iterdir():
        if entry.name.startswith((".", "_")):
            continue
        if depth and entry.is_dir():
            files.update(_files_below(entry, depth - 1))
        elif entry.is_file() and _PART_FILE.fullmatch(_unpacked(entry)):
            files.add(entry)
    return sorted(files)


def _is_of_a_split(file: Path) -> bool:
    found = _PART_FILE.fullmatch(_unpacked(file))
    return bool(_split_of(file) or (found and (found["split"] or found["bare_split"])))


def _may_be_a_dataset(file: Path) -> bool:
    if _PART_FILE.fullmatch(_unpacked(file)):
        return True
    try:
        return holds_rows(peeked_columns(file))
    except EvalkitError:
        return True


def choose_split(where: str, available: Iterable[str], wanted: str) -> str:
    """Return the wanted split, or the only one there is; EvalkitError names the splits where neither holds."""
    names = list(available)
    if wanted in names or len(names) == 1:
        return wanted if wanted in names else names[0]
    found = ", ".join(sorted(filter(None, names)))
    raise EvalkitError(f"{where} has no split {wanted!r} but {found}; choose one with task.split=NAME")


def _unpacked(path: Path) -> str:
    """Return a file's name in small letters and without `.gz`."""
    return path.name.lower().removesuffix(".gz")


def _places(folder: Path, part: str) -> dict[str, list[Path]]:
    """Return the folders and files that may hold a part, by the split that their names say ("" where none does)."""
    by_split: dict[str, list[Path]] = {}
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            name, split = entry.name, ""
        elif found := _PART_FILE.fullmatch(_unpacked(entry)):
            name, split = found["name"] or found["bare"], found["split"] or found["bare_split"] or ""
        else:
            known = data_suffix(entry).removesuffix(".gz") in READERS
            name, split = data_stem(entry) if known else "", ""
        if name in _PARTS[part]:
            by_split.setdefault(split, []).append(entry)
    if part == "qrels":  # `data` holds them where nothing else is called so
        names = [name for name in QRELS_NAMES for paths in by_split.values() for path in paths if _called(path) == name]
        by_split = {
            split: kept for split, paths in by_split.items() if (kept := [p for p in paths if _called(p) == names[0]])
        }
    return by_split


def _called(path: Path) -> str:
    return path.name.split(".")[0].lower()


def _read_parts(folder: Path, places: Mapping[str, dict[str, list[Path]]], split: str) -> RawDataset:
    parts: dict[str, tuple[Table, ...]] = {}
    chosen: dict[str, Path] = {}
    found = split
    # the judgements' split is the task's; another part may have a split of its own
    for part in ("qrels", *(part for part in places if part != "qrels")):
        if part not in places:
            continue
        named = choose_split(f"{folder}, {part}", places[part], found)
        twice = places[part][named]
        if len(twice) > 1:
            raise EvalkitError(f"{folder} has {part} twice ({', '.join(place.name for place in twice)}): keep one")
        chosen[part] = twice[0]
        read, inner = _read_part(twice[0], part, found)
        parts = {**read, **parts, part: read[part]}
        if part == "qrels":
            found = named or inner or found
    _refuse_rows_beside_parts(folder, chosen)
    missing = [part for part in ("corpus", "queries", "qrels") if part not in parts]
    if missing:
        raise EvalkitError(
            f"{folder} has {', '.join(part for part in _PARTS if part in places)} but no {' and no '.join(missing)}: "
            "mteb 2's layout needs corpus, queries and qrels, each a folder or file of that name"
        )
    task_split = found.split(".")[0]
    in_order = {part: parts[part] for part in _PARTS if part in parts}
    return RawDataset("mteb", task_split if task_split in _SPLITS else split, in_order)


def _read_part(place: Path, part: str, split: str) -> tuple[dict[str, tuple[Table, ...]], str]:
    """Return a part's tables, with those of other parts where its files hold their texts too, and the split they are of."""
    files, found = ([place], "") if place.is_file() else _files_of_split(place, split)
    if not files:
        tables, found = _read_saved(place, split)
        return {part: tables}, found
    read = [_read_headless(file, part) or {part: read_table(file)} for file in files]
    names = list(dict.fromkeys(name for tables in read for name in tables))
    return {name: tuple(tables[name] for tables in read if name in tables) for name in names}, found


def _read_headless(path: Path, part: str) -> dict[str, Table] | None:
    """Return a part's table, by its name; None where the file names its columns, and `read_table` reads it.

    Candidates that hold their texts give the tables of `queries` and `corpus` too. Raises EvalkitError, naming the row,
    for a line of other columns.
    """
    if data_suffix(path).removesuffix(".gz") in _NAMED or part not in _HEADERS:
        return None
    text = read_text(path)
    first = next((line for line in text.split("\n") if line.strip()), "")
    if not first or len(_HEADERS[part] & set(first.replace('"', "").strip().split("\t"))) > 1:
        return None
    if _ID_NAME.fullmatch(re.split(r"\s", first.replace('"', ""))[0]):
        names = ", ".join(sorted(_HEADERS[part]))
        raise EvalkitError(
            f"{path}, row {text[: text.index(first)].count(chr(10)) + 1} seems to name columns, but not as {names}; call them so, "
            "or leave it out"
        )
    due = _FIELDS[part]
    records, remarks = read_records(path, text, "\t", due)
    numbers, rows = [], []
    for record in records:
        fields = record.cells if part != "qrels" else _BLANKS.split("\t".join(record.cells).strip(" \t\v\f\r"))
        if not any(field.strip() for field in fields):
            continue
        if len(fields) not in due:
            raise EvalkitError(
                f"{path}, row {record.first_line}: {len(fields)} fields where {_DUE[part]}, are due; other columns need a first "
                f"line with their names ({', '.join(sorted(_HEADERS[part]))}) and tabs"
            )
        numbers.append(record.first_line)
        rows.append(fields)
    if part == "top_ranked":
        return _candidates(path, rows, numbers, remarks)
    columns = ("query-id", "", "corpus-id", "score") if part == "qrels" else ("id", "text")
    table = table_of(str(path), [dict(zip(columns, row, strict=True)) for row in rows], numbers)
    return {part: replace(table, remarks=remarks)}


def _candidates(path: Path, rows: list[list[str]], numbers: list[int], remarks: Sequence[str]) -> dict[str, Table]:
    ranked: dict[str, list[str]] = {}
    texts: dict[str, dict[str, str]] = {"queries": {}, "corpus": {}}
    for number, (query_id, doc_id, *given) in zip(numbers, rows, strict=True):
        ranked.setdefault(query_id, []).append(doc_id)
        for part, text_id, text in zip(texts, (query_id, doc_id), given, strict=False):
            if texts[part].setdefault(text_id, text) != text:
                raise EvalkitError(f"{path}, row {number}: {text_id!r} has another text than in an earlier row")
    parts: dict[str, list[Row]] = {
        name: [{"id": text_id, "text": text} for text_id, text in found.items()]
        for name, found in texts.items()
        if found
    }
    parts["top_ranked"] = [{"query-id": query_id, "corpus-ids": doc_ids} for query_id, doc_ids in ranked.items()]
    tables = {name: table_of(str(path), found) for name, found in parts.items()}
    return tables | {"top_ranked": replace(tables["top_ranked"], remarks=remarks)}


def _refuse_rows_beside_parts(folder: Path, chosen: Mapping[str, Path]) -> None:
    others = [file for file in _data_files(folder) if file not in chosen.values()]
    if folder / "data" not in chosen.values():
        others += _data_files(folder / "data")
    for file in others:
        if not _PART_FILE.fullmatch(_unpacked(file)) and holds_rows(peeked_columns(file)):
            raise EvalkitError(
                f"{folder} holds both layouts: {file.name} has rows of queries with their documents beside mteb 2's "
                "corpus and queries; give one of them a folder of its own"
            )


def _read_folder(folder: Path, split: str) -> tuple[tuple[Table, ...], str]:
    """Return the files of one table, and the split they are of ("" where no name says)."""
    files, found = _files_of_split(folder, split)
    return (tuple(read_table(file) for file in files), found) if files else _read_saved(folder, split)


def _files_of_split(folder: Path, split: str) -> tuple[list[Path], str]:
    """Return the files of one dataset and split, and the split's name; no files where `save_to_disk` wrote the folder.

    Raises EvalkitError where there are none, and where they may be those of several datasets.
    """
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return [], ""
    files = _data_files(folder) + _data_files(folder / "data")
    if not files:
        raise EvalkitError(_nothing_found(folder))
    by_split: dict[str, list[Path]] = {}
    for file in files:
        by_split.setdefault(_split_of(file), []).append(file)
    found = choose_split(str(folder), by_split, split)
    chosen = [file for file in by_split[found] if not _is_empty_first(file)]
    if not chosen:
        raise EvalkitError(f"{folder}: all its files are empty; write the dataset again")
    suffixes = sorted({data_suffix(file) for file in chosen})
    if len(suffixes) > 1:
        raise EvalkitError(
            f"{folder} holds files of several types ({', '.join(suffixes)}); give one file, or keep one type"
        )
    others = [file for file in by_split.get("", ()) if found and holds_rows(peeked_columns(file))]
    refuse_several_datasets(folder, [*chosen, *others])
    refuse_missing_shards(chosen)
    return chosen, found


def refuse_several_datasets(folder: Path, files: list[Path]) -> None:
    """Raise EvalkitError where files have several names, numbers apart, or lie in several folders: they would be pooled.

    What Spark wrote at one time has one name; what it appended later has another.
    """
    names = {(file.parent, _name_in_common(file)) for file in files}
    if len(names) > 1:
        shown = ", ".join(os.path.relpath(file, folder) for file in files[:4]) + (", …" if len(files) > 4 else "")
        raise EvalkitError(
            f"{folder} holds several files that may be several datasets ({shown}); give one with task.path=FILE, or name the "
            "parts of one dataset by numbers: NAME-0, NAME-1"
        )


def _is_empty_first(file: Path) -> bool:
    """Return whether a file is Spark's first one without a row, which in JSON has no byte; any other such file is damaged."""
    spark = _SPARK.fullmatch(data_stem(file))
    return spark is not None and int(spark["part"]) == 0 and data_suffix(file) == ".json" and file.stat().st_size == 0


def _name_in_common(file: Path) -> str:
    """Return what the names of one dataset's files share."""
    stem = data_stem(file)
    spark = _SPARK.fullmatch(stem)
    return spark["write"] if spark else _NUMBER.sub("", _split_of(file) or stem)


def _data_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        file
        for file in folder.iterdir()
        if file.is_file()
        and data_suffix(file).removesuffix(".gz") in READERS
        and file.name not in _METADATA
        and not file.name.startswith((".", "_"))
    )


def _split_of(file: Path) -> str:
    stem = data_stem(file)
    shard = _SHARD.fullmatch(stem)
    if shard:
        return shard["split"]
    return stem if stem in _SPLITS else ""


def refuse_missing_shards(files: Iterable[Path]) -> None:
    """Raise EvalkitError where files named NAME-00000-of-00003 are not all there, or are there twice.

    A part would pass for the whole, and two versions in one folder for one.
    """
    totals: dict[tuple[Path, str], str] = {}
    for file in files:
        shard = _SHARD.fullmatch(data_stem(file))
        if shard is None:
            continue
        for index in range(int(shard["total"])):
            name = f"{shard['split']}-{index:05d}-of-{shard['total']}"
            found = sorted(one.name for one in file.parent.glob(f"{name}*"))
            if not found:
                raise EvalkitError(f"{file.parent}: shard {name} is missing; fetch the dataset again")
            if len(found) > 1:
                raise EvalkitError(f"{file.parent} has one shard twice: {', '.join(found[:3])}; keep one version")
        total = totals.setdefault((file.parent, shard["split"]), shard["total"])
        if total != shard["total"]:
            raise EvalkitError(
                f"{file.parent}: {shard['split']} is there in {int(total)} and in {int(shard['total'])} shards; keep one version"
            )


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
