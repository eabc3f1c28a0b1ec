"""Imports point one way: the contracts in pyproject.toml hold, and each notices what it forbids."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LINT = str(Path(sys.executable).with_name("lint-imports"))

# where an import is put, and the contract that it breaks
BREAKS = [
    ("tasks/loading.py", "evalkit.evaluation.runs", "Imports point one way"),
    ("brandnew.py", "evalkit.errors", "Imports point one way"),
    ("evaluation/runs.py", "omegaconf", "Only the command line knows Hydra"),
    ("tasks/layouts/cmteb.py", "evalkit.models.settings", "A task knows nothing of models, nor of what judges them"),
    ("backends/torch.py", "evalkit.tasks", "A model knows nothing of tasks, nor a scorer of metrics"),
    ("scoring/plan.py", "torch", "The plan knows nothing of how a score is made"),
    ("metrics/formulas.py", "pathlib", "Metrics know nothing of models, tasks and files"),
    ("report/summary.py", "evalkit.evaluation.evaluate", "What reads results reads files alone"),
    ("compare/command.py", "evalkit.evaluation.evaluate", "What reads results reads files alone"),
    ("statistics/paired.py", "pathlib", "Metrics know nothing of models, tasks and files"),
    ("results/published.py", "torch", "What reads results reads files alone"),
    ("check/changes.py", "mteb", "What reads results reads files alone"),
    ("audit/rules/__init__.py", "evalkit.tasks", "What reads results reads files alone"),
]


def lint(folder: Path) -> str:
    """Lint the package in a folder by the project's own contracts."""
    done = subprocess.run(
        [LINT, "--no-cache", "--config", str(ROOT / "pyproject.toml")],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == (0 if " 0 broken." in done.stdout else 1), done.stderr
    return done.stdout


def test_contracts_hold() -> None:
    report = lint(ROOT)
    assert " 0 broken." in report, report


@pytest.mark.parametrize(("file", "imported", "contract"), BREAKS)
def test_contract_notices_a_wrong_import(file: str, imported: str, contract: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "evalkit", tmp_path / "evalkit", ignore=shutil.ignore_patterns("__pycache__", "demo"))
    path = tmp_path / "evalkit" / file
    path.write_text(
        (path.read_text(encoding="utf-8") if path.exists() else "") + f"\nimport {imported}\n", encoding="utf-8"
    )
    assert f"{contract} BROKEN" in lint(tmp_path)
