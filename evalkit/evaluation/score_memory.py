"""Under what a model's scores and vectors are stored, and the store that a run reads and fills."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Literal

from evalkit.cache import cache_folder
from evalkit.models.identity import remember_name
from evalkit.models.interfaces import RunnableModel
from evalkit.scoring.engine import ScoreMemory
from evalkit.scoring.plan import WINDOW_ITEMS
from evalkit.scoring.store import open_store

Cache = Literal["on", "off", "refresh"]


def stored_under(runnable: RunnableModel) -> Mapping[str, object] | None:
    """Return what a model's scores are stored under: its way of scoring, and how long the windows are that decide its batches.

    An earlier evalkit did not tell windows apart, so its scores of a local model are another way's.
    """
    if runnable.way is None or runnable.independent:
        return runnable.way
    return {**runnable.way, "window": WINDOW_ITEMS}


@contextmanager
def score_memory(
    cache_dir: Path | None, runnable: RunnableModel, cache: Cache, purpose: Mapping[str, object] | None = None
) -> Iterator[ScoreMemory]:
    """Open the store in a cache folder for a model's way of scoring, and with a `purpose` for one of its own.

    Nothing is kept with `cache` off, and of a model that says no way.
    """
    way = stored_under(runnable)
    if cache == "off" or way is None:
        yield ScoreMemory()
        return
    way = {**way, **(purpose or {})}
    with closing(open_store(cache_folder(cache_dir), way)) as store:
        if "identity" in way and "model" not in way:
            with suppress(OSError):  # the store says what is wrong with the folder
                remember_name(cache_dir, str(way["identity"]), runnable.identity.hub_id)
        yield ScoreMemory(store, refresh=cache == "refresh")
