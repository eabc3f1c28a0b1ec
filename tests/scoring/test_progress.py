"""Progress, where stderr is no terminal."""

from __future__ import annotations

import logging

import pytest

from evalkit.scoring import progress as module
from evalkit.scoring.progress import progress


def test_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    clock = iter([0.0, 5.0, 20.0, 30.0, 40.0, 50.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    with caplog.at_level(logging.INFO, "evalkit"), progress("scoring", 1_000, "pair") as advance:
        for done in (100, 100, 100, 300, 400):
            advance(done)
    assert caplog.messages == [
        "scoring: 200 of 1000 pairs (20 %), 10.0 per second, 80 s left",
        "scoring: 600 of 1000 pairs (60 %), 15.0 per second, 27 s left",
    ]


def test_short_work_says_nothing(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    with caplog.at_level(logging.INFO, "evalkit"), progress("embedding", 10, "query") as advance:
        advance(4)
        advance(6)
    assert caplog.messages == []
    assert capsys.readouterr() == ("", "")
