"""The soak itself: it runs, ends in time with its table, and finds a fault that was planted."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent


def test_a_short_soak_finds_the_planted_fault_and_no_other() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "soak", "--minutes", "0.15", "--seed", "5", "--plant"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(TESTS.parent), str(TESTS)))},
        capture_output=True,
        encoding="utf-8",
        timeout=400,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    counts = dict(re.findall(r"^(\S.*?)  +([\d,]+)$", done.stdout, re.MULTILINE))
    assert "SEED=5" in done.stdout
    assert int(counts["cycles"]) >= 1
    assert int(counts["evaluations in one process"]) > 40
    assert counts["problems"] == "1", done.stdout
    (problem,) = (line for line in done.stdout.splitlines() if line.startswith("problem: "))
    assert "run.parquet (" in problem
    assert "is not what a quiet run gives" in problem
