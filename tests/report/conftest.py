"""Results for whatever reads results: the baselines and BM25 on the bundled tasks, with texts."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import run_here
from staged_task import write_staged

MODELS = ("random", "bm25", "constant", "oracle", "reversed")


@pytest.fixture(scope="session")
def demo_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder, made once per process: copy what you want to change."""
    folder = tmp_path_factory.mktemp("demo-results")
    done = run_here("-m", "task=demo", f"model={','.join(MODELS)}", "texts=true", f"results_dir={folder}")
    assert done.code == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A task and a first stage's run over its corpus: only read."""
    return write_staged(tmp_path_factory.mktemp("staged"))
