"""Consoles that lack some characters, and locales that can't decode some names."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command import MODULE

ENCODINGS = ("ascii", "latin-1", "gbk", "cp1252")
RANDOM = ("task=demo-zh", "model=random", "limit=3")


def run_bytes(folder: Path, *arguments: str, **environment: str) -> tuple[int, bytes, bytes]:
    environment.setdefault("XDG_CACHE_HOME", str(folder / "cache"))
    environment.setdefault("PYTHONUTF8", "0")
    done = subprocess.run(
        [*MODULE, *arguments], cwd=folder, env=os.environ | environment, capture_output=True, timeout=300
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_run_on_a_console_that_lacks_characters(encoding: str, tmp_path: Path) -> None:
    """The figures with their dashes on stdout, names on stderr."""
    code, stdout, stderr = run_bytes(tmp_path, *RANDOM, f"results_dir={tmp_path}", PYTHONIOENCODING=encoding)
    assert code == 0, stderr
    assert re.search(r"\d[-–]\d", stdout.decode(encoding))
    code, _, stderr = run_bytes(tmp_path, "task=我的—套件…", "model=random", PYTHONIOENCODING=encoding)
    assert code == 2
    said = stderr.decode(encoding)
    assert "there is no task" in said
    assert "bug" not in said
    assert ("我的" if encoding == "gbk" else r"\u6211\u7684") in said


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("words", [("list", "tasks", "--json"), ("list",), ("--help",), ("run", "--help")])
def test_lists_and_help(encoding: str, words: tuple[str, ...], tmp_path: Path) -> None:
    code, stdout, stderr = run_bytes(tmp_path, *words, PYTHONIOENCODING=encoding)
    assert code == 0, stderr
    if "--json" in words:
        plain = json.loads(run_bytes(tmp_path, *words, PYTHONIOENCODING="utf-8")[1])
        assert json.loads(stdout.decode(encoding)) == plain


@pytest.mark.parametrize("encoding", ["ascii", "gbk"])
def test_a_progress_bar(encoding: str, tmp_path: Path) -> None:
    """On a terminal, with a name that it lacks."""
    main, other = pty.openpty()
    code = (
        "from evalkit.output.text import fit_streams\nfit_streams()\n"
        "from evalkit.output.progress import progress\n"
        "with progress('随机 — T2', 10, 'pair') as advance:\n advance(10)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=other, stderr=other, timeout=60,
        env=os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "TERM": "xterm"},
    )  # fmt: skip
    os.close(other)
    seen = os.read(main, 100_000)
    os.close(main)
    assert done.returncode == 0, seen
    assert b"Traceback" not in seen
    assert b"10/10" in seen


NAMES = {
    "results_dir": ("results_dir=数据/r", "cache_dir=缓存"),
    "task.path": ("task=local", "task.path=数据.jsonl", "results_dir=结果"),
    "--config-dir": ("--config-dir", "配置", "task=我的套件", "results_dir=r"),
}


@pytest.mark.parametrize("what", NAMES)
def test_names_that_the_locale_can_t_decode(what: str, tmp_path: Path) -> None:
    rows = [{"query": "问", "positive": ["答"], "negative": ["别的"]}]
    (tmp_path / "数据.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    tasks = tmp_path / "配置" / "task"
    tasks.mkdir(parents=True)
    (tasks / "我的套件.yaml").write_text("defaults: [base, _self_]\nname: mine\nsuite: [demo-zh]\n", encoding="utf-8")
    words = [*NAMES[what], "model=random", *([] if what == "task.path" else ["limit=3"])]
    words += [] if what != "results_dir" else ["task=demo-zh"]
    code, _, stderr = run_bytes(tmp_path, *words, LC_ALL="C")
    assert code == 0, stderr
    assert list((tmp_path / {"results_dir": "数据/r", "task.path": "结果"}.get(what, "r")).rglob("*.json"))
