"""The three walks: a model's settings, a pair's text and a score, each followed through a run of any checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert_model import write_bert_reranker
from real_models import shared_folder

from structure.follow import BARE

FOLLOW = Path(__file__).with_name("follow.py")
MAX_LENGTH, DOCUMENT, SCORE = 491, "walked document", 0.7310585  # found nowhere else in these runs
POSITIVES = {"d2": SCORE, "d6": 0.1}
SCORES = {"d0": 0.9, "d1": 0.8, **POSITIVES, "d3": 0.4, "d4": 0.3, "d5": 0.2}
AVERAGE_PRECISION = (1 / 3 + 2 / 7) / 2
ROW = {
    "query": "what is a fever",
    "positive": [DOCUMENT, "cold"],
    "negative": ["apple", "bank", "china", "panda", "water"],
}
SETTINGS, TEXT, SCORED = "a model's settings", "a pair's text", "a score and its metric"


@dataclass(frozen=True)
class Walk:
    """A value's way through a run: what held it, in the order of the first time, by name.

    `functions` are evalkit's, as (module, name). See `follow.Trail` for what forms and carriers are. `to_model` are the forms
    up to the first object of the class Model: what the words of the command line go through to become settings. What takes
    settings apart, to a bare value or a pair of name and value, is no form of them.
    """

    functions: tuple[tuple[str, str], ...]
    forms: tuple[str, ...]
    carriers: tuple[str, ...]
    to_model: tuple[str, ...]

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules of the functions."""
        return tuple(dict.fromkeys(module for module, _ in self.functions))


def walk(checkout: Path) -> dict[str, Walk]:
    """Take the three walks, in two runs of some seconds. Raises RuntimeError where a run fails."""
    with tempfile.TemporaryDirectory() as scratch:
        task, run = Path(scratch, "walked.jsonl"), Path(scratch, "walked.json")
        task.write_text(json.dumps(ROW), encoding="utf-8")
        model = shared_folder("tiny-bert-reranker", write_bert_reranker)
        words = (f"task.path={task}", "task=local", "cache=off", "offline=true", f"results_dir={scratch}/results")
        network = (
            "model=local-cross-encoder",
            f"model.path={model}",
            f"model.max_length={MAX_LENGTH}",
            "backend=torch",
        )
        first = follow(checkout, {SETTINGS: [MAX_LENGTH], TEXT: [DOCUMENT]}, *words, *network)
        run.write_text(json.dumps(_scores(Path(scratch, "results"))), encoding="utf-8")
        second = follow(checkout, {SCORED: [SCORE, AVERAGE_PRECISION]}, *words, "model=run", f"model.path={run}")
    return first | second


def follow(checkout: Path, wanted: Mapping[str, list[Any]], *arguments: str) -> dict[str, Walk]:
    """Run a checkout's evalkit with the arguments in a process of its own and return the walk of each wanted group of values."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch, "trails.json")
        done = subprocess.run(
            [sys.executable, "-P", str(FOLLOW), str(out), str(checkout), json.dumps(wanted), *arguments],
            env=os.environ | {"PYTHONPATH": str(checkout), "XDG_CACHE_HOME": scratch, "EVALKIT_DEBUG": "1"},
            cwd=scratch,
            capture_output=True,
            text=True,
            timeout=600,
        )
        if done.returncode:
            raise RuntimeError(f"the run that was followed failed: {done.stderr}")
        trails = json.loads(out.read_text(encoding="utf-8"))
    return {name: _walk(trail) for name, trail in trails.items()}


def _walk(trail: Mapping[str, Any]) -> Walk:
    return Walk(
        functions=tuple((module, function) for module, function in trail["functions"]),
        forms=tuple(trail["forms"]),
        carriers=tuple(trail["carriers"]),
        to_model=tuple(form for form in trail["carriers"].get("Model", ()) if form not in (BARE, "tuple")),
    )


def _scores(results: Path) -> dict[str, dict[str, float]]:
    """Return a run file's content: the made scores for the candidates of the result that lies in a folder, in their order."""
    import pandas as pd

    (path,) = results.rglob("*.run.parquet")
    table = pd.read_parquet(path)
    positive, negative = (
        iter(POSITIVES.values()),
        iter(score for name, score in SCORES.items() if name not in POSITIVES),
    )
    return {
        str(table["query_id"][0]): {
            doc_id: next(positive if label else negative)
            for doc_id, label in zip(table["doc_id"], table["label"], strict=True)
        }
    }
