"""Ctrl-C and SIGTERM: one exception in the main thread, and an end within seconds whatever that thread is busy with."""

from __future__ import annotations

import _thread
import os
import select
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from signal import Signals
from types import FrameType

HEEDED = (signal.SIGINT, signal.SIGTERM)
GRACE = (
    5.0  # seconds that the main thread has for an end of its own, which a long call into a library may not let it make
)
REPEAT = 0.02
AGAIN = 0.5  # the same, from a second signal on


class Interrupted(KeyboardInterrupt):
    """A signal that ends the process has come. Like Ctrl-C's own it is no Exception, so that no one takes it for an error."""


@dataclass
class _State:
    signal: Signals | None = None
    postponing: bool = False
    pending: bool = False
    lost: bool = False  # the exception was raised where Python can't pass it on, such as in a destructor
    repeats: int = 0  # signals of our own, for what was lost
    told: bool = False
    over: bool = False
    advice: str = "run the same again"
    scratch: set[Path] = field(default_factory=set)


_state = _State()


def heed_signals() -> None:
    """From now on the signals raise Interrupted in the main thread, which calls this. For a process's own whole life."""
    for number in HEEDED:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup and shells' background jobs have it
            signal.signal(number, _raise)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    # C code writes there at once, when Python can't run a handler yet
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1) and None)
    threading.Thread(target=_end_in_time, args=(reading,), name="evalkit-interruption", daemon=True).start()
    usual = sys.unraisablehook

    def unraisable(what: sys.UnraisableHookArgs) -> None:
        if not issubclass(what.exc_type, Interrupted):
            usual(what)
        elif _state.signal is not None:
            _state.lost = True
            later = threading.Timer(REPEAT, _repeat, [_state.signal])  # here it would be lost again
            later.daemon = True
            later.start()

    sys.unraisablehook = unraisable


def advise(advice: str) -> None:
    """Set what the message tells the user to do next."""
    _state.advice = advice


def exit_code() -> int | None:
    """128 and the signal's number, as a shell says it; None where none came."""
    return None if _state.signal is None else 128 + _state.signal


def check() -> None:
    """Raise Interrupted if a signal has come: for whoever goes on after any Exception, which a library may have made of it."""
    if _state.signal is not None and not _state.over:
        raise Interrupted


def tell() -> None:
    """Tell the user on stderr, once."""
    if _state.told and _state.signal is not None:
        return
    _state.told = True
    name = "" if _state.signal in (None, signal.SIGINT) else f" by {_state.signal.name}"
    with suppress(OSError, ValueError):  # nobody may be there to read it
        print(f"evalkit: interrupted{name}; {_state.advice}", file=sys.stderr, flush=True)  # noqa: T201


def finish() -> None:
    """Note that the work is done: a signal that comes now raises nothing any more."""
    _state.over = True


@contextmanager
def postponed() -> Iterator[None]:
    """Put off a signal that comes meanwhile to the end: for a few renames that belong together."""
    outermost, _state.postponing = not _state.postponing, True
    try:
        yield
    finally:
        if outermost:
            _state.postponing = False
            if _state.pending:
                _state.pending = False
                raise Interrupted


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """Yield the path of a file or folder to be, which is gone at the end, whatever happens, unless it was renamed."""
    _state.scratch.add(path)
    try:
        yield path
    finally:
        _delete(path)
        _state.scratch.discard(path)


def _repeat(number: Signals) -> None:
    _state.repeats += 1
    _thread.interrupt_main(number)


def _raise(number: int, _: FrameType | None) -> None:
    first = _state.signal is None
    if _state.over or not (first or _state.lost):  # the way out is not to be interrupted
        return
    _state.signal, _state.lost = Signals(number), False
    if _state.postponing:
        _state.pending = True
    else:
        raise Interrupted


def _end_in_time(signals: int) -> None:
    """Wait for a signal, and end the process where it does not end by itself."""
    while (number := os.read(signals, 1)[0]) not in HEEDED:
        pass
    deadline = time.monotonic() + GRACE
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([signals], [], [], left)[0] or os.read(signals, 1)[0] not in HEEDED:
            continue
        if _state.repeats:
            _state.repeats -= 1
        else:
            deadline = min(deadline, time.monotonic() + AGAIN)
    for path in list(_state.scratch):
        _delete(path)
    _state.signal = _state.signal or Signals(number)  # the handler may not even have run
    if sys.stderr.isatty():
        os.write(2, b"\x1b[?25h")  # a progress bar hides the cursor
    tell()
    os._exit(128 + number)


def _delete(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
