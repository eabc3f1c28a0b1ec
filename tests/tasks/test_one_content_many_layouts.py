"""One content in every layout and notation: the same figures everywhere, or a refusal that says how to mend it."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from task_files import (
    Rows,
    load,
    mteb_parts,
    write_csv,
    write_hub_parts,
    write_json,
    write_jsonl,
    write_parquet,
    write_parts,
)

import evalkit
from evalkit.errors import EvalkitError
from evalkit.records import Task

QUERIES = 44
TOPICS = ("感冒", "发烧", "高血压", "糖尿病", "失眠", "weather", "咖啡", "火车", "machine learning", "苹果", "量子")


def made_content(queries: int = QUERIES) -> Rows:
    """Queries in Chinese and English, each with one to four positives and three to six negatives; no text occurs twice."""
    draw = np.random.default_rng(7)
    rows = []
    for number in range(queries):
        topic, other = (TOPICS[i] for i in draw.choice(len(TOPICS), 2, replace=False))
        positives = [f'第{number}问,答{i}:关于{topic}的\n说明 "{i}"' for i in range(1 + number % 4)]
        negatives = [f"问题{number} 无关{i}: {other}, it's {i}% off" for i in range(3 + number % 4)]
        rows.append({"query": f"{topic}怎么办? ({number})", "positive": positives, "negative": negatives})
    return rows


def score_pair(query: str, document: str) -> float:
    """Score by shared characters, and by a checksum of the two texts, which leaves no ties."""
    shared = len(set(query) & set(document)) / len(set(query) | set(document))
    return shared + zlib.crc32(f"{query}\n{document}".encode()) / 2**32 / 4


def score_pairs(pairs: Sequence[tuple[str, str]]) -> list[float]:
    return [score_pair(query, document) for query, document in pairs]


def expected_figures(rows: Rows) -> tuple[float, float]:
    """MAP and MRR as percentages, computed from nothing but the rows and the scores."""
    precisions, reciprocals = [], []
    for row in rows:
        scored = [(np.float32(score_pair(row["query"], text)), True) for text in row["positive"]]
        scored += [(np.float32(score_pair(row["query"], text)), False) for text in row["negative"]]
        assert len({score for score, _ in scored}) == len(scored)
        places = [place for place, (_, hit) in enumerate(sorted(scored, reverse=True), start=1) if hit]
        precisions.append(sum(found / place for found, place in enumerate(places, start=1)) / len(places))
        reciprocals.append(1 / places[0] if places[0] <= 10 else 0)
    return 100 * float(np.mean(precisions)), 100 * float(np.mean(reciprocals))


CONTENT = made_content()
EXPECTED = expected_figures(CONTENT)


def figures(task: Task) -> tuple[float, float]:
    result = evalkit.evaluate(evalkit.wrap(score_pairs, kind="cross-encoder", name="made"), task, cache="off")
    return 100 * result.scores["map"], 100 * result.scores["mrr"]


def triples(rows: Rows, names: tuple[str, str, str] = ("query", "positive", "negative")) -> Rows:
    """A triple a row: as many rows of a query as its longer list, the shorter one repeated."""
    return [
        dict(
            zip(
                names,
                (row["query"], row["positive"][i % len(row["positive"])], row["negative"][i % len(row["negative"])]),
                strict=True,
            )
        )
        for row in rows
        for i in range(max(len(row["positive"]), len(row["negative"])))
    ]


def pairs(rows: Rows, names: tuple[str, str, str] = ("query", "document", "label")) -> Rows:
    """Labelled pairs in an order that mixes the queries."""
    found = [
        dict(zip(names, (row["query"], text, label), strict=True))
        for row in rows
        for label, texts in ((1, row["positive"]), (0, row["negative"]))
        for text in texts
    ]
    return [found[i] for i in np.random.default_rng(3).permutation(len(found))]


def documents(rows: Rows) -> Rows:
    return [
        {
            "query": row["query"],
            "documents": row["negative"] + row["positive"],
            "labels": [0] * len(row["negative"]) + [1] * len(row["positive"]),
        }
        for row in rows
    ]


def flag_embedding(rows: Rows) -> Rows:
    return [
        {"id": i, "query": row["query"], "pos": row["positive"], "neg": row["negative"], "type": "normal"}
        for i, row in enumerate(rows)
    ]


def flat(rows: Rows) -> Rows:
    """The rows with texts that fit a line and hold no tab, as MS MARCO's and TREC's do."""

    def one(text: str) -> str:
        return text.replace("\n", " ")

    return [
        {name: [one(t) for t in cell] if isinstance(cell, list) else cell for name, cell in row.items()} for row in rows
    ]


def beir(folder: Path, rows: Rows, *, packed: bool = False) -> Path:
    parts = mteb_parts(rows, split="test")
    folder.mkdir()
    for name in ("corpus", "queries"):
        write_jsonl(
            folder / f"{name}.jsonl",
            [{"_id": one["id"], "title": "", "text": one["text"], "metadata": {}} for one in parts[name]],
        )
    (folder / "qrels").mkdir()
    write_csv(folder / "qrels" / "test.tsv", parts["qrels"])
    for file in list(folder.rglob("*.*")) if packed else ():
        pack(file)
    return folder


def plain_lines(path: Path, rows: Sequence[Sequence[Any]], separator: str = "\t", ending: str = "\n") -> None:
    path.write_bytes("".join(separator.join(map(str, row)) + ending for row in rows).encode())


def ms_marco(
    folder: Path, rows: Rows, *, with_collection: bool = True, ending: str = "\n", packed: bool = False
) -> Path:
    parts = mteb_parts(flat(rows), split="dev")
    folder.mkdir()
    queries = {one["id"]: one["text"] for one in parts["queries"]}
    corpus = {one["id"]: one["text"] for one in parts["corpus"]}
    top1000 = [
        (row["query-id"], doc_id, queries[row["query-id"]], corpus[doc_id])
        for row in parts["top_ranked"]
        for doc_id in row["corpus-ids"]
    ]
    judged = [(row["query-id"], 0, row["corpus-id"], 1) for row in parts["qrels"] if row["score"]]
    plain_lines(folder / "top1000.dev", top1000, ending=ending)
    plain_lines(folder / "qrels.dev.tsv", judged, ending=ending)
    if with_collection:
        plain_lines(folder / "collection.tsv", list(corpus.items()), ending=ending)
        plain_lines(folder / "queries.dev.tsv", list(queries.items()), ending=ending)
    for file in list(folder.iterdir()) if packed else ():
        pack(file)
    return folder


def trec(folder: Path, rows: Rows) -> Path:
    """Topics, collection and judgements as TREC has them, all judged; a run is given beside them."""
    parts = mteb_parts(flat(rows), split="test")
    folder.mkdir()
    plain_lines(folder / "topics.tsv", [(one["id"], one["text"]) for one in parts["queries"]])
    plain_lines(folder / "corpus.tsv", [(one["id"], one["text"]) for one in parts["corpus"]])
    plain_lines(
        folder / "qrels.txt", [(row["query-id"], 0, row["corpus-id"], row["score"]) for row in parts["qrels"]], " "
    )
    return folder


def pack(path: Path) -> Path:
    packed = path.with_name(f"{path.name}.gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    return packed


def recoded(path: Path, change: Callable[[bytes], bytes]) -> Path:
    path.write_bytes(change(path.read_bytes()))
    return path


def crlf(content: bytes) -> bytes:
    return content.replace(b"\n", b"\r\n")


def pandas_json(path: Path, rows: Rows, orient: Any) -> Path:
    pd.DataFrame(rows).to_json(path, orient=orient, force_ascii=False)
    return path


def dictionary_parquet(path: Path, rows: Rows) -> Path:
    """A parquet whose texts are dictionary-encoded, as pandas writes categories."""
    table = pa.Table.from_pylist(rows)
    for i, name in enumerate(table.column_names):
        if pa.types.is_string(table.schema.field(name).type):
            table = table.set_column(i, name, table.column(name).dictionary_encode())
    pq.write_table(table, path)
    return path


def large_list_parquet(path: Path, rows: Rows) -> Path:
    lists = pa.large_list(pa.large_string())
    schema = pa.schema([("query", pa.large_string()), ("positive", lists), ("negative", lists)])
    pq.write_table(pa.Table.from_pylist(rows, schema), path)
    return path


def pandas_csv(path: Path, rows: Rows, **kwargs: Any) -> Path:
    pd.DataFrame(rows).to_csv(path, **kwargs)
    return path


def saved(folder: Path, rows: Rows) -> Path:
    datasets.Dataset.from_list(rows).save_to_disk(str(folder))
    return folder


def shards(folder: Path, rows: Rows, *, packed: bool = False) -> Path:
    """Three files of one split, cut in the middle of a query's rows."""
    for i, part in enumerate(np.array_split(np.arange(len(rows)), 3)):
        path = write_jsonl(folder / f"dev-{i:05d}-of-00003.jsonl", [rows[j] for j in part])
        if packed:
            pack(path)
    return folder


WRITERS: dict[str, Callable[[Path], Path]] = {
    "rows jsonl": lambda d: write_jsonl(d / "a.jsonl", CONTENT),
    "rows json": lambda d: write_json(d / "a.json", CONTENT),
    "rows csv": lambda d: write_csv(d / "a.csv", CONTENT),
    "rows tsv": lambda d: write_csv(d / "a.tsv", CONTENT),
    "rows parquet": lambda d: write_parquet(d / "a.parquet", CONTENT),
    "rows jsonl.gz": lambda d: pack(write_jsonl(d / "a.jsonl", CONTENT)),
    "rows csv.gz": lambda d: pack(write_csv(d / "a.csv", CONTENT)),
    "rows parquet.gz": lambda d: pack(write_parquet(d / "a.parquet", CONTENT)),
    "rows json with a BOM": lambda d: recoded(write_json(d / "a.json", CONTENT), lambda c: b"\xef\xbb\xbf" + c),
    "rows jsonl with a BOM and CRLF": lambda d: recoded(
        write_jsonl(d / "a.jsonl", CONTENT), lambda c: b"\xef\xbb\xbf" + crlf(c)
    ),
    "rows parquet of large lists": lambda d: large_list_parquet(d / "a.parquet", CONTENT),
    "triples csv": lambda d: write_csv(d / "a.csv", triples(CONTENT)),
    "triples jsonl": lambda d: write_jsonl(d / "a.jsonl", triples(CONTENT)),
    "triples of sentence-transformers": lambda d: write_parquet(
        d / "a.parquet", triples(CONTENT, ("anchor", "positive", "negative"))
    ),
    "triples parquet of dictionaries": lambda d: dictionary_parquet(d / "a.parquet", triples(CONTENT)),
    "one positive a row, all negatives": lambda d: write_jsonl(
        d / "a.jsonl", [row | {"positive": text} for row in CONTENT for text in row["positive"]]
    ),
    "pairs csv": lambda d: write_csv(d / "a.csv", pairs(CONTENT)),
    "pairs jsonl": lambda d: write_jsonl(d / "a.jsonl", pairs(CONTENT, ("question", "passage", "relevance"))),
    "pairs parquet": lambda d: dictionary_parquet(d / "a.parquet", pairs(CONTENT, ("sentence1", "sentence2", "label"))),
    "pairs tsv.gz": lambda d: pack(write_csv(d / "a.tsv", pairs(CONTENT, ("text1", "text2", "score")))),
    "pairs csv with float labels": lambda d: pandas_csv(
        d / "a.csv", [row | {"label": float(row["label"])} for row in pairs(CONTENT)], index=False
    ),
    "pairs csv by pandas, with index, BOM and CRLF": lambda d: pandas_csv(
        d / "a.csv", pairs(CONTENT), encoding="utf-8-sig", lineterminator="\r\n"
    ),
    "documents and labels jsonl": lambda d: write_jsonl(d / "a.jsonl", documents(CONTENT)),
    "documents and labels csv": lambda d: write_csv(d / "a.csv", documents(CONTENT)),
    "documents and labels parquet": lambda d: write_parquet(d / "a.parquet", documents(CONTENT)),
    "FlagEmbedding": lambda d: write_jsonl(d / "a.jsonl", flag_embedding(CONTENT)),
    "FlagEmbedding gz": lambda d: pack(write_jsonl(d / "a.jsonl", flag_embedding(CONTENT))),
    **{
        f"pandas json {orient}": lambda d, o=orient: pandas_json(d / "a.json", CONTENT, o)
        for orient in ("records", "columns", "index", "split", "table")
    },
    "pandas json columns of pairs": lambda d: pandas_json(d / "a.json", pairs(CONTENT), "columns"),
    "pairs saved by datasets": lambda d: saved(d / "a", pairs(CONTENT)),
    "FlagEmbedding in shards": lambda d: shards(d / "a", flag_embedding(CONTENT)),
    "triples in shards, packed": lambda d: shards(d / "a", triples(CONTENT), packed=True),
    "BEIR": lambda d: beir(d / "a", CONTENT),
    "BEIR gz": lambda d: beir(d / "a", CONTENT, packed=True),
    "mteb parts": lambda d: write_hub_parts(d / "a", mteb_parts(CONTENT)),
    "mteb parts jsonl": lambda d: write_parts(d / "a", mteb_parts(CONTENT)),
}
# texts of one line; MS MARCO's and TREC's files hold no others
FLAT_WRITERS: dict[str, Callable[[Path], Path]] = {
    "MS MARCO": lambda d: ms_marco(d / "a", CONTENT),
    "MS MARCO, candidates with their texts": lambda d: ms_marco(d / "a", CONTENT, with_collection=False),
    "MS MARCO, CRLF": lambda d: ms_marco(d / "a", CONTENT, ending="\r\n"),
    "MS MARCO gz": lambda d: ms_marco(d / "a", CONTENT, packed=True),
    "TREC": lambda d: trec(d / "a", CONTENT),
}


@pytest.mark.parametrize("layout", WRITERS)
def test_figures_are_those_of_the_content(layout: str, tmp_path: Path) -> None:
    task = load(WRITERS[layout](tmp_path))
    assert task.statistics.queries == task.statistics.unique_queries == QUERIES
    assert task.statistics.pairs == sum(len(row["positive"]) + len(row["negative"]) for row in CONTENT)
    assert figures(task) == pytest.approx(EXPECTED, abs=0.006)


@pytest.mark.parametrize("layout", FLAT_WRITERS)
def test_figures_of_texts_of_one_line(layout: str, tmp_path: Path) -> None:
    task = load(FLAT_WRITERS[layout](tmp_path))
    assert figures(task) == pytest.approx(expected_figures(flat(CONTENT)), abs=0.006)


@pytest.mark.parametrize("with_queries", [False, True])
def test_a_top1000_that_missed_relevant_documents(with_queries: bool, tmp_path: Path) -> None:
    """Real qrels name queries and documents that the candidates lack; the figures are computed from the rows alone."""
    rows = flat(CONTENT)
    folder = ms_marco(tmp_path / "a", rows, with_collection=False)
    missed = {number: 1 + number % 3 for number in range(0, QUERIES, 5)}
    lines = [f"dev_query{number}\t0\tmissed{number}-{i}\t1" for number, count in missed.items() for i in range(count)]
    # of one query all relevant documents are missed
    top1000 = (folder / "top1000.dev").read_text(encoding="utf-8").split("\n")
    lost = [line for line in top1000 if line.startswith("dev_query7\tapositive")]
    assert len(lost) == len(rows[7]["positive"]) > 1
    (folder / "top1000.dev").write_text("\n".join(line for line in top1000 if line not in lost), encoding="utf-8")
    absent = [] if with_queries else [f"absent{number}\t0\t{number}\t1" for number in (1, 1, 2, 3)]
    if with_queries:
        plain_lines(folder / "queries.dev.tsv", [(f"dev_query{i}", row["query"]) for i, row in enumerate(rows)])
    with (folder / "qrels.dev.tsv").open("a", encoding="utf-8") as file:
        file.write("\n".join([*lines, *dict.fromkeys(absent)]) + "\n")

    precisions, reciprocals = [], []
    for number, row in enumerate(rows):
        positives = [] if number == 7 else row["positive"]
        relevant = len(row["positive"]) + missed.get(number, 0)
        ranking = sorted([*positives, *row["negative"]], key=lambda text, q=row["query"]: -score_pair(q, text))
        places = [place for place, text in enumerate(ranking, start=1) if text in positives]
        precisions.append(sum(found / place for found, place in enumerate(places, start=1)) / relevant)
        reciprocals.append(1 / places[0] if places and places[0] <= 10 else 0)
    task = load(folder)
    result = evalkit.evaluate(evalkit.wrap(score_pairs, kind="cross-encoder", name="made"), task, cache="off")
    assert result.protocol == "mteb-v2"
    assert result.scores["map_at_1000"] == pytest.approx(np.mean(precisions), abs=6e-6)
    assert result.scores["mrr_at_10"] == pytest.approx(np.mean(reciprocals), abs=6e-6)

    by_id = {request.query.query_id: request for request in task.requests}
    assert len(by_id) == QUERIES
    assert by_id["dev_query5"].unretrieved_ids == ("missed5-0", "missed5-1", "missed5-2")
    assert len(by_id["dev_query7"].unretrieved_gains) == len(lost)
    messages = [finding.message for finding in task.findings if finding.severity == "warning"]
    assert any(f"{sum(missed.values()) + len(lost)} relevant documents" in message for message in messages)
    assert any(f"3 of the {QUERIES + 3} queries" in message for message in messages) == (not with_queries)


def test_qrels_of_other_queries_than_top1000s(tmp_path: Path) -> None:
    folder = ms_marco(tmp_path / "a", CONTENT, with_collection=False)
    plain_lines(folder / "qrels.dev.tsv", [("8", 0, "9", 1), ("7", 0, "9", 1)])
    with pytest.raises(EvalkitError, match=r"qrels\.dev\.tsv: none of the 2 queries .* is in top1000\.dev"):
        load(folder)


def test_a_collection_must_hold_what_the_qrels_name(tmp_path: Path) -> None:
    folder = ms_marco(tmp_path / "a", CONTENT)
    with (folder / "qrels.dev.tsv").open("a", encoding="utf-8") as file:
        file.write("dev_query1\t0\tnone\t1\n")
    with pytest.raises(EvalkitError, match="'none' names no corpus"):
        load(folder)


def test_layouts_that_keep_the_order_are_one_task(tmp_path: Path) -> None:
    """Ids and fingerprint are the same wherever positives and negatives stand in one order."""
    keeping = [name for name in WRITERS if not name.startswith(("pairs", "pandas json columns of pairs"))]
    found = {}
    for name in keeping:
        (tmp_path / name).mkdir()
        found[name] = load(WRITERS[name](tmp_path / name)).fingerprint
    assert len(set(found.values())) == 1, found
