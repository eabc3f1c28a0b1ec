"""What becomes of one input: it is accepted, or refused in one line; anything else is a failure.

`fuzzed` makes a test of a property, with few cases in the suite and many with EVALKIT_FUZZ_CASES (`make fuzz`), and counts them.
"""

from __future__ import annotations

import os
import resource
import signal
import time
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from command import run_here
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis.strategies import SearchStrategy

from evalkit.errors import EvalkitError

KINDS = ("task files", "configurations", "result files", "published tables", "cards", "server answers")
CASES = int(os.environ.get("EVALKIT_FUZZ_CASES") or 390)
SEED = int(os.environ.get("EVALKIT_FUZZ_SEED") or 0)
LONGEST = 5.0  # seconds of the processor, since others may use the machine too; of the clock six times as many
PACKAGE = str(Path(__file__).parents[2] / "evalkit")


class HangError(BaseException):
    """No `except Exception` shall catch it."""


@dataclass
class Tally:
    """What the cases of one kind came to. A failure is counted once by its place, however often it is met while it shrinks."""

    tried: int = 0
    accepted: int = 0
    refused: int = 0
    slowest: float = 0.0
    failures: dict[str, str] = field(default_factory=dict)


TALLIES = {kind: Tally() for kind in KINDS}


def fuzzed(kind: str, share: float, **strategies: SearchStrategy[Any]) -> Callable[[Callable[..., None]], Any]:
    """A test of this share of its kind's cases. The property raises EvalkitError where evalkit refuses the input."""

    def decorate(attempt: Callable[..., None]) -> Any:
        @seed(zlib.crc32(attempt.__name__.encode()) + SEED)
        @settings(
            max_examples=max(1, round(CASES / len(KINDS) * share)),
            deadline=None,
            database=None,
            phases=(Phase.explicit, Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
            verbosity=Verbosity.normal,
        )
        @given(**strategies)
        def test(**case: Any) -> None:
            judge(TALLIES[kind], attempt, case)

        test.__name__ = attempt.__name__
        test.__doc__ = attempt.__doc__
        return test

    return decorate


def judge(tally: Tally, attempt: Callable[..., None], case: dict[str, Any]) -> None:
    """Count one case. Whatever is neither acceptance nor refusal is raised."""
    tally.tried += 1
    started = time.process_time()
    try:
        with _time_limit(), warnings.catch_warnings():
            warnings.simplefilter("error")  # it would be printed with a line of code
            warnings.simplefilter("ignore", DeprecationWarning)  # which nobody sees
            warnings.simplefilter("ignore", ResourceWarning)
            attempt(**case)
        tally.accepted += 1
    except EvalkitError as refusal:
        message = str(refusal)
        assert message.strip(), "refused without a word"
        assert "Traceback" not in message, message
        assert "this is a bug" not in message, message
        tally.refused += 1
    except (Exception, HangError) as error:
        tally.failures.setdefault(_place(error), f"{str(error)[:200]!r} for {str(case)[:400]}")
        raise
    finally:
        tally.slowest = max(tally.slowest, time.process_time() - started)


def command(*arguments: str | Path) -> str:
    """Run a command; give what it prints, whatever it found. EvalkitError for exit code 2; a bug is raised as it is."""
    with patch.dict(os.environ, EVALKIT_DEBUG="1"):
        done = run_here(*map(str, arguments))
    assert done.code in (0, 1, 2), done
    assert "Traceback" not in done.stdout + done.stderr, done
    control = [char for char in done.stderr + done.stdout if not char.isprintable() and char not in " \n\t\u3000\u2028"]
    assert not [char for char in control if ord(char) < 32 or 127 <= ord(char) < 160], done
    if done.code == 2:
        messages = [line for line in done.stderr.splitlines() if line.startswith("evalkit: ")]
        assert messages, done
        raise EvalkitError(messages[-1])
    return done.stdout


@contextmanager
def _time_limit() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise HangError(f"no answer within {LONGEST:g} s")

    clocks = ((signal.ITIMER_PROF, signal.SIGPROF, LONGEST), (signal.ITIMER_REAL, signal.SIGALRM, 6 * LONGEST))
    before = [signal.signal(number, stop) for _, number, _ in clocks]
    for timer, _, seconds in clocks:
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for (timer, number, _), handler in zip(clocks, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


@contextmanager
def bounded_memory(more: int = 8 << 30) -> Iterator[None]:
    """At most so many more bytes of address space: what wants to allocate all of a damaged length gets a MemoryError."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    inner = next((frame for frame in reversed(frames) if frame.filename.startswith(PACKAGE)), frames[-1])
    return f"{type(error).__name__} at {Path(inner.filename).name}:{inner.lineno}"
