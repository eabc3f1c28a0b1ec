"""The runs: small tasks in several layouts, fast models, random settings; each with the figures of a quiet run."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert_model import write_bert_reranker
from fake_servers import FakeServer
from real_models import shared_folder
from task_files import mteb_parts, write_csv, write_hub_parts, write_json, write_jsonl, write_parquet

LAYOUTS = ("jsonl", "json", "csv", "parquet", "mteb")
WORDS = "感冒发烧多喝水苹果银行深度学习模型需要大量数据和计算 apple bank of a river learning needs data"


@dataclass(frozen=True)
class Case:
    """What is run; the figures depend on `figures`, the course on `course` too."""

    figures: tuple[str, ...]
    course: tuple[str, ...]
    served: bool = False

    @property
    def arguments(self) -> list[str]:
        return [*self.figures, *self.course]


def make_tasks(folder: Path, generator: random.Random) -> dict[str, list[str]]:
    """The arguments that name a task, by layout."""
    tasks = {"demo": ["task=demo-zh2en"]}
    for layout in LAYOUTS:
        rows = _rows(generator)
        place = folder / layout
        place.mkdir(parents=True)
        if layout == "mteb":
            write_hub_parts(place, mteb_parts(rows))
        else:
            writer: Any = {"jsonl": write_jsonl, "json": write_json, "csv": write_csv, "parquet": write_parquet}[layout]
            writer(place / f"test.{layout}", rows)
        tasks[layout] = ["task=local", f"task.path={place}"]
    return tasks


def _rows(generator: random.Random) -> list[dict[str, Any]]:
    def text(most: int) -> str:
        return "".join(generator.choices(WORDS, k=generator.randint(4, most))).strip() or "空"

    return [
        {
            "query": f"{number} {text(20)}",
            "positive": [f"{number} {text(90)}" for _ in range(generator.randint(1, 3))],
            "negative": [f"-{number} {text(90)}" for _ in range(generator.randint(2, 9))],
        }
        for number in range(generator.randint(8, 24))
    ]


def make_case(tasks: dict[str, list[str]], server: FakeServer, generator: random.Random) -> Case:
    """One of the tasks with one of the models, in random circumstances."""
    reranker = shared_folder("tiny-bert-reranker", write_bert_reranker)
    local = ["model=local-cross-encoder", f"model.path={reranker}", "runner.threads=1"]
    served = ["model=bge-reranker-base", "backend=vllm", f"backend.url={server.url}"]
    models = {
        "e5": ["model=multilingual-e5-small-q4", "runner.threads=1"],
        "torch": [*local, "backend=torch"],
        "openvino": [*local, "backend=openvino"],
        "bm25": ["model=bm25"],
        "server": served,
    }
    name = generator.choice(list(models))
    limit = generator.choice([[], [], ["limit=3"], ["limit=7"]])
    seed = generator.choice([[], ["seed=3"]])
    course = [f"cache={generator.choice(['on', 'on', 'on', 'refresh', 'off'])}"]
    if name == "server":
        course += ["backend.retries=12", "backend.timeout=1", f"backend.concurrency={generator.choice([1, 4])}"]
        course += [f"backend.batch_size={generator.choice([3, 10])}"]
    task = tasks[generator.choice(list(tasks))]
    return Case((*task, *models[name], *limit, *seed), tuple(course), name == "server")
