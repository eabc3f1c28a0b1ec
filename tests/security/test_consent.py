"""A model's own code and pickles run only by consent, whatever the library that loads it asks for; with consent they run."""

from __future__ import annotations

import ctypes
import importlib
import importlib.machinery
import importlib.util
import json
import os
import pickle
import py_compile
import shutil
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from attempts import run_here
from command import run_program
from made_tasks import make_task
from model_folders import copied, edit_json, pickle_weights
from scoring.fakes import Network
from tasks.hub_server import FakeHub, Repository
from transformers import AutoModelForSequenceClassification

from evalkit import backends
from evalkit.backends import prepare_model
from evalkit.cluster.worker import Worker
from evalkit.errors import ConsentError
from evalkit.models import consent
from evalkit.models.consent import guarded
from evalkit.models.interfaces import RunnableModel, Runtime, TextWindow
from evalkit.models.settings import model_settings
from evalkit.models.weights import hash_files
from evalkit.records import ModelIdentity
from evalkit.scoring.engine import score_task
from evalkit.scoring.items import Items

TASK = make_task((["问"], [("答", 1), ("别的", 0)]))
CODE = "model.trust_remote_code=true"
PICKLE = "model.allow_pickle=true"
# each loader of mteb's asks for the code itself
MTEB_MODELS = ("Querit/Querit", "Querit/Querit-4B", "jinaai/jina-reranker-v2-base-multilingual")
UNVERIFIED = "model.unverified_loader=true"


@pytest.fixture(autouse=True)
def clean_imports() -> Iterator[None]:
    """What a test imports or registers is no other's."""
    registered = AutoModelForSequenceClassification._model_mapping._extra_content
    before, paths, classes = set(sys.modules), list(sys.path), dict(registered)
    yield
    registered.clear()
    registered.update(classes)
    for name in set(sys.modules) - before:
        if name.startswith(("transformers_modules", "planted")):
            del sys.modules[name]
    sys.path[:] = paths


def marking(folder: Path, rest: str = "") -> str:
    return f"from pathlib import Path\nPath({str(folder / 'mark')!r}).touch()\n{rest}"


def with_code(source: Path, folder: Path) -> Path:
    """A copy of a BERT reranker whose config.json names a class of its own, which gives other scores."""
    model = copied(source, folder)
    own = {"AutoModel": "own.Own", "AutoModelForSequenceClassification": "own.Own", "AutoModelForCausalLM": "own.Own"}
    edit_json(model / "config.json", lambda config: config.update(auto_map=own))
    body = (
        "import transformers\n"
        "class Own(transformers.BertForSequenceClassification):\n"
        "    def forward(self, *a, **k):\n"
        "        found = super().forward(*a, **k)\n"
        "        found.logits = -found.logits\n"
        "        return found\n"
        "transformers.AutoModelForSequenceClassification.register(transformers.BertConfig, Own, exist_ok=True)\n"
    )
    (model / "own.py").write_text(marking(folder, body))
    return model


@pytest.mark.parametrize("name", MTEB_MODELS)
def test_a_loader_of_mtebs_that_asks_for_code_itself(name: str, folder: Path, tiny_bert_reranker: Path) -> None:
    with_code(tiny_bert_reranker, folder)
    words = (
        "task=demo-zh",
        "limit=2",
        "cache=off",
        "model=mteb",
        f"model.name={name}",
        "model.path=model",
        UNVERIFIED,
        "device=cpu",
    )
    done = run_here(*words)
    assert not (folder / "mark").exists()
    assert done.code == 2
    assert "own.py, code that comes with the model" in done.stderr
    assert CODE in done.stderr
    run_here(*words, CODE)
    assert (folder / "mark").exists()


@pytest.mark.parametrize(("more", "said"), [((), UNVERIFIED), ((CODE,), UNVERIFIED), ((UNVERIFIED,), CODE)])
def test_a_loader_of_mtebs_that_is_refused_runs_nothing(
    more: tuple[str, ...], said: str, folder: Path, tiny_bert_reranker: Path
) -> None:
    with_code(tiny_bert_reranker, folder)
    done = run_here(
        "task=demo-zh", "limit=2", "model=mteb", "model.name=ByteDance/ListConRanker", "model.path=model", *more
    )
    assert not (folder / "mark").exists()
    assert done.code == 2
    assert said in done.stderr


@pytest.mark.parametrize("trusted", [False, True])
def test_a_loader_of_mtebs_from_the_hub(trusted: bool, folder: Path, tiny_bert_reranker: Path) -> None:
    """The code comes from a Hub, and would run in a folder that nobody named."""
    from mteb.models.model_implementations import MODEL_REGISTRY

    name = MTEB_MODELS[0]
    repository = Repository(with_code(tiny_bert_reranker, folder), str(MODEL_REGISTRY[name].revision))
    with FakeHub({name: repository}) as hub:
        there = {"HF_HOME": str(folder / "home"), "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_TELEMETRY": "1"}
        words = ("task=demo-zh", "limit=2", "model=mteb", f"model.name={name}", "device=cpu", UNVERIFIED)
        done = run_program(folder, *words, *([CODE] if trusted else []), **there)
    assert (folder / "mark").exists() == trusted, done.stderr
    if not trusted:
        assert done.code == 2
        assert CODE in done.stderr
        assert any("own.py" in path for _, path, _ in hub.requests)
        assert not any("safetensors" in path for _, path, _ in hub.requests)  # before the weights are fetched


def test_code_of_one_model_does_not_run_for_another(folder: Path, tiny_bert_reranker: Path) -> None:
    """transformers gives a class that was registered to every later model of the same configuration class."""

    def scores(model: Path, **fields: Any) -> Any:
        settings = model_settings({"name": "made", "path": str(model)} | fields)
        return score_task(prepare_model("torch", settings, Runtime(device="cpu")), settings, TASK).scores

    model = with_code(tiny_bert_reranker, folder)
    plain = scores(tiny_bert_reranker)
    with_its_code = scores(model, trust_remote_code=True)
    np.testing.assert_allclose(with_its_code, -plain, atol=1e-6)
    np.testing.assert_array_equal(scores(tiny_bert_reranker), plain)
    np.testing.assert_array_equal(scores(tiny_bert_reranker, trust_remote_code=True), plain)
    (folder / "mark").unlink()
    np.testing.assert_array_equal(
        scores(model), plain
    )  # a native class: it needs no code, and has none without consent
    np.testing.assert_array_equal(scores(model, trust_remote_code=True), with_its_code)
    assert not (folder / "mark").exists()  # imported already, and trusted again


def test_code_that_an_earlier_model_imported(folder: Path, tiny_bert_reranker: Path) -> None:
    """Trusted once, and imported: without consent it is refused even so."""
    model = with_code(tiny_bert_reranker, folder)

    def load(*, code: bool) -> Any:
        from transformers import AutoModelForSequenceClassification

        with guarded([model], code=code, pickles=False, model="made"):
            return AutoModelForSequenceClassification.from_pretrained(model, trust_remote_code=True)

    name = type(load(code=True)).__module__
    assert name in sys.modules
    for _ in range(2):
        with pytest.raises(ConsentError, match=r"made would run .*own\.py, code that comes with the model"):
            load(code=False)
        assert name in sys.modules  # for the model that is trusted
    assert type(load(code=True)).__module__ == name


# what may run


def import_from(path: Path) -> None:
    spec = importlib.util.spec_from_file_location("planted", path)
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def by_name(path: Path) -> None:
    sys.path.insert(0, str(path.parent))
    sys.modules.pop("planted", None)
    importlib.invalidate_caches()
    importlib.import_module("planted")


def by_exec(path: Path) -> None:
    exec(compile(path.read_bytes(), str(path), "exec"), {})


def swallowed(path: Path) -> None:
    try:
        by_name(path)
    except Exception:
        return


def in_a_thread(path: Path) -> None:
    thread = threading.Thread(target=swallowed, args=[path])
    thread.start()
    thread.join()


def compiled(path: Path) -> None:
    """Without source; and it says that it comes from elsewhere."""
    if path.exists():
        py_compile.compile(str(path), cfile=str(path.with_suffix(".pyc")), dfile="/usr/lib/elsewhere.py", doraise=True)
        path.unlink()
    by_name(path)


def through_a_link(path: Path) -> None:
    link = path.parent.parent / "link"
    if not link.exists():
        link.symlink_to(path.parent)
    by_exec(link / path.name)


WAYS = [import_from, by_name, by_exec, swallowed, in_a_thread, compiled, through_a_link]


@pytest.mark.parametrize("way", WAYS)
def test_ways_to_run_code(way: Callable[[Path], None], folder: Path) -> None:
    place = folder / "model"
    place.mkdir()
    path = place / "planted.py"
    path.write_text(marking(folder))
    with (
        pytest.raises(
            ConsentError, match=r"^made would run .*/planted\.pyc?, .* author: model\.trust_remote_code=true$"
        ),
        guarded([place], code=False, pickles=False, model="made"),
    ):
        way(path)
    assert not (folder / "mark").exists()
    with guarded([place], code=True, pickles=False, model="made"):
        way(path)
    assert (folder / "mark").exists()
    (folder / "mark").unlink()
    sys.modules.pop("planted", None)
    way(path)  # whatever runs beside evalkit is not its business
    assert (folder / "mark").exists()


@pytest.mark.parametrize("kind", ["extension", "library"])
def test_compiled_extensions(kind: str, folder: Path) -> None:
    source = next(Path(entry) for entry in [np._core._multiarray_umath.__file__])
    path = Path(shutil.copy(source, folder / f"planted{importlib.machinery.EXTENSION_SUFFIXES[0]}"))
    with pytest.raises(ConsentError), guarded([folder], code=False, pickles=False, model="made"):
        import_from(path) if kind == "extension" else ctypes.CDLL(str(path))


def test_code_in_the_caches_of_models(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(folder / "home"))
    monkeypatch.setenv("HF_MODULES_CACHE", str(folder / "elsewhere"))
    for place in ("home/hub/models--a--b/snapshots/1", "home/modules/transformers_modules/a", "elsewhere/a"):
        path = folder / place / "planted.py"
        path.parent.mkdir(parents=True)
        path.write_text(marking(folder))
        with pytest.raises(ConsentError), guarded([], code=False, pickles=False, model="made"):
            by_exec(path)
    assert not (folder / "mark").exists()
    (folder / "home/modules/transformers_modules/__init__.py").touch()
    with guarded([], code=False, pickles=False, model="made"):  # transformers' own, and empty
        by_exec(folder / "home/modules/transformers_modules/__init__.py")


def test_code_beside_the_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another folder whose name begins alike, and of libraries in an environment that lies in the model's folder."""
    libraries = folder / "model" / ".venv" / "lib"
    monkeypatch.setattr(consent, "_libraries", lambda: (f"{libraries}/",))
    for place in (folder / "model-2", libraries):
        place.mkdir(parents=True)
        (place / "planted.py").write_text(marking(folder))
        with guarded([folder / "model"], code=False, pickles=False, model="made"):
            by_name(place / "planted.py")
        (folder / "mark").unlink()
        with guarded([folder / "model"], code=False, pickles=False, model="made"):
            assert "planted" in sys.modules


def test_a_guard_within_a_guard(folder: Path) -> None:
    """The innermost decides; a thread of a pool asks all."""
    path = folder / "planted.py"
    path.write_text(marking(folder))
    with guarded([folder], code=True, pickles=True, model="outer"):
        with pytest.raises(ConsentError, match="inner"), guarded([folder], code=False, pickles=False, model="inner"):
            by_exec(path)
        by_exec(path)
        (folder / "mark").unlink()
    with (
        pytest.raises(ConsentError, match="outer"),
        guarded([folder], code=False, pickles=False, model="outer"),
        guarded([folder], code=True, pickles=True, model="inner"),
    ):
        in_a_thread(path)
    assert not (folder / "mark").exists()
    with (
        guarded([folder], code=False, pickles=False, model="outer"),
        guarded([folder], code=True, pickles=True, model="inner"),
    ):
        by_exec(path)
    (folder / "mark").unlink()
    assert not (folder / "mark").exists()


# pickles


class Planted:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


def unpickle(path: Path) -> None:
    with path.open("rb") as stream:
        pickle.load(stream)


def unpickle_through_os(path: Path) -> None:
    with os.fdopen(os.open(path, os.O_RDONLY), "rb") as stream:
        pickle.load(stream)


def unpickle_with_torch(path: Path) -> None:
    torch.load(path, weights_only=False)


@pytest.mark.parametrize("way", [unpickle, unpickle_through_os, unpickle_with_torch])
@pytest.mark.parametrize("name", ["pytorch_model.bin", "heads.PT", "x.pkl", "tokenizer.dat"])
def test_ways_to_unpickle(way: Callable[[Path], None], name: str, folder: Path) -> None:
    path = folder / "model" / name
    path.parent.mkdir()
    if way is unpickle_with_torch:
        torch.save(Planted(folder / "mark"), path)
    else:
        path.write_bytes(pickle.dumps(Planted(folder / "mark")))
    with (
        pytest.raises(ConsentError, match=rf"^made would unpickle .*/{name}, .* author: model\.allow_pickle=true$"),
        guarded([path.parent], code=True, pickles=False, model="made"),
    ):
        way(path)
    assert not (folder / "mark").exists()
    with guarded([path.parent], code=False, pickles=True, model="made"):
        way(path)
    assert (folder / "mark").exists()


def test_files_that_are_no_pickles(folder: Path) -> None:
    """Read, hashed and written as before."""
    with zipfile.ZipFile(folder / "plain.zip", "w") as archive:
        archive.writestr("a.txt", "a")
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"weights")
    with guarded([folder], code=False, pickles=False, model="made"):
        assert (folder / "config.json").read_text() == "{}"
        assert zipfile.ZipFile(folder / "plain.zip").namelist() == ["a.txt"]
        assert len(hash_files(folder, [folder / "pytorch_model.bin"])) == 64
        (folder / "training_args.bin").write_bytes(b"made here")


@pytest.mark.parametrize("trusted", [False, True])
def test_a_module_with_pickled_weights(trusted: bool, folder: Path, e5_small: Path) -> None:
    """The model's own weights are safetensors; mteb's loader reads a Dense module's as it finds them."""
    from sentence_transformers.models import Dense

    model = copied(e5_small, folder)
    dense = model / "2_Dense"
    dense.mkdir()
    Dense(384, 8).save(str(dense))
    pickle_weights(dense)
    names = {"Transformer": "", "Pooling": "1_Pooling", "Dense": "2_Dense"}
    steps = [
        {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{name}"}
        for at, (name, path) in enumerate(names.items())
    ]
    (model / "modules.json").write_text(json.dumps(steps))
    (model / "1_Pooling").mkdir(exist_ok=True)
    (model / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": 384, "pooling_mode_mean_tokens": True})
    )
    words = ("task=demo-zh", "limit=2", "cache=off", "model=mteb", "model.name=intfloat/multilingual-e5-small")
    done = run_here(*words, "model.path=model", "device=cpu", *([PICKLE] if trusted else []))
    assert done.code == (0 if trusted else 2), done.stderr
    if not trusted:
        assert "2_Dense/pytorch_model.bin, which can run code; if you trust its author: " + PICKLE in done.stderr


# at the time of scoring, and on Ray


class Late:
    """A PairScorer that runs a file of its model's when it is first asked, from a thread of its own, whatever that raises."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def score(self, pairs: Any) -> Any:
        in_a_thread(self.path)
        return np.zeros(len(pairs), np.float32)


def late_backend(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """A backend `torch` that gives such a model."""
    identity = ModelIdentity("made", "local/made", "1", "cross-encoder")
    found = RunnableModel(identity, {"name": "made"}, None, lambda: Late(path))
    on_each_task = SimpleNamespace(prepare=lambda *_: RunnableModel(identity, {}, None, found.open, lambda _: found))
    monkeypatch.setattr(backends, "_module", lambda name: on_each_task if name == "mteb" else always)
    always = SimpleNamespace(prepare=lambda *_: found)


@pytest.mark.parametrize("backend", ["torch", "mteb"])
@pytest.mark.parametrize("trusted", [False, True])
def test_code_that_runs_as_late_as_a_score(
    trusted: bool, backend: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = folder / "model"
    model.mkdir()
    (model / "planted.py").write_text(marking(folder))
    late_backend(monkeypatch, model / "planted.py")
    settings = model_settings({"name": "made", "path": str(model), "trust_remote_code": trusted})
    found = prepare_model(backend, settings, Runtime())
    found = found if found.for_task is None else found.for_task(TASK)
    if trusted:
        score_task(found, settings, TASK)
    else:
        with pytest.raises(ConsentError, match=r"planted\.py"):
            score_task(found, settings, TASK)
    assert (folder / "mark").exists() == trusted


@pytest.mark.parametrize("trusted", [False, True])
def test_code_that_runs_when_a_scorer_opens(trusted: bool, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where nothing is scored yet, as in doctor."""
    model = folder / "model"
    model.mkdir()
    (model / "planted.py").write_text(marking(folder))

    def open_scorer() -> Any:
        swallowed(model / "planted.py")
        return Network()

    identity = ModelIdentity("made", "local/made", "1", "cross-encoder")
    found = RunnableModel(identity, {"name": "made"}, None, open_scorer)
    monkeypatch.setattr(backends, "_module", lambda _: SimpleNamespace(prepare=lambda *_: found))
    settings = model_settings({"name": "made", "path": str(model), "trust_remote_code": trusted})
    if trusted:
        assert isinstance(prepare_model("torch", settings, Runtime()).scorer, Network)
    else:
        with pytest.raises(ConsentError, match=r"planted\.py"):
            _ = prepare_model("torch", settings, Runtime()).scorer
    assert (folder / "mark").exists() == trusted


@dataclass
class LateNetwork(Network):
    """A LocalNetwork that does so."""

    path: Path = Path()

    def run(self, batch: Any) -> Any:
        in_a_thread(self.path)
        return super().run(batch)


@pytest.mark.parametrize("trusted", [False, True])
def test_an_actor_guards_its_own_process(trusted: bool, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = folder / "model"
    model.mkdir()
    (model / "planted.py").write_text(marking(folder))
    identity = ModelIdentity("made", "local/made", "1", "cross-encoder")
    found = RunnableModel(identity, {"name": "made"}, None, lambda: LateNetwork(path=model / "planted.py"))
    monkeypatch.setattr(backends, "_module", lambda _: SimpleNamespace(prepare=lambda *_: found))
    settings = model_settings({"name": "made", "path": str(model), "trust_remote_code": trusted})
    worker = Worker()
    items = Items((("query", ["问"]), ("document", ["答"])), np.array([[0, 0]]))
    worker.score("key", partial(prepare_model, "torch", settings, Runtime()), TextWindow(items, np.zeros(1, bool)))
    messages = [message for _, message in worker.take()]
    assert [type(message).__name__ for message in messages] == ["DoneBatch", "NoneType" if trusted else "ConsentError"]
    assert (folder / "mark").exists() == trusted
