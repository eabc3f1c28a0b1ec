"""A result that looks as if its task came from the Hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from made_results import change_json, noisy_scores, ranking_task, write_scores

COMMIT = "8d7f1e942507dac42dc58017c1a001c3717da7df"


def write_cmedqa(folder: Path) -> Path:
    """Write it, and give its JSON file."""
    task = ranking_task(12)
    path = write_scores(folder, task, noisy_scores(task))

    def as_hub(content: dict[str, Any]) -> None:
        content["dataset_revision"] = COMMIT
        content["task_name"] = "CMedQAv1-reranking"
        content["evalkit"]["task"] |= {
            "name": "CMedQAv1",
            "mteb_name": "CMedQAv1-reranking",
            "source": "C-MTEB/CMedQAv1-reranking",
        }
        content["evalkit"]["model"] |= {"hub_id": "owner/scorer", "name": "scorer"}

    change_json(path, as_hub)
    return path


def scores_of(path: Path) -> dict[str, float]:
    """The scores in a result's JSON file."""
    found: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))["scores"]["test"][0]
    return found
