"""Converted networks: made by one process at a time, whole or not at all, whatever a killed one left."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from command import files_below

from evalkit.backends import prepare_model
from evalkit.backends.conversions import UNFINISHED, keep_conversion, kept_conversions
from evalkit.models.interfaces import LocalNetwork, Runtime
from evalkit.models.settings import model_settings


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


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system gives a process all processors")
@pytest.mark.parametrize("backend", ["openvino", "onnx"])
def test_threads_are_as_many_as_the_process_may_have(backend: str, tiny_bert_reranker: Path, tmp_path: Path) -> None:
    """A batch system or a container may give it fewer processors than the machine has."""
    settings = model_settings({"name": "made", "path": str(tiny_bert_reranker)})
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        network = prepare_model(backend, settings, Runtime(device="cpu", cache_dir=tmp_path)).scorer
    finally:
        os.sched_setaffinity(0, allowed)
    assert isinstance(network, LocalNetwork)
    assert network.parallel == 1
