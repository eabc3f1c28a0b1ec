"""Writes evalkit/results/data/training.json, what mteb's registry says that models were trained on: `make training-data`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[1] / "evalkit/results/data/training.json"


def snapshot() -> dict[str, Any]:
    """Return what the installed mteb says, with the names of lists of datasets that several models share written once.

    `models` gives of each model the place of its datasets in `datasets`, null where the registry does not say; `adapted_from`
    its base; `renamed` earlier names of models; `tasks` the repository of each task; `related` the groups of tasks on data
    that are one another's adaptations or successors.
    """
    import mteb
    from mteb.get_tasks import _SIMILAR_TASKS, _TASKS_REGISTRY
    from mteb.models.get_model_meta import _MODEL_RENAMES
    from mteb.models.model_implementations import MODEL_REGISTRY
    from mteb.models.model_meta import _collect_similar_tasks

    datasets: dict[tuple[str, ...], int] = {}
    models: dict[str, int | None] = {}
    for name, meta in sorted(MODEL_REGISTRY.items()):
        said = meta.training_datasets
        models[name] = None if said is None else datasets.setdefault(tuple(sorted(said)), len(datasets))
    similar = {*_SIMILAR_TASKS, *(one for others in _SIMILAR_TASKS.values() for one in others)}
    groups = {tuple(sorted({name, *_collect_similar_tasks(name, set())})) for name in similar}
    return {
        "mteb": mteb.__version__,
        "models": models,
        "adapted_from": {name: meta.adapted_from for name, meta in sorted(MODEL_REGISTRY.items()) if meta.adapted_from},
        "renamed": dict(sorted(_MODEL_RENAMES.items())),
        "datasets": [list(names) for names in datasets],
        "tasks": {name: task.metadata.dataset["path"] for name, task in sorted(_TASKS_REGISTRY.items())},
        "related": sorted(map(list, groups)),
    }


def text(content: dict[str, Any]) -> str:
    """Write the snapshot with a line per model, list and task, so that changes can be read."""
    parts = [f"{json.dumps(key)}: {_lines(value)}" for key, value in content.items()]
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _lines(value: Any) -> str:
    if isinstance(value, dict):
        rows = [f"  {json.dumps(key, ensure_ascii=False)}: {json.dumps(one)}" for key, one in value.items()]
        return "{\n" + ",\n".join(rows) + "\n}"
    if isinstance(value, list):
        return "[\n" + ",\n".join(f"  {json.dumps(one, ensure_ascii=False)}" for one in value) + "\n]"
    return json.dumps(value)


if __name__ == "__main__":
    FILE.write_text(text(snapshot()), encoding="utf-8")
