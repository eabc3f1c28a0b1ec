"""What a task amounts to: its sizes, its fingerprint, and how it differs from the published dataset or from earlier readings."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterable
from pathlib import Path

from evalkit.cache import read_entries, store_entry
from evalkit.published_statistics import published_statistics
from evalkit.records import Request, Task, TaskStatistics

_SCRIPTS = {"Han": re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"), "Latin": re.compile("[A-Za-z]")}
FINGERPRINTS = "fingerprints.json"
logger = logging.getLogger("evalkit")


def has_both(request: Request) -> bool:
    """Return whether a query has positive and negative candidates, without which cmteb-v1 leaves it out."""
    return any(c.gain > 0 for c in request.candidates) and any(c.gain == 0 for c in request.candidates)


def task_statistics(requests: Iterable[Request]) -> TaskStatistics:
    """Return the sizes of the requests. A document offered for several queries counts each time, except in `unique_documents`."""
    requests = tuple(requests)
    candidates = [candidate for request in requests for candidate in request.candidates]
    positives = [sum(candidate.gain > 0 for candidate in request.candidates) for request in requests]
    queries = [text for request in requests for text in request.query.texts]
    return TaskStatistics(
        queries=len(requests),
        pairs=len(candidates),
        positives=sum(positives),
        queries_without_positives=positives.count(0),
        queries_without_negatives=sum(
            len(request.candidates) == number for request, number in zip(requests, positives, strict=True)
        ),
        query_characters=sum(map(len, queries)),
        document_characters=sum(len(candidate.text) for candidate in candidates),
        unique_queries=len({request.query.texts for request in requests}),
        unique_documents=len({candidate.text for candidate in candidates}),
    )


def fingerprint(requests: Iterable[Request]) -> str:
    """Return the SHA-256, in hex, of the texts, gains and missed gains in their order.

    Ids are no part of it: the same data has one fingerprint in either layout and any file type, as long as candidates
    stand in the same order.
    """
    digest = hashlib.sha256()
    for request in requests:
        header = [len(request.query.texts), len(request.candidates), *request.unretrieved_gains]
        parts = [json.dumps(header).encode(), *map(_prefixed, request.query.texts)]
        parts += [b"%d;%b" % (candidate.gain, _prefixed(candidate.text)) for candidate in request.candidates]
        digest.update(b"".join(parts))
    return digest.hexdigest()


def script_of(text: str) -> str:
    """Return the script that a text is written in: `Han`, `Latin` (ASCII letters), `Han+Latin`, or `other`."""
    scripts = [name for name, letter in _SCRIPTS.items() if letter.search(text)]
    return "+".join(scripts) or "other"


def _prefixed(text: str) -> bytes:
    encoded = text.encode()
    return b"%d:%b" % (len(encoded), encoded)


def compare_with_published(mteb_name: str, requests: Iterable[Request]) -> tuple[str, ...]:
    """Return how whole data differ from the dataset statistics that mteb publishes for a task, a phrase per figure.

    Compared are the queries that have positives and negatives, since mteb's copies hold no others. Empty where nothing
    differs, and where nothing is published for the task.
    """
    published = published_statistics().get(mteb_name)
    if published is None:
        return ()
    loaded = task_statistics(request for request in requests if has_both(request))
    return tuple(
        f"{name.replace('_', ' ')} {getattr(loaded, name):,} instead of {value:,}"
        for name, value in published.items()
        if getattr(loaded, name) != value
    )


def warn_of_changed_data(task: Task, folder: Path) -> None:
    """Warn where the data of this repository and commit are not those that runs with this cache folder have read before.

    A commit never changes its files; a mirror, a damaged Hub cache or a library that reads them otherwise may.
    """
    if not re.fullmatch("[0-9a-f]{40}", task.revision) or task.first_stage is not None:
        return
    cut = task.part if task.limit is None else f"limit={task.limit}"
    part = " ".join(filter(None, (task.layout, task.subset, task.split, cut)))
    key, path = f"{task.source}@{task.revision} {part}", folder / FINGERPRINTS
    before = read_entries(path).get(key)
    if before is None:
        try:
            store_entry(path, key, task.fingerprint)
        except OSError as error:
            logger.debug("%s can't be written: %s", path, error.strerror)
    elif before != task.fingerprint:
        logger.warning(
            "%s: the data of %s are not those that were read before under the same revision %s (fingerprint %.12s, before %.12s): "
            "results on them can't be compared. Has HF_ENDPOINT or the Hub cache changed? If the new data are right, delete %s",
            task.name,
            task.source,
            task.revision[:12],
            task.fingerprint,
            before,
            path,
        )
