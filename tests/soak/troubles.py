"""What befalls the runs: each trouble takes a case through it, and says what did not hold."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fake_servers import FakeServer
from mishaps import Faulty

from soak.cases import Case
from soak.child import Child, Ended, run
from soak.invariants import contents, differences, left_behind

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}
SOON = 15.0  # seconds: the grace, and what a busy machine adds
DISK = 24  # MiB
FAULTY = 0.3


@dataclass
class Soak:
    """One soak: where it works, its luck, and what it counts."""

    folder: Path
    generator: random.Random
    server: FakeServer
    plant: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    quiet_runs: dict[tuple[str, ...], dict[str, object]] = field(default_factory=dict)
    durations: dict[tuple[str, ...], float] = field(default_factory=dict)

    def store(self, case: Case) -> Path:
        """The store that all runs share, of whatever tasks and limits."""
        return self.folder / "stores" / "one"

    def quiet(self, case: Case) -> dict[str, object]:
        """The results of the case where nothing befalls it and nothing is stored."""
        if case.figures not in self.quiet_runs:
            place = self.folder / f"quiet-{len(self.quiet_runs)}"
            store = ["cache=off", f"cache_dir={self.store(case)}", f"results_dir={place / 'results'}"]
            ended = run(place, [*case.figures, *store])
            self.expect(ended, 0, case)
            self.quiet_runs[case.figures] = contents(place / "results")
            self.durations[case.figures] = ended.seconds
        return self.quiet_runs[case.figures]

    def expect(self, ended: Ended, code: int, case: Case) -> None:
        if ended.code != code:
            self.problem(case, f"exit code {ended.code} in place of {code}: {ended.said[-400:]}")
        self.expect_plain(ended, case)

    def expect_plain(self, ended: Ended, case: Case) -> None:
        for word in ("Traceback", "this is a bug"):
            if word in ended.said:
                self.problem(case, f"{word}: {ended.said[-1500:]}")

    def expect_quiet_result(self, results: Path, case: Case) -> None:
        if self.plant:
            self.plant = False
            path = next(results.rglob("*.run.parquet"))
            path.write_bytes(path.read_bytes()[:-9] + b"x" + path.read_bytes()[-8:])
        for name in differences(contents(results), self.quiet(case)):
            self.problem(case, f"{name} is not what a quiet run gives, in {results}")
        for path in left_behind(results):
            self.problem(case, f"{path} is left")

    def problem(self, case: Case | None, what: str) -> None:
        of = f" ({' '.join(case.arguments)})" if case else ""
        self.problems.append(" ".join(f"{what}{of}".split()))


def arguments(case: Case, results: Path, store: Path) -> list[str]:
    return [*case.arguments, f"cache_dir={store}", f"results_dir={results}"]


def kills(soak: Soak, case: Case, place: Path) -> None:
    """Ended by signals at random moments, up to three times; then let through."""
    results = place / "results"
    soak.quiet(case)
    for _ in range(soak.generator.randint(1, 3)):
        _end(soak, Child(place, arguments(case, results, soak.store(case))), case, results)
    soak.expect(run(place, arguments(case, results, soak.store(case))), 0, case)
    soak.counts["resumed runs"] += 1
    soak.expect_quiet_result(results, case)


def _end(soak: Soak, child: Child, case: Case, *folders: Path) -> None:
    """Kill it at a random moment; where it had the time for it, it must have ended in order."""
    number = soak.generator.choice(list(CODES))
    child.wait_until_it_heeds()
    time.sleep(0.9 * soak.generator.random() * soak.durations.get(case.figures, 1.0))
    started = time.monotonic()
    child.kill(number)
    if number != signal.SIGKILL and soak.generator.random() < 0.3:
        time.sleep(soak.generator.random() * 0.05)
        child.kill(number)
    ended = child.wait()
    soak.counts[f"kills: {signal.Signals(number).name}"] += 1
    if ended.code == 0:
        soak.counts["kills that came too late"] += 1
    elif ended.code != CODES[number]:
        soak.problem(case, f"exit code {ended.code} after {signal.Signals(number).name}: {ended.said[-400:]}")
    elif number != signal.SIGKILL and ended.said.count("evalkit: interrupted") != 1:
        soak.problem(case, f"says not once that it was interrupted: {ended.said[-400:]}")
    soak.expect_plain(ended, case)
    if time.monotonic() - started > SOON:
        soak.problem(case, f"{time.monotonic() - started:.1f} s to end after {signal.Signals(number).name}")
    left = left_behind(*folders)
    if number == signal.SIGKILL:  # nobody can clean up then
        soak.counts["files left by SIGKILL"] += len(left)
        for path in left:
            Path(path).unlink(missing_ok=True)
    else:
        for name in left:
            soak.problem(case, f"{name} is left after {signal.Signals(number).name}")


def together(soak: Soak, case: Case, place: Path) -> None:
    """Three at once on one store, two of them into one folder of results; one is killed."""
    soak.quiet(case)
    shared, own = place / "results", place / "own"
    children = [Child(place, arguments(case, results, soak.store(case))) for results in (shared, shared, own)]
    _end(soak, children.pop(), case)
    for child in children:
        soak.expect(child.wait(), 0, case)
    soak.expect(run(place, arguments(case, own, soak.store(case))), 0, case)
    soak.counts["resumed runs"] += 1
    for path in left_behind(own):
        Path(path).unlink()
    soak.expect_quiet_result(shared, case)
    soak.expect_quiet_result(own, case)


def full_disk(soak: Soak, case: Case, place: Path) -> None:
    """No room, or some, for results or for the store; then there is room again."""
    with _disk(place / "disk") as disk:
        results, store = soak.generator.choice(
            [(disk / "results", soak.store(case)), (place / "results", disk / "store")]
        )
        status = os.statvfs(disk)
        left = soak.generator.choice([0, 8, 64, 200]) * 1024
        (disk / "other").write_bytes(bytes(max(0, status.f_bavail * status.f_frsize - left)))
        ended = run(place, arguments(case, results, store))
        soak.counts["full disks" if ended.code else "full disks that sufficed"] += 1
        soak.expect(ended, 2 if ended.code else 0, case)
        (disk / "other").unlink()
        soak.expect(run(place, arguments(case, results, store)), 0, case)
        soak.counts["resumed runs"] += 1
        soak.expect_quiet_result(results, case)


def read_only(soak: Soak, case: Case, place: Path) -> None:
    """A folder that can't be written, for results or for the store; then it can."""
    with _disk(place / "disk") as disk:
        for name in ("results", "store"):
            (disk / name).mkdir()
        results, store = soak.generator.choice(
            [(disk / "results", soak.store(case)), (place / "results", disk / "store")]
        )
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        ended = run(place, arguments(case, results, store))
        soak.counts["read-only folders"] += 1
        soak.expect(ended, 2 if ended.code or results.is_relative_to(disk) else 0, case)
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        soak.expect(run(place, arguments(case, results, store)), 0, case)
        soak.counts["resumed runs"] += 1
        soak.expect_quiet_result(results, case)


def damage(soak: Soak, case: Case, place: Path) -> None:
    """Bytes of a copy of the store are flipped: the figures stay, and after a run and a check no row is wrong."""
    store, results = place / "store", place / "results"
    kept = Case(case.figures, tuple(word for word in case.course if not word.startswith("cache=")), case.served)
    soak.expect(run(place, arguments(kept, results, soak.store(case))), 0, kept)
    shutil.copytree(soak.store(case), store)
    files = sorted(path for path in store.glob("scores-*") if path.stat().st_size and path.suffix != ".lock")
    for path in files[:1]:  # the store itself; its journal is in it by now
        content = bytearray(path.read_bytes())
        for _ in range(soak.generator.randint(1, 40)):
            content[soak.generator.randrange(len(content))] ^= 1 << soak.generator.randrange(8)
        path.write_bytes(content)
    ended = run(place, arguments(kept, results, store))
    soak.expect(ended, 0, kept)
    soak.expect_quiet_result(results, kept)
    verified = run(place, ["cache", "verify", "--cache-dir", str(store)])
    noticed = "damaged" in ended.said or verified.code == 1
    soak.counts["damaged stores, noticed" if noticed else "damaged stores, in no row"] += 1
    soak.expect_plain(verified, case)
    if verified.code not in (0, 1):
        soak.problem(case, f"cache verify ends with {verified.code}: {verified.said[-300:]}")


@contextmanager
def _disk(folder: Path) -> Iterator[Path]:
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def may_mount() -> bool:
    """Only root may, and not in every container."""
    return os.geteuid() == 0 and subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0


TROUBLES: dict[str, Callable[[Soak, Case, Path], None]] = {
    "kills": kills,
    "together": together,
    "full disk": full_disk,
    "read-only": read_only,
    "damage": damage,
}
WEIGHTS = (5, 2, 1, 1, 2)


def meet(soak: Soak, case: Case, name: str, place: Path) -> None:
    """Take the case through the trouble; a served model's server is faulty meanwhile."""
    soak.quiet(case)
    faulty = Faulty(FAULTY, soak.generator.randrange(2**32))
    soak.server.chance = faulty if case.served else lambda: None
    try:
        TROUBLES[name](soak, case, place)
    except (TimeoutError, OSError, subprocess.CalledProcessError) as error:
        soak.problem(case, f"{type(error).__name__}: {error}")
    finally:
        soak.server.chance = lambda: None
        for fault, count in faulty.counts.items():
            soak.counts[f"server faults: {fault}"] += count
