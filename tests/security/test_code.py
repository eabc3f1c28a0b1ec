"""Neither pickles nor a model's own code run unasked, and no module here does what is dangerous."""

from __future__ import annotations

import ast
import contextlib
import json
import marshal
import pickle
import tomllib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from attempts import ROWS, run_here
from command import run_program
from task_files import load

from evalkit.errors import EvalkitError

ROOT = Path(__file__).parents[2]


class Planted:
    """Pickled, it makes a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


def linked(source: Path, place: Path, *without: str) -> Path:
    place.mkdir()
    for file in source.iterdir():
        if file.name not in without:
            (place / file.name).symlink_to(file)
    return place


def test_the_plant_grows(folder: Path) -> None:
    """Else the tests below would show nothing."""
    pickle.loads(pickle.dumps(Planted(folder / "mark")))
    assert (folder / "mark").exists()


@pytest.mark.parametrize("allowed", [False, True])
def test_no_pickle_runs(allowed: bool, folder: Path, tiny_bert_reranker: Path) -> None:
    """Not even where pickled weights are allowed: torch reads tensors out of them, and nothing else."""
    model = linked(tiny_bert_reranker, folder / "model", "model.safetensors")
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Planted(folder / "mark")))
    consent = ["model.allow_pickle=true"] if allowed else []
    done = run_here("task=demo-zh", "model=local-cross-encoder", "model.path=model", "backend=torch", *consent)
    assert done.code == 2
    assert allowed or "model.allow_pickle=true" in done.stderr
    assert not (folder / "mark").exists()


def test_no_pickle_in_parquet_runs(folder: Path) -> None:
    """Old pyarrow kept Python's own column types as pickles in the file's description."""
    planted = pickle.dumps(Planted(folder / "mark"))
    kind = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": planted}
    table = pa.Table.from_pylist(ROWS)
    fields = [field.with_metadata(kind) if field.name == "query" else field for field in table.schema]
    pq.write_table(table.cast(pa.schema(fields, {b"pandas": planted})), folder / "rows.parquet")
    with contextlib.suppress(EvalkitError):  # refused or read, as long as it does not run
        assert len(load(folder / "rows.parquet").requests) == len(ROWS)
    assert not (folder / "mark").exists()


def test_no_cache_of_others_is_loaded(folder: Path) -> None:
    """jieba would take its words from a file in the temporary folder, which is everyone's."""
    planted = marshal.dumps(({"中": 1}, 1))
    (folder / "jieba.cache").write_bytes(planted)
    chosen = ("task=demo-zh", "model=bm25", "offline=true")
    here = run_program(folder, *chosen, "results_dir=here", TMPDIR=str(folder))
    there = run_program(folder, *chosen, "results_dir=there")
    assert (here.code, there.code) == (0, 0), here.stderr
    assert here.rows == there.rows
    assert (folder / "jieba.cache").read_bytes() == planted


def test_no_code_of_a_model_runs_unasked(folder: Path, tiny_bert_reranker: Path) -> None:
    model = linked(tiny_bert_reranker, folder / "model", "config.json")
    config = json.loads((tiny_bert_reranker / "config.json").read_text())
    own = {
        "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForSequenceClassification": "own.Own"},
        "model_type": "own",
    }
    (model / "config.json").write_text(json.dumps(config | own))
    (model / "own.py").write_text(f"from pathlib import Path\nPath({str(folder / 'mark')!r}).touch()\n")
    done = run_here("task=demo-zh", "model=local-cross-encoder", "model.path=model", "backend=torch")
    assert done.code == 2
    assert "model.trust_remote_code=true" in done.stderr
    assert not (folder / "mark").exists()
    run_here(
        "task=demo-zh", "model=local-cross-encoder", "model.path=model", "backend=torch", "model.trust_remote_code=true"
    )
    assert (folder / "mark").exists()  # it is this consent that runs it


FORBIDDEN_IMPORTS = {
    "pickle",
    "marshal",
    "shelve",
    "dill",
    "cloudpickle",
    "joblib",
    "zipfile",
    "tarfile",
    "shutil.unpack_archive",
}
HARMLESS = {"joblib.cpu_count"}
FORBIDDEN_CALLS = {
    "eval", "exec", "compile", "os.system", "os.popen", "yaml.unsafe_load", "yaml.full_load", "pd.read_pickle", "ET.parse", "ET.fromstring",
    "ET.XML", "ET.iterparse", "xml.dom.minidom.parseString",
}  # fmt: skip
FORBIDDEN_WORDS = {
    ("shell", True),
    ("allow_pickle", True),
    ("weights_only", False),
    ("verify", False),
    ("follow_redirects", True),
}


def dangers(source: str) -> list[str]:
    """What a module should not do, by its text."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.partition(".")[0] in FORBIDDEN_IMPORTS]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in FORBIDDEN_IMPORTS:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found += sorted(names - HARMLESS)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            words = {word.arg: word.value for word in node.keywords}
            found += [name] if name in FORBIDDEN_CALLS else []
            found += [
                f"{name}({word}={wrong})"
                for word, wrong in FORBIDDEN_WORDS
                if isinstance(value := words.get(word), ast.Constant) and value.value is wrong
            ]
            found += [f"{name} without weights_only"] if name == "torch.load" and "weights_only" not in words else []
            found += (
                [f"{name} of any kind"]
                if name == "yaml.load" and ast.unparse(words.get("Loader", ast.Constant(None))) != "SAFE_LOADER"
                else []
            )
    return found


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from marshal import loads",
        "from joblib import cpu_count, load",
        "eval(x)",
        "yaml.load(x)",
        "yaml.load(x, Loader=yaml.Loader)",
        "f(shell=True)",
        "torch.load(x)",
        "httpx2.get(x, verify=False)",
    ],
)
def test_dangers_are_seen(code: str) -> None:
    assert len(dangers(code)) == 1


def test_no_module_does_what_is_dangerous() -> None:
    """Beside ruff's rules of the same kind (S), which can be silenced line by line."""
    found = {
        str(path.relative_to(ROOT)): dangers(path.read_text(encoding="utf-8"))
        for path in (ROOT / "evalkit").rglob("*.py")
    }
    assert len(found) > 150
    assert {path: what for path, what in found.items() if what} == {}
    assert "S" in tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]["lint"]["select"]
