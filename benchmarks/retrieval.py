"""`python -m benchmarks.retrieval`: evalkit's first stage on a corpus of real passages, beside mteb's own retrieval of it.

whole    a corpus of Debian's Chinese documentation, searched by an e5 with fewer layers: time and memory of the process, killed
         half-way and started again, on Ray (the same bytes); mteb's retrieval of the same folder with sentence-transformers
search   the vectors of that run: evalkit's search and mteb's with vectors in hand, and float64's brute force
random   evalkit's search of random vectors of a large task's sizes: time and memory
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

import numpy as np
from numpy.typing import NDArray

from benchmarks import folders, texts

WORK = texts.WORK / "retrieval"
TOP_K = 100
Vectors = NDArray[np.float32]
Facts = Iterator[tuple[str, Any]]


def write_corpus(folder: Path, documents: int, queries: int, mean_characters: float) -> Path:
    """Write a corpus of different passages, and queries that are pieces of some of them, each with its passage as relevant."""
    passages = texts.passages(documents, mean_characters, seed=1)
    chance = random.Random(2)
    chosen = chance.sample(range(documents), queries)
    rows: dict[str, list[dict[str, Any]]] = {"corpus": [], "queries": [], "qrels": []}
    rows["corpus"] = [{"_id": f"d{number}", "title": "", "text": text} for number, text in enumerate(passages)]
    for number, document in enumerate(chosen):
        text = passages[document]
        start = chance.randrange(max(1, len(text) // 2))
        rows["queries"].append({"_id": f"q{number}", "text": text[start : start + 12].strip() or text})
        rows["qrels"].append({"query-id": f"q{number}", "corpus-id": f"d{document}", "score": 1})
    folder.mkdir(parents=True, exist_ok=True)
    for name, own in rows.items():
        path = folder / ("qrels/test.jsonl" if name == "qrels" else f"{name}.jsonl")
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in own), encoding="utf-8")
    return folder


def cut_embedder(folder: Path, layers: int) -> Path:
    """Make the real multilingual-e5-small with its first layers alone: its tokenizer, embeddings and width are the real ones."""
    from safetensors.numpy import load_file, save_file

    if not folder.is_dir():
        shutil.copytree(folders.e5_small(), folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": layers}))
        tensors = load_file(folder / "model.safetensors")
        layer = {name: int(name.split(".layer.")[1].split(".")[0]) for name in tensors if ".layer." in name}
        kept = {name: one for name, one in tensors.items() if layer.get(name, 0) < layers}
        save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def command(task: Path, model: Path, place: Path, *words: str) -> list[str]:
    """Write the words of a run that reranks, at random, what the model retrieves; its files lie in `place`."""
    chosen = [f"task.first_stage={model}", f"task.top_k={TOP_K}", "model=random", f"cache_dir={place / 'cache'}"]
    own = ["task=local", f"task.path={task}", f"results_dir={place / 'results'}", *chosen, *words]
    return [sys.executable, "-m", "evalkit", *own]


@dataclass(frozen=True)
class Cost:
    """What a process took: seconds, seconds of processors (which other work hardly moves), and its most memory in GiB."""

    seconds: float
    processor_seconds: float
    peak_gib: float


def measured(words: list[str]) -> Cost:
    """Run a program."""
    started = time.monotonic()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"{' '.join(words)}: {said[-2000:]}")
    return Cost(time.monotonic() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20)


def kill_half_way(words: list[str], place: Path, rows: int) -> int:
    """Start a program, and kill it when its store has so many rows; how many it had then."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    found = 0
    while process.poll() is None and found < rows:
        time.sleep(0.2)
        with suppress(sqlite3.Error, IndexError):
            (store,) = (place / "cache").glob("*.sqlite3")
            with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as connection:
                ((found,),) = connection.execute("select count(*) from outputs").fetchall()
    process.send_signal(signal.SIGKILL)
    process.wait()
    return int(found)


def kept_run(place: Path) -> Path:
    """Find the run of the first stage that lies in a place's cache."""
    (run,) = (place / "cache" / "first_stages").glob("*.trec")
    return run


def whole(task: Path, model: Path, small: Path, *, ray: bool) -> Facts:
    """Time a whole process; tell whether a killed one, one of stored vectors and one on Ray give the same bytes."""
    places = {name: WORK / name for name in ("quiet", "killed", "ray", "small")}
    for place in places.values():
        shutil.rmtree(place, ignore_errors=True)
    yield "100 documents", measured(command(small, model, places["small"]))
    yield "all documents", measured(command(task, model, places["quiet"]))
    content = kept_run(places["quiet"]).read_bytes()
    shutil.rmtree(places["quiet"] / "cache" / "first_stages")
    yield "all documents, vectors stored", measured(command(task, model, places["quiet"]))
    yield "the same bytes with stored vectors", kept_run(places["quiet"]).read_bytes() == content
    rows = sum(1 for _ in (task / "corpus.jsonl").open()) // 2
    yield (
        "rows stored when it was killed",
        kill_half_way(command(task, model, places["killed"]), places["killed"], rows),
    )
    yield "to go on", measured(command(task, model, places["killed"]))
    yield "the same bytes after that", kept_run(places["killed"]).read_bytes() == content
    if ray:
        yield "on Ray, the driver", measured(command(task, model, places["ray"], "runner=ray", "ray.actors=2"))
        yield "the same bytes on Ray", kept_run(places["ray"]).read_bytes() == content


def own_vectors(task: Path, model: Path) -> tuple[list[str], list[str], Vectors, Vectors]:
    """Return the texts and the vectors of the quiet run, out of its store."""
    from evalkit.evaluation.evaluate import load_first_stage
    from evalkit.evaluation.score_memory import score_memory
    from evalkit.models.interfaces import Runtime
    from evalkit.scoring.engine import embed

    queries, documents = (
        [json.loads(line)["text"] for line in (task / name).open(encoding="utf-8")]
        for name in ("queries.jsonl", "corpus.jsonl")
    )
    cache = WORK / "quiet" / "cache"
    runnable = load_first_stage(str(model), Runtime(cache_dir=cache)).runnable
    distinct = list(dict.fromkeys(queries)), list(dict.fromkeys(documents))
    with score_memory(cache, runnable, "on") as kept:
        tables = embed(runnable, *distinct, kept)
    return *distinct, tables[0].values, tables[1].values


def mteb_task(task: Path) -> Any:
    """Return the folder as a retrieval task of mteb, in memory."""
    from datasets import Dataset
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData

    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from mteb_tasks import metadata as made_metadata

    def rows(name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (task / name).open(encoding="utf-8")]

    class Searched(AbsTaskRetrieval):
        metadata = made_metadata("SearchedRetrieval", type="Retrieval", main_score="ndcg_at_10")

        def load_data(self, **_: Any) -> None:
            split = RetrievalSplitData(
                corpus=Dataset.from_list(
                    [{"id": row["_id"], "title": "", "text": row["text"]} for row in rows("corpus.jsonl")]
                ),
                queries=Dataset.from_list([{"id": row["_id"], "text": row["text"]} for row in rows("queries.jsonl")]),
                relevant_docs={row["query-id"]: {row["corpus-id"]: 1} for row in rows("qrels/test.jsonl")},
                top_ranked=None,
            )
            self.dataset, self.data_loaded = {"default": {"test": split}}, True

    return Searched()


def mteb_whole(task: Path, model: Path) -> Facts:
    """Time mteb's evaluation from the model in memory to its figures."""
    import mteb
    from sentence_transformers import SentenceTransformer

    embedder = SentenceTransformer(str(model), device="cpu")
    started, processor = time.monotonic(), time.process_time()
    done = mteb.evaluate(embedder, mteb_task(task), cache=None, show_progress_bar=False, co2_tracker=False)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    yield "all documents", Cost(time.monotonic() - started, time.process_time() - processor, peak)
    yield "nDCG@10", done.task_results[0].scores["test"][0]["ndcg_at_10"]


class InHand:
    """An embedder of mteb's whose vectors are there already."""

    def __init__(self, vectors: dict[str, Vectors]) -> None:
        self.vectors = vectors
        self.seconds = 0.0

    def encode(self, inputs: Any, **_: Any) -> Vectors:
        started = time.process_time()
        found = np.stack([self.vectors[text] for batch in inputs for text in batch["text"]])
        self.seconds += time.process_time() - started
        return found

    def similarity(self, left: Any, right: Any) -> Any:
        from mteb.similarity_functions import cos_sim

        return cos_sim(left, right)


def mteb_search(task: Path, vectors: dict[str, Vectors]) -> float:
    """Seconds of processors that mteb's search takes with vectors in hand, but for its handing over texts for them."""
    from mteb.models.search_wrappers import SearchEncoderWrapper

    made = mteb_task(task)
    made.load_data()
    split = made.dataset["default"]["test"]
    embedder = InHand(vectors)
    wrapper = SearchEncoderWrapper(embedder)  # type: ignore[arg-type]
    told: dict[str, Any] = {"task_metadata": made.metadata, "hf_split": "test", "hf_subset": "default"}
    told["encode_kwargs"] = {"show_progress_bar": False}
    wrapper.index(split["corpus"], num_proc=None, **told)
    started = time.process_time()
    wrapper.search(queries=split["queries"], top_k=TOP_K, top_ranked=None, num_proc=None, **told)
    return time.process_time() - started - embedder.seconds


def search(task: Path, model: Path) -> Facts:
    """Time both searches of the same vectors, and compare evalkit's with brute force."""
    from evalkit.scoring.search import nearest_documents

    query_texts, document_texts, queries, documents = own_vectors(task, model)
    started = time.process_time()
    found = list(nearest_documents(queries, documents, "cosine", TOP_K))
    yield "seconds of processors", time.process_time() - started
    vectors = dict(zip([*query_texts, *document_texts], [*queries, *documents], strict=True))
    yield "mteb's, without handing over texts", mteb_search(task, vectors)
    different, largest = compare_with_float64(queries, documents, found)
    yield "queries whose best differ from float64's", different
    yield "the largest difference of their scores", largest


def compare_with_float64(queries: Vectors, documents: Vectors, found: list[Any]) -> tuple[int, float]:
    """How many queries have other best documents than brute force in float64 finds, and by how much these differ in score."""
    left, right = (
        one.astype(np.float64) / np.linalg.norm(one.astype(np.float64), axis=1)[:, None] for one in (queries, documents)
    )
    different, largest = 0, 0.0
    for number, (numbers, _) in enumerate(found):
        scores = right @ left[number]
        best = set(np.argsort(-scores, kind="stable")[:TOP_K].tolist())
        if best != set(numbers.tolist()):
            different += 1
            apart = best ^ set(numbers.tolist())
            largest = max(largest, max(abs(scores[list(apart)] - np.sort(scores)[-TOP_K])))
    return different, float(largest)


def random_search(documents: int, queries: int, dimensions: int) -> Facts:
    """Search random vectors in this process; memory is what it took beyond the vectors."""
    from evalkit.scoring.search import nearest_documents

    draw = np.random.default_rng(0)
    right = draw.standard_normal((documents, dimensions), np.float32)
    left = draw.standard_normal((queries, dimensions), np.float32)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started, processor = time.monotonic(), time.process_time()
    pairs = sum(len(numbers) for numbers, _ in nearest_documents(left, right, "cosine", TOP_K))
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    yield f"{pairs:,} pairs found", Cost(time.monotonic() - started, time.process_time() - processor, more)


def main() -> None:
    """Print what the parts that the command line names measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["whole", "mteb", "search", "random"])
    parser.add_argument("--documents", type=int, default=50_000)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--characters", type=float, default=40, help="mean length of a passage")
    parser.add_argument("--layers", type=int, default=1, help="how many of e5's 12 layers the embedder keeps")
    parser.add_argument("--sizes", type=int, nargs=3, default=[120_000, 22_000, 1_024], help="of `random`")
    parser.add_argument("--without-ray", action="store_true")
    chosen = parser.parse_args()
    model = cut_embedder(WORK / f"e5-{chosen.layers}-layers", chosen.layers)
    task = write_corpus(WORK / "corpus", chosen.documents, chosen.queries, chosen.characters)
    small = write_corpus(WORK / "small-corpus", 100, 5, chosen.characters)
    parts = {
        "whole": lambda: whole(task, model, small, ray=not chosen.without_ray),
        "mteb": lambda: mteb_whole(task, model),
        "search": lambda: search(task, model),
        "random": lambda: random_search(*chosen.sizes),
    }
    for name in chosen.parts:
        for fact, value in parts[name]():
            print(
                f"{name}: {fact}: {value:.6g}" if isinstance(value, float) else f"{name}: {fact}: {value}", flush=True
            )


if __name__ == "__main__":
    main()
