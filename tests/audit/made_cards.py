"""Cards made of published figures, to be changed by tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml

from evalkit.results.published import all_figures

BASE, LARGE = "BAAI/bge-reranker-base", "BAAI/bge-reranker-large"
DATASETS = {
    "T2Reranking": ("C-MTEB/T2Reranking", "dev"),
    "MMarcoReranking": ("C-MTEB/Mmarco-reranking", "dev"),
    "CMedQAv1": ("C-MTEB/CMedQAv1-reranking", "test"),
    "CMedQAv2": ("C-MTEB/CMedQAv2-reranking", "test"),
}
Metrics = Mapping[tuple[str, str], object]


def published_metrics(model: str = BASE) -> dict[tuple[str, str], object]:
    """A model-index's values by task and metric, as numbers that YAML writes with the published digits."""
    return {
        (figure.task, figure.metric): float(figure.printed)
        for figure in all_figures()
        if figure.model == model and figure.source == "model-index"
    }


def write_card(folder: Path, metrics: Metrics, name: str = "bge-reranker-base", body: str = "") -> Path:
    """Write a card as mteb's own generator does."""
    tasks = dict.fromkeys(task for task, _ in metrics)
    results = [
        {
            "task": {"type": "Reranking"},
            "dataset": {
                "type": DATASETS[task][0],
                "name": f"MTEB {task}",
                "config": "default",
                "split": DATASETS[task][1],
            },
            "metrics": [{"type": metric, "value": value} for (of, metric), value in metrics.items() if of == task],
        }
        for task in tasks
    ]
    front = yaml.safe_dump({"license": "mit", "model-index": [{"name": name, "results": results}]}, sort_keys=False)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "README.md"
    path.write_text(f"---\n{front}---\n\n# {name}\n{body}", encoding="utf-8")
    return path
