"""Progress: a bar on a terminal (a pseudo-terminal here), a plain line now and then elsewhere."""

from __future__ import annotations

import contextlib
import fcntl
import io
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from store_rows import keep_rows

from evalkit.output import progress as module
from evalkit.output.progress import progress

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
MEMORY = r"\d+\.\d GiB"


@pytest.fixture(autouse=True)
def wide_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


class Terminal:
    """A pseudo-terminal of some width, which keeps what it is sent."""

    def __init__(self, width: int) -> None:
        self._leader, self.follower = pty.openpty()
        fcntl.ioctl(self.follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        self._sent = bytearray()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while content := os.read(self._leader, 65_536):
                self._sent += content

    def close(self) -> list[str]:
        """The lines as they followed each other, one over the other."""
        os.close(self.follower)
        self._reader.join()
        os.close(self._leader)
        text = CONTROL.sub("", self._sent.decode("utf-8"))
        return [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]


@contextlib.contextmanager
def as_stderr(terminal: Terminal) -> Iterator[None]:
    with open(os.dup(terminal.follower), "w", encoding="utf-8") as stream, contextlib.redirect_stderr(stream):
        yield


def shown(width: int, already: int = 0) -> list[str]:
    """What a terminal shows of a work of a thousand pairs, of which some are done before."""
    terminal = Terminal(width)
    # rich asks the process's own stderr for its width, which in a test is another
    with (
        patch.dict(os.environ, COLUMNS=str(width)),
        as_stderr(terminal),
        progress("scoring", 1_000, "pair", already) as advance,
    ):
        for _ in range(5):
            time.sleep(0.12)
            advance(100, 12_000)
    return terminal.close()


def test_a_terminal_shows_all_that_is_known() -> None:
    lines = shown(140, already=250)
    pattern = rf"scoring [━╺╸]+ 750/1,000  \d\.\d s left  ([\d,.]+) pairs/s  ([\d,]+) tokens/s  25% stored  {MEMORY}$"
    found = [match for line in lines if (match := re.match(pattern, line))]
    assert found, lines
    pairs, tokens = (float(number.replace(",", "")) for number in found[-1].groups())
    assert 300 < pairs < 840  # 500 pairs in a little over 0.6 seconds; the 250 from the store are no speed
    assert tokens == pytest.approx(120 * pairs, rel=0.01)


def test_a_narrow_terminal_shows_what_it_has_room_for() -> None:
    lines = [line for line in shown(62) if "500/1,000" in line]
    assert lines
    assert all(len(line) <= 62 for line in lines)
    assert re.search(r" 500/1,000  \d\.\d s left  [\d.]+ pairs/s$", lines[-1])  # no fact is cut in two


def test_a_terminal_that_cannot_go_back_gets_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert shown(100) == []


def test_a_run_shows_its_bar(tiny_reranker: Path, tmp_path: Path) -> None:
    """The command itself: the bar goes to the terminal, the table to the pipe; the second run has half from the store."""
    command = [
        *(sys.executable, "-m", "evalkit", "task=demo-zh2en", "model=local-cross-encoder", "backend=torch"),
        *(f"model.path={tiny_reranker}", f"cache_dir={tmp_path / 'cache'}", f"results_dir={tmp_path / 'results'}"),
    ]
    for pattern in (r"scoring .*/80 .*pairs/s", r"scoring .*/80 .*50% stored"):
        terminal = Terminal(160)
        done = subprocess.run([*command, "limit=8"], stdout=subprocess.PIPE, stderr=terminal.follower, timeout=300)
        keep_rows(tmp_path / "cache", 40)
        lines = terminal.close()
        assert done.returncode == 0, lines
        assert any(re.search(pattern, line) for line in lines), lines
        assert b"scoring" not in done.stdout
        assert b"model" in done.stdout


def test_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    clock = iter([0.0, 5.0, 20.0, 30.0, 40.0, 50.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    with caplog.at_level(logging.INFO, "evalkit"), progress("scoring", 1_000, "pair") as advance:
        for done in (100, 100, 100, 300, 400):
            advance(done)
    first, second = caplog.messages
    assert re.fullmatch(rf"scoring: 200 of 1000 pairs \(20 %\), 10\.0 per second, 80 s left, {MEMORY} of memory", first)
    assert second.startswith("scoring: 600 of 1000 pairs (60 %), 15.0 per second, 27 s left")


def test_a_line_says_what_the_store_had(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    clock = iter([0.0, 20.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    with caplog.at_level(logging.INFO, "evalkit"), progress("embedding", 1_000, "query", done=400) as advance:
        advance(200, 5_000)
    (line,) = caplog.messages
    assert line.startswith(
        "embedding: 600 of 1000 queries (60 %), 10.0 per second, 250 tokens per second, 40 s left, 400 from the store"
    )


def test_short_work_says_nothing(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    with caplog.at_level(logging.INFO, "evalkit"), progress("embedding", 10, "query") as advance:
        advance(4)
        advance(6)
    assert caplog.messages == []
    assert capsys.readouterr() == ("", "")


def test_a_pipe_gets_no_control_characters() -> None:
    stream = io.StringIO()
    with contextlib.redirect_stderr(stream), progress("scoring", 10, "pair") as advance:
        advance(10)
    assert stream.getvalue() == ""
