"""Reranking datasets from the Hub, from disk or bundled, as validated values."""

from __future__ import annotations

from evalkit.tasks.content import compare_with_published, task_statistics
from evalkit.tasks.loading import load_task
from evalkit.tasks.settings import HubLocation, TaskSettings, read_settings, suite_settings, task_names

__all__ = [
    "HubLocation",
    "TaskSettings",
    "compare_with_published",
    "load_task",
    "read_settings",
    "suite_settings",
    "task_names",
    "task_statistics",
]
