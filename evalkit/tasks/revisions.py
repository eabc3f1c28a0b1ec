"""Datasets that change under a pinned revision: what was read before is remembered, and another content is told."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from evalkit.cache import keep_value, kept_values
from evalkit.records import Task

FINGERPRINTS = "fingerprints.json"
logger = logging.getLogger("evalkit")


def tell_of_change(task: Task, folder: Path) -> None:
    """Warn where the data of this repository and commit are not those that runs with this cache folder have read before.

    A commit never changes its files; a mirror, a damaged Hub cache or a library that reads them otherwise may.
    """
    if not re.fullmatch("[0-9a-f]{40}", task.revision) or task.first_stage is not None:
        return
    part = f"{task.layout} {task.subset} {task.split}{'' if task.limit is None else f' limit={task.limit}'}"
    key, path = f"{task.source}@{task.revision} {part}", folder / FINGERPRINTS
    before = kept_values(path).get(key)
    if before is None:
        try:
            keep_value(path, key, task.fingerprint)
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
