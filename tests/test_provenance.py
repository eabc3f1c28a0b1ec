import getpass
import importlib.metadata
import json
import os
import shutil
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

import evalkit
from evalkit import machine as provenance

SECRETS = {
    "HF_TOKEN": "hf_aVerySecretToken",
    "OPENAI_API_KEY": "sk-aVerySecretKey",
    "COHERE_API_KEY": "co-aVerySecretKey",
    "JINA_API_KEY": "jina-aVerySecretKey",
    "VOYAGE_API_KEY": "pa-aVerySecretKey",
    "DASHSCOPE_API_KEY": "sk-dashAVerySecretKey",
    "SILICONFLOW_API_KEY": "sk-siliconAVerySecretKey",
    "MXBAI_API_KEY": "mxb-aVerySecretKey",
}


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    (root / "evalkit").mkdir(parents=True)
    (root / "evalkit/__init__.py").write_text("", encoding="utf-8")
    (root / "README.md").write_text("", encoding="utf-8")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")
    return root


def test_provenance_says_what_made_the_number() -> None:
    found = provenance.collect()
    assert found["evalkit"]["version"] == evalkit.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["packages"]["numpy"] == np.__version__
    assert found["packages"]["hydra-core"] == importlib.metadata.version("hydra-core")
    assert found["hardware"]["cores"] == os.cpu_count()
    assert found["hardware"]["processor"]
    age = datetime.now(UTC) - datetime.fromisoformat(found["timestamp"])
    assert timedelta(seconds=-1) < age < timedelta(minutes=1)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="reads Linux's own account")
def test_memory_is_the_machines() -> None:
    line = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()[0]
    assert provenance.collect()["hardware"]["memory_bytes"] == pytest.approx(int(line.split()[1]) * 1024, rel=1e-6)


def test_provenance_names_no_secret_no_host_no_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path / "home-of-someone"))
    text = json.dumps(provenance.collect())
    assert not [value for value in SECRETS.values() if value in text]
    assert "home-of-someone" not in text
    assert str(Path(evalkit.__file__).parent) not in text
    assert socket.gethostname() not in text
    user = getpass.getuser()
    assert f'"{user}"' not in text
    assert f"/{user}/" not in text


def test_a_checkout_says_its_commit(checkout: Path) -> None:
    assert provenance.git_state(checkout) == {"commit": git(checkout, "rev-parse", "HEAD"), "dirty": False}


@pytest.mark.parametrize(
    ("changed", "dirty"), [("evalkit/__init__.py", True), ("evalkit/new.py", True), ("README.md", False)]
)
def test_dirty_means_changed_code(checkout: Path, changed: str, dirty: bool) -> None:
    (checkout / changed).write_text("changed = True\n", encoding="utf-8")
    state = provenance.git_state(checkout)
    assert state is not None
    assert state["dirty"] is dirty


def test_a_staged_change_is_dirty(checkout: Path) -> None:
    (checkout / "evalkit/__init__.py").write_text("changed = True\n", encoding="utf-8")
    git(checkout, "add", ".")
    state = provenance.git_state(checkout)
    assert state is not None
    assert state["dirty"] is True


@pytest.mark.parametrize("committed", [False, True])
def test_an_installed_package_inside_someones_repository_has_no_commit(checkout: Path, committed: bool) -> None:
    site_packages = checkout / ".venv/lib/site-packages"
    (site_packages / "evalkit").mkdir(parents=True)
    (site_packages / "evalkit/__init__.py").write_text("", encoding="utf-8")
    if committed:
        git(checkout, "add", ".")
        git(checkout, "commit", "-q", "-m", "everything")
    assert provenance.git_state(site_packages) is None


def test_an_untracked_package_at_the_root_of_a_repository_has_no_commit(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "notes.txt").write_text("", encoding="utf-8")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    (tmp_path / "evalkit").mkdir()
    (tmp_path / "evalkit/__init__.py").write_text("", encoding="utf-8")
    assert provenance.git_state(tmp_path) is None


def test_a_repository_without_commits_and_a_plain_folder_have_no_commit(tmp_path: Path) -> None:
    assert provenance.git_state(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert provenance.git_state(tmp_path) is None


def test_neither_the_folder_one_stands_in_nor_a_hooks_variables_mislead(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    git(other, "commit", "-q", "--allow-empty", "-m", "other")
    monkeypatch.chdir(other)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    state = provenance.git_state(checkout)
    monkeypatch.delenv("GIT_DIR")
    assert state == {"commit": git(checkout, "rev-parse", "HEAD"), "dirty": False}


def test_without_git_there_is_no_commit(checkout: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("git") is None
    assert provenance.git_state(checkout) is None


def test_collecting_loads_nothing_heavy() -> None:
    code = (
        "import sys; from evalkit import machine; found = machine.collect();"
        "print(found['hardware']['accelerators'], [name for name in ('torch', 'transformers', 'mteb', 'hydra') "
        "if name in sys.modules], 'torch' in found['packages'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[] [] True\n"


def test_a_graphics_card_is_named_where_torch_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    expected = [torch.cuda.get_device_name(device) for device in range(torch.cuda.device_count())]
    if not expected and torch.backends.mps.is_available():
        expected = ["Apple MPS"]
    assert provenance.collect()["hardware"]["accelerators"] == expected
