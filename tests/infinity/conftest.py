"""A real infinity server. The tests here run in an environment of their own (`make infinity`), and are left out elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "backends"))  # for its chinese_texts

if find_spec("infinity_emb") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    from infinity_server import InfinityServer

    @pytest.fixture(scope="session")
    def server(tiny_reranker: Path, e5_small: Path) -> Iterator[InfinityServer]:
        """A real server of both models, named reranker and e5."""
        with InfinityServer(reranker=tiny_reranker, e5=e5_small) as running:
            yield running
