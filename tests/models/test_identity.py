"""What names a model: every file that may decide a score, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from model_folders import copied, edit_json

from evalkit.backends import prepare_model, server_settings
from evalkit.backends.conversions import conversion_folder
from evalkit.errors import EvalkitError
from evalkit.models import identity, tokenizers
from evalkit.models.identity import HASHES, LARGE, TOKENIZERS, content_hashes, deciding_files
from evalkit.models.interfaces import Runtime
from evalkit.models.settings import model_settings
from evalkit.models.weights import find_model, way_of_scoring

DECIDING = (
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
    "2_Dense/config.json",
    "2_Dense/model.safetensors",
    "3_Dense/pytorch_model.bin",
    "checkpoint-3/config.json",  # modules.json names the folder
    "onnx/model.onnx",
    "onnx/model.onnx_data",
    "onnx/weights/layer.0",
    "openvino/openvino_model.xml",
    "openvino/openvino_model.bin",
    "colbert_linear.pt",
    "chat_template.jinja",
    "additional_chat_templates/tool.jinja",
    "sentencepiece.bpe.model",
    "vocab.txt",
    "merges.txt",
    "modeling_own.py",
    "own/more.py",
    "license_model.safetensors",
    "eval/modeling.py",
    "marked/model.onnx",  # beside what marks results
    "what is this",
)
OTHERS = (
    "README.md",
    "README_zh.md",
    "readme.txt",
    "LICENSE",
    "LICENSE.txt",
    "NOTICE",
    ".gitattributes",
    ".gitignore",
    ".git/HEAD",
    ".DS_Store",
    ".cache/huggingface/download/config.json.metadata",
    "picture.PNG",
    "assets/plot.svg",
    "paper.pdf",
    "onnx/README.md",
    "__pycache__/modeling_own.cpython-313.pyc",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state_0.pth",
    "scaler.pt",
    "trainer_state.json",
    "training_args.bin",
    "events.out.tfevents.1700000000.host",
    "runs/Jan01/events.out.tfevents.1700000000.host",
    "global_step100/mp_rank_00_model_states.pt",
    "zero_to_fp32.py",
    "latest",
    "checkpoint-500/model.safetensors",
    "tf_model.h5",
    "flax_model.msgpack",
    "rust_model.ot",
    "coreml/model.mlpackage/Data/weights.bin",
    "train.log",
    "eval/similarity_evaluation_results.csv",
    "results/local__model/0123456789ab/Task.json",
    "results/local__model/0123456789ab/Task.run.parquet",
    "marked/model_meta.json",
    "results/local__model/0123456789ab/model_meta.json",
)
MODULES = [{"type": "sentence_transformers.models.Dense", "path": path} for path in ("2_Dense", "checkpoint-3")]


@dataclass(frozen=True)
class Named:
    """All that names a model: its result's place, its stored scores, its conversions."""

    revision: str
    way: str
    conversion: str


def write(folder: Path, name: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x01" + name.encode())
    return path


@pytest.fixture(scope="module")
def real(tiny_bert_reranker: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of every sort."""
    folder = copied(tiny_bert_reranker, tmp_path_factory.mktemp("models"))
    (folder / "model.safetensors").unlink()
    for name in (*DECIDING, *OTHERS):
        write(folder, name)
    (folder / "modules.json").write_text(json.dumps(MODULES))
    return folder


def naming(folder: Path, cache: Path, **fields: Any) -> Named:
    settings = model_settings({"name": "made", "path": str(folder)} | fields)
    files = find_model(settings, offline=True, cache_dir=cache)
    way = way_of_scoring(settings, files, {"name": "onnx"})
    place = conversion_folder("onnx", settings, files, Runtime(cache_dir=cache))
    return Named(files.identity.revision, json.dumps(way, sort_keys=True), place.name)


def flip(path: Path, position: int = 0) -> None:
    content = bytearray(path.read_bytes())
    if path.name == "modules.json":  # which is read to find the files: it stays JSON
        content = content[:-1] if content.endswith(b" ") else content + b" "
        path.write_bytes(content)
        return
    content[position] ^= 1
    path.write_bytes(content)


def test_every_file_that_may_decide_changes_every_name(
    real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "_probe", lambda settings, folder: None)  # each would load the tokenizer once
    before = naming(real, tmp_path)
    own = ("config.json", "tokenizer.json", "tokenizer_config.json")
    assert len(list(real.rglob("*"))) > len(DECIDING) + len(OTHERS)
    for name in (*own, *DECIDING):
        content = (real / name).read_bytes()
        flip(real / name, -1 if name == "modules.json" else 0)
        changed = naming(real, tmp_path)
        (real / name).write_bytes(content)
        assert changed.revision != before.revision, name
        assert changed.way != before.way, name
        assert changed.conversion != before.conversion, name
    assert naming(real, tmp_path) == before


def test_no_other_file_changes_a_name(real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_probe", lambda settings, folder: None)
    before = naming(real, tmp_path)
    for name in OTHERS:
        flip(real / name)
        assert naming(real, tmp_path) == before, name
    copy = shutil.copytree(real, tmp_path / "copy")
    for name in OTHERS:
        if not name.endswith("model_meta.json"):  # with it the mark would be gone
            (copy / name).unlink()
    assert naming(copy, tmp_path / "cache") == before


def test_a_file_more_or_less_or_of_another_name_is_another_model(real: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(real, tmp_path / "model")
    found = [naming(folder, tmp_path)]
    (folder / "more.bin").touch()
    found.append(naming(folder, tmp_path))
    (folder / "more.bin").rename(folder / "other.bin")
    found.append(naming(folder, tmp_path))
    (folder / "other.bin").unlink()
    assert naming(folder, tmp_path) == found[0]
    assert len({one.revision for one in found}) == 3


def test_two_folders_of_one_content_are_one_model(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    other = shutil.copytree(tiny_bert_reranker, tmp_path / "of another name")
    (other / "README.md").write_text("mine")
    assert naming(other, tmp_path) == naming(tiny_bert_reranker, tmp_path)


def test_kind_and_facts_and_the_chosen_onnx_file_are_part_of_it(real: Path, tmp_path: Path) -> None:
    shutil.copytree(real, tmp_path / "model")
    folder = tmp_path / "model"
    write(folder, "runs/own.onnx")
    write(folder, "runs/own.data")
    ways: list[dict[str, Any]] = [
        {},
        {"kind": "embedder"},
        {"onnx_file": "onnx/model.onnx"},
        {"onnx_file": "runs/own.onnx"},
    ]
    found = [naming(folder, tmp_path, **fields).revision for fields in ways]
    assert len(set(found)) == len(found)
    settings = model_settings({"path": str(folder)})
    facts = [
        find_model(settings, offline=True, cache_dir=tmp_path, facts=one).digest
        for one in ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1, "b": 3}, None)
    ]
    assert facts[0] == facts[1]
    assert len(set(facts)) == 3
    flip(folder / "runs" / "own.data")  # beside an ONNX file that is named: its weights, for all that is known
    assert naming(folder, tmp_path).revision == found[0]
    assert naming(folder, tmp_path, onnx_file="runs/own.onnx").revision != found[-1]


CODE: dict[str, tuple[str, Callable[[dict[str, Any]], object]]] = {
    "a network": ("config.json", lambda config: config.update(auto_map={"AutoModel": "modeling_own.Own"})),
    "a network elsewhere": ("config.json", lambda config: config.update(auto_map={"AutoModel": "org/repo--own.Own"})),
    "a part": ("config.json", lambda config: config.update(text_config={"auto_map": {"AutoModel": "own.Own"}})),
    "a tokenizer": ("tokenizer_config.json", lambda config: config.update(auto_map={"AutoTokenizer": ["own.T", None]})),
}


@pytest.mark.parametrize("where", CODE)
def test_consent_to_code_is_part_of_it(where: str, tiny_bert_reranker: Path, tmp_path: Path) -> None:
    """With consent the code runs, without it transformers' own class of the architecture does."""
    folder = copied(tiny_bert_reranker, tmp_path)
    edit_json(folder / CODE[where][0], CODE[where][1])
    without, consented = (naming(folder, tmp_path, trust_remote_code=consent) for consent in (False, True))
    assert without.revision != consented.revision
    assert without.way != consented.way
    assert without.conversion != consented.conversion


@pytest.mark.parametrize(
    ("kind", "differs"), [("modeling_x.Transformer", True), ("sentence_transformers.models.Dense", False)]
)
def test_consent_to_a_module_s_code(kind: str, differs: bool, tiny_bert_reranker: Path, tmp_path: Path) -> None:
    folder = copied(tiny_bert_reranker, tmp_path)
    (folder / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": kind}]))
    found = {naming(folder, tmp_path, trust_remote_code=consent) for consent in (False, True)}
    assert (len(found) == 2) == differs


def test_consent_without_code_changes_nothing(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    folder = copied(tiny_bert_reranker, tmp_path)
    write(folder, "handler.py")  # nothing names it
    found = {naming(folder, tmp_path, trust_remote_code=consent) for consent in (False, True)}
    assert len(found) == 1


def test_a_stray_file_of_weights_hides_no_pickle(tiny_bert_reranker: Path, tmp_path: Path) -> None:
    folder = copied(tiny_bert_reranker, tmp_path)
    (folder / "model.safetensors").rename(folder / "stray.safetensors")
    write(folder, "pytorch_model.bin")
    before = naming(folder, tmp_path, allow_pickle=True)
    flip(folder / "pytorch_model.bin")
    after = naming(folder, tmp_path, allow_pickle=True)
    assert before.revision != after.revision
    assert before.way != after.way


def test_what_the_tokenizer_makes_of_probes_is_part_of_it(
    tiny_bert_reranker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two versions of a library may read one file otherwise."""
    found = []
    for number, versions in enumerate(({"transformers": "4"}, {"transformers": "5"}, {"transformers": "6"})):
        monkeypatch.setattr(identity, "package_versions", lambda packages, versions=versions: versions)
        if number == 1:
            monkeypatch.setattr(tokenizers, "probe_ids", lambda tokenizer: [[1]])
        found.append(naming(tiny_bert_reranker, tmp_path))
    assert found[0].revision != found[1].revision
    assert found[0].way != found[1].way
    assert found[1] == found[2]  # other versions that read alike are no other model


@pytest.mark.parametrize("first", [True, False])
def test_a_folder_has_one_revision_whatever_is_said_of_its_letters(
    first: bool, tiny_reranker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its revision would depend on which recipe was run before, since what the tokenizer gives is kept."""
    monkeypatch.setattr(identity, "_PROBED", {})
    usual = naming(tiny_reranker, tmp_path / "usual").revision
    identity._PROBED.clear()
    said = {"path": str(tiny_reranker)}
    for small in (first, not first):
        settings = model_settings({**said, "lower_case": small})
        found = find_model(settings, offline=True, cache_dir=tmp_path / "kept").identity
        assert found.revision == usual


def test_probes_are_kept_by_content_and_versions(
    tiny_bert_reranker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probed: list[Path] = []
    monkeypatch.setattr(identity, "_PROBED", {})
    monkeypatch.setattr(identity, "_probe", lambda settings, folder: probed.append(folder) or "ids")
    for _ in range(2):
        identity._PROBED.clear()  # as another process
        naming(tiny_bert_reranker, tmp_path)
    other = copied(tiny_bert_reranker, tmp_path)
    edit_json(other / "tokenizer_config.json", lambda config: config.update(padding_side="left"))
    naming(other, tmp_path)
    assert probed == [tiny_bert_reranker, other]
    (tmp_path / TOKENIZERS).write_text("damaged")
    identity._PROBED.clear()
    naming(other, tmp_path)
    assert len(probed) == 3


def test_a_folder_without_a_tokenizer_has_a_name_all_the_same(tmp_path: Path) -> None:
    write(tmp_path / "model", "model.safetensors")
    assert naming(tmp_path / "model", tmp_path).revision
    assert not (tmp_path / TOKENIZERS).exists()


def names(folder: Path, **options: Any) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in deciding_files(folder, **options)]


def test_links_are_followed_but_never_in_a_circle(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    write(elsewhere, "blob")
    write(elsewhere / "pooling", "config.json")
    folder = tmp_path / "above" / "model"
    write(folder, "config.json")
    write(tmp_path / "above", "beside")
    (folder / "model.safetensors").symlink_to(elsewhere / "blob")
    (folder / "1_Pooling").symlink_to(elsewhere / "pooling")
    (folder / "self").symlink_to(folder)
    (folder / "up").symlink_to(folder.parent)
    (elsewhere / "pooling" / "back").symlink_to(folder)
    (folder / "nothing").symlink_to(tmp_path / "no such file")
    (folder / "itself").symlink_to(folder / "itself")
    os.mkfifo(folder / "pipe")
    assert names(folder) == ["1_Pooling/config.json", "config.json", "model.safetensors"]
    linked = tmp_path / "linked"
    linked.symlink_to(folder)
    assert names(linked) == names(folder)


def test_the_cache_and_results_are_no_part_of_a_model(tmp_path: Path) -> None:
    write(tmp_path, "config.json")
    write(tmp_path / "kept", "scores.sqlite3")
    assert names(tmp_path, cache_dir=tmp_path / "kept") == ["config.json"]
    assert names(tmp_path, cache_dir=tmp_path / "missing") == ["config.json", "kept/scores.sqlite3"]
    with pytest.raises(EvalkitError, match="is the model's own folder, where what evalkit keeps would count"):
        names(tmp_path, cache_dir=tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    write(tmp_path, "model.safetensors").chmod(0)
    with pytest.raises(EvalkitError, match=r"model\.safetensors can't be read: Permission denied; it may decide"):
        content_hashes(deciding_files(tmp_path), tmp_path / "cache")


@pytest.mark.parametrize("path", ["../beside", "/etc"])
def test_modules_that_lead_out_of_the_folder_are_refused(path: str, tmp_path: Path) -> None:
    write(tmp_path / "model", "model.safetensors")
    (tmp_path / "model" / "modules.json").write_text(
        json.dumps([{"type": "sentence_transformers.models.Transformer", "path": path}])
    )
    with pytest.raises(EvalkitError, match=r"modules.json.*(leads out of|outside of) the model's folder"):
        naming(tmp_path / "model", tmp_path)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files whose content is hashed."""
    hashed: list[str] = []
    digest = identity.hashlib.file_digest

    def spy(stream: Any, name: str) -> Any:
        hashed.append(Path(stream.name).name)
        return digest(stream, name)

    monkeypatch.setattr(identity.hashlib, "file_digest", spy)
    return hashed


def large(path: Path, age: float) -> Path:
    """A large file that was last changed so many seconds ago, its inode too for all that can be seen."""
    path.write_bytes(bytes(LARGE))
    then = time.time() - age
    os.utime(path, (then, then))
    return path


def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time goes on: nobody can set when an inode changed."""
    now = time.time_ns()
    monkeypatch.setattr(identity.time, "time_ns", lambda: now + 60 * 10**9)


def test_a_large_file_is_hashed_once(tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    weights, small = large(tmp_path / "weights", 60), write(tmp_path, "small")
    settled(monkeypatch)
    first = content_hashes([weights, small], tmp_path / "cache")
    assert content_hashes([weights, small], tmp_path / "cache") == first
    assert reads == ["weights", "small", "small"]
    moved = weights.rename(tmp_path / "moved")  # a rename touches the inode's time: it is read again, once
    content_hashes([moved], tmp_path / "cache")
    content_hashes([moved], tmp_path / "cache")
    assert reads.count("moved") == 1


def test_a_change_that_keeps_size_and_time_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = large(tmp_path / "weights", 60)
    settled(monkeypatch)
    before = content_hashes([weights], tmp_path / "cache")
    status = weights.stat()
    time.sleep(0.02)
    with weights.open("r+b") as file:
        file.write(b"other")
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert content_hashes([weights], tmp_path / "cache") != before


def test_a_file_that_changed_a_moment_ago_is_not_remembered(tmp_path: Path, reads: list[str]) -> None:
    weights = large(tmp_path / "weights", 0)
    for _ in range(2):
        content_hashes([weights], tmp_path / "cache")
    assert reads == ["weights", "weights"]
    assert not (tmp_path / "cache" / HASHES).exists()


@pytest.mark.parametrize(
    "content", ["", "[]", '{"KEY": 5}', '{"KEY": [1, 2, 3, "x"]}', '{"KEY": [SIZE, MTIME, CTIME, "short"]}']
)
def test_a_damaged_memory_costs_time_alone(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = large(tmp_path / "weights", 60)
    status = weights.stat()
    for name, value in {
        "KEY": f"{status.st_dev}:{status.st_ino}", "SIZE": status.st_size, "MTIME": status.st_mtime_ns,
        "CTIME": status.st_ctime_ns,
    }.items():  # fmt: skip
        content = content.replace(name, str(value))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / HASHES).write_text(content)
    settled(monkeypatch)
    expected = identity.hashlib.sha256(bytes(LARGE)).hexdigest()
    assert content_hashes([weights], tmp_path / "cache") == {weights: expected}


def test_a_cache_that_cannot_be_written_costs_time_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = large(tmp_path / "weights", 60)
    settled(monkeypatch)
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert len(content_hashes([weights], tmp_path / "cache")[weights]) == 64


def test_several_may_hash_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [large(tmp_path / str(number), 60) for number in range(4)]
    settled(monkeypatch)
    found: list[dict[Path, str]] = []
    threads = [
        threading.Thread(target=lambda: found.append(content_hashes(files, tmp_path / "cache"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(one == found[0] for one in found)
    assert json.loads((tmp_path / "cache" / HASHES).read_text())


@pytest.mark.parametrize("backend", ["torch", "openvino", "onnx", "sentence-transformers", "mteb", "vllm"])
def test_every_backend_names_a_folder_alike(
    backend: str, tiny_bert_reranker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a file that none of them used to look at makes another result's place and another way of scoring."""
    pytest.importorskip({"sentence-transformers": "sentence_transformers", "vllm": "httpx2"}.get(backend, backend))
    folder = copied(tiny_bert_reranker, tmp_path)
    fields: dict[str, Any] = {"name": "made", "path": str(folder)}
    if backend == "mteb":
        fields |= {"name": "cross-encoder/ms-marco-MiniLM-L12-v2", "backends": ("mteb",)}
    server = server_settings(backend, {"url": "http://127.0.0.1:1"} if backend == "vllm" else {})
    runtime = Runtime(device=None if server else "cpu", cache_dir=tmp_path / "cache", server=server)
    models = [prepare_model(backend, model_settings(fields), runtime)]
    for name in ("2_Dense/model.safetensors", "README.md"):
        write(folder, name)
        models.append(prepare_model(backend, model_settings(fields), runtime))
    assert models[0].identity.revision == naming(tiny_bert_reranker, tmp_path / "cache").revision
    assert models[0].identity != models[1].identity == models[2].identity
    assert models[0].way != models[1].way == models[2].way
    renamed = folder.rename(tmp_path / "renamed")
    found = prepare_model(backend, model_settings({**fields, "path": str(renamed)}), runtime)
    assert found.identity.hub_id == f"local/{fields['name']}"
    if backend != "vllm":  # a server knows it by name
        assert found.way == models[2].way
