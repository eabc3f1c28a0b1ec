"""Folders with results to compare."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from checked import SCORES, TASK, root
from made_results import write_scores


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the baseline's only result."""
    return write_scores(tmp_path_factory.mktemp("check") / "baseline", TASK, SCORES)


@pytest.fixture(scope="module")
def whole(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with that result, and one of the same model on another task."""
    folder = tmp_path_factory.mktemp("whole") / "whole"
    shutil.copytree(root(written), folder)
    write_scores(folder, replace(TASK, name="other", mteb_name="other"), SCORES)
    return folder


@pytest.fixture
def folders(written: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The baseline, and the JSON of a result that is equal to it."""
    shutil.copytree(root(written), tmp_path / "now")
    return root(written), tmp_path / "now" / written.relative_to(root(written))
