"""Where datasets come from: files, the package, the Hub, and the tasks that mteb knows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from evalkit.errors import EvalkitError, unknown_name
from evalkit.hub_access import is_unreachable, reason, reporting_hub_errors, snapshot, unreachable
from evalkit.records import Layout
from evalkit.tasks.layouts.reading import (
    QRELS_NAMES,
    RawDataset,
    choose_split,
    read_path,
    refuse_missing_shards,
    refuse_several_datasets,
    table_of_dataset,
)
from evalkit.tasks.settings import HubLocation, TaskSettings
from evalkit.tasks.tables import Row, Table, table_of

UNPINNED = "unpinned"
_BUNDLED = Path(__file__).parent / "demo"
_DATA_FILES = [
    "README.md",
    "*.parquet",
    *(f"*.{kind}{packed}" for kind in ("jsonl", "json", "csv", "tsv") for packed in ("", ".gz")),
]
TYPES = ("Reranking", "InstructionReranking")
_ADVICE = "run it on a machine that reaches the Hub, set HF_ENDPOINT to a mirror, or give a copy with task=local task.path=PATH"


def read_source(settings: TaskSettings, *, offline: bool) -> tuple[RawDataset, str, str]:
    """Return the dataset as read, where it is from, and its revision (`unpinned` where that is unknown).

    Raises EvalkitError where it can't be had.
    """
    if settings.path is not None:
        return _read_local(Path(settings.path).expanduser(), settings.split), settings.path, UNPINNED
    if settings.bundled is not None:
        return _read_local(_BUNDLED / settings.bundled, settings.split), "bundled", UNPINNED
    if settings.registry is not None:
        return read_registered(settings, offline=offline)
    location = settings.cmteb if settings.source == "cmteb" else settings.mteb
    if location is None:
        raise EvalkitError(_no_source(settings))
    return read_hub(location, settings.source, settings.split, settings.top_ranked, offline=offline)


def _read_local(path: Path, split: str) -> RawDataset:
    try:
        return read_path(path, split)
    except OSError as error:
        raise EvalkitError(f"{path} cannot be read: {error.strerror or error}; check task.path") from error


def _no_source(settings: TaskSettings) -> str:
    if settings.cmteb is None and settings.mteb is None:
        return f"task={settings.name} needs a file or folder: task.path=PATH"
    other = "cmteb" if settings.source == "mteb" else "mteb"
    return f"task={settings.name} has no copy in the layout task.source={settings.source}; use task.source={other}"


def read_hub(
    location: HubLocation, layout: Layout, split: str, top_ranked: str | None = None, *, offline: bool
) -> tuple[RawDataset, str, str]:
    """Return a dataset of the Hub, its repository, and the commit that it is of (`unpinned` where that is unknown).

    HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE and the cache's variables work as everywhere. With `offline`, or where the Hub
    cannot be reached, the Hub cache alone is read. `top_ranked` names the config of the candidates where it has another name.
    Raises EvalkitError that says what to do.

    The files are fetched first and then loaded as a folder, because `load_dataset` of a repository takes any cached
    revision when it is offline, not the pinned one.
    """
    folder = _snapshot(location, offline=offline)
    refuse_missing_shards(folder.rglob("*-of-*"))
    revision = folder.name if re.fullmatch("[0-9a-f]{40}", folder.name) else UNPINNED
    if layout == "cmteb":
        table, found = _load(location, folder, None, split)
        return RawDataset(layout, found, {"rows": (table,)}), location.repo, revision
    configs = _config_names(location, folder)
    qrels = next((name for name in QRELS_NAMES if name in configs), None)
    if qrels is None or not {"corpus", "queries"} <= set(configs):
        found_names = ", ".join(configs)
        raise EvalkitError(f"{location.repo} has the configs {found_names}; mteb 2's corpus, queries and qrels are due")
    if top_ranked is not None and top_ranked not in configs:
        found_names = ", ".join(configs)
        raise EvalkitError(
            f"{location.repo} has no config {top_ranked} of candidates but {found_names}; check task.top_ranked"
        )
    names = {part: part for part in ("corpus", "queries", "top_ranked", "instruction")} | {"qrels": qrels}
    names["top_ranked"] = top_ranked or "top_ranked"
    tables = {part: _load(location, folder, name, split) for part, name in names.items() if name in configs}
    parts = {part: (table,) for part, (table, _) in tables.items()}
    return RawDataset(layout, tables["qrels"][1], parts), location.repo, revision


def _snapshot(location: HubLocation, *, offline: bool) -> Path:
    from huggingface_hub import errors

    try:
        return snapshot(
            location.repo, offline=offline, repo_type="dataset", revision=location.revision, allow_patterns=_DATA_FILES
        )
    except errors.GatedRepoError as error:
        advice = f"it is gated: accept its terms at its page on the Hub, and set HF_TOKEN{_status(error)}"
        raise _unavailable(location, advice) from error
    except errors.RepositoryNotFoundError as error:
        advice = (
            f"no such dataset, or a private one: check the name, and set HF_TOKEN where it is private{_status(error)}"
        )
        raise _unavailable(location, advice) from error
    except errors.RevisionNotFoundError as error:
        raise _unavailable(
            location, "it has no such revision: check task.cmteb.revision or task.mteb.revision"
        ) from error
    except errors.HFValidationError as error:
        raise _unavailable(location, f"that is no repository's name: {_line(error)}") from error
    except Exception as error:  # of huggingface_hub and the HTTP library that it is built on
        if is_unreachable(error):
            raise _unavailable(location, _not_cached(error, offline=offline)) from error
        advice = f"the download failed ({reason(error)}); run it again to go on, or give a copy with task.path=PATH"
        raise _unavailable(location, advice) from error


def _not_cached(error: Exception, *, offline: bool) -> str:
    import huggingface_hub.constants as constants

    if offline or constants.HF_HUB_OFFLINE:
        return (
            "it is not (or not whole) in the Hub cache and this run is offline: "
            "run once online, or give a copy with task.path=PATH"
        )
    return (
        f"the Hub at {unreachable(error)} and the dataset is not in the Hub cache: check the network, set HF_ENDPOINT to a mirror, "
        "or give a copy with task.path=PATH"
    )


def _unavailable(location: HubLocation, advice: str) -> EvalkitError:
    return EvalkitError(f"dataset {location.repo}@{location.revision or 'main'}: {advice}")


def _status(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return f" (HTTP {status})" if status else ""


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:199] + "…"


def _config_names(location: HubLocation, snapshot: Path) -> list[str]:
    import datasets

    try:
        return list(datasets.get_dataset_config_names(str(snapshot)))
    except _reading_errors() as error:
        raise _unreadable(location, error) from error


def _load(location: HubLocation, snapshot: Path, config: str | None, split: str) -> tuple[Table, str]:
    import datasets

    where = "/".join(filter(None, (location.repo, config)))
    try:
        files = datasets.load_dataset_builder(str(snapshot), name=config).config.data_files or {}
        loaded: Any = datasets.load_dataset(str(snapshot), name=config)
    except _reading_errors() as error:
        raise _unreadable(location, error) from error
    found = choose_split(where, loaded, split)
    if not _names_its_files(snapshot):  # `datasets` pools all that it finds
        refuse_several_datasets(snapshot, [Path(file) for file in files.get(found, ())])
    return table_of_dataset(f"{where} ({found})", loaded[found]), found


def _names_its_files(snapshot: Path) -> bool:
    """Return whether a repository's card says which files its configs and splits are made of."""
    from huggingface_hub import DatasetCard

    card = snapshot / "README.md"
    if not card.is_file():
        return False
    configs = DatasetCard.load(card, ignore_metadata_errors=True).data.get("configs") or []
    return any("data_files" in config for config in configs if isinstance(config, Mapping))


def _reading_errors() -> tuple[type[Exception], ...]:
    from datasets.exceptions import DatasetsError

    return (DatasetsError, OSError, ValueError, pa.ArrowException)


def _unreadable(location: HubLocation, error: Exception) -> EvalkitError:
    reason = _line(error.__cause__ or error)
    return _unavailable(
        location, f"`datasets` cannot read its files ({reason}); check that it is a dataset of this layout"
    )


def complete_task(settings: TaskSettings) -> TaskSettings:
    """Return the settings with mteb's own name, split, subset and languages, where the task is one of mteb's registry.

    Raises EvalkitError where mteb has no such reranking task of text, and where there are several splits or subsets.
    """
    if settings.registry is None or settings.path is not None:
        return settings
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
    """Return the dataset as mteb reads it, its repository and its revision. `settings` are complete.

    Raises EvalkitError where mteb can't fetch it.
    """
    task = _task(settings)
    task.hf_subsets = [settings.subset]
    task.filter_eval_splits([settings.split])
    with reporting_hub_errors(f"mteb can't load the task {settings.name}", offline=offline, advice=_ADVICE):
        task.load_data()
    return raw_dataset(task, settings), task.metadata.dataset["path"], task.metadata.dataset["revision"]


def raw_dataset(task: Any, settings: TaskSettings) -> RawDataset:
    """Return what a loaded task of mteb holds (`AbsTaskRetrieval.dataset`, or its older form) of the subset and split.

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
    import mteb  # which takes seconds

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
