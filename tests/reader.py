"""A reader of the documents: a folder with all that their commands name, a Hub with small tasks and models, and servers."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from command import Outcome
from task_files import Rows, mteb_parts, write_hub_parts, write_jsonl, write_parquet, write_parts
from tasks.hub_server import FakeHub, Repository
from test_retrieval_on_the_hub import CMTEB_R, nano_repository, retrieval_repository

sys.path.insert(0, str(Path(__file__).parent / "backends"))
from fake_servers import FakeServer
from language_servers import LanguageServer

from evalkit.configuration.files import option_names
from evalkit.models.settings import ModelSettings, read_model
from evalkit.tasks.settings import HubLocation, read_settings, task_names

NEWEST = "0123456789abcdef0123456789abcdef01234567"
ROWS: Rows = [
    {
        "query": f"如何办理第{number}种证件？",
        "positive": [f"第{number}种证件可以在窗口办理，需要身份证。"],
        "negative": [f"第{number}路公交车早上六点发车。", "苹果是一种水果。", f"今天的气温是{number}度。"],
    }
    for number in range(12)
]
HERE = {"device=cuda": "device=cpu", "ray.address=auto": "ray.address=local"}
PROGRAM = """
import contextlib, io, json, os, sys
from evalkit.commands.main import run_command_line
for words in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_command_line(words)
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""


@dataclass(frozen=True)
class Models:
    """Folders that stand in for published weights, by the kind that they are of."""

    cross_encoder: Path
    embedder: Path
    language_model: Path

    def stand_in(self, settings: ModelSettings) -> Path | None:
        """Return the folder that stands in for a model of the Hub; None for one that no page names."""
        if settings.kind == "llm-reranker":
            return self.language_model if settings.name.startswith("Qwen3") else None
        if settings.kind == "embedder" and settings.name.startswith("Qwen3"):
            return self.language_model
        return {"cross-encoder": self.cross_encoder, "embedder": self.embedder}.get(settings.kind)


@dataclass
class Reader:
    """Runs commands in a folder of its own. `servers` says what stands here for the addresses and devices of the pages."""

    folder: Path
    hub: FakeHub
    servers: Mapping[str, str]

    def run(self, commands: Sequence[Sequence[str]]) -> Iterator[Outcome]:
        """Run commands one after the other in one process, as a program in the reader's folder."""
        environment = {
            "HF_ENDPOINT": self.hub.url,
            "HF_HOME": str(self.folder / "cache" / "hub"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "OPENAI_API_KEY": "none",
            "GITHUB_STEP_SUMMARY": "summary.md",
            "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        }
        words = [[self._here(word) for word in command] for command in commands]
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, json.dumps(words)],
            cwd=self.folder,
            env=os.environ | environment,
            capture_output=True,
            encoding="utf-8",
            timeout=1_500,
        )
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
        assert len(lines) == len(commands), done.stderr[-2_000:]
        yield from (Outcome(*line) for line in lines)

    def _here(self, word: str) -> str:
        for there, here in self.servers.items():
            word = word.replace(there, here)
        return word


@contextmanager
def reading(folder: Path, models: Models) -> Iterator[Reader]:
    """Give a reader everything that the pages' commands name."""
    hub = FakeHub({**_datasets(folder / "hub"), **_weights(models)})
    with ExitStack() as stack:
        stack.enter_context(hub)
        pairs = stack.enter_context(FakeServer("tei", limit=10_000))
        language = LanguageServer(models.language_model, scores=lambda query, document: len(document) / 100)
        words = stack.enter_context(FakeServer("vllm", language.answer, model="Qwen/Qwen3-Reranker-0.6B"))
        here = folder / "here"
        _write_files(here, models)
        yield Reader(here, hub, {**HERE, "http://127.0.0.1:8080": pairs.url, "http://127.0.0.1:8000": words.url})


def _datasets(folder: Path) -> dict[str, Repository]:
    """Return small copies of every task's repositories, in either layout."""
    found = {"hakari-bench/NanoCMTEB": Repository(nano_repository(folder / "NanoCMTEB"), NEWEST)}
    for number, settings in enumerate(CMTEB_R):
        if settings.mteb is not None:
            found[settings.mteb.repo] = _repository(retrieval_repository(folder / settings.name, number), settings.mteb)
    for name in task_names():
        settings = read_settings(name)
        if settings.cmteb:
            rows = folder / name / "rows"
            write_jsonl(rows / f"{settings.split}.jsonl", ROWS)
            found[settings.cmteb.repo] = _repository(rows, settings.cmteb)
        if settings.mteb and settings.mteb.repo not in found:
            parts = write_hub_parts(folder / name / "parts", mteb_parts(ROWS, settings.split), settings.split)
            found[settings.mteb.repo] = _repository(parts, settings.mteb)
    return found


def _repository(folder: Path, location: HubLocation) -> Repository:
    return Repository(folder, location.revision or NEWEST)


def _weights(models: Models) -> dict[str, Repository]:
    named = [read_model(name) for name in option_names("model") if name != "auto"]
    return {
        str(one.hub_id): Repository(folder, one.revision or NEWEST)
        for one in named
        if one.hub_id and (folder := models.stand_in(one)) is not None
    }


def _write_files(folder: Path, models: Models) -> None:
    """Write the folders and files that the pages take for the reader's own."""
    for name in (
        "my-reranker",
        "my-model",
        "bge-reranker-base",
        "checkpoint",
        "checkpoints/released",
        "checkpoints/step-1",
    ):
        shutil.copytree(models.cross_encoder, folder / name, copy_function=os.link)
    shutil.copytree(models.embedder, folder / "my-embedder")
    (folder / "my-reranker" / "README.md").write_text(
        "---\nlicense: mit\n---\n\n| model | T2Reranking MAP |\n|---|---|\n| my-reranker | 67.28 |\n", "utf-8"
    )
    (folder / "README.md").write_text(
        "| model | T2Reranking MAP |\n|---|---|\n| bge-reranker-base | 67.28 |\n", "utf-8"
    )
    old = folder / "results" / "bge-reranker-large" / "T2Reranking.json"  # as mteb 1 wrote it
    old.parent.mkdir(parents=True)
    figures = {"dev": {"evaluation_time": 1.0, "map": 0.5107, "mrr": 0.5836}, "mteb_dataset_name": "T2Reranking"}
    old.write_text(json.dumps({"dataset_revision": None, "mteb_version": "1.1.1", **figures}), "utf-8")
    parts = mteb_parts(ROWS, "test")  # named as the rows of a file are
    write_parts(folder / "data", parts)
    write_jsonl(folder / "data.jsonl", ROWS)
    write_parquet(folder / "t2.parquet", ROWS)
    ranked = {row["query-id"]: row["corpus-ids"] for row in parts["top_ranked"]}
    for name in ("bm25.trec", "scores.trec"):
        lines = [
            f"{query_id} Q0 {doc_id} {rank} {-rank} {name}"
            for query_id, doc_ids in ranked.items()
            for rank, doc_id in enumerate(doc_ids, 1)
        ]
        (folder / name).write_text("\n".join(lines) + "\n", "utf-8")
    found = [f"Q{query} Q0 D{document} {document + 1} {-document} mine" for query in range(4) for document in range(9)]
    (folder / "mine.trec").write_text("\n".join(found) + "\n", "utf-8")
    own = folder / "own" / "model"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text(f"name: mine\nkind: cross-encoder\npath: {folder / 'my-reranker'}\n", "utf-8")


def command_words(line: str) -> list[str]:
    """Return a command's words, with the variables of its page's script in the first checkpoint's place."""
    values = {
        "$checkpoint": "checkpoints/step-1",
        "$step": "step-1",
        "$GITHUB_SHA": "sha",
        "$GITHUB_STEP_SUMMARY": "summary.md",
    }
    text = re.sub(r"\$\w+", lambda found: values.get(found[0], found[0]), line)
    return shlex.split(text, comments=True)
