"""Reranking tasks that mteb knows: mteb fetches and reads them, and what it read becomes tables of its own layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evalkit.errors import EvalkitError, unknown_name
from evalkit.hub_access import told_as
from evalkit.tasks.layouts import RawDataset, choose_split
from evalkit.tasks.settings import TaskSettings
from evalkit.tasks.tables import Row, Table, table_of

TYPES = ("Reranking", "InstructionReranking")
_ADVICE = "run it on a machine that reaches the Hub, set HF_ENDPOINT to a mirror, or give a copy with task=local task.path=PATH"


def complete(settings: TaskSettings) -> TaskSettings:
    """The settings with mteb's own name, split, subset and languages of the task that `name` names.

    Raises EvalkitError where mteb has no such reranking task of text, and where there are several splits or subsets.
    """
    metadata = _task(settings).metadata
    subsets = list(metadata.hf_subsets)
    subset = settings.subset or (subsets[0] if len(subsets) == 1 else "")
    if subset not in subsets:
        found = f"has no subset {subset!r} but" if subset else "has several subsets:"
        raise EvalkitError(f"{settings.name} {found} {', '.join(subsets)}; choose one with task.subset=NAME")
    return settings.model_copy(
        update={
            "mteb_name": metadata.name,
            "split": choose_split(settings.name, metadata.eval_splits, settings.split),
            "subset": subset,
            "languages": tuple(metadata.hf_subsets_to_langscripts[subset]),
        }
    )


def read_registered(settings: TaskSettings, *, offline: bool) -> tuple[RawDataset, str, str]:
    """The dataset as mteb reads it, its repository and its revision. `settings` are complete.

    Raises EvalkitError where mteb can't fetch it.
    """
    task = _task(settings)
    task.hf_subsets = [settings.subset]
    task.filter_eval_splits([settings.split])
    with told_as(f"mteb can't load the task {settings.name}", offline=offline, advice=_ADVICE):
        task.load_data()
    return raw_dataset(task, settings), task.metadata.dataset["path"], task.metadata.dataset["revision"]


def raw_dataset(task: Any, settings: TaskSettings) -> RawDataset:
    """What a loaded task of mteb holds (`AbsTaskRetrieval.dataset`, or its older form) of the subset and split.

    As mteb does, an instruction is put behind its query. Raises EvalkitError for queries that are conversations.
    """
    task.convert_v1_dataset_format_to_v2(num_proc=None)
    content = task.dataset[settings.subset][settings.split]
    where = f"mteb's {settings.name}"
    parts = {
        "corpus": table_of(f"{where}, corpus", list(content["corpus"])),
        "queries": table_of(f"{where}, queries", [_query(where, row) for row in content["queries"]]),
        "qrels": _table(f"{where}, qrels", ("query-id", "corpus-id", "score"), _judgements(content["relevant_docs"])),
    }
    if content.get("top_ranked"):
        ranked = [
            {"query-id": query, "corpus-ids": list(documents)} for query, documents in content["top_ranked"].items()
        ]
        parts["top_ranked"] = _table(f"{where}, top_ranked", ("query-id", "corpus-ids"), ranked)
    return RawDataset("mteb", settings.split, {name: (table,) for name, table in parts.items()})


def _task(settings: TaskSettings) -> Any:
    import mteb

    if settings.name == settings.registry:
        raise EvalkitError(
            "task=mteb needs task.name=NAME, a reranking task of mteb's; mteb available-tasks lists them"
        )
    try:
        task = mteb.get_task(settings.name)
    except KeyError as error:
        names = [known.metadata.name for known in mteb.get_tasks(task_types=list(TYPES))]
        raise unknown_name("reranking task of mteb's", settings.name, names) from error
    metadata = task.metadata
    if metadata.type not in TYPES or list(metadata.modalities) != ["text"]:
        raise EvalkitError(
            f"{settings.name} is a task of type {metadata.type} with {', '.join(metadata.modalities)}; of mteb's tasks evalkit "
            f"runs those of type {' and '.join(TYPES)} with text alone"
        )
    return task


def _query(where: str, row: Mapping[str, Any]) -> Row:
    text, instruction = row.get("text"), row.get("instruction")
    if isinstance(text, list):
        raise EvalkitError(f"{where}: query {row.get('id')!r} is a conversation, which evalkit does not read")
    return {"id": row.get("id"), "text": f"{text} {instruction}" if instruction is not None else text}


def _judgements(relevant: Mapping[str, Mapping[str, int]]) -> list[Row]:
    return [
        {"query-id": query, "corpus-id": document, "score": gain}
        for query, judged in relevant.items()
        for document, gain in judged.items()
    ]


def _table(file: str, columns: tuple[str, ...], rows: Sequence[Row]) -> Table:
    return table_of(file, rows) if rows else Table(file, columns, (), ())
