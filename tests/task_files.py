"""One small dataset, and writers that put it into every layout and file type."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from evalkit.records import Task
from evalkit.tasks.loading import read_task
from evalkit.tasks.settings import TaskSettings

Rows = list[dict[str, Any]]

ROWS: Rows = [
    {
        "query": "感冒发烧怎么办?",
        "positive": ["多喝水,\n注意休息。", '医生说:"先测体温"'],
        "negative": ["苹果\u2028是水果", "[重要] 通知"],
    },
    {"query": "没有负例的问题", "positive": ["唯一的答案"], "negative": []},
    {"query": "red apple 🍎", "positive": ["an apple, red"], "negative": ["a pear", "a whale", "NA"]},
    {"query": "00123", "positive": ["null"], "negative": ["苹果\u2028是水果"]},
]
LIST_ROWS: Rows = [row | {"query": [row["query"], f"{row['query']} (again)"]} for row in ROWS]


def uneven_rows(queries: int, candidates: int, longest: int) -> Rows:
    """Rows with texts of very different lengths, the first candidate of each the positive one."""
    generator = np.random.default_rng(0)

    def text(most: int) -> str:
        return "".join(
            generator.choice(list("感冒发烧多喝水苹果银行深度学习模型需要大量数据和计算"), generator.integers(8, most))
        )

    return [
        {"query": text(20), "positive": [text(longest)], "negative": [text(longest) for _ in range(candidates - 1)]}
        for _ in range(queries)
    ]


def local_settings(path: Path, **changes: Any) -> TaskSettings:
    return TaskSettings(name="local", path=str(path), **({"split": "dev"} | changes))


def load(path: Path, **changes: Any) -> Task:
    return read_task(local_settings(path, **changes))


def write_jsonl(path: Path, rows: Rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def write_json(path: Path, rows: Rows) -> Path:
    path.write_text(json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8")
    return path


def write_json_data(path: Path, rows: Rows) -> Path:
    path.write_text(json.dumps({"data": rows}), encoding="utf-8")
    return path


def write_parquet(path: Path, rows: Rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def write_csv(path: Path, rows: Rows) -> Path:
    separator = "\t" if path.suffix == ".tsv" else ","
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter=separator)
        writer.writeheader()
        for row in rows:
            cells = {k: json.dumps(v, ensure_ascii=False) if isinstance(v, list) else v for k, v in row.items()}
            writer.writerow(cells)
    return path


def _shards(folder: Path, rows: Rows) -> Path:
    folder.mkdir(parents=True)
    schema = pa.Table.from_pylist(rows).schema
    for i, part in enumerate((rows[:1], rows[1:3], rows[3:])):
        pq.write_table(pa.Table.from_pylist(part, schema), folder / f"part-{i}.parquet")
    return folder


def _hub_snapshot(folder: Path, rows: Rows) -> Path:
    schema = pa.Table.from_pylist(rows).schema
    (folder / "data").mkdir(parents=True)
    for i, part in enumerate((rows[:2], rows[2:])):
        pq.write_table(pa.Table.from_pylist(part, schema), folder / "data" / f"dev-{i:05d}-of-00002-0a1b2c3d.parquet")
    write_parquet(folder / "data" / "train-00000-of-00001.parquet", rows[:1])
    (folder / "README.md").write_text("# a dataset\n")
    (folder / "dataset_infos.json").write_text("{}")
    return folder


def _saved(folder: Path, rows: Rows) -> Path:
    datasets.Dataset.from_list(rows).save_to_disk(str(folder))
    return folder


def _saved_dict(folder: Path, rows: Rows) -> Path:
    whole = datasets.Dataset.from_list(rows)
    datasets.DatasetDict({"train": whole.select([0]), "dev": whole}).save_to_disk(str(folder))
    return folder


# name of the file or folder, and what writes it
ROW_WRITERS: dict[str, tuple[str, Callable[[Path, Rows], Path]]] = {
    "jsonl": ("rows.jsonl", write_jsonl),
    "json lines as .json": ("rows.json", write_jsonl),
    "json array": ("rows.json", write_json),
    "json data": ("rows.json", write_json_data),
    "parquet": ("rows.parquet", write_parquet),
    "csv": ("rows.csv", write_csv),
    "folder of one file": ("folder", lambda folder, rows: write_jsonl(folder / "rows.jsonl", rows).parent),
    "folder of shards": ("folder", _shards),
    "splits by file name": (
        "folder",
        lambda folder, rows: (
            write_jsonl(write_jsonl(folder / "test.jsonl", rows[:1]).parent / "dev.jsonl", rows).parent
        ),
    ),
    "hub snapshot": ("folder", _hub_snapshot),
    "save_to_disk Dataset": ("folder", _saved),
    "save_to_disk DatasetDict": ("folder", _saved_dict),
}


def mteb_parts(rows: Rows, split: str = "dev") -> dict[str, Rows]:
    """The rows in mteb 2's layout, with mteb's ids for the rows that it keeps."""
    parts: dict[str, Rows] = {"corpus": [], "queries": [], "qrels": [], "top_ranked": []}
    kept = 0
    for number, row in enumerate(rows):
        counts = bool(row["positive"]) and bool(row["negative"])
        query_id = f"{split}_query{kept}" if counts else f"{split}_dropped{number}"
        kept += counts
        parts["queries"].append({"id": query_id, "text": row["query"]})
        doc_ids = []
        for prefix, gain, texts in (("apositive", 1, row["positive"]), ("negative", 0, row["negative"])):
            for i, text in enumerate(texts):
                doc_ids.append(f"{prefix}_{query_id}_{i:05d}")
                parts["corpus"].append({"id": doc_ids[-1], "title": "", "text": text})
                parts["qrels"].append({"query-id": query_id, "corpus-id": doc_ids[-1], "score": gain})
        parts["top_ranked"].append({"query-id": query_id, "corpus-ids": doc_ids})
    return parts


def write_parts(folder: Path, parts: dict[str, Rows], qrels: str = "qrels/dev.tsv") -> Path:
    """mteb 2's layout as plain files: JSON Lines, and the qrels under the name given."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in parts.items():
        if name != "qrels":
            write_jsonl(folder / f"{name}.jsonl", rows)
    place = folder / qrels
    place.parent.mkdir(parents=True, exist_ok=True)
    {".tsv": write_csv, ".jsonl": write_jsonl, ".parquet": write_parquet}[place.suffix](place, parts["qrels"])
    return folder


def write_hub_parts(folder: Path, parts: dict[str, Rows], split: str = "dev", qrels: str = "qrels") -> Path:
    """mteb 2's layout as on the Hub: a config per part, named in the README's header."""
    header = ["---", "configs:"]
    for part, rows in parts.items():
        name = qrels if part == "qrels" else part
        place = "data" if name == "default" else name
        write_parquet(folder / place / f"{split}-00000-of-00001.parquet", rows)
        header += [f"- config_name: {name}", "  data_files:", f"  - split: {split}", f"    path: {place}/{split}-*"]
    (folder / "README.md").write_text("\n".join([*header, "---", ""]))
    return folder


def _saved_parts(folder: Path, parts: dict[str, Rows]) -> Path:
    for part, rows in parts.items():
        datasets.Dataset.from_list(rows).save_to_disk(str(folder / part))
    return folder


def _json_parts(folder: Path, parts: dict[str, Rows]) -> Path:
    folder.mkdir()
    for part, rows in parts.items():
        write_json(folder / f"{part}.json", rows)
    return folder


def _csv_parts(folder: Path, parts: dict[str, Rows]) -> Path:
    folder.mkdir()
    for part, rows in parts.items():
        write_csv(folder / f"{part}.csv", rows)
    return folder


PART_WRITERS: dict[str, Callable[[Path, dict[str, Rows]], Path]] = {
    "jsonl, qrels/dev.tsv": write_parts,
    "jsonl, qrels/dev.jsonl": lambda folder, parts: write_parts(folder, parts, "qrels/dev.jsonl"),
    "jsonl, qrels/dev.parquet": lambda folder, parts: write_parts(folder, parts, "qrels/dev.parquet"),
    "jsonl, qrels.tsv": lambda folder, parts: write_parts(folder, parts, "qrels.tsv"),
    "parquet folders": write_hub_parts,
    "parquet folders, default": lambda folder, parts: write_hub_parts(folder, parts, qrels="default"),
    "save_to_disk": _saved_parts,
    "json": _json_parts,
    "csv": _csv_parts,
}
