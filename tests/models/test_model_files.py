"""Where a model's files are found, and what names them."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from huggingface_hub import constants
from model_folders import copied, pickle_weights

from evalkit.errors import EvalkitError
from evalkit.models.settings import ModelSettings, model_settings
from evalkit.models.weights import ModelFiles, find_model, read_config

COMMIT = "0123456789abcdef0123456789abcdef01234567"
Find = Callable[[ModelSettings], ModelFiles]


@pytest.fixture
def find(tmp_path_factory: pytest.TempPathFactory) -> Find:
    """Find a model's files offline, with a cache of the test's own."""
    return partial(find_model, offline=True, cache_dir=tmp_path_factory.mktemp("cache"))


def test_a_folder_is_named_by_its_files(find: Find, tiny_bert_reranker: Path, tmp_path: Path) -> None:
    settings = model_settings({"name": "local-cross-encoder", "path": str(copied(tiny_bert_reranker, tmp_path))})
    found = find(settings)
    identity = found.identity
    assert (identity.hub_id, identity.kind) == ("local/model", "cross-encoder")
    assert len(identity.weights_hash) == len(found.digest) == 64
    assert identity.revision == found.digest[:12]
    (tmp_path / "model" / "README.md").write_text("other words, the same weights")
    assert find(settings).identity == identity
    weights = tmp_path / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert find(settings).identity.weights_hash != identity.weights_hash
    assert find(settings).identity.revision != identity.revision


def test_the_hash_covers_every_shard_and_its_name(find: Find, tmp_path: Path) -> None:
    shards = {"model-00001-of-00002.safetensors": b"one", "model-00002-of-00002.safetensors": b"two"}
    for name, content in shards.items():
        (tmp_path / name).write_bytes(content)
    lines = [f"{name}\0{hashlib.sha256(content).hexdigest()}\n" for name, content in shards.items()]
    found = find(model_settings({"path": str(tmp_path)}))
    assert found.identity.weights_hash == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_a_home_folder_is_understood(find: Find, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.safetensors").touch()
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    assert find(model_settings({"path": f"~/{tmp_path.name}"})).folder == tmp_path


def test_pickled_weights_need_consent(find: Find, tiny_bert_reranker: Path, tmp_path: Path) -> None:
    folder = copied(tiny_bert_reranker, tmp_path)
    pickle_weights(folder)
    with pytest.raises(EvalkitError, match=r"only pytorch_model\.bin, which can run code .* model\.allow_pickle=true"):
        find(model_settings({"path": str(folder)}))
    found = find(model_settings({"path": str(folder), "allow_pickle": True}))
    assert found.identity.weights_hash


def test_safetensors_win_over_pickles(find: Find, tiny_bert_reranker: Path, tmp_path: Path) -> None:
    folder = copied(tiny_bert_reranker, tmp_path)
    before = find(model_settings({"path": str(folder)})).identity
    (folder / "pytorch_model.bin").write_bytes(b"not read")
    found = find(model_settings({"path": str(folder), "allow_pickle": True})).identity
    assert found.weights_hash == before.weights_hash
    assert found.revision != before.revision  # which of them a library reads is not known here


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"path": "no/such/folder"}, "model.path=no/such/folder: there is no such folder"),
        ({"path": "{tmp}"}, r"no \*\.safetensors: no weights at all"),
        ({"name": "local-embedder"}, "model=local-embedder needs a folder or a Hub id: model.path=FOLDER"),
        ({"hub_id": "not an id"}, "not an id at revision main can't be downloaded"),
    ],
)
def test_what_cannot_be_found(find: Find, tmp_path: Path, fields: dict[str, str], says: str) -> None:
    fields = {field: value.format(tmp=tmp_path) for field, value in fields.items()}
    with pytest.raises(EvalkitError, match=says) as caught:
        find(model_settings(fields))
    assert "\n" not in str(caught.value)


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hub cache of this process."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.mark.usefixtures("hub_cache")
def test_offline_and_not_in_the_cache(find: Find) -> None:
    settings = model_settings({"hub_id": "BAAI/bge-reranker-base", "revision": COMMIT})
    with pytest.raises(EvalkitError, match=f"base at revision {COMMIT} is not in the Hub cache") as caught:
        find(settings)
    assert "\n" not in str(caught.value)


def test_offline_and_in_the_cache(find: Find, hub_cache: Path, tiny_bert_reranker: Path) -> None:
    repository = hub_cache / "models--BAAI--bge-reranker-base"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (snapshot / name).write_bytes((tiny_bert_reranker / name).read_bytes())
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    for revision in (None, COMMIT):
        found = find(model_settings({"hub_id": "BAAI/bge-reranker-base", "revision": revision}))
        assert found.folder == snapshot
        assert (found.identity.hub_id, found.identity.revision) == ("BAAI/bge-reranker-base", COMMIT)


def test_an_unreachable_hub_is_one_line(tmp_path: Path) -> None:
    program = """
from evalkit.errors import EvalkitError
from evalkit.models.settings import model_settings
from evalkit.models.weights import find_model
try:
    find_model(model_settings({"hub_id": "BAAI/bge-reranker-base"}), offline=False, cache_dir=None)
except EvalkitError as error:
    print(error)
"""
    environment = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "PATH": ""}
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    (line,) = result.stdout.splitlines()
    assert line.startswith(
        "BAAI/bge-reranker-base at revision main is not in the Hub cache and the Hub at http://127.0.0.1:9 cannot be "
        "reached ("
    )


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, r"has no config\.json"),
        (b'{"a": ', r"config\.json is not JSON"),
        (b"\xff\xfe", r"config\.json is not JSON"),
        (b"[1]", r"config\.json holds a list, not an object"),
    ],
)
def test_configurations_that_are_none(tmp_path: Path, content: bytes | None, says: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(EvalkitError, match=says):
        read_config(tmp_path)
