"""Datasets of the Hub: one exact commit goes into the Hub cache, and is read from there through `datasets`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa

from evalkit.errors import EvalkitError
from evalkit.hub_access import limit_waits, unreachable
from evalkit.records import Layout
from evalkit.tasks.layouts import QRELS_NAMES, RawDataset, choose_split, refuse_missing_shards, table_of_dataset
from evalkit.tasks.settings import HubLocation
from evalkit.tasks.tables import Table

UNPINNED = "unpinned"
_DATA_FILES = ["README.md", "*.parquet", "*.jsonl", "*.json", "*.csv", "*.tsv"]


def read_hub(location: HubLocation, layout: Layout, split: str, *, offline: bool) -> tuple[RawDataset, str, str]:
    """A dataset of the Hub, its repository, and the commit that it is of (`unpinned` where that cannot be told).

    HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE and the cache's variables work as everywhere. With `offline`, or where the Hub
    cannot be reached, the Hub cache alone is read. Raises EvalkitError that says what to do.

    The files are fetched first and then loaded as a folder, because `load_dataset` of a repository takes any cached
    revision when it is offline, not the pinned one.
    """
    snapshot = _snapshot(location, offline=offline)
    refuse_missing_shards(snapshot.rglob("*-of-*"))
    revision = snapshot.name if re.fullmatch("[0-9a-f]{40}", snapshot.name) else UNPINNED
    if layout == "cmteb":
        table, found = _load(location, snapshot, None, split)
        return RawDataset(layout, found, {"rows": (table,)}), location.repo, revision
    configs = _config_names(location, snapshot)
    qrels = next((name for name in QRELS_NAMES if name in configs), None)
    if qrels is None or not {"corpus", "queries"} <= set(configs):
        found_names = ", ".join(configs)
        raise EvalkitError(f"{location.repo} has the configs {found_names}; mteb 2's corpus, queries and qrels are due")
    names = {"corpus": "corpus", "queries": "queries", "top_ranked": "top_ranked", "qrels": qrels}
    tables = {part: _load(location, snapshot, name, split) for part, name in names.items() if name in configs}
    parts = {part: (table,) for part, (table, _) in tables.items()}
    return RawDataset(layout, tables["qrels"][1], parts), location.repo, revision


def _snapshot(location: HubLocation, *, offline: bool) -> Path:
    import huggingface_hub
    from huggingface_hub import errors

    limit_waits()
    try:
        folder = huggingface_hub.snapshot_download(
            location.repo,
            repo_type="dataset",
            revision=location.revision,
            allow_patterns=_DATA_FILES,
            local_files_only=offline,
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
    except errors.LocalEntryNotFoundError as error:
        raise _unavailable(location, _not_cached(error, offline=offline)) from error
    except errors.HFValidationError as error:
        raise _unavailable(location, f"that is no repository's name: {_line(error)}") from error
    except _transport_errors() as error:
        advice = f"the download failed ({_line(error)}); run it again to go on, or give a copy with task.path=PATH"
        raise _unavailable(location, advice) from error
    return Path(folder)


def _transport_errors() -> tuple[type[Exception], ...]:
    """Whatever else a download may raise: the bases are of the HTTP library that this huggingface_hub is built on."""
    from huggingface_hub.errors import HfHubHTTPError

    return (OSError, *HfHubHTTPError.__bases__)


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
        loaded: Any = datasets.load_dataset(str(snapshot), name=config)
    except _reading_errors() as error:
        raise _unreadable(location, error) from error
    found = choose_split(where, loaded, split)
    return table_of_dataset(f"{where} ({found})", loaded[found]), found


def _reading_errors() -> tuple[type[Exception], ...]:
    from datasets.exceptions import DatasetsError

    return (DatasetsError, OSError, ValueError, pa.ArrowException)


def _unreadable(location: HubLocation, error: Exception) -> EvalkitError:
    reason = _line(error.__cause__ or error)
    return _unavailable(
        location, f"`datasets` cannot read its files ({reason}); check that it is a dataset of this layout"
    )
