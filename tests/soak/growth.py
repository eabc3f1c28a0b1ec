"""A process that lives long: evaluate() again and again, and what it then holds."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from soak.child import _context
from soak.invariants import open_files

MOST_GROWTH = 12 * 2**20  # bytes, of what allocators keep


def measure(seconds: float) -> tuple[int, list[str]]:
    """How often it evaluated, and what grew."""
    receiver, sender = _context.Pipe(duplex=False)
    process = _context.Process(target=_live, args=(seconds, sender))
    process.start()
    sender.close()
    try:
        count, warm, last = receiver.recv()
    except EOFError:
        return 0, ["the process that lives long died"]
    finally:
        process.join()
    problems = []
    if last[0] - warm[0] > MOST_GROWTH:
        problems.append(f"memory grew from {warm[0] / 2**20:.1f} to {last[0] / 2**20:.1f} MiB in {count} evaluations")
    if last[1] > warm[1]:
        problems.append(f"open files grew from {warm[1]} to {last[1]} in {count} evaluations")
    return count, problems


def _live(seconds: float, sender: object) -> None:
    import evalkit
    from evalkit.machine import resident_bytes

    ends, count = time.monotonic() + seconds, 0
    warm = last = (0, 0)
    with tempfile.TemporaryDirectory() as cache:
        task = evalkit.load_task("demo-zh2en", limit=4)
        model = evalkit.load_model("multilingual-e5-small-q4", cache_dir=Path(cache), threads=1)
        for count in range(1, 100_000):
            evalkit.evaluate(model, task, cache=("on", "refresh", "off")[count % 3] if count % 10 == 0 else "on")
            if count == 20:
                warm = (resident_bytes() or 0, open_files())
            if count > 40 and time.monotonic() > ends:
                break
        last = (resident_bytes() or 0, open_files())
    sender.send((count, warm, last))
