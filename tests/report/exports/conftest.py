"""A result as that of a task of the Hub."""

from __future__ import annotations

from pathlib import Path

import pytest
from cmedqa import write_cmedqa


@pytest.fixture
def cmedqa(tmp_path: Path) -> Path:
    """Its JSON file."""
    return write_cmedqa(tmp_path / "results")
