"""Sweeps through launchers of Hydra's that run each job in a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import files_below, run_program

SWEEP = ("-m", "task=demo-zh2en", "limit=2", "offline=true")
LAUNCHERS = {
    "joblib": ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
    "submitit_local": ("hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5"),
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_each_run_writes_its_result_and_errors_come_back(launcher: str, tmp_path: Path) -> None:
    done = run_program(tmp_path, *SWEEP, "model=bm25,constant", *LAUNCHERS[launcher])
    assert done.code == 0, done.stderr
    assert "evalkit report FOLDER" in done.stderr
    assert sum(name.endswith("EvalkitDemoZh2En.json") for name in files_below(tmp_path / "results")) == 2
    done = run_program(tmp_path, *SWEEP, "model=bm25,constant", "device=cuda", *LAUNCHERS[launcher])
    assert done.code == 2
    assert "runs on the CPU alone" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
