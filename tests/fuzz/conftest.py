"""The table of `make fuzz`."""

from __future__ import annotations

import os
from typing import Any

from judging import KINDS, SEED, TALLIES


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not os.environ.get("EVALKIT_FUZZ_CASES"):
        return
    write = terminalreporter.write_line
    write(f"\nseed {SEED}")
    write(f"{'kind':<17}{'tried':>8}{'refused':>9}{'accepted':>10}{'slowest, s':>12}{'failures':>10}")
    for kind in KINDS:
        tally = TALLIES[kind]
        numbers = (
            f"{tally.tried:>8,}{tally.refused:>9,}{tally.accepted:>10,}{tally.slowest:>12.2f}{len(tally.failures):>10}"
        )
        write(f"{kind:<17}{numbers}")
    every = TALLIES.values()
    total = [sum(getattr(tally, name) for tally in every) for name in ("tried", "refused", "accepted")]
    slowest = max(tally.slowest for tally in every)
    failures = [f"{place}: {told}" for tally in every for place, told in tally.failures.items()]
    write(f"{'all':<17}{total[0]:>8,}{total[1]:>9,}{total[2]:>10,}{slowest:>12.2f}{len(failures):>10}")
    for failure in failures:
        write(f"  {failure}")
