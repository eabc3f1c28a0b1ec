"""Where evalkit keeps what it need not make again: scores, exported networks, verdicts on backends."""

from __future__ import annotations

from pathlib import Path

import platformdirs


def cache_folder(chosen: Path | None) -> Path:
    """The folder that the user chose, or evalkit's own in the user's cache."""
    return chosen or Path(platformdirs.user_cache_dir("evalkit", appauthor=False))
