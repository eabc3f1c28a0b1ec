"""Converted networks: made by one process at a time, whole or not at all, whatever a killed one left."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from command import files_below

from evalkit.backends.conversions import UNFINISHED, keep_conversion, kept_conversions


def test_what_a_killed_process_left_is_taken_away(tmp_path: Path) -> None:
    folder = tmp_path / "openvino" / "network"
    left = folder.with_name(folder.name + UNFINISHED)
    left.mkdir(parents=True)
    (left / "half").touch()
    keep_conversion(folder, lambda empty: (empty / "whole").touch())
    assert files_below(tmp_path) == ["openvino/network.lock", "openvino/network/whole"]
    assert kept_conversions(tmp_path) == [folder]


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "openvino" / "network"

    def write(empty: Path) -> None:
        (empty / "half").touch()
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        keep_conversion(folder, write)
    assert kept_conversions(tmp_path) == []


def test_several_at_once_make_one(tmp_path: Path) -> None:
    made: list[int] = []

    def write(empty: Path) -> None:
        made.append(1)
        time.sleep(0.1)
        (empty / "whole").touch()

    threads = [threading.Thread(target=keep_conversion, args=(tmp_path / "onnx" / "n", write)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]
    assert files_below(tmp_path) == ["onnx/n.lock", "onnx/n/whole"]
