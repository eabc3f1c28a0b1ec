"""A shape on a backend: equal to sentence-transformers' own loading of the folder, refused with a reason, or wrong."""

from __future__ import annotations

import getpass
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from made_tasks import make_task
from numpy.typing import NDArray

import evalkit
from evalkit.errors import EvalkitError
from evalkit.records import Task
from folder_shapes.shapes import SHAPES, Shape

BACKENDS = ("torch", "openvino", "onnx", "sentence-transformers")
TOLERANCE = 2e-5  # of the largest score
EQUAL, REFUSED = "equal", "refused"
SHORT = 160  # characters of a reason
MADE_BY = ("folder_shapes/[!_p]*.py", "real_models.py", "model_folders.py", "../evalkit/tasks/demo/*.jsonl")
LONG = "长文 A long text about panda bears in China, 感冒发烧 and fever, mobile phones and batteries. " * 12
GROUPS = (
    (("How to charge a mobile phone safely?",), (
        ("手机一边充电一边玩，机身烫得厉害，会不会有危险？", 1), ("CHARGE THE PHONE WITH ITS OWN CABLE.", 1),
        ("charge the phone with its own cable.", 0), (LONG, 0), ("?", 0),
    )),
    (("感冒发烧怎么办",), (
        ("多喝水，注意休息，38.5 度以上再吃退烧药。", 1), ("Drink water and rest.", 0), (LONG[40:], 0), ("The bank is closed", 0),
    )),
    ((LONG[9:],), (("ok", 1), ("Pandas eat bamboo in the mountains of Sichuan.", 0), ("大熊猫生活在四川的山里。", 0))),
)  # fmt: skip


@cache
def task() -> Task:
    """Twelve pairs: short texts, texts beyond every length, English and Chinese, capitals, and one that says nothing."""
    return make_task(*GROUPS, name="shapes")


def pairs() -> list[tuple[str, str]]:
    return [(r.query.texts[0], c.text) for r in task().requests for c in r.candidates]


@contextmanager
def one_thread() -> Iterator[None]:
    """Networks so small run several times faster where no threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@cache
def _made_by() -> str:
    here = Path(__file__).parents[1]
    files = [file for pattern in MADE_BY for file in sorted(here.glob(pattern))]
    libraries = [f"{name} {version(name)}" for name in ("transformers", "tokenizers", "sentence-transformers", "torch")]
    content = b"\0".join(file.read_bytes() for file in files) + "\0".join(libraries).encode()
    return hashlib.sha256(content).hexdigest()[:12]


def _kept(name: str) -> tuple[Path, FileLock]:
    """A place for what is made once per user and machine, and its lock."""
    cache = Path(tempfile.gettempdir()) / f"evalkit-test-shapes-{getpass.getuser()}" / _made_by()
    cache.mkdir(parents=True, exist_ok=True)
    return cache / name, FileLock(cache / f"{name}.lock")


def folder_of(shape: Shape) -> Path:
    """The shape's folder; leave it as it is."""
    folder, lock = _kept(shape.name)
    with lock:
        if not folder.is_dir():
            with one_thread(), tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
                made = Path(scratch) / shape.name
                shape.write(made)
                os.replace(made, folder)
    return folder


def reference_of(shape: Shape) -> NDArray[np.float32]:
    """What sentence-transformers, left to itself, makes of the folder in float32: one score per pair. Kept like the folder."""
    folder = folder_of(shape)
    kept, lock = _kept(f"{shape.name}.npy")
    with lock:
        if not kept.is_file():
            with one_thread():
                np.save(kept, reference_scores(shape, folder))
    scores: NDArray[np.float32] = np.load(kept)
    return scores


def reference_scores(shape: Shape, folder: Path) -> NDArray[np.float32]:
    """The same, computed."""
    from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer

    embeds = shape.kind != "cross-encoder"
    classes = {"embedder": SentenceTransformer, "cross-encoder": CrossEncoder, "multi-vector": MultiVectorEncoder}
    model: Any = classes[shape.kind](
        str(folder),
        device="cpu",
        model_kwargs={"dtype": torch.float32},
        local_files_only=True,
        trust_remote_code=bool(shape.recipe.get("trust_remote_code")),
    )
    shape.adjust(model, folder)
    if not embeds:
        scores = model.predict(pairs(), activation_fn=torch.nn.Identity(), show_progress_bar=False)
        return np.asarray(scores if scores.ndim == 1 else scores[:, shape.recipe.get("label", 0)], np.float32)
    queries, documents = (list(texts) for texts in zip(*pairs(), strict=True))
    similarity = model.similarity_pairwise(model.encode_query(queries), model.encode_document(documents))
    return np.asarray(similarity, np.float32)


def scores_of(shape: Shape, backend: str, cache_dir: Path) -> NDArray[np.float32]:
    """What evalkit makes of the folder."""
    model = evalkit.load_model(
        shape.model,
        path=folder_of(shape),
        backend=backend,
        device="cpu",
        offline=True,
        cache_dir=cache_dir,
        **shape.recipe,
    )
    return np.asarray(evalkit.evaluate(model, task()).candidates["score"], np.float32)


@dataclass(frozen=True)
class Outcome:
    """What came out of a shape on a backend: `equal`, `refused`, or in capitals what must not be; and the whole reason."""

    verdict: str
    reason: str = ""

    @property
    def cell(self) -> str:
        """The table's cell: the verdict and the first words of the reason."""
        return f"{self.verdict}: {_shortened(self.reason)}" if self.reason else self.verdict

    def is_expected_of(self, shape: Shape, backend: str) -> bool:
        """Whether it is equal, or refused for the reason that the shape names."""
        word = shape.refused.get(backend)
        if word is None:
            return self.verdict == EQUAL
        return self.verdict == REFUSED and word.lower() in self.reason.lower()


def outcome(shape: Shape, backend: str, cache_dir: Path) -> Outcome:
    """Run a shape on a backend, and compare."""
    folder = folder_of(shape)
    try:
        with one_thread():
            scores = scores_of(shape, backend, cache_dir)
    except EvalkitError as error:
        return Outcome(REFUSED, _without_places(str(error), folder))
    except Exception as error:
        return Outcome("FAILS", f"{type(error).__name__}: {_without_places(str(error), folder)}")
    try:
        expected = reference_of(shape)
    except Exception as error:
        return Outcome("RUNS", f"where sentence-transformers ends in {type(error).__name__}")
    difference = float(np.abs(scores - expected).max() / np.abs(expected).max())
    return Outcome(EQUAL) if difference <= TOLERANCE else Outcome("DIFFERS", f"{difference:.0e} of the largest score")


def _without_places(message: str, folder: Path) -> str:
    """The message on one line, without this machine's paths and versions."""
    text = " ".join(message.replace(str(folder), "DIR").split())
    text = re.sub(rf"{re.escape(tempfile.gettempdir())}\S*", "…", text)
    return re.sub(r"\b\d+\.\d+\.\d+(?:[+.]\w+)*", "N", text)


def _shortened(text: str) -> str:
    return text if len(text) <= SHORT else text[:SHORT].rsplit(" ", 1)[0] + " …"


def named(name: str) -> Shape:
    return next(shape for shape in SHAPES if shape.name == name)
