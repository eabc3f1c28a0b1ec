"""What the whole task will take, out of what a sample took."""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from evalkit import machine
from evalkit.doctor.records import Cost, Evidence, Opinion
from evalkit.output.numbers import counted, duration
from evalkit.records import Run, Task
from evalkit.scoring.items import task_texts, unique_pairs

KIBIBYTE = 1024
GIBIBYTE = 2**30


def full_cost(task: Task, sample: Task, run: Run, loading: float, *, pairs: bool) -> Cost:
    """Estimate time and memory of the whole task, scored pair by pair or (an embedder) text by text.

    Time: as many tokens per second as in the sample, tokens being in proportion to characters, up to what the model reads of
    a text. Memory: the most that this process held so far, with the model, the task and the sample's batches.
    """
    most = _most_characters(sample, run, pairs=pairs)
    whole, part = (np.minimum(item_lengths(one, pairs=pairs), most).sum() for one in (task, sample))
    memory, how = _memory()
    return Cost(
        sample_seconds=run.usage.seconds,
        sample_pairs=sample.statistics.pairs,
        loading_seconds=loading,
        task_pairs=task.statistics.pairs,
        task_seconds=float(run.usage.seconds * whole / max(part, 1)),
        memory_bytes=memory,
        machine_bytes=machine.memory_bytes(),
        how=how,
    )


def item_lengths(task: Task, *, pairs: bool) -> NDArray[np.float64]:
    """Count the characters of each distinct pair (both texts), or of each distinct text."""
    texts = task_texts(task)
    queries, documents = (np.array([len(text) for text in group], float) for group in (texts.queries, texts.documents))
    if not pairs:
        return np.concatenate([queries, documents])
    distinct, _ = unique_pairs(texts)
    lengths: NDArray[np.float64] = queries[distinct[:, 0]] + documents[distinct[:, 1]]
    return lengths


def _most_characters(sample: Task, run: Run, *, pairs: bool) -> float:
    """Return how many characters the model reads of an input; endless where none of the sample's was cut, or nobody counts."""
    if run.tokens is None or run.truncated is None or not run.truncated.any():
        return float("inf")
    characters = np.array(
        [
            len(candidate.text) + (len(request.query.texts[0]) if pairs else 0)
            for request in sample.requests
            for candidate in request.candidates
        ]
    )
    read_whole = ~run.truncated if not run.truncated.all() else run.truncated
    per_token = characters[read_whole].sum() / max(run.tokens[read_whole].sum(), 1)
    return float(run.tokens.max() * per_token)


def _memory() -> tuple[int | None, str]:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return int(torch.cuda.max_memory_allocated()), "the most that torch held on the GPU"
    try:
        import resource
    except ImportError:  # Windows
        return None, "unknown on this system"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else KIBIBYTE), "the most that this process held"


def judge_cost(evidence: Evidence) -> Opinion:
    """Say what to expect of the whole task, and judge whether its memory is there."""
    cost = evidence.found.cost
    seen = (
        f"the whole task, {counted(cost.task_pairs, 'pair')}: about {duration(cost.task_seconds)} of scoring "
        f"({counted(cost.sample_pairs, 'pair')} took {duration(cost.sample_seconds)}; loading {duration(cost.loading_seconds)})"
    )
    if cost.memory_bytes is None:
        return Opinion("ok", f"{seen}; memory: {cost.how}")
    seen += f"; memory: {cost.memory_bytes / GIBIBYTE:.1f} GiB ({cost.how})"
    if cost.machine_bytes is not None and cost.memory_bytes > 0.9 * cost.machine_bytes:
        return Opinion("warning", seen, f"this machine has {cost.machine_bytes / GIBIBYTE:.1f} GiB")
    return Opinion("ok", seen)
